"""A mask against the truth, object by object: what was found, what is false, what was missed."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from wsiseg.objects import Objects, find_objects
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.overlay import write_overlay
from wsiseg.outputs.thumbnail import read_thumbnail
from wsiseg.runs import Runs
from wsiseg.slide import Slide


@dataclass(frozen=True, eq=False)
class Comparison:
    """Objects of a prediction and of the truth, paired where their intersection over union is large enough.

    Args:
        found, false: predicted objects with and without a partner, as masks. missed: true objects without one.
        pairs: int64 [n, 2], predicted and true object of each pair, in the numbering of `find_objects`.
        iou: float64 [n] of each pair.
        counts: found, false, missed.
    """

    found: Runs
    false: Runs
    missed: Runs
    pairs: np.ndarray
    iou: np.ndarray
    counts: tuple[int, int, int]

    @property
    def f1(self) -> float:
        """2 found / (2 found + false + missed); 1 where there is nothing to find and nothing was."""
        found, false, missed = self.counts
        return 2 * found / (2 * found + false + missed) if found + false + missed else 1.0

    def classes(self) -> list[ObjectClass]:
        """The three masks by name, for an overlay, GeoJSON, or the report."""
        return [
            ObjectClass("false", self.false),
            ObjectClass("missed", self.missed),
            ObjectClass("found", self.found),
        ]


COMPARISON_COLOURS = ((215, 48, 39), (255, 190, 0), (26, 152, 80))
"""Of false, missed and found objects."""
_SIDE = 1600


def write_comparison(
    path: str | os.PathLike[str], slide: Slide, predicted: Runs, truth: Runs
) -> tuple[int, int, int]:
    """Writes a thumbnail with the contours of found, false and missed objects in three colours, and a legend, as PNG.

    Found and false are the predicted outlines, missed the true ones.

    Returns:
        How many were found, are false, and were missed.

    Raises:
        OutputError: the file cannot be written. SlideError: the slide cannot be read.
    """
    compared = compare_objects(predicted, truth)
    thumbnail = read_thumbnail(slide, _SIDE)
    write_overlay(path, thumbnail, compared.classes(), slide.mpp, COMPARISON_COLOURS)
    return compared.counts


def compare_objects(predicted: Runs, truth: Runs, least_iou: float = 0.5) -> Comparison:
    """Pairs predicted and true objects whose intersection over union exceeds `least_iou`, on runs.

    From 0.5 on no object can have two partners, so pairs need no matching.

    Raises:
        ValueError: masks of different slides, or least_iou below 0.5.
    """
    if least_iou < 0.5:
        raise ValueError(f"pairs are unique only for a least IoU of at least 0.5, not {least_iou}")
    mine, theirs = find_objects(predicted), find_objects(truth)
    a, b, shared = _overlaps(mine, theirs)
    iou = shared / (mine.area[a] + theirs.area[b] - shared)
    good = iou > least_iou
    pairs, iou = np.stack([a[good], b[good]], axis=1), iou[good]
    hit, met = np.zeros(len(mine), bool), np.zeros(len(theirs), bool)
    hit[pairs[:, 0]], met[pairs[:, 1]] = True, True
    counts = (len(pairs), int((~hit).sum()), int((~met).sum()))
    return Comparison(_chosen(mine, hit), _chosen(mine, ~hit), _chosen(theirs, ~met), pairs, iou, counts)


def _chosen(objects: Objects, keep: np.ndarray) -> Runs:
    """The mask of some of the objects."""
    wanted = keep[objects.labels]
    return Runs.merged(objects.starts[wanted], objects.lengths[wanted], objects.runs.size)


def _overlaps(a: Objects, b: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of objects that share pixels: (object of a, object of b, shared pixels), int64 [n] each."""
    # Cut at columns, runs are sorted but may touch, which Runs.pairs allows.
    mine = Runs(a.starts, a.lengths, a.runs.size)
    theirs = Runs(b.starts, b.lengths, b.runs.size)
    i, j, starts, ends = mine.pairs(theirs)
    key = a.labels[i].astype(np.int64) * max(1, len(b)) + b.labels[j]
    both, inverse = np.unique(key, return_inverse=True)
    shared = np.bincount(inverse, weights=ends - starts, minlength=len(both)).astype(np.int64)
    return both // max(1, len(b)), both % max(1, len(b)), shared
