"""Outlines: valid polygons with exactly the mask's pixels, also where pixels touch by their corners only."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.objects import find_objects
from wsiseg.outputs.outlines import Outlines, trace
from wsiseg.runs import Runs


def outlines_of(mask: np.ndarray) -> tuple[Outlines, int]:
    objects = find_objects(Runs.from_mask(mask))
    return trace(objects), len(objects)


def area(ring: np.ndarray) -> float:
    """Signed, by the shoelace formula: positive counter-clockwise in (x, y)."""
    x, y = ring.astype(float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def fill(outlines: Outlines, shape: tuple[int, int]) -> np.ndarray:
    """How many times each pixel's middle is enclosed by outer rings, less by holes (crossings to its left)."""
    inside = np.zeros((shape[0], shape[1] + 1), int)
    for r in range(len(outlines)):
        ring = outlines.ring(r)
        for (xa, ya), (xb, yb) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if xa == xb:
                inside[min(ya, yb) : max(ya, yb), xa] += 1 if ya > yb else -1
    return np.cumsum(inside, axis=1)[:, :-1]


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_any_mask(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.random()
    outlines, count = outlines_of(mask)
    assert np.array_equal(fill(outlines, mask.shape), mask.astype(int))
    for r in range(len(outlines)):
        ring = outlines.ring(r)
        assert len(ring) >= 4
        assert (area(ring) > 0) == outlines.outer[r]
        assert len({tuple(p) for p in ring.tolist()}) == len(ring), "a ring touches itself"
        steps = np.roll(ring, -1, axis=0) - ring
        assert ((steps == 0).sum(1) == 1).all(), "not along the pixels' edges"
        assert (np.sign(steps) * np.sign(np.roll(steps, -1, axis=0))).sum() == 0, (
            "a point between its neighbours"
        )
    sums = np.zeros(count)
    for r in range(len(outlines)):
        sums[outlines.objects[r]] += area(outlines.ring(r))
    assert np.array_equal(sums, find_objects(Runs.from_mask(mask)).area)


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 2**32))
def test_polygons_are_valid_for_shapely(height: int, width: int, seed: int) -> None:
    shapely = pytest.importorskip("shapely")
    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    outlines, count = outlines_of(mask)
    for polygons in outlines.polygons(count):
        shape = shapely.MultiPolygon([(rings[0], rings[1:]) for rings in polygons])
        assert shape.is_valid, shapely.is_valid_reason(shape)


def test_rings_are_those_of_opencv_hierarchy() -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(3).random((300, 400)), (0, 0), 3)
    mask = (noise > 0.5).astype(np.uint8)
    outlines, _ = outlines_of(mask)
    # OpenCV's components: outer rings are 4-connected parts, holes 8-connected... so count both by labelling.
    parts = cv2.connectedComponents(mask, connectivity=4)[0] - 1
    assert outlines.outer.sum() == parts
    assert len(set(outlines.parts)) == parts


def test_perimeter_of_a_disc_and_of_a_ring() -> None:
    y, x = np.mgrid[:400, :400]
    r = np.hypot(y - 199.5, x - 199.5)
    disc, ring = outlines_of(r <= 150)[0], outlines_of((r <= 150) & (r > 100))[0]
    assert disc.perimeters(1) == pytest.approx(2 * np.pi * 150, rel=0.01)
    assert ring.perimeters(1) == pytest.approx(2 * np.pi * 250, rel=0.01)


def test_nothing_and_everything() -> None:
    assert len(outlines_of(np.zeros((4, 5)))[0]) == 0
    assert outlines_of(np.zeros((4, 5)))[0].perimeters(0).shape == (0,)
    full, _ = outlines_of(np.ones((4, 5)))
    assert full.ring(0).tolist() == [[5, 0], [5, 4], [0, 4], [0, 0]]
