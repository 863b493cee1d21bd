"""Objects on runs against OpenCV's components on the mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.objects import clean, find_objects
from wsiseg.runs import Runs


def blobs(seed: int, height: int = 90, width: int = 130, share: float = 0.5) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width)), (0, 0), 2.0)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("seed", range(4))
def test_measures_are_those_of_the_mask(seed: int) -> None:
    mask = blobs(seed)
    count, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    objects = find_objects(Runs.from_mask(mask))
    assert len(objects) == count - 1
    # OpenCV numbers row by row: sort both by box.
    want = np.column_stack(
        [stats[1:, 1], stats[1:, 0], stats[1:, 1] + stats[1:, 3], stats[1:, 0] + stats[1:, 2]]
    )
    mine, theirs = np.lexsort(objects.boxes.T), np.lexsort(want.T)
    assert np.array_equal(objects.boxes[mine], want[theirs])
    assert np.array_equal(objects.area[mine], stats[1:, 4][theirs])
    assert np.allclose(objects.centroids[mine], centroids[1:, ::-1][theirs] + 0.5)
    order, bounds = objects.grouped()
    for k in range(len(objects)):
        assert objects.lengths[order[bounds[k] : bounds[k + 1]]].sum() == objects.area[k]


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 1000), st.integers(0, 200), st.integers(0, 200))
def test_cleaning_is_that_of_the_mask(seed: int, min_area: int, holes: int) -> None:
    mask = blobs(seed, 40, 50).astype(np.uint8)
    want = mask.copy()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    for k in range(1, count):
        x, y, w, h, area = stats[k]
        if area < holes and x > 0 and y > 0 and x + w < 50 and y + h < 40:
            want[labels == k] = 1
    count, labels, stats, _ = cv2.connectedComponentsWithStats(want, connectivity=8)
    for k in range(1, count):
        if stats[k, 4] < min_area:
            want[labels == k] = 0
    assert clean(Runs.from_mask(mask), min_area, holes) == Runs.from_mask(want)


def test_nothing() -> None:
    nothing = Runs.from_mask(np.zeros((3, 4)))
    assert clean(nothing, 5, 5) == nothing
    assert len(find_objects(nothing)) == 0
    assert find_objects(nothing).boxes.shape == (0, 4)
    assert find_objects(nothing).centroids.shape == (0, 2)
