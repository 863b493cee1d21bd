"""Sums of slide pixels under network pixels, 32 bits wide: of segments that begin anywhere, and of blocks of over 16 x 16.

The rows of a block are summed first, in whole vectors; then shifted copies of that line are added until each place
holds the sum of the `scale` pixels from it on, and the places of the blocks are picked pixel by pixel. Division is a
multiplication by a rounded-up reciprocal, exact for the sums that occur (Granlund and Montgomery 1994).
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import U8, U32
from .jit import kernel

NOT_SIDE_BY_SIDE = "the pixels of a row do not lie side by side"


def shrink_add(src: U8, y0: int, x0: int, scale: int, sums: U32) -> None:
    """Add slide pixels to the sums of the network pixels they lie under; see `reference.shrink_add`.

    src uint8 [bh, bw, 3] with its corner at (y0, x0) from the sums' origin (copied unless C-contiguous); sums uint32
    [R, w, 3], the pixels of a row side by side.
    """
    if not src.flags.c_contiguous:
        src = np.ascontiguousarray(src)
    _shrink_add(src.reshape(src.shape[0], src.shape[1] * 3), y0, x0, scale, lines(sums))


def shrink_finish(sums: U32, row: int, scale: int, height: int, width: int, out: U8) -> None:
    """One network row of sums becomes means and is zeroed; see `reference.shrink_finish`.

    sums uint32 [R, w, 3]; (height, width) of the slide in slide pixels from the sums' origin; out uint8 [w, 3].
    """
    _shrink_finish(lines(sums), row, scale, height, width, out.reshape(-1))


def lines(pixels: np.ndarray) -> np.ndarray:
    """[h, w, 3] as [h, 3 w] on the same memory."""
    if pixels.strides[1] != 3 * pixels.strides[2] or pixels.strides[2] != pixels.itemsize:
        raise ValueError(NOT_SIDE_BY_SIDE)
    return pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)


@kernel
def _add_rows(src, top, bottom, i0, i1, line):
    """line[i0:i1] = the sum of rows top..bottom there, four rows to a pass."""
    y, fresh = top, True
    while y < bottom:
        target = line[i0:i1]
        if bottom - y >= 4:
            a, b, c, d = src[y, i0:i1], src[y + 1, i0:i1], src[y + 2, i0:i1], src[y + 3, i0:i1]
            if fresh:
                for i in range(target.size):
                    target[i] = (np.uint16(a[i]) + np.uint16(b[i])) + (np.uint16(c[i]) + np.uint16(d[i]))
            else:
                for i in range(target.size):
                    target[i] += (np.uint16(a[i]) + np.uint16(b[i])) + (np.uint16(c[i]) + np.uint16(d[i]))
            y += 4
        elif bottom - y >= 2:
            a, b = src[y, i0:i1], src[y + 1, i0:i1]
            if fresh:
                for i in range(target.size):
                    target[i] = np.uint16(a[i]) + np.uint16(b[i])
            else:
                for i in range(target.size):
                    target[i] += np.uint16(a[i]) + np.uint16(b[i])
            y += 2
        else:
            a = src[y, i0:i1]
            if fresh:
                for i in range(target.size):
                    target[i] = a[i]
            else:
                for i in range(target.size):
                    target[i] += a[i]
            y += 1
        fresh = False


@kernel
def _add_columns(line, i0, i1, scale, total):
    """total[i] = line[i] + line[i+3] + ... of `scale` pixels, for i in i0..i1; returns the line that holds it."""
    count = i1 - i0
    a, t = line[i0:], total[i0:i1]
    if scale == 1:
        return line
    if scale == 2:
        for i in range(count):
            t[i] = a[i] + a[i + 3]
        return total
    if scale == 3:
        for i in range(count):
            t[i] = a[i] + a[i + 3] + a[i + 6]
        return total
    for i in range(count):
        t[i] = a[i] + a[i + 3] + a[i + 6] + a[i + 9]
    for k in range(4, scale):
        b = line[i0 + 3 * k : i1 + 3 * k]
        for i in range(count):
            t[i] += b[i]
    return total


@kernel
def _reciprocal(n):
    """m for which x // n == (x * m) >> 40 for every x < 2**24 and 1 <= n <= 2**16."""
    return (np.uint64(1 << 40) + np.uint64(n) - np.uint64(1)) // np.uint64(n)


@kernel
def _mean(total, n, m):
    return np.uint8(((np.uint64(total) + (n >> np.uint64(1))) * m) >> np.uint64(40))


@kernel
def shrink_wide(src, scale, out, work):
    """The blocks of all rows, as lines of bytes. work uint32 [2, 3 bw]."""
    line, total = work[0], work[1]
    width = src.shape[1] // 3
    whole = width // scale
    used = whole * scale * 3
    for v in range(out.shape[0]):
        top, bottom = v * scale, min(src.shape[0], (v + 1) * scale)
        _add_rows(src, top, bottom, 0, src.shape[1], line)
        target = out[v]
        if whole > 0:
            n = np.uint64((bottom - top) * scale)
            m = _reciprocal(n)
            sums = _add_columns(line, 0, used - 3 * (scale - 1), scale, total)
            for u in range(whole):
                for c in range(3):
                    target[u * 3 + c] = _mean(sums[u * scale * 3 + c], n, m)
        rest = width - whole * scale
        if rest > 0:
            n = np.uint64((bottom - top) * rest)
            m = _reciprocal(n)
            for c in range(3):
                one = np.uint32(0)
                for i in range(rest):
                    one += line[used + i * 3 + c]
                target[whole * 3 + c] = _mean(one, n, m)


@kernel
def _shrink_add(src, y0, x0, scale, sums):
    rows, width = sums.shape[0], sums.shape[1] // 3
    j0, j1 = max(0, -x0), min(src.shape[1] // 3, width * scale - x0)
    if j1 <= j0:
        return
    line, total = np.empty(src.shape[1], np.uint32), np.empty(src.shape[1], np.uint32)
    # Whole blocks are network columns u0..u1; what is left of them and right of them goes pixel by pixel.
    u0, u1 = -(-(x0 + j0) // scale), (x0 + j1) // scale
    first, stop = u0 * scale - x0, u1 * scale - x0
    if u0 >= u1:
        first, stop = j1, j1
    i, end = max(0, -y0), src.shape[0]
    while i < end:
        v = (y0 + i) // scale
        below = min(end, (v + 1) * scale - y0)
        _add_rows(src, i, below, j0 * 3, j1 * 3, line)
        target = sums[v % rows]
        if first < stop:
            blocks = _add_columns(line, first * 3, stop * 3 - 3 * (scale - 1), scale, total)
            part, source = target[u0 * 3 : u1 * 3], blocks[first * 3 : stop * 3]
            if scale == 1:
                for k in range(part.size):
                    part[k] += source[k]
            else:
                for u in range(u1 - u0):
                    for c in range(3):
                        part[u * 3 + c] += source[u * scale * 3 + c]
        for j in range(j0, j1 - (stop - first)):
            at = j if j < first else j + stop - first
            u = (x0 + at) // scale
            for c in range(3):
                target[u * 3 + c] += line[at * 3 + c]
        i = below


@kernel
def _shrink_finish(sums, row, scale, height, width, out):
    line = sums[row % sums.shape[0]]
    down = min(scale, height - row * scale)
    whole = min(line.size // 3, width // scale)
    n = np.uint64(down * scale)
    m = _reciprocal(n)
    for i in range(whole * 3):
        out[i] = _mean(line[i], n, m)
    for u in range(whole, line.size // 3):
        n = np.uint64(down * (width - u * scale))
        m = _reciprocal(n)
        for c in range(3):
            out[u * 3 + c] = _mean(line[u * 3 + c], n, m)
    line[:] = 0
