"""Area means: slide pixels to network pixels, exact and rounded half up.

The rows of a block are summed first, in whole vectors. Up to 16 slide pixels the sums are 16 bits wide, and that line is
then folded by one prime factor of the scale after the other, 2 pixels to 1 or 3 to 1, in vectors too. Division is a shift,
or a product of floats where no quotient comes near a whole number. Larger scales are in `sums`.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import U8
from .jit import kernel, kernel_for
from .sums import NOT_SIDE_BY_SIDE, lines, shrink_wide
from .vectors import (
    AHEAD,
    FOLDED_2,
    FOLDED_3,
    FOLDED_5,
    FOLDED_7,
    LANES,
    LINE,
    SUMS,
    fold_2,
    fold_3,
    fold_5,
    fold_7,
    move,
    prefetch,
    round_product,
    round_shift,
    sum_rows,
)

# 16 x 16 x 255 fits into 16 bits.
NARROW = 16
# Vectors are read and written whole, also the last one of a line.
ROOM = LANES + SUMS


def shrink(src: U8, scale: int, out: U8) -> None:
    """Exact mean of every scale x scale block; see `reference.shrink`.

    src uint8 [bh, bw, 3]; out uint8 [ceil(bh/scale), ceil(bw/scale), 3], may be a window of a ring. The three values of
    a pixel and the pixels of a row lie side by side in `out`; a `src` of which that is not so, or that is read-only, is
    copied.
    """
    bh, bw = src.shape[0], src.shape[1]
    if out.shape[0] != -(-bh // scale) or out.shape[1] != -(-bw // scale):
        raise ValueError(f"a {bw} x {bh} block over {scale} does not give {out.shape[1]} x {out.shape[0]}")
    if src.strides[1] != 3 or src.strides[2] != 1 or not src.flags.writeable:
        src = src.copy()
    if out.strides[1] != 3 or out.strides[2] != 1:
        raise ValueError(NOT_SIDE_BY_SIDE)
    if scale == 1:
        copy_block(src, out)
    elif scale <= NARROW:
        shrink_block(src, scale, out, np.empty((2, bw * 3 + ROOM), np.uint16))
    else:
        src = np.ascontiguousarray(src)
        shrink_wide(src.reshape(bh, bw * 3), scale, lines(out), np.empty((2, bw * 3), np.uint32))


@kernel
def _fold(line, pixels, factor, out):
    """out[3 u + c] = the sum of `factor` pixels of the line, for u below `pixels`; both lines have `ROOM` at the end."""
    u = 0
    if factor == 2:
        while u < pixels:
            fold_2(line, u * 6, out, u * 3)
            u += FOLDED_2
    elif factor == 3:
        while u < pixels:
            fold_3(line, u * 9, out, u * 3)
            u += FOLDED_3
    elif factor == 5:
        while u < pixels:
            fold_5(line, u * 15, out, u * 3)
            u += FOLDED_5
    elif factor == 7:
        while u < pixels:
            fold_7(line, u * 21, out, u * 3)
            u += FOLDED_7
    else:
        while u < pixels:
            for c in range(3):
                one = line[u * factor * 3 + c]
                for k in range(1, factor):
                    one += line[(u * factor + k) * 3 + c]
                out[u * 3 + c] = one
            u += 1


@kernel
def _factors(n):
    """The prime factors of n."""
    found = np.empty(6, np.int64)
    count, k = 0, 2
    while n > 1:
        while n % k == 0:
            found[count] = k
            count, n = count + 1, n // k
        k += 1
    return found[:count]


@kernel
def _means_narrow(sums, count, n, out, v):
    """The first `count` bytes of out[v] = (sums + n // 2) // n, for n of at most 256.

    Where n is a power of two that is a shift. Else half a unit more than the dividend keeps the quotient 0.5 / n >= 0.0019
    away from whole numbers, and what float32 rounds off of a quotient below 257 is less than 0.0001.
    """
    inverse, half = np.float32(1) / np.float32(n), np.float32(n >> 1) + np.float32(0.5)
    if count < SUMS:
        for u in range(count // 3):
            for c in range(3):
                out[v, u, c] = np.uint8((np.float32(sums[u * 3 + c]) + half) * inverse)
        return
    power, shift = n & (n - 1) == 0, np.uint16(0)
    while power and (1 << shift) < n:
        shift += np.uint16(1)
    # The last step overlaps the one before.
    last = count - SUMS
    if power:
        for i in range(0, last, SUMS):
            round_shift(sums, i, np.uint16(n >> 1), shift, out, v)
        round_shift(sums, last, np.uint16(n >> 1), shift, out, v)
    else:
        for i in range(0, last, SUMS):
            round_product(sums, i, half, inverse, out, v)
        round_product(sums, last, half, inverse, out, v)


@kernel_for("void(uint8[:, :, :], uint8[:, :, :])")
def copy_block(src, out):
    """out[:] = src, both uint8 [h, w, 3] with the values of a row side by side."""
    length = src.shape[1] * 3
    for v in range(src.shape[0]):
        for i in range(0, length, LINE):
            prefetch(out, v + AHEAD, i)
        if length >= LANES:
            for i in range(0, length - LANES, LANES):
                move(src, v, i, out, v)
            move(src, v, length - LANES, out, v)  # it overlaps the one before
        else:
            for x in range(src.shape[1]):
                for c in range(3):
                    out[v, x, c] = src[v, x, c]


@kernel_for("void(uint8[:, :, :], int64, uint8[:, :, :], uint16[:, ::1])")
def shrink_block(src, scale, out, work):
    """As `shrink`, for a scale of 2 to `NARROW`: src uint8 [bh, bw, 3] and out uint8 [ceil(bh/scale), ceil(bw/scale), 3],
    both with the values of a row side by side; work uint16 [2, 3 bw + ROOM], whatever it holds.
    """
    length = src.shape[1] * 3
    whole = src.shape[1] // scale
    rest = src.shape[1] - whole * scale
    factors = _factors(scale)
    for v in range(out.shape[0]):
        top, bottom = v * scale, min(src.shape[0], (v + 1) * scale)
        line, other = work[0], work[1]
        for i in range(0, out.shape[1] * 3, LINE):
            prefetch(out, v + AHEAD, i)
        if length >= LANES:
            for i in range(0, length - LANES, LANES):
                sum_rows(src, top, bottom, i, line)
            sum_rows(src, top, bottom, length - LANES, line)  # it overlaps the one before
        else:
            for x in range(src.shape[1]):
                for c in range(3):
                    one = np.uint16(0)
                    for y in range(top, bottom):
                        one += np.uint16(src[y, x, c])
                    line[x * 3 + c] = one
        if rest:
            n = (bottom - top) * rest
            for c in range(3):
                one = 0
                for x in range(whole * scale, src.shape[1]):
                    one += line[x * 3 + c]
                out[v, whole, c] = (one + n // 2) // n
        made = whole * scale
        for k in range(factors.size):
            made //= factors[k]
            _fold(line, made, factors[k], other)
            line, other = other, line
        _means_narrow(line, whole * 3, (bottom - top) * scale, out, v)
