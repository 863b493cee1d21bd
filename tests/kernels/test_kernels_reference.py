"""The reference itself against other people's code: OpenCV, SciPy, numpy.pad, the usual run-length one-liner."""

from __future__ import annotations

import cv2
import numpy as np
import parity_cases
import pytest

from wsiseg_kernels import cpu, reference


def usual_encoding(mask: np.ndarray) -> str:
    """The encoder that everybody copies, in its correct form (padded, so that no corner is lost)."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def smooth_field(h: int, w: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((h, w), dtype=np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), 4)
    field = (field - field.min()) / (field.max() - field.min())
    return (np.rint(field * 2**20) / 2**20).astype(np.float32)


@pytest.mark.parametrize("scale", range(1, 9))
def test_transitions_are_those_of_opencv_s_bilinear_resize(
    scale: int, record_property: pytest.RecordProperty
) -> None:
    h, w = 300, 260
    field = smooth_field(h, w, scale)
    size = (h * scale, w * scale)
    runs = parity_cases.stream(cpu, field, scale, size, 0.5, [100, 1, 199])
    mask = np.empty(size, np.uint8)
    cpu.runs_to_mask(*runs, size[0], 0, 0, mask)
    theirs = cv2.resize(field, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) > 0.5
    differ = int((mask != theirs).sum())
    record_property("pixels_that_differ", differ)
    print(f"scale {scale}: {differ} of {mask.size} pixels differ from cv2.resize")
    assert 0.2 < mask.mean() < 0.8
    assert differ <= max(1, mask.size // 1_000_000)


def test_encoding_is_the_usual_one_corners_included() -> None:
    rng = np.random.default_rng(5)
    for density in (0.0, 0.3, 1.0):
        mask = (rng.random((13, 9)) < density).astype(np.uint8)
        mask[0, 0] = mask[-1, -1] = density > 0
        assert reference.encode_runs(*reference.mask_to_runs(mask)).decode() == usual_encoding(mask)


@pytest.mark.parametrize(("height", "width", "tile"), [(5, 7, 4), (3, 3, 9), (2, 1, 6), (40, 30, 16)])
def test_reflection_is_numpy_s(height: int, width: int, tile: int) -> None:
    slide = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    padded = np.pad(slide, ((tile, tile), (tile, tile), (0, 0)), mode="reflect")
    for y0, x0 in ((-tile, -tile), (0, 0), (height - 1, width - 1), (-1, width - 2)):
        out = np.empty((tile, tile, 3), np.uint8)
        reference.gather_tile(slide, y0, x0, height, width, 0, 0, 0, out)
        np.testing.assert_array_equal(out, padded[y0 + tile :, x0 + tile :][:tile, :tile])


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6, 0.8])
def test_components_and_holes_are_scipy_s(density: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
    rng = np.random.default_rng(int(density * 10))
    mask = (rng.random((41, 37)) < density).astype(np.uint8)
    height, width = mask.shape
    runs = reference.mask_to_runs(mask)

    labels, count, starts, lengths = cpu.label_runs(*runs, height)
    theirs, their_count = ndimage.label(mask.T, structure=np.ones((3, 3)))
    assert count == their_count
    drawn = np.zeros(mask.size, np.int32)
    for label, start, length in zip(labels, starts, lengths, strict=True):
        drawn[start : start + length] = label + 1
    # SciPy numbers components in raster order too: by their first pixel, that is, their first run.
    np.testing.assert_array_equal(drawn.reshape(width, height), theirs)

    sizes = np.bincount(theirs.ravel())
    kept = (sizes[theirs] >= 6) & (theirs > 0)
    assert_mask(cpu.filter_area(*runs, height, 6), kept.T)

    holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & (mask == 0))
    sizes = np.bincount(holes.ravel())
    assert_mask(cpu.fill_holes(*runs, height, width, 3), mask | ((holes > 0) & (sizes[holes] < 3)))
    assert_mask(cpu.fill_holes(*runs, height, width, mask.size), ndimage.binary_fill_holes(mask))


def assert_mask(runs: tuple[np.ndarray, np.ndarray], mask: np.ndarray) -> None:
    want = reference.mask_to_runs(mask.astype(np.uint8))
    np.testing.assert_array_equal(runs[0], want[0])
    np.testing.assert_array_equal(runs[1], want[1])
