"""Tiles out of the ring of network rows, and whether there is tissue on them."""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import U8
from ..definitions import (
    FILL_REFLECT,
    TISSUE_GRAY_DARK,
    TISSUE_MAX_DARK,
    TISSUE_MIN_BRIGHT,
    TISSUE_MIN_CHROMA,
)
from .jit import kernel


def gather_tile(
    ring: U8, y0: int, x0: int, height: int, width: int, col0: int, fill: int, value: int, out: U8
) -> None:
    """Copy one tile out of the ring, filling what lies outside the slide; see `reference.gather_tile`.

    ring uint8 [R, w, 3] C-contiguous, network columns col0..col0+w of height x width; out uint8 [T, T, 3] C-contiguous.
    fill 0: mirror about the edge pixels; 1: the constant `value`.
    """
    _gather(ring, y0, x0, height, width, col0, fill, value, out)


def tissue_count(tile: U8, limit: int) -> int:
    """min(tissue pixels, limit), looking no further than it must; see `reference.tissue_count`.

    tile uint8 [h, w, 3] C-contiguous RGB.
    """
    return int(_tissue(tile.reshape(tile.shape[0], -1), limit))


@kernel
def _reflect(i, length):
    if length == 1:
        return 0
    period = 2 * (length - 1)
    i = i % period
    return i if i < length else period - i


@kernel
def _gather(ring, y0, x0, height, width, col0, fill, value, out):
    rows, held, tall, wide = ring.shape[0], ring.shape[1], out.shape[0], out.shape[1]
    source, target = ring.reshape(rows, held * 3), out.reshape(tall, wide * 3)
    # Columns j0..j1 of the tile are copied as they are; those beside them are mirrored or filled.
    j0 = min(max(0, col0 - x0, -x0), wide)
    j1 = max(j0, min(wide, col0 + held - x0, width - x0))
    start = (x0 + j0 - col0) * 3
    for i in range(tall):
        y = y0 + i
        line = target[i]
        if fill != FILL_REFLECT and (y < 0 or y >= height):
            line[:] = value
            continue
        row = source[_reflect(y, height) % rows]
        body, block = line[j0 * 3 : j1 * 3], row[start : start + (j1 - j0) * 3]
        for k in range(body.size):
            body[k] = block[k]
        for j in range(wide - (j1 - j0)):
            at = j if j < j0 else j + j1 - j0
            x = x0 + at
            if fill != FILL_REFLECT and (x < 0 or x >= width):
                for c in range(3):
                    line[at * 3 + c] = value
            else:
                k = min(max(_reflect(x, width) - col0, 0), held - 1)
                for c in range(3):
                    line[at * 3 + c] = row[k * 3 + c]


@kernel
def _is_tissue(r, g, b):
    hi, lo = max(r, max(g, b)), min(r, min(g, b))
    coloured = (np.uint8(hi - lo) >= np.uint8(TISSUE_MIN_CHROMA)) & (lo <= np.uint8(TISSUE_MAX_DARK))
    return (hi >= np.uint8(TISSUE_MIN_BRIGHT)) & (coloured | (lo <= np.uint8(TISSUE_GRAY_DARK)))


@kernel
def _tissue(lines, limit):
    n = lines.shape[1] - 2
    # Asked at every value whether a pixel begun there would be tissue, `starts` keeping the true ones: three times the
    # work, but in whole vectors of bytes.
    starts = np.zeros(lines.shape[1], np.uint8)
    starts[::3] = 1
    words = np.zeros((lines.shape[1] + 7) // 8, np.uint64)
    found = words.view(np.uint8)
    count = 0
    for y in range(lines.shape[0]):
        if count >= limit:
            break
        row = lines[y]
        for i in range(n):
            found[i] = np.uint8(_is_tissue(row[i], row[i + 1], row[i + 2])) & starts[i]
        some = np.uint64(0)
        for i in range(words.size):
            some |= words[i]
        if some != 0:
            for i in range(n):
                count += found[i]
    return min(count, max(limit, 0))
