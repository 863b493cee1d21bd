"""Touching objects are split into parts that make up the mask; measured on real nuclei."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.objects import find_objects
from wsiseg.outputs.instances import split_objects, write_instances
from wsiseg.runs import Runs


def discs(*centres: tuple[int, int]) -> Runs:
    mask = np.zeros((120, 200), np.uint8)
    for x, y in centres:
        cv2.circle(mask, (x, y), 20, 1, -1)
    return Runs.from_mask(mask)


def test_touching_discs_are_parted_where_they_touch() -> None:
    runs = discs((40, 50), (75, 50), (150, 60))
    parts = list(split_objects(runs, 1.0))
    assert len(find_objects(runs)) == 2
    assert len(parts) == 3
    assert sorted(find_objects(p).centroids[0].round().astype(int).tolist() for p in parts) == [
        [50, 40],
        [50, 76],
        [60, 150],
    ]
    assert len(list(split_objects(runs, 0.0))) == 2
    assert len(list(split_objects(runs, 30.0))) == 2


def test_a_disc_and_a_bar_stay_whole() -> None:
    mask = np.zeros((120, 200))
    mask[20:40, 10:190] = 1
    assert len(list(split_objects(Runs.from_mask(mask), 1.0))) == 1
    assert len(list(split_objects(discs((60, 60)), 1.0))) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 4))
def test_parts_are_disjoint_and_make_up_the_mask(seed: int, depth: float) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((60, 70)), (0, 0), 2.5)
    runs = Runs.from_mask(noise > np.quantile(noise, 0.6))
    union = Runs.empty(runs.size)
    parts = list(split_objects(runs, depth))
    for part in parts:
        assert part
        assert part.overlap(union) == 0
        union = union.union(part)
    assert union == runs
    assert len(parts) >= len(find_objects(runs))


def test_rows(tmp_path: Path) -> None:
    runs = discs((40, 50), (150, 60))
    empty = Runs.empty(Size(3, 4))
    path = tmp_path / "i.csv"
    assert write_instances(path, [("a,b", split_objects(runs)), ("none", split_objects(empty))]) == 2
    lines = path.read_text().splitlines()
    assert lines[0] == "ImageId,EncodedPixels"
    assert [line.startswith('"a,b",') for line in lines] == [False, True, True, False]
    assert lines[3] == "none,"


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(UsageError):
        list(split_objects(discs((60, 60)), -1))


def _found(parts: list[np.ndarray], labels: np.ndarray, least: float) -> tuple[int, int]:
    """(true objects met with an IoU above `least`, true objects)."""
    total = np.bincount(labels.ravel())
    hit = 0
    for part in parts:
        inside = np.bincount(labels[part], minlength=len(total))
        inside[0] = 0
        best = int(inside.argmax())
        hit += inside[best] / (part.sum() + total[best] - inside[best]) > least
    return hit, int((total[1:] > 0).sum())


@pytest.mark.data
def test_splitting_finds_more_real_nuclei(shared_data: Path) -> None:
    from wsiseg.geometry import Rect

    scores = {0.0: 0, 1.0: 0}
    truth = 0
    for path in sorted((shared_data / "nuclei" / "labels").glob("*.png"))[::40]:
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        runs = Runs.from_mask(labels)
        for depth in scores:
            parts = [p.mask(Rect(0, 0, *labels.shape)) > 0 for p in split_objects(runs, depth)]
            hit, count = _found(parts, labels, 0.7)
            scores[depth] += hit
        truth += count
    assert truth > 300
    assert scores[1.0] > scores[0.0]
