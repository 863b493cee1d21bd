"""Objects paired on runs, against plain masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsiseg.geometry import Size
from wsiseg.outputs.compare import compare_objects
from wsiseg.runs import Runs


def blobs(seed: int) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((200, 300)), (0, 0), 4)
    return noise > np.quantile(noise, 0.8)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_the_masks(seed: int) -> None:
    truth = blobs(seed)
    noise = cv2.GaussianBlur(np.random.default_rng(99 + seed).random(truth.shape), (0, 0), 3)
    predicted = cv2.GaussianBlur(truth.astype(float), (0, 0), 2) + 4 * (noise - 0.5) > 0.5
    got = compare_objects(Runs.from_mask(predicted), Runs.from_mask(truth))
    n, a = cv2.connectedComponents(predicted.astype(np.uint8), connectivity=8)
    m, b = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    ious = []
    found, missed = np.zeros_like(truth), truth.copy()
    for i in range(1, n):
        for j in np.unique(b[(a == i) & (b > 0)]):
            iou = ((a == i) & (b == j)).sum() / ((a == i) | (b == j)).sum()
            if iou > 0.5:
                ious.append(iou)
                found |= a == i
                missed &= b != j
    assert len(ious) > 3
    assert got.counts == (len(ious), n - 1 - len(ious), m - 1 - len(ious))
    assert np.allclose(np.sort(got.iou), np.sort(ious))
    assert got.found == Runs.from_mask(found)
    assert got.false == Runs.from_mask(predicted & ~found)
    assert got.missed == Runs.from_mask(missed)
    assert got.f1 == pytest.approx(2 * len(ious) / (n + m - 2))


def test_nothing() -> None:
    empty, some = Runs.empty(Size(5, 6)), Runs.from_mask(np.eye(5, 6))
    assert compare_objects(empty, empty).counts == (0, 0, 0)
    assert compare_objects(empty, empty).f1 == 1
    assert compare_objects(empty, some).counts == (0, 0, 1)
    assert compare_objects(some, empty).counts == (0, 1, 0)
    assert [one.name for one in compare_objects(some, some).classes()] == ["false", "missed", "found"]
    with pytest.raises(ValueError, match=r"at least 0\.5"):
        compare_objects(some, some, 0.3)
