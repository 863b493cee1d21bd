"""Touching objects are split into parts that make up the mask; measured on real nuclei."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.instances import split_inside, split_instances
from wsiseg.objects import find_objects
from wsiseg.outputs.instances import split_at_cores, split_objects, write_instances
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


def test_ridges_stay_whole() -> None:
    """Their highest points are equal and lie apart, which makes one summit and not several."""
    for angle in range(0, 180, 15):
        mask = np.zeros((160, 160), np.uint8)
        cv2.ellipse(mask, (80, 80), (60, 25), angle, 0, 360, 1, -1)
        assert len(list(split_objects(Runs.from_mask(mask), 1.0, 0.1))) == 1


def test_large_objects_are_left_whole_and_told() -> None:
    runs, left = discs((40, 50), (75, 50), (150, 60)), list[int]()
    assert len(list(split_objects(runs, 1.0, largest=2000, left=left))) == 2
    assert left == [0]


class Whole:
    """Planes in memory, as the spool gives them."""

    def __init__(self, planes: np.ndarray) -> None:
        self.planes, self.classes, self.size = planes, len(planes), Size(*planes.shape[1:])

    def band(self, index: int, y0: int, y1: int) -> np.ndarray:
        return self.planes[index, y0:y1]

    def window(self, index: int, rect: Rect) -> np.ndarray:
        return self.planes[index, rect.y0 : rect.y1, rect.x0 : rect.x1]


@pytest.mark.parametrize("seed", range(6))
def test_cores_split_in_boxes_as_in_the_whole_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.random((230, 310)), (0, 0), sigma) for sigma in (5.0, 3.0)]
    body, core = ((n - n.min()) / (n.max() - n.min()) for n in noise)
    planes = np.stack([np.round(255 * body), np.round(255 * core)]).astype(np.uint8)
    inside = planes[0] > 130
    want = split_inside(inside, planes[0], planes[1], 140)
    runs, left = Runs.from_mask(inside), list[int]()
    got = np.zeros_like(want)
    parts = list(split_at_cores(runs, Whole(planes), (0, 1), 1, 140.5 / 255, left=left))
    for number, part in enumerate(parts, 1):
        here = part.mask(Rect(0, 0, 230, 310)) > 0
        assert not got[here].any()
        got[here] = number
    assert want.max() == len(parts) > len(find_objects(runs)) / 2
    assert np.array_equal(got > 0, want > 0)
    # The same parts: one number of the one picture to one of the other.
    pairs = np.unique(np.stack([got[got > 0], want[got > 0]]), axis=1)
    assert pairs.shape[1] == len(parts)
    # Nearly what splitting the probabilities themselves gives: 8 bits round a few pixels on borders otherwise.
    exact = split_instances(
        planes[0] / 255, planes[1] / 255, threshold=130.5 / 255, core_threshold=140.5 / 255
    )
    assert exact.max() == want.max()
    assert (exact != want).mean() < 0.01
    # At a scale, every network pixel is drawn as a block.
    large = Runs.from_mask(np.kron(inside, np.ones((3, 3), bool)))
    parts = list(split_at_cores(large, Whole(planes), (0, 1), 3, 140.5 / 255, largest=5, left=left))
    assert len(parts) == len(find_objects(large)) == len(left)
    three = list(split_at_cores(large, Whole(planes), (0, 1), 3, 140.5 / 255))
    assert abs(len(three) - want.max()) <= 0.1 * want.max()


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
