"""Augmentation: what is promised of geometry and colour, and that a seed decides all of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wsiseg.errors import UsageError
from wsiseg_train.augment import (
    PRESETS,
    Augment,
    augment_from,
    draw_affine,
    draw_colour,
    photometric,
    reach,
    recolour,
    warp,
)


@pytest.fixture
def image():
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_seed_decides_everything_and_the_input_stays(preset, image):
    before = image.copy()

    def once(seed):
        rng = np.random.default_rng(seed)
        matrix = draw_affine(rng, PRESETS[preset])
        (warped,) = warp([image], matrix, (48, 48), 64, rng, PRESETS[preset])
        return photometric(warped, rng, PRESETS[preset])

    assert np.array_equal(once(3), once(3))
    assert once(3).shape == (64, 64, 3)
    assert once(3).dtype == np.uint8
    assert np.array_equal(image, before)
    assert preset == "none" or not np.array_equal(once(3), once(4))


def test_no_augmentation_is_the_window_itself(image):
    none = PRESETS["none"]
    rng = np.random.default_rng(0)
    matrix = draw_affine(rng, none)
    (warped,) = warp([image], matrix, (47.5, 47.5), 64, rng, none)
    assert np.array_equal(photometric(warped, rng, none), image[16:80, 16:80])


def bilinear(plane, xs, ys):
    """Plain bilinear sampling of float [h, w] at inner points."""
    x0, y0 = np.floor(xs).astype(int), np.floor(ys).astype(int)
    fx, fy = xs - x0, ys - y0
    top = plane[y0, x0] * (1 - fx) + plane[y0, x0 + 1] * fx
    return top * (1 - fy) + (plane[y0 + 1, x0] * (1 - fx) + plane[y0 + 1, x0 + 1] * fx) * fy


@pytest.mark.parametrize("seed", range(6))
def test_a_warp_is_the_plain_affine_map(seed):
    """OpenCV rounds places to 1/32 pixel, so on a smooth plane it is near the plain formula and not equal to it."""
    y, x = np.mgrid[:200, :200]
    plane = np.rint(127 + 60 * np.sin(x / 17) + 60 * np.cos(y / 23)).astype(np.uint8)
    config = Augment(scale=(0.7, 1.4), stretch=0.2)
    rng = np.random.default_rng(seed)
    matrix = draw_affine(rng, config)
    (found,) = warp([plane], matrix, (99.0, 103.0), 48, rng, config)
    v, u = np.mgrid[:48, :48] - 23.5
    xs, ys = matrix[0, 0] * u + matrix[0, 1] * v + 103, matrix[1, 0] * u + matrix[1, 1] * v + 99
    assert np.abs(found - bilinear(plane.astype(float), xs, ys)).max() <= 1.5


@pytest.mark.parametrize("seed", range(6))
def test_recolouring_is_the_plain_formula(image, seed):
    """One matrix on optical densities: each pixel by numpy in float64."""
    colour = draw_colour(np.random.default_rng(seed), PRESETS["hubmap"])
    density = -np.log((image.astype(np.float64) + 1) / 256)
    mapped = np.einsum("ij,hwj->hwi", colour[:, :3], density) + colour[:, 3]
    plain = np.clip(256 * np.exp(-mapped) - 1, 0, 255)
    assert np.abs(recolour(image, colour) - np.floor(plain)).max() <= 1


def test_the_parts_of_a_colour_map_are_what_they_are_called():
    def only(**strength):
        none = {"flip": False, "rotate": 0.0, "scale": (1.0, 1.0), "stretch": 0.0}
        return draw_colour(np.random.default_rng(7), Augment(**none, **strength))

    gray = np.ones(3)
    assert only(hue=40.0)[:, :3] @ gray == pytest.approx(gray)  # hue and saturation leave gray alone
    assert only(saturation=0.8)[:, :3] @ gray == pytest.approx(gray)
    assert np.linalg.det(only(hue=40.0)[:, :3]) == pytest.approx(1)
    saturated = only(saturation=0.8)[:, :3]
    pink = np.array([0.1, 0.8, 0.3])
    ratio = (saturated @ pink - pink.mean()) / (pink - pink.mean())
    assert ratio == pytest.approx(np.full(3, ratio[0]))
    gamma = only(gamma=0.5)
    assert gamma[:, :3] == pytest.approx(gamma[0, 0] * np.eye(3))
    assert not gamma[:, 3].any()
    bright = only(brightness=0.2)
    assert bright[:, :3] == pytest.approx(np.eye(3))
    assert np.ptp(bright[:, 3]) == pytest.approx(0)


def test_contrast_and_noise_have_the_size_they_promise():
    none = Augment(flip=False, rotate=0.0, scale=(1.0, 1.0), stretch=0.0)
    ramp = np.repeat(np.linspace(90, 160, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    spread = [
        photometric(ramp, np.random.default_rng(s), replace(none, contrast=0.3)).std() / ramp.std()
        for s in range(40)
    ]
    assert np.exp(-0.31) < min(spread) < 0.85
    assert 1.15 < max(spread) < np.exp(0.31)
    flat = np.full((64, 64, 3), 128, np.uint8)
    noisy = photometric(flat, np.random.default_rng(0), replace(none, noise=1.0, noise_sigma=(8.0, 8.0)))
    assert noisy.astype(float).std() == pytest.approx(8, rel=0.05)
    soft = photometric(noisy, np.random.default_rng(0), replace(none, blur=1.0, blur_sigma=(1.5, 1.5)))
    assert soft.astype(float).std() < 3


def test_image_and_target_move_together():
    mask = np.zeros((128, 128), np.uint8)
    mask[40:80, 50:90] = 255
    image = np.repeat(mask[..., None], 3, axis=2)
    config = Augment(elastic=1.0, scale=(0.5, 2.0))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        colour, target = warp([image, mask], draw_affine(rng, config), (60, 70), 48, rng, config)
        inside = target > 0  # the target is 0 beyond the window, the image is mirrored there
        assert np.array_equal(colour[..., 0][inside], target[inside])


def test_objects_grow_by_the_scale_and_the_reach_covers_the_tile():
    mask = np.zeros((400, 400), np.uint8)
    mask[180:220, 180:220] = 255
    config = Augment(scale=(1.5, 1.5), stretch=0.0)
    rng = np.random.default_rng(2)
    matrix = draw_affine(rng, config)
    (target,) = warp([mask], matrix, (199.5, 199.5), 128, rng, config)
    assert (target > 127).sum() == pytest.approx(1600 * 1.5**2, rel=0.03)
    corners = np.array([[-64, -64], [64, -64], [64, 64], [-64, 64]]) @ matrix.T
    assert np.abs(corners).max() <= reach(matrix, 128, config)


def test_recolouring_by_the_identity_changes_nothing(image):
    identity = np.hstack([np.eye(3), np.zeros((3, 1))])
    assert np.abs(recolour(image, identity).astype(int) - image).max() <= 1


def test_density_twice_as_strong_is_light_squared():
    image = np.full((4, 4, 3), 127, np.uint8)
    doubled = recolour(image, np.hstack([2 * np.eye(3), np.zeros((3, 1))]))
    assert np.abs(doubled.astype(float) - 63).max() <= 1


def test_stain_jitter_keeps_a_gray_pixel_near_gray_and_moves_stained_ones():
    pixels = np.array([[[255, 255, 255], [130, 60, 150]]], np.uint8)
    found = np.concatenate(
        [recolour(pixels, draw_colour(np.random.default_rng(s), PRESETS["hubmap"])) for s in range(60)]
    )
    white, purple = found[:, 0].astype(float), found[:, 1].astype(float)
    assert white.mean() > 215
    assert purple.std(axis=0).min() > 10


def test_an_unknown_preset_or_setting_lists_the_known_ones():
    with pytest.raises(UsageError, match="hubmap"):
        augment_from("strong", {})
    with pytest.raises(UsageError, match="saturation"):
        augment_from("light", {"saturatoin": 1.0})
    assert augment_from("light", {"scale": [0.9, 1.1]}).scale == (0.9, 1.1)
