"""Slides and labels become training stores: image, target, weight, tissue, sampling density and object centres."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg.slide import open_slide
from wsiseg_train.labels import (
    instance_targets,
    read_image_labels,
    read_named_polygons,
    read_share,
    share_of_mask,
    share_of_polygons,
)  # fmt: skip
from wsiseg_train.slides import pick_scale, read_bands
from wsiseg_train.store import DENSITY_STEP, SUFFIX, StoreInfo, write_store

#: Relative density of tile centres by the name of the anatomical structure: the published weights.
ANATOMY = {"cortex": 0.5, "medulla": 0.16, "background": 0.01}


@dataclass(frozen=True)
class PrepareOptions:
    """How stores are made.

    Attributes:
        mpp: microns per network pixel; scale: slide pixels per network pixel, instead of it. Neither: scale 1.
        slide_mpp: the slides' own mpp where their files do not say.
        classes: names of the target planes ("nucleus", "core" for instances).
        instances: label images hold instance numbers; the planes are the object and its core.
        label_scale: factors (x, y) from polygon coordinates to slide pixels.
        label_weights: shares of several label files in the target: soft labels of several annotators.
        confidence: weight of the labels in the loss, for pseudo-labels.
        mend: accept polygons that cross themselves.
        anatomy: weights of structures by name, a word of the polygon's class name.
        group_by: "none", or "colour" for the kinds fluorescence, bright and colour.
    """

    mpp: float | None = None
    scale: int | None = None
    slide_mpp: float | None = None
    classes: tuple[str, ...] = ("object",)
    instances: bool = False
    label_scale: tuple[float, float] = (1.0, 1.0)
    label_weights: tuple[float, ...] = ()
    confidence: float = 1.0
    mend: bool = False
    anatomy: tuple[tuple[str, float], ...] = tuple(ANATOMY.items())
    group_by: str = "none"


def prepare_slide(
    slide_path: str | os.PathLike[str],
    labels: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: PrepareOptions,
    *,
    coverage: str | os.PathLike[str] | None = None,
    anatomy: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the store of one slide into the folder `out` and return its path.

    Args:
        labels: one file per annotator, in the order of `options.label_weights`.
        coverage: an image of any size; where it is 0 nothing is learned or scored.
        anatomy: polygons that set the sampling density.

    Raises:
        UsageError: labels that do not fit, or without a single object.

    Memory bound: about 12 bytes per network pixel; the slide itself is streamed.
    """
    with open_slide(slide_path, mpp=options.slide_mpp) as slide:
        scale = pick_scale(slide, options.mpp, options.scale)
        size, mpp, slide_id = slide.size, slide.mpp, slide.id
    grid, bands = read_bands(slide_path, scale)
    image = np.empty((grid.height, grid.width, 3), np.uint8)
    for y0, rows in bands:
        image[y0 : y0 + len(rows)] = rows
    arrays: dict[str, np.ndarray] = {"image": image, "tissue": tissue_of(image)}
    if options.instances:
        if scale != 1 or len(labels) != 1:
            raise UsageError(
                f"{slide_path}: instance labels are prepared at scale 1 from one label image, not at {scale} from {len(labels)}"
            )
        numbers = read_image_labels(labels[0], size).astype(np.int32)
        arrays["target"], arrays["labels"] = instance_targets(numbers), numbers
    else:
        shares = [read_share(p, size, scale, slide_id, options.label_scale, options.mend) for p in labels]
        arrays["target"] = _mean(shares, options.label_weights)[None]
    if len(options.classes) != len(arrays["target"]):
        raise UsageError(f"{len(options.classes)} class names for {len(arrays['target'])} planes of labels")
    centres = object_centres(arrays["target"][0])
    if not centres and not options.instances:
        raise UsageError(
            f"{slide_path}: the labels hold no object of class {options.classes[0]!r}; a store without one teaches nothing"
        )
    weight = np.full((grid.height, grid.width), round(255 * options.confidence), np.uint8)
    if coverage is not None:
        seen = cv2.imread(os.fspath(coverage), cv2.IMREAD_GRAYSCALE)
        if seen is None:
            raise UsageError(f"{coverage}: not an image that can be read")
        weight[cv2.resize(seen, (grid.width, grid.height), interpolation=cv2.INTER_NEAREST) == 0] = 0
    arrays["weight"] = weight
    arrays["density"] = density_of(arrays["target"][0], arrays["tissue"], weight, anatomy, scale, options)
    info = StoreInfo(
        id=slide_id, classes=options.classes, scale=scale, mpp=None if mpp is None else mpp * scale,
        size=(size.height, size.width), group=image_kind(image) if options.group_by == "colour" else "",
        centres=tuple(centres), source={"slide": Path(slide_path).name, "labels": [Path(p).name for p in labels]},
        confidence=options.confidence,
    )  # fmt: skip
    path = Path(out) / (slide_id + SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_store(path, info, arrays)
    return path


def _mean(shares: list[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    if not shares:
        raise UsageError("no labels were given")
    if weights and len(weights) != len(shares):
        raise UsageError(f"{len(weights)} label weights for {len(shares)} label files")
    parts = np.asarray(weights or [1.0] * len(shares), np.float64)
    total = sum(p * s.astype(np.float32) for p, s in zip(parts / parts.sum(), shares, strict=True))
    return np.rint(np.asarray(total)).astype(np.uint8)


def tissue_of(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w], 1 where a pixel is tissue by the processor's rule: chroma >= 12, not black, not white."""
    high, low = image.max(axis=2), image.min(axis=2)
    return ((high - low >= 12) & (high >= 20) & (low <= 235)).astype(np.uint8)


def image_kind(image: np.ndarray) -> str:
    """ "colour" (stained tissue), "bright" (gray on white) or "fluorescence" (gray on black), from the means."""
    chroma = float((image.max(axis=2).astype(np.int16) - image.min(axis=2)).mean())
    if chroma > 8:
        return "colour"
    return "bright" if float(image.mean()) > 110 else "fluorescence"


def object_centres(share: np.ndarray) -> list[tuple[float, float]]:
    """(y, x) of the components of `share` above one half, in network pixels, in order of their first pixel."""
    count, _, _, centres = cv2.connectedComponentsWithStats((share > 127).astype(np.uint8), connectivity=8)
    return [(round(float(y), 2), round(float(x), 2)) for x, y in centres[1:count]]


def density_of(
    share: np.ndarray,
    tissue: np.ndarray,
    weight: np.ndarray,
    anatomy: str | os.PathLike[str] | None,
    scale: int,
    options: PrepareOptions,
) -> np.ndarray:
    """float32 [ceil(h/16), ceil(w/16)], relative probability of a tile's centre; 0 where nothing may be learned.

    From anatomy polygons: the largest weight of the structures there, the background's elsewhere. Without: tissue
    counts 1, background 0.02, and the neighbourhood of labels up to 2 more.
    """
    h, w = share.shape
    cells = (-(-w // DENSITY_STEP), -(-h // DENSITY_STEP))
    allowed = cv2.resize((weight > 0).astype(np.float32), cells, interpolation=cv2.INTER_AREA) > 0.5
    weights = dict(options.anatomy)
    if anatomy is not None:
        from wsiseg.geometry import Size

        named = read_named_polygons(anatomy, options.label_scale, mend=True)
        density = np.full(cells[::-1], weights.get("background", 0.01), np.float32)
        step = scale * DENSITY_STEP
        for name, value in weights.items():
            rings = [polygon for title, polygon in named if name in title.lower()]
            if rings:
                inside = share_of_polygons(rings, Size(cells[1] * step, cells[0] * step), step) > 127
                density[inside] = np.maximum(density[inside], value)
        return np.asarray(np.where(allowed, density, 0), np.float32)
    near = cv2.resize((share > 127).astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    near = cv2.GaussianBlur(near, (0, 0), 4.0)
    solid = cv2.resize(tissue.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    density = 0.02 + solid + 2 * near / max(1e-6, float(near.max()))
    return np.asarray(np.where(allowed, density, 0), np.float32)


__all__ = [
    "ANATOMY",
    "PrepareOptions",
    "density_of",
    "image_kind",
    "object_centres",
    "prepare_slide",
    "share_of_mask",
    "tissue_of",
]
