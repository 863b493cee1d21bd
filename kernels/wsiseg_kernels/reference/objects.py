"""Components on runs in plain numpy: a flood over the runs that touch."""

from __future__ import annotations

import numpy as np

from ..arrays import I32, I64, Runs
from .runs import joined


def _split(starts: I64, lengths: I64, height: int) -> Runs:
    """The same pixels with every run inside one column."""
    pieces = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        while length > 0:
            piece = min(length, height - start % height)
            pieces.append((start, piece))
            start, length = start + piece, length - piece
    pairs = np.array(pieces, np.int64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _components(starts: I64, lengths: I64, height: int, reach: int) -> I32:
    """Component of each column-wise run, numbered by first run; reach 1 joins diagonal neighbours, 0 does not."""
    column, top = starts // height, starts % height
    bottom = top + lengths
    labels = np.full(len(starts), -1, np.int32)
    count = 0
    for first in range(len(starts)):
        if labels[first] >= 0:
            continue
        labels[first], todo = count, [first]
        while todo:
            i = todo.pop()
            near = (np.abs(column - column[i]) == 1) & (top < bottom[i] + reach) & (top[i] < bottom + reach)
            for k in np.nonzero(near & (labels < 0))[0]:
                labels[k] = count
                todo.append(int(k))
        count += 1
    return labels


def label_runs(starts: I64, lengths: I64, height: int, connectivity: int = 8) -> tuple[I32, int, I64, I64]:
    """The 8-connected (or 4-connected) components of a mask, on its runs.

    Returns (labels int32 [m], count, starts int64 [m], lengths int64 [m]): the runs cut at column borders, and for each
    its component, 0..count-1 in the order of the components' first runs.
    """
    starts, lengths = _split(starts, lengths, height)
    labels = _components(starts, lengths, height, 1 if connectivity == 8 else 0)
    return labels, int(labels.max(initial=-1)) + 1, starts, lengths


def filter_area(starts: I64, lengths: I64, height: int, min_area: int) -> Runs:
    """The runs without the 8-connected components of fewer than `min_area` pixels, in canonical form."""
    labels, count, starts, lengths = label_runs(starts, lengths, height)
    area = np.zeros(count, np.int64)
    np.add.at(area, labels, lengths)
    keep = area[labels] >= min_area
    return joined(starts[keep], lengths[keep])


def _complement(starts: I64, lengths: I64, total: int) -> Runs:
    """The runs of everything that is not in these runs, in 0..total."""
    edges = np.concatenate([[0], np.column_stack([starts, starts + lengths]).ravel(), [total]]).astype(
        np.int64
    )
    begin, end = edges[::2], edges[1::2]
    return begin[begin < end], (end - begin)[begin < end]


def fill_holes(starts: I64, lengths: I64, height: int, width: int, max_area: int) -> Runs:
    """The runs with the holes filled that have fewer than `max_area` pixels, in canonical form.

    A hole is a 4-connected component of the background that does not touch the slide's border.
    """
    starts, lengths = _split(*_complement(starts, lengths, height * width), height)
    labels = _components(starts, lengths, height, 0)
    area = np.zeros(int(labels.max(initial=-1)) + 1, np.int64)
    np.add.at(area, labels, lengths)
    column, top = starts // height, starts % height
    border = (column == 0) | (column == width - 1) | (top == 0) | (top + lengths == height)
    open_ = np.zeros(len(area), bool)
    open_[labels[border]] = True
    kept = (open_ | (area >= max_area))[labels]
    return _complement(*joined(starts[kept], lengths[kept]), height * width)
