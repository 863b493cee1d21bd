"""Augmentation: what is promised of geometry and colour, and that a seed decides all of it."""

from __future__ import annotations

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
