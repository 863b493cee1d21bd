"""Objects of a mask: 8-connected components found on its runs, cleaning by area, and their measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsiseg.runs import Runs
from wsiseg_kernels import cpu


def clean(runs: Runs, min_area: int = 0, fill_holes: int = 0) -> Runs:
    """The mask without its smallest objects and holes.

    Args:
        min_area: objects of fewer pixels are dropped; 0 or 1 keeps all.
        fill_holes: holes of fewer pixels are filled; 0 or 1 fills none.

    Holes are filled first, so a ring counts with what it encloses.
    """
    starts, lengths, size = runs.starts, runs.lengths, runs.size
    if fill_holes > 1 and len(starts):
        starts, lengths = cpu.fill_holes(starts, lengths, size.height, size.width, fill_holes)
    if min_area > 1 and len(starts):
        starts, lengths = cpu.filter_area(starts, lengths, size.height, min_area)
    return Runs(starts, lengths, size)


@dataclass(frozen=True, eq=False)
class Objects:
    """The components of a mask, numbered in the order of their first pixels (column by column).

    Args:
        runs: the mask.
        starts, lengths, labels: int64, int64, int32 [m]: its runs cut at columns, and the object of each.
        area: int64 [n], pixels.
        boxes: int64 [n, 4], half-open y0, x0, y1, x1.
        centroids: float64 [n, 2], y, x in pixels; the first pixel's middle is (0.5, 0.5).
    """

    runs: Runs
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    boxes: np.ndarray
    centroids: np.ndarray

    def __len__(self) -> int:
        return len(self.area)

    def grouped(self) -> tuple[np.ndarray, np.ndarray]:
        """(order, bounds): object k's runs are order[bounds[k]:bounds[k + 1]], ascending."""
        order = np.argsort(self.labels, kind="stable")
        return order, np.concatenate([[0], np.cumsum(np.bincount(self.labels, minlength=len(self)))])


def find_objects(runs: Runs) -> Objects:
    """The 8-connected components of a mask and their measures, from its runs alone."""
    height = runs.size.height
    labels, count, starts, lengths = cpu.label_runs(runs.starts, runs.lengths, height)
    column, top = starts // height, starts % height
    area = np.bincount(labels, weights=lengths, minlength=count)
    # Exact: every term and sum is a multiple of 1/2 far below 2**53.
    sum_y = np.bincount(labels, weights=lengths * (top + lengths / 2), minlength=count)
    sum_x = np.bincount(labels, weights=lengths * (column + 0.5), minlength=count)
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
    np.minimum.at(boxes[:, 0], labels, top)
    np.minimum.at(boxes[:, 1], labels, column)
    np.maximum.at(boxes[:, 2], labels, top + lengths)
    np.maximum.at(boxes[:, 3], labels, column + 1)
    with np.errstate(invalid="ignore"):
        centroids = np.stack([sum_y / area, sum_x / area], axis=1).reshape(count, 2)
    return Objects(runs, starts, lengths, labels, area.astype(np.int64), boxes, centroids)
