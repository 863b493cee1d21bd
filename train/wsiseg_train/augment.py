"""What the network sees instead of the tile itself: geometry, stain, light and optics, drawn anew for every tile.

Numpy and OpenCV only. Everything that is linear in optical density (stain strength, the stains' colours, hue,
saturation, gamma, brightness) is folded into ONE 3 x 4 matrix per tile, so the colour of a 256 tile costs under a
millisecond and the loader keeps up with two cores of network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np

from wsiseg.errors import UsageError, unknown_name

Rng = np.random.Generator

#: Haematoxylin, eosin (or the pink of PAS) and a residual, as optical densities of R, G, B: Ruifrok and Johnston 2001.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float64)


@dataclass(frozen=True)
class Augment:
    """Strengths of the augmentation; 0 (or an empty range) turns a part off. Ranges are uniform.

    Attributes:
        flip: mirror at random.
        rotate: degrees either way; 180 is any angle.
        scale: factor range by which objects grow or shrink (log-uniform).
        stretch: log factor by which one axis is stretched against the other.
        elastic, elastic_px: probability, and displacement in pixels, of a smooth random warp.
        stain: log factor on each stain's strength, and half of it as an additive change of density.
        stain_turn: how far each stain's own colour may drift (absolute, on unit density vectors).
        hue: degrees of rotation around the gray axis.
        saturation: log factor of colourfulness.
        gamma: log factor of all densities; brightness: density added to all channels; contrast: log factor around the mean.
        invert: probability of a negative image (fluorescence against bright field).
        gray: probability of dropping colour altogether.
        clahe, blur, sharpen, noise, jpeg, coarse: probabilities of local contrast equalisation, Gaussian blur, unsharp mask,
            Gaussian noise, JPEG damage, and a lower resolution (shrunk and enlarged again).
        blur_sigma, noise_sigma, jpeg_quality, coarse_factor: their ranges.
    """

    flip: bool = True
    rotate: float = 180.0
    scale: tuple[float, float] = (0.75, 1.35)
    stretch: float = 0.1
    elastic: float = 0.0
    elastic_px: float = 4.0
    stain: float = 0.0
    stain_turn: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    gamma: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    invert: float = 0.0
    gray: float = 0.0
    clahe: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.4, 1.5)
    sharpen: float = 0.0
    noise: float = 0.0
    noise_sigma: tuple[float, float] = (2.0, 10.0)
    jpeg: float = 0.0
    jpeg_quality: tuple[float, float] = (30.0, 90.0)
    coarse: float = 0.0
    coarse_factor: tuple[float, float] = (1.2, 2.2)


PRESETS: dict[str, Augment] = {
    "none": Augment(flip=False, rotate=0.0, scale=(1.0, 1.0), stretch=0.0),
    "light": Augment(hue=8.0, saturation=0.15, gamma=0.1, brightness=0.05, contrast=0.1),
    "hubmap": Augment(
        elastic=0.25, stain=0.35, stain_turn=0.06, hue=20.0, saturation=0.45, gamma=0.3, brightness=0.10, contrast=0.25,
        gray=0.03, clahe=0.05, blur=0.25, sharpen=0.15, noise=0.2, jpeg=0.2, coarse=0.2,
    ),
    "nuclei": Augment(
        scale=(0.6, 1.6), elastic=0.3, stain=0.3, stain_turn=0.05, hue=30.0, saturation=0.5, gamma=0.4, brightness=0.1, contrast=0.35,
        invert=0.08, gray=0.1, clahe=0.05, blur=0.2, blur_sigma=(0.4, 1.2), sharpen=0.1, noise=0.25, jpeg=0.1, coarse=0.1, coarse_factor=(1.1, 1.6),
    ),
}  # fmt: skip


def augment_from(preset: str, overrides: dict[str, Any]) -> Augment:
    """A preset with some fields replaced.

    Raises:
        UsageError: naming the preset or field that is not known, and those that are.
    """
    if preset not in PRESETS:
        raise UsageError(unknown_name("augmentation preset", preset, PRESETS))
    known = [f.name for f in fields(Augment)]
    for key in overrides:
        if key not in known:
            raise UsageError(unknown_name("augmentation setting", key, known))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    return replace(PRESETS[preset], **values)


def draw_affine(rng: Rng, config: Augment) -> np.ndarray:
    """A random 2 x 2 float64 matrix from tile offsets (x, y) to source offsets (x, y); its inverse scales objects."""
    turn = math.radians(rng.uniform(-config.rotate, config.rotate)) if config.rotate else 0.0
    low, high = config.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high))) if high > low else low
    stretch = math.exp(rng.uniform(-config.stretch, config.stretch) / 2) if config.stretch else 1.0
    axis = rng.uniform(0, math.pi) if config.stretch else 0.0
    matrix = _rotation(turn) @ _rotation(axis) @ np.diag([stretch, 1 / stretch]) @ _rotation(-axis) / zoom
    if config.flip and rng.random() < 0.5:
        matrix = matrix @ np.diag([-1.0, 1.0])
    return matrix


def reach(matrix: np.ndarray, tile: int, config: Augment) -> int:
    """Half the edge of the square source window, in pixels, that a tile under `matrix` can touch."""
    half = (tile / 2 + 1) * float(np.abs(matrix).sum(axis=1).max())
    return (
        math.ceil(half + (2 * config.elastic_px * float(np.abs(matrix).max()) if config.elastic else 0)) + 2
    )


def warp(
    planes: list[np.ndarray],
    matrix: np.ndarray,
    centre: tuple[float, float],
    tile: int,
    rng: Rng,
    config: Augment,
) -> list[np.ndarray]:
    """Every plane ([h, w] or [h, w, 3] uint8) seen through `matrix` around `centre` (y, x): a list of [tile, tile(, 3)].

    Colour planes are mirrored at the window's edge; other planes are 0 there, so that what was invented weighs nothing.
    """
    cy, cx = centre
    middle = (tile - 1) / 2
    shift = np.array([cx, cy]) - matrix @ np.array([middle, middle])
    full = np.hstack([matrix, shift[:, None]])
    if config.elastic and rng.random() < config.elastic:
        xs, ys = _elastic_map(full, tile, rng, config.elastic_px)
        return [cv2.remap(p, xs, ys, cv2.INTER_LINEAR, borderMode=_border(p)) for p in planes]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return [cv2.warpAffine(p, full, (tile, tile), flags=flags, borderMode=_border(p)) for p in planes]


def _border(plane: np.ndarray) -> int:
    return cv2.BORDER_REFLECT_101 if plane.ndim == 3 else cv2.BORDER_CONSTANT


def _elastic_map(full: np.ndarray, tile: int, rng: Rng, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    grid = rng.normal(0, amplitude, (2, 5, 5)).astype(np.float32)
    dx, dy = (cv2.resize(g, (tile, tile), interpolation=cv2.INTER_CUBIC) for g in grid)
    x, y = np.meshgrid(np.arange(tile, dtype=np.float32), np.arange(tile, dtype=np.float32))
    x, y = x + dx, y + dy
    a = full.astype(np.float32)
    return a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]


def _rotation(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


def draw_colour(rng: Rng, config: Augment) -> np.ndarray:
    """A random [3, 4] float64 map of optical density: stain strength and colour, hue, saturation, gamma, brightness."""
    matrix = np.eye(3)
    offset = np.zeros(3)
    if config.stain or config.stain_turn:
        stains = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
        factors = np.exp(rng.uniform(-config.stain, config.stain, 3))
        added = rng.uniform(-config.stain, config.stain, 3) * 0.1
        turned = stains + rng.normal(0, 1, (3, 3)) * config.stain_turn
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        # density = amounts @ stains; a column vector of density maps by the transpose
        matrix = (np.linalg.inv(stains) @ np.diag(factors) @ turned).T
        offset = turned.T @ added
    if config.hue:
        matrix = _turn_hue(math.radians(rng.uniform(-config.hue, config.hue))) @ matrix
    if config.saturation:
        s = math.exp(rng.uniform(-config.saturation, config.saturation))
        mean = np.full((3, 3), 1 / 3)
        matrix = (mean + s * (np.eye(3) - mean)) @ matrix
    if config.gamma:
        matrix = matrix * math.exp(rng.uniform(-config.gamma, config.gamma))
    if config.brightness:
        offset = offset + rng.uniform(-config.brightness, config.brightness)
    return np.hstack([matrix, offset[:, None]])


def _turn_hue(angle: float) -> np.ndarray:
    """Rotation by `angle` around the gray axis (Rodrigues)."""
    k = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * (k @ k)


def recolour(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`image` uint8 [h, w, 3] with its optical densities mapped by `colour` [3, 4]: uint8."""
    density = cv2.transform(_DENSITY[image], colour.astype(np.float32))
    cv2.multiply(density, (-1.0, -1.0, -1.0, -1.0), dst=density)
    light = cv2.exp(density)
    return np.clip(light * 256 - 1, 0, 255).astype(np.uint8)


def photometric(image: np.ndarray, rng: Rng, config: Augment) -> np.ndarray:
    """Colour, light and optics of one tile: uint8 [h, w, 3] in, uint8 out."""
    if (
        config.stain
        or config.stain_turn
        or config.hue
        or config.saturation
        or config.gamma
        or config.brightness
    ):
        image = recolour(image, draw_colour(rng, config))
    if config.contrast:
        factor = math.exp(rng.uniform(-config.contrast, config.contrast))
        image = _contrast(image, factor)
    if config.gray and rng.random() < config.gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if config.invert and rng.random() < config.invert:
        image = 255 - image
    if config.clahe and rng.random() < config.clahe:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(rng.uniform(1.0, 3.0), (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
        image = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return _optics(image, rng, config)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    table = (np.arange(256) - float(image.mean())) * factor + float(image.mean())
    return cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))


def _optics(image: np.ndarray, rng: Rng, config: Augment) -> np.ndarray:
    h, w = image.shape[:2]
    if config.coarse and rng.random() < config.coarse:
        factor = rng.uniform(*config.coarse_factor)
        small = cv2.resize(
            image, (max(1, round(w / factor)), max(1, round(h / factor))), interpolation=cv2.INTER_AREA
        )
        image = cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
    if config.blur and rng.random() < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*config.blur_sigma))
    elif config.sharpen and rng.random() < config.sharpen:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        amount = rng.uniform(0.3, 1.2)
        image = cv2.addWeighted(image, 1 + amount, soft, -amount, 0)
    if config.noise and rng.random() < config.noise:
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(*config.noise_sigma))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if config.jpeg and rng.random() < config.jpeg:
        quality = int(rng.uniform(*config.jpeg_quality))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image
