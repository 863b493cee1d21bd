"""Scores against plain arithmetic, on masks and on objects, and instance splitting."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.instances import split_instances
from wsiseg.runs import Runs
from wsiseg_train.evaluate import coverage_runs, score_instances, score_masks
from wsiseg_train.labels import instance_targets
from wsiseg_train.metrics import Counts, average_precision, iou_table, object_f1


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [(cv2.GaussianBlur(rng.random((60, 45)), (0, 0), 3) > 0.5).astype(np.uint8) for _ in range(2)]


def write(path, rows, header="id,predicted"):
    path.write_text("\n".join([header, *[f"{k},{v}" for k, v in rows]]) + "\n")
    return path


def test_scores_are_pixel_counts(pair, tmp_path):
    mask, truth = pair
    rows = [("a", Runs.from_mask(mask).to_rle()), ("empty", "")]
    predicted = write(tmp_path / "p.csv", rows)
    right = write(tmp_path / "t.csv", [("empty", ""), ("a", Runs.from_mask(truth).to_rle())], "id,encoding")
    a, empty = score_masks(predicted, right)
    both = int((mask & truth).sum())
    assert a.dice == pytest.approx(2 * both / (mask.sum() + truth.sum()))
    assert a.iou == pytest.approx(both / (mask | truth).sum())
    assert a.precision == pytest.approx(both / mask.sum())
    assert a.recall == pytest.approx(both / truth.sum())
    assert (empty.dice, empty.iou, empty.precision, empty.recall) == (1, 1, 1, 1)
    counts = Counts()
    counts.add(mask > 0, truth > 0)
    assert (counts.dice, counts.iou, counts.precision, counts.recall) == pytest.approx(
        (a.dice, a.iou, a.precision, a.recall)
    )


def test_only_the_covered_columns_count(pair, tmp_path):
    mask, truth = pair
    predicted = write(tmp_path / "p.csv", [("a", Runs.from_mask(mask).to_rle())])
    cv2.imwrite(str(tmp_path / "a.png"), truth * 255)
    cover = np.array([[0, 255, 255], [255, 255, 0]], np.uint8)
    cv2.imwrite(str(tmp_path / "cover.png"), cover)
    size = Size(60, 45)
    where = np.repeat(np.repeat(cover > 0, 30, axis=0), 15, axis=1)
    assert np.array_equal(coverage_runs(tmp_path / "cover.png", size).mask(Rect(0, 0, 60, 45)) > 0, where)
    where[:, :10] = False
    (score,) = score_masks(
        predicted, tmp_path / "a.png", size=size, within=tmp_path / "cover.png", columns=(10, 45)
    )
    m, t = mask[where], truth[where]
    assert score.dice == pytest.approx(2 * (m & t).sum() / (m.sum() + t.sum()))
    with pytest.raises(UsageError, match="needs the slide's size"):
        score_masks(predicted, tmp_path / "a.png", within=tmp_path / "cover.png")


def test_bad_submissions_are_refused(tmp_path):
    good = write(tmp_path / "t.csv", [("a", "1 5")])
    with pytest.raises(UsageError, match="overlap"):
        score_masks(write(tmp_path / "p.csv", [("a", "1 5 3 4")]), good)
    with pytest.raises(UsageError, match="no row for b"):
        score_masks(write(tmp_path / "p.csv", [("b", "1 5")]), good)
    with pytest.raises(UsageError, match="header must be"):
        score_masks(write(tmp_path / "p.csv", [], "name,mask"), good)
    with pytest.raises(UsageError, match="beyond the slide"):
        score_masks(write(tmp_path / "p.csv", [("a", "99 5")]), good, size=Size(10, 10))


def test_one_class_of_several(tmp_path):
    predicted = write(tmp_path / "p.csv", [("a:nucleus", "1 4"), ("a:core", "2 2")])
    (score,) = score_masks(predicted, write(tmp_path / "t.csv", [("a", "1 2")]), label="nucleus")
    assert (score.id, score.dice) == ("a", pytest.approx(2 / 3))


def squares(*boxes):
    out = np.zeros((40, 40), np.int32)
    for number, (y, x, n) in enumerate(boxes, 1):
        out[y : y + n, x : x + n] = number
    return out


def test_average_precision_by_hand():
    truth = squares((0, 0, 10), (20, 20, 10), (0, 30, 5))
    found = squares((0, 0, 10), (20, 20, 8), (30, 0, 5))
    table = iou_table(found, truth)
    assert table.shape == (3, 3)
    assert table[0, 0] == 1
    assert table[1, 1] == pytest.approx(0.64)
    # IoU 0.64 counts at 0.5, 0.55 and 0.6; then two hits of three and three, else one
    expected = (3 * (2 / 4) + 7 * (1 / 5)) / 10
    assert average_precision(table) == pytest.approx(expected)
    assert object_f1(table) == pytest.approx(2 * 2 / 6)
    assert average_precision(np.zeros((0, 0))) == 1
    assert average_precision(np.zeros((0, 2))) == 0


def test_objects_are_scored_from_rows_or_from_images(tmp_path):
    truth, found = squares((0, 0, 10), (20, 20, 10)), squares((0, 0, 10), (20, 20, 8))

    def rows(labels):
        return [("a", Runs.from_mask(labels == k).to_rle()) for k in range(1, labels.max() + 1)]

    predicted = write(tmp_path / "p.csv", rows(found), "ImageId,EncodedPixels")
    right = write(tmp_path / "t.csv", rows(truth), "ImageId,EncodedPixels")
    cv2.imwrite(str(tmp_path / "a.png"), truth.astype(np.uint16))
    (one,), (other,) = score_instances(predicted, right), score_instances(predicted, tmp_path)
    assert one == other
    assert one.ap == pytest.approx(average_precision(iou_table(found, truth)))
    assert (one.found, one.true) == (2, 2)
    assert one.dice == pytest.approx(2 * 164 / 364)


def discs(*places):
    out = np.zeros((80, 120), np.uint16)
    for number, (y, x, r) in enumerate(places, 1):
        disc = np.zeros(out.shape, np.uint8)
        cv2.circle(disc, (x, y), r, 1, -1)
        out[(disc > 0) & (out == 0)] = number
    return out


def test_touching_objects_come_apart_at_their_waist():
    truth = discs((40, 30, 18), (40, 62, 18), (15, 100, 10), (70, 100, 4))
    objects, cores = instance_targets(truth).astype(np.float32) / 255
    found = split_instances(objects, cores)
    table = iou_table(found, truth.astype(np.int32))
    assert table.shape == (4, 4)
    assert (table.max(axis=1) > 0.9).all()
    assert np.array_equal(found > 0, truth > 0)
    first = [np.flatnonzero(found.ravel() == k)[0] for k in range(1, 5)]
    assert first == sorted(first)


def test_an_object_without_a_core_stays_one_and_small_ones_go():
    objects = np.zeros((40, 40), np.float32)
    objects[5:15, 5:15], objects[30:32, 30:32] = 0.9, 0.9
    found = split_instances(objects, np.zeros_like(objects), min_area=12)
    assert found.max() == 1
    assert (found > 0).sum() == 100
    assert split_instances(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)).max() == 0
