"""Runs on the device, a thread per full-size column: one pass counts and reserves places, a second one writes.

The places are handed out by an atomic counter, so the order of columns in the lists changes from run to run, and the
order within a column does not; `transitions_to_runs` sorts by column, and the runs come out the same.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from .. import cpu
from ..arrays import F32, I32, I64, U8, Runs
from ..definitions import QUANTA, check_band, vote_limit
from .launch import is_device, kernel, launch_line, lent, mul, rint

_QUANTA = np.float32(QUANTA)


def find_transitions(
    band: F32,
    row0: int,
    col0: int,
    scale: int,
    height: int,
    width: int,
    x0: int,
    x1: int,
    threshold: float,
    inside: U8,
    prev: F32,
    out_x: I32,
    out_y: I32,
    count: int,
) -> int:
    """Where the mask of columns x0..x1 toggles, as far as a band decides it; see `reference.find_transitions`.

    Waits for the device once, to read the count.
    """
    n, wide = band.shape[0], x1 - x0
    check_band(n, band.shape[1], row0, col0, scale, height, width, x0, x1)
    if n == 0:
        return count
    limit, last = vote_limit(threshold, scale), row0 + n == -(-height // scale)
    with (
        lent(band, inside, prev, writes=0) as (band_, inside_, prev_),
        lent(*_places(wide), writes=0) as (at, total),
    ):
        fixed = (band_, row0, col0, scale, height, x0, x1, limit, last, inside_, prev_, at, total)
        nothing = cuda.device_array(1, np.int32)
        launch_line(_columns, wide, *fixed, nothing, nothing, 0, False)
        needed = count + int(total.copy_to_host()[0])
        if needed > min(out_x.shape[0], out_y.shape[0]):
            return -needed
        with lent(out_x, out_y, inside, prev, writes=4) as (out_x_, out_y_, inside_, prev_):
            fixed = (band_, row0, col0, scale, height, x0, x1, limit, last, inside_, prev_, at, total)
            launch_line(_columns, wide, *fixed, out_x_, out_y_, count, True)
            launch_line(_remember, band.shape[1], band_, prev_)
    return needed


def close_transitions(inside: U8, x0: int, height: int, out_x: I32, out_y: I32, count: int) -> int:
    """Close the columns still inside below the last row, and zero `inside`; see `reference.close_transitions`."""
    wide = inside.shape[0]
    with lent(*_places(wide), writes=0) as (at, total):
        with lent(inside, writes=0) as (inside_,):
            launch_line(_count_open, wide, inside_, at, total)
        needed = count + int(total.copy_to_host()[0])
        if needed > min(out_x.shape[0], out_y.shape[0]):
            return -needed
        with lent(inside, out_x, out_y, writes=3) as (inside_, out_x_, out_y_):
            launch_line(_close, wide, inside_, x0, height, at, out_x_, out_y_, count)
    return needed


def transitions_to_runs(x: I32, y: I32, x0: int, x1: int, height: int) -> Runs:
    """The CPU's kernel, on lists from the device or the host; see `reference.transitions_to_runs`."""
    lists: tuple[Any, Any] = (x, y)
    here = [a.copy_to_host() if is_device(a) else a for a in lists]
    return cpu.transitions_to_runs(here[0], here[1], x0, x1, height)


def runs_to_mask(starts: I64, lengths: I64, height: int, y0: int, x0: int, out: U8) -> None:
    """Draw the window of the mask with its corner at slide pixel (y0, x0); see `reference.runs_to_mask`."""
    with lent(out, starts, lengths, writes=1) as (out_, starts_, lengths_):
        launch_line(_draw, out.shape[1], starts_, lengths_, height, y0, x0, out_)


def mask_to_runs(mask: U8) -> Runs:
    """The canonical runs of a mask uint8 [H, W], as host arrays: non-zero is inside."""
    height, wide = mask.shape
    with lent(mask, writes=0) as (mask_,), lent(*_places(wide), writes=0) as (at, total):
        nothing = cuda.device_array(1, np.int32)
        launch_line(_toggles, wide, mask_, at, total, nothing, nothing, False)
        count = int(total.copy_to_host()[0])
        x, y = np.empty(count, np.int32), np.empty(count, np.int32)
        if count:
            with lent(x, y, writes=2) as (x_, y_):
                launch_line(_toggles, wide, mask_, at, total, x_, y_, True)
    return cpu.transitions_to_runs(x, y, 0, wide, height)


def _places(columns: int) -> tuple[Any, Any]:
    """Where each column's entries begin, and how many there are of all."""
    return np.zeros(max(columns, 1), np.int32), np.zeros(1, np.int32)


@kernel
def _columns(
    band, row0, col0, scale, height, x0, x1, limit, last, inside, prev, at, total, out_x, out_y, count, write
):  # fmt: skip
    column = cuda.grid(1)
    if column >= x1 - x0:
        return
    n, held = band.shape
    x, span = x0 + column, 2 * scale
    # The network columns left and right of this one's centre, and the right one's weight; clamped at the slide's edges.
    k = (2 * x + 1 - scale) // span
    c = 2 * x + 1 - scale - span * k
    ka, kb = min(max(k - col0, 0), held - 1), min(max(k + 1 - col0, 0), held - 1)
    state, found, place = inside[column] != 0, 0, count + at[column]
    up = 0
    for i in range(-1, n + 1 if last else n):
        if i < 0:
            if row0 == 0:
                a, b = band[0, ka], band[0, kb]
            else:
                a, b = prev[ka], prev[kb]
        else:
            a, b = band[min(i, n - 1), ka], band[min(i, n - 1), kb]
        low = (span - c) * int(rint(mul(a, _QUANTA))) + c * int(rint(mul(b, _QUANTA)))
        top = max(0, (row0 + i - 1) * scale + scale // 2)
        bottom = min(height, (row0 + i) * scale + scale // 2)
        if i >= 0 and top < bottom:
            first = 2 * top + 1 - scale - span * (row0 + i - 1)
            vote, slope = span * up + first * (low - up) - limit, 2 * (low - up)
            now = vote > 0
            if now != state:
                if write:
                    out_x[place + found] = x
                    out_y[place + found] = top
                found += 1
            state = vote + (bottom - top - 1) * slope > 0
            if state != now:
                if write:
                    out_x[place + found] = x
                    if state:
                        out_y[place + found] = top + -vote // slope + 1
                    else:
                        out_y[place + found] = top + (vote - slope - 1) // -slope
                found += 1
        up = low
    if write:
        inside[column] = 1 if state else 0
    else:
        at[column] = cuda.atomic.add(total, 0, found)


@kernel
def _remember(band, prev):
    k = cuda.grid(1)
    if k < band.shape[1]:
        prev[k] = band[band.shape[0] - 1, k]


@kernel
def _count_open(inside, at, total):
    column = cuda.grid(1)
    if column < inside.shape[0] and inside[column] != 0:
        at[column] = cuda.atomic.add(total, 0, 1)


@kernel
def _close(inside, x0, height, at, out_x, out_y, count):
    column = cuda.grid(1)
    if column < inside.shape[0] and inside[column] != 0:
        out_x[count + at[column]] = x0 + column
        out_y[count + at[column]] = height
        inside[column] = 0


@kernel
def _draw(starts, lengths, height, y0, x0, out):
    j = cuda.grid(1)
    if j >= out.shape[1]:
        return
    for i in range(out.shape[0]):
        out[i, j] = 0
    column = (x0 + j) * height
    low, high = 0, starts.shape[0]
    while low < high:
        middle = (low + high) // 2
        if starts[middle] + lengths[middle] <= column:
            low = middle + 1
        else:
            high = middle
    while low < starts.shape[0] and starts[low] < column + height:
        top = max(max(starts[low] - column, 0) - y0, 0)
        bottom = min(min(starts[low] + lengths[low] - column, height) - y0, out.shape[0])
        for i in range(top, bottom):
            out[i, j] = 1
        low += 1


@kernel
def _toggles(mask, at, total, out_x, out_y, write):
    x = cuda.grid(1)
    if x >= mask.shape[1]:
        return
    state, found, place = False, 0, at[x]
    for y in range(mask.shape[0] + 1):
        now = y < mask.shape[0] and mask[min(y, mask.shape[0] - 1), x] != 0
        if now != state:
            if write:
                out_x[place + found] = x
                out_y[place + found] = y
            found += 1
            state = now
    if not write:
        at[x] = cuda.atomic.add(total, 0, found)
