"""Connected components on runs: no pixel is touched, so the cost is that of the runs.

Runs are cut at column borders; a sweep over neighbouring columns joins those that touch (union-find with path
halving, the smaller index as root, so that a component's root is its first run).
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import I32, I64, Runs
from .jit import kernel


def label_runs(starts: I64, lengths: I64, height: int, connectivity: int = 8) -> tuple[I32, int, I64, I64]:
    """8- or 4-connected components; see `reference.label_runs`.

    Returns (labels int32 [m], count, starts int64 [m], lengths int64 [m]): runs cut at columns, components numbered in
    the order of their first runs.
    """
    cut_starts, cut_lengths = _split(starts, lengths, height)
    labels, count = _components(cut_starts, cut_lengths, height, 1 if connectivity == 8 else 0)
    return labels, int(count), cut_starts, cut_lengths


def filter_area(starts: I64, lengths: I64, height: int, min_area: int) -> Runs:
    """The runs without the 8-connected components of fewer than `min_area` pixels; see `reference.filter_area`."""
    return _filter(starts, lengths, height, min_area)  # type: ignore[no-any-return]


def fill_holes(starts: I64, lengths: I64, height: int, width: int, max_area: int) -> Runs:
    """The runs with holes of fewer than `max_area` pixels filled; see `reference.fill_holes`."""
    return _fill(starts, lengths, height, width, max_area)  # type: ignore[no-any-return]


@kernel
def _split(starts, lengths, height):
    """The same pixels with every run inside one column."""
    pieces = 0
    for i in range(starts.size):
        if lengths[i] > 0:
            pieces += (starts[i] + lengths[i] - 1) // height - starts[i] // height + 1
    out_starts, out_lengths = np.empty(pieces, np.int64), np.empty(pieces, np.int64)
    m = 0
    for i in range(starts.size):
        start, end = starts[i], starts[i] + lengths[i]
        while start < end:
            stop = min(end, (start // height + 1) * height)
            out_starts[m] = start
            out_lengths[m] = stop - start
            m += 1
            start = stop
    return out_starts, out_lengths


@kernel
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _components(starts, lengths, height, reach):
    """(labels int32, count) of column-wise runs; reach 1 joins diagonal neighbours, 0 does not."""
    n = starts.size
    parent = np.arange(n).astype(np.int32)
    # Runs near..ahead lie in the column before that of run i; column `x` begins at run `ahead`.
    near, ahead, x = 0, 0, np.int64(-2)
    for i in range(n):
        column = starts[i] // height
        if column != x:
            near, ahead = (ahead if column == x + 1 else i), i
            x = column
        # The neighbours' flat positions, brought into this run's column.
        start, end = starts[i] - height, starts[i] + lengths[i] - height
        while near < ahead and starts[near] + lengths[near] + reach <= start:
            near += 1
        k = near
        while k < ahead and starts[k] < end + reach:
            a, b = _root(parent, k), _root(parent, i)
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
            k += 1
    count = 0
    for i in range(n):
        if parent[i] == i:
            parent[i] = -1 - count
            count += 1
        else:
            # The root is an earlier run, and so is every run on the way to it: they hold labels already.
            parent[i] = parent[parent[i]]
    for i in range(n):
        parent[i] = -1 - parent[i]
    return parent, count


@kernel
def _joined(starts, lengths, keep):
    """The kept runs in canonical form: those that touch are one."""
    out_starts, out_lengths = np.empty(starts.size, np.int64), np.empty(starts.size, np.int64)
    m, end = 0, np.int64(-1)
    for i in range(starts.size):
        if keep[i]:
            if starts[i] == end:
                out_lengths[m - 1] += lengths[i]
            else:
                out_starts[m] = starts[i]
                out_lengths[m] = lengths[i]
                m += 1
            end = starts[i] + lengths[i]
    return out_starts[:m].copy(), out_lengths[:m].copy()


@kernel
def _areas(labels, count, lengths):
    area = np.zeros(count, np.int64)
    for i in range(labels.size):
        area[labels[i]] += lengths[i]
    return area


@kernel
def _filter(starts, lengths, height, min_area):
    starts, lengths = _split(starts, lengths, height)
    labels, count = _components(starts, lengths, height, 1)
    area = _areas(labels, count, lengths)
    keep = np.empty(labels.size, np.bool_)
    for i in range(labels.size):
        keep[i] = area[labels[i]] >= min_area
    return _joined(starts, lengths, keep)


@kernel
def _complement(starts, lengths, total):
    """The runs of everything in 0..total that is in none of these."""
    n = starts.size
    out_starts, out_lengths = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    m, begin = 0, np.int64(0)
    for i in range(n + 1):
        end = starts[i] if i < n else np.int64(total)
        if begin < end:
            out_starts[m] = begin
            out_lengths[m] = end - begin
            m += 1
        if i < n:
            begin = starts[i] + lengths[i]
    return out_starts[:m].copy(), out_lengths[:m].copy()


@kernel
def _fill(starts, lengths, height, width, max_area):
    around, sizes = _complement(starts, lengths, height * width)
    around, sizes = _split(around, sizes, height)
    labels, count = _components(around, sizes, height, 0)
    area = _areas(labels, count, sizes)
    for i in range(labels.size):
        x = around[i] // height
        y = around[i] - x * height
        if x == 0 or x == width - 1 or y == 0 or y + sizes[i] == height:
            area[labels[i]] = max_area
    keep = np.empty(labels.size, np.bool_)
    for i in range(labels.size):
        keep[i] = area[labels[i]] >= max_area
    around, sizes = _joined(around, sizes, keep)
    return _complement(around, sizes, height * width)
