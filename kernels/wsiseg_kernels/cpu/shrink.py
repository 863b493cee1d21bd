"""Area means: slide pixels to network pixels, exact and rounded half up.

Rows are summed first, in whole vectors; then shifted copies of that line are added until each place holds the sum of
its block, and the blocks' places are picked. Only the picking goes pixel by pixel.
"""

from __future__ import annotations

import numpy as np

from ..arrays import U8, U32
from .jit import kernel


def shrink(src: U8, scale: int, out: U8) -> None:
    """Exact mean of every scale x scale block; see `reference.shrink`.

    src uint8 [bh, bw, 3] C-contiguous; out uint8 [ceil(bh/scale), ceil(bw/scale), 3] C-contiguous.
    """
    bh, bw = src.shape[0], src.shape[1]
    if out.shape[0] != -(-bh // scale) or out.shape[1] != -(-bw // scale):
        raise ValueError(f"a {bw} x {bh} block over {scale} does not give {out.shape[1]} x {out.shape[0]}")
    if scale == 1:
        out[:] = src
    elif scale in (2, 4, 8):
        _shrink_power(src, scale, out)
    else:
        _shrink_any(src, 0, bh, 0, scale, out)


def shrink_add(src: U8, y0: int, x0: int, scale: int, sums: U32) -> None:
    """Add slide pixels to the sums of the network pixels they lie under; see `reference.shrink_add`.

    src uint8 [bh, bw, 3] with its corner at (y0, x0) from the sums' origin; sums uint32 [R, w, 3].
    """
    _shrink_add(src, y0, x0, scale, sums)


def shrink_finish(sums: U32, row: int, scale: int, height: int, width: int, out: U8) -> None:
    """One network row of sums becomes means and is zeroed; see `reference.shrink_finish`.

    sums uint32 [R, w, 3]; (height, width) of the slide in slide pixels from the sums' origin; out uint8 [w, 3].
    """
    _shrink_finish(sums, row, scale, height, width, out)


@kernel
def _shrink_power(src, scale, out):  # type: ignore[no-untyped-def]
    bh, bw = src.shape[0] // scale, src.shape[1] // scale
    flat, result = src.reshape(src.shape[0], -1), out.reshape(out.shape[0], -1)
    line = np.empty(flat.shape[1], np.uint16)
    n = bw * scale * 3
    for v in range(bh):
        if scale == 2:
            a, b = flat[2 * v], flat[2 * v + 1]
            for i in range(n):
                line[i] = np.uint16(a[i]) + np.uint16(b[i])
        else:
            for part in range(0, scale, 4):
                y = v * scale + part
                a, b, c, d = flat[y], flat[y + 1], flat[y + 2], flat[y + 3]
                if part == 0:
                    for i in range(n):
                        line[i] = (np.uint16(a[i]) + np.uint16(b[i])) + (np.uint16(c[i]) + np.uint16(d[i]))
                else:
                    for i in range(n):
                        line[i] += (np.uint16(a[i]) + np.uint16(b[i])) + (np.uint16(c[i]) + np.uint16(d[i]))
        target = result[v]
        if scale == 2:
            for i in range(n - 3):
                line[i] += line[i + 3]
            for u in range(bw):
                for c in range(3):
                    target[u * 3 + c] = (line[u * 6 + c] + 2) >> 2
        elif scale == 4:
            for i in range(n - 9):
                line[i] += line[i + 3] + line[i + 6] + line[i + 9]
            for u in range(bw):
                for c in range(3):
                    target[u * 3 + c] = (line[u * 12 + c] + 8) >> 4
        else:
            for i in range(n - 9):
                line[i] += line[i + 3] + line[i + 6] + line[i + 9]
            for u in range(bw):
                for c in range(3):
                    target[u * 3 + c] = (line[u * 24 + c] + line[u * 24 + 12 + c] + 32) >> 6
    if bw < out.shape[1]:
        _shrink_any(src, 0, bh * scale, bw, scale, out)
    if bh < out.shape[0]:
        _shrink_any(src, bh * scale, src.shape[0], 0, scale, out)


@kernel
def _shrink_any(src, top, bottom, first, scale, out):  # type: ignore[no-untyped-def]
    """Rows top..bottom of the source (top on a block's edge), network columns from `first` on."""
    flat = src.reshape(src.shape[0], -1)
    line = np.empty(flat.shape[1], np.uint32)
    for v in range(top // scale, -(-bottom // scale)):
        y0, y1 = v * scale, min(bottom, (v + 1) * scale)
        line[:] = 0
        for y in range(y0, y1):
            row = flat[y]
            for i in range(first * scale * 3, line.size):
                line[i] += row[i]
        for u in range(first, out.shape[1]):
            x1 = min(src.shape[1], (u + 1) * scale)
            n = np.uint32((y1 - y0) * (x1 - u * scale))
            for c in range(3):
                total = np.uint32(0)
                for x in range(u * scale, x1):
                    total += line[x * 3 + c]
                out[v, u, c] = np.uint32(total + n // np.uint32(2)) // n


@kernel
def _shrink_add(src, y0, x0, scale, sums):  # type: ignore[no-untyped-def]
    rows, width = sums.shape[0], sums.shape[1]
    j0, j1 = max(0, -x0), min(src.shape[1], width * scale - x0)
    if j1 <= j0:
        return
    line = np.empty((src.shape[1], 3), np.uint32)
    flat = line.reshape(-1)
    i, bottom = max(0, -y0), src.shape[0]
    while i < bottom:
        v = (y0 + i) // scale
        end = min(bottom, (v + 1) * scale - y0)
        flat[:] = 0
        for k in range(i, end):
            for j in range(j0, j1):
                for c in range(3):
                    line[j, c] += src[k, j, c]
        target = sums[v % rows]
        j = j0
        while j < j1:
            u = (x0 + j) // scale
            stop = min(j1, (u + 1) * scale - x0)
            for c in range(3):
                total = np.uint32(0)
                for k in range(j, stop):
                    total += line[k, c]
                target[u, c] += total
            j = stop
        i = end


@kernel
def _shrink_finish(sums, row, scale, height, width, out):  # type: ignore[no-untyped-def]
    line = sums[row % sums.shape[0]]
    down = min(scale, height - row * scale)
    for u in range(line.shape[0]):
        n = np.uint32(down * min(scale, width - u * scale))
        for c in range(3):
            out[u, c] = np.uint32(line[u, c] + n // np.uint32(2)) // n
            line[u, c] = 0
