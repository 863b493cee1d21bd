"""Runs at full size straight from network resolution: where each full-size column crosses the threshold.

Between the centres of two network rows a column's interpolated probability is linear, so it crosses the threshold at
most once there; and where four neighbouring network pixels lie on one side of the threshold, so does everything
between them. So network pixels are compared in vectors, and only cells with a change are looked at column by column.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import F32, I32, U8, Runs
from ..definitions import QUANTA, check_band, vote_limit
from .jit import kernel


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
    """Where the mask of full-size columns x0..x1 toggles, as far as a band decides it; see `reference.find_transitions`.

    band float32 [n, cw]; (height, width) of the slide; inside uint8 [x1-x0] and prev float32 [cw] carry the state;
    out_x, out_y int32. Returns the new count, or -(capacity needed) with the state untouched.
    """
    check_band(band.shape[0], band.shape[1], row0, col0, scale, height, width, x0, x1)
    limit = vote_limit(threshold, scale)
    return int(_find(band, row0, col0, scale, height, x0, x1, limit, inside, prev, out_x, out_y, count))


def close_transitions(inside: U8, x0: int, height: int, out_x: I32, out_y: I32, count: int) -> int:
    """Close the columns still inside below the last row, and zero `inside`; see `reference.close_transitions`."""
    return int(_close(inside, x0, height, out_x, out_y, count))


def transitions_to_runs(x: I32, y: I32, x0: int, x1: int, height: int) -> Runs:
    """Pair each column's transitions into runs in canonical form; see `reference.transitions_to_runs`.

    x, y int32 [m], rows of one column ascending. A stable counting sort by column. Returns int64 starts and lengths.
    """
    starts, lengths = _pair(x, y, x0, x1, height)
    return starts, lengths


@kernel
def _find(band, row0, col0, scale, height, x0, x1, limit, inside, prev, out_x, out_y, count):
    n = band.shape[0]
    state = inside.copy()
    # A network pixel of q quanta alone gives q * 4 * scale^2; clipped to what int32 and float32 hold exactly.
    alone = max(-1, min(QUANTA + 1, limit // (4 * scale * scale)))
    if scale == 1:
        found = _whole_rows(band, row0, x0 - col0, x1 - x0, x0, np.float32(alone), state, out_x, out_y, count)
    else:
        found = _cells(
            band, row0, col0, scale, height, x0, x1, limit, np.int32(alone), state, prev, out_x, out_y, count
        )
    if found > min(out_x.size, out_y.size):
        return -found
    if n > 0:
        inside[:] = state
        prev[:] = band[n - 1]
    return found


@kernel
def _whole_rows(band, row0, first, wide, x0, alone, state, out_x, out_y, count):
    """Scale 1: a network pixel is a full-size pixel, and there is nothing to interpolate."""
    capacity = min(out_x.size, out_y.size)
    words = np.zeros((wide + 7) // 8, np.uint64)
    changed = words.view(np.uint8)
    quanta = np.float32(QUANTA)
    for i in range(band.shape[0]):
        row = band[i, first : first + wide]
        for x in range(wide):
            changed[x] = np.uint8(np.rint(row[x] * quanta) > alone) ^ state[x]
        for word in range(words.size):
            if words[word] != 0:
                for x in range(word * 8, word * 8 + 8):
                    if changed[x] != 0:
                        state[x] ^= 1
                        if count < capacity:
                            out_x[count] = x0 + x
                            out_y[count] = row0 + i
                        count += 1
    return count


@kernel
def _cells(band, row0, col0, scale, height, x0, x1, limit, alone, state, prev, out_x, out_y, count):
    """Scale 2 and more: a cell lies between four network pixels; the outermost are repeated once (clamped edges)."""
    n, columns = band.shape
    last = row0 + n == -(-height // scale)
    upper, lower = np.empty(columns + 2, np.int32), np.empty(columns + 2, np.int32)
    upper_in, lower_in = np.empty(columns + 2, np.uint8), np.empty(columns + 2, np.uint8)
    # A cell is looked at when its corners differ, or when those of the cell above did: that one may have ended on the
    # other side. Nothing is known of what lies above a band, so every cell of its first row is looked at.
    mixed = np.ones(columns + 1, np.uint8)
    words = np.zeros((columns + 8) // 8, np.uint64)
    look = words.view(np.uint8)
    _quantised(band[0] if row0 == 0 else prev, alone, upper, upper_in)
    for i in range(n + 1 if last else n):
        _quantised(band[min(i, n - 1)], alone, lower, lower_in)
        r = row0 + i
        top = max(0, (r - 1) * scale + scale // 2)
        bottom = min(height, r * scale + scale // 2)
        if top < bottom:
            for e in range(columns + 1):
                a, b, c, d = upper_in[e], upper_in[e + 1], lower_in[e], lower_in[e + 1]
                differ = (a | b | c | d) ^ (a & b & c & d)
                look[e] = mixed[e] | differ
                mixed[e] = differ
            across = 2 * top + 1 - scale - 2 * scale * (r - 1)
            for word in range(words.size):
                if words[word] != 0:
                    for e in range(word * 8, min(word * 8 + 8, columns + 1)):
                        if look[e] != 0:
                            count = _cell(
                                upper, lower, e, col0 + e - 1, across, top, bottom, scale, limit, x0, x1,
                                state, out_x, out_y, count,
                            )  # fmt: skip
        upper, lower = lower, upper
        upper_in, lower_in = lower_in, upper_in
    return count


@kernel
def _quantised(row, alone, quanta, above):
    n = row.size
    body, sign = quanta[1 : n + 1], above[1 : n + 1]
    for k in range(n):
        body[k] = np.int32(np.rint(row[k] * np.float32(QUANTA)))
    for k in range(n):
        sign[k] = body[k] > alone
    quanta[0], quanta[n + 1] = body[0], body[n - 1]
    above[0], above[n + 1] = sign[0], sign[n - 1]


@kernel
def _cell(upper, lower, e, k, first, top, bottom, scale, limit, x0, x1, state, out_x, out_y, count):
    """Full-size columns between network columns k and k+1, rows top..bottom; `first` is row top's weight of `lower`."""
    capacity = min(out_x.size, out_y.size)
    xa, xb = max(x0, k * scale + scale // 2), min(x1, (k + 1) * scale + scale // 2)
    span = 2 * scale
    c = np.int64(2 * xa + 1 - scale - span * k)
    step_up, step_low = np.int64(upper[e + 1]) - upper[e], np.int64(lower[e + 1]) - lower[e]
    up, low = span * np.int64(upper[e]) + c * step_up, span * np.int64(lower[e]) + c * step_low
    rows = bottom - top
    for x in range(xa, xb):
        slope = 2 * (low - up)
        vote = span * up + first * (low - up) - limit
        was = state[x - x0] != 0
        now = vote > 0
        if now != was:
            if count < capacity:
                out_x[count] = x
                out_y[count] = top
            count += 1
        end = vote + (rows - 1) * slope > 0
        if end != now:
            # Rows after `top` until the sum is above (or no longer above) the limit; both operands are positive.
            if end:
                after = np.uint64(-vote) // np.uint64(slope) + np.uint64(1)
            else:
                after = np.uint64(vote - slope - 1) // np.uint64(-slope)
            if count < capacity:
                out_x[count] = x
                out_y[count] = top + np.int64(after)
            count += 1
        state[x - x0] = end
        up += 2 * step_up
        low += 2 * step_low
    return count


@kernel
def _close(inside, x0, height, out_x, out_y, count):
    total = count
    for k in range(inside.size):
        total += inside[k] != 0
    if total > min(out_x.size, out_y.size):
        return -total
    for k in range(inside.size):
        if inside[k] != 0:
            out_x[count] = x0 + k
            out_y[count] = height
            count += 1
            inside[k] = 0
    return total


@kernel
def _pair(x, y, x0, x1, height):
    n = x.size
    place = np.zeros(max(x1 - x0, 0) + 1, np.int64)
    for i in range(n):
        if x[i] < x0 or x[i] >= x1:
            raise ValueError("a transition lies outside the given columns")
        place[x[i] - x0 + 1] += 1
    for k in range(1, place.size):
        if place[k] % 2:
            raise ValueError("a column has an odd number of transitions: close_transitions was not called")
        place[k] += place[k - 1]
    sorted_y = np.empty(n, np.int32)
    for i in range(n):
        k = x[i] - x0
        sorted_y[place[k]] = y[i]
        place[k] += 1
    # place[k] is now where column k ends.
    starts, lengths = np.empty(n // 2, np.int64), np.empty(n // 2, np.int64)
    m, i, end = 0, 0, np.int64(-1)
    for k in range(place.size - 1):
        column = np.int64(x0 + k) * height
        while i < place[k]:
            start, stop = column + sorted_y[i], column + sorted_y[i + 1]
            if start == end:
                lengths[m - 1] += stop - start
            else:
                starts[m] = start
                lengths[m] = stop - start
                m += 1
            end = stop
            i += 2
    return starts[:m].copy(), lengths[:m].copy()
