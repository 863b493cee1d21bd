"""Area means, tiles and tissue on the device: a thread per network pixel, so that no two write to one place."""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np
from numba import cuda

from ..arrays import U8, U32
from ..definitions import (
    FILL_REFLECT,
    TISSUE_GRAY_DARK,
    TISSUE_MAX_DARK,
    TISSUE_MIN_BRIGHT,
    TISSUE_MIN_CHROMA,
)
from .launch import LINE, SIMULATED, kernel, launch_line, launch_plane, lent

_COUNTERS = 4 * LINE if SIMULATED else 256 * LINE


def shrink(src: U8, scale: int, out: U8) -> None:
    """Exact mean of every scale x scale block; see `reference.shrink`."""
    bh, bw = src.shape[0], src.shape[1]
    if out.shape[0] != -(-bh // scale) or out.shape[1] != -(-bw // scale):
        raise ValueError(f"a {bw} x {bh} block over {scale} does not give {out.shape[1]} x {out.shape[0]}")
    with lent(out, src, writes=1) as (out_, src_):
        launch_plane(_shrink, out.shape[0], out.shape[1], src_, scale, out_)


def shrink_add(src: U8, y0: int, x0: int, scale: int, sums: U32) -> None:
    """Add slide pixels to the sums of the network pixels they lie under; see `reference.shrink_add`."""
    v0, u0 = max(y0, 0) // scale, max(x0, 0) // scale
    v1, u1 = -(-(y0 + src.shape[0]) // scale), min(-(-(x0 + src.shape[1]) // scale), sums.shape[1])
    if src.shape[0] == 0 or src.shape[1] == 0:
        return
    with lent(sums, src, writes=1) as (sums_, src_):
        launch_plane(_shrink_add, v1 - v0, u1 - u0, src_, y0, x0, scale, v0, u0, v1, u1, sums_)


def shrink_finish(sums: U32, row: int, scale: int, height: int, width: int, out: U8) -> None:
    """One network row of sums becomes means and is zeroed; see `reference.shrink_finish`."""
    with lent(sums, out, writes=2) as (sums_, out_):
        launch_line(_shrink_finish, sums.shape[1], sums_, row, scale, height, width, out_)


def gather_tile(
    ring: U8, y0: int, x0: int, height: int, width: int, col0: int, fill: int, value: int, out: U8
) -> None:
    """Copy one tile out of the ring, filling what lies outside the slide; see `reference.gather_tile`."""
    with lent(out, ring, writes=1) as (out_, ring_):
        launch_plane(
            _gather, out.shape[0], out.shape[1], ring_, y0, x0, height, width, col0, fill, value, out_
        )


def tissue_count(tile: U8, limit: int) -> int:
    """min(tissue pixels, limit); see `reference.tissue_count`. All pixels are counted at once, so none is spared."""
    with lent(np.zeros(1, np.int32), tile, writes=0) as (count, tile_):
        launch_line(_tissue, min(tile.shape[0] * tile.shape[1], _COUNTERS), tile_, count)
        return min(int(count.copy_to_host()[0]), max(limit, 0))


@kernel
def _shrink(src, scale, out):
    u, v = cuda.grid(2)
    if v < out.shape[0] and u < out.shape[1]:
        bottom, right = min(src.shape[0], (v + 1) * scale), min(src.shape[1], (u + 1) * scale)
        n = (bottom - v * scale) * (right - u * scale)
        for c in range(3):
            total = n // 2
            for y in range(v * scale, bottom):
                for x in range(u * scale, right):
                    total += int(src[y, x, c])
            out[v, u, c] = total // n


@kernel
def _shrink_add(src, y0, x0, scale, v0, u0, v1, u1, sums):
    i, j = cuda.grid(2)
    u, v = u0 + i, v0 + j
    if v < v1 and u < u1:
        top, bottom = max(0, v * scale - y0), min(src.shape[0], (v + 1) * scale - y0)
        left, right = max(0, u * scale - x0), min(src.shape[1], (u + 1) * scale - x0)
        for c in range(3):
            total = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    total += int(src[y, x, c])
            sums[v % sums.shape[0], u, c] += total


@kernel
def _shrink_finish(sums, row, scale, height, width, out):
    u = cuda.grid(1)
    if u < sums.shape[1]:
        line = row % sums.shape[0]
        n = min(scale, height - row * scale) * min(scale, width - u * scale)
        for c in range(3):
            out[u, c] = (int(sums[line, u, c]) + n // 2) // n
            sums[line, u, c] = 0


@kernel
def _gather(ring, y0, x0, height, width, col0, fill, value, out):
    j, i = cuda.grid(2)
    if i < out.shape[0] and j < out.shape[1]:
        y, x = y0 + i, x0 + j
        if fill != FILL_REFLECT and (y < 0 or y >= height or x < 0 or x >= width):
            for c in range(3):
                out[i, j, c] = value
        else:
            tall, wide = max(1, 2 * (height - 1)), max(1, 2 * (width - 1))
            y, x = y % tall, x % wide
            row = min(y, tall - y) % ring.shape[0]
            column = min(max(min(x, wide - x) - col0, 0), ring.shape[1] - 1)
            for c in range(3):
                out[i, j, c] = ring[row, column, c]


@kernel
def _tissue(tile, count):
    mine = 0
    wide = tile.shape[1]
    for k in range(cuda.grid(1), tile.shape[0] * wide, cuda.gridsize(1)):
        y, x = k // wide, k % wide
        r, g, b = int(tile[y, x, 0]), int(tile[y, x, 1]), int(tile[y, x, 2])
        hi, lo = max(r, max(g, b)), min(r, min(g, b))
        coloured = hi - lo >= TISSUE_MIN_CHROMA and lo <= TISSUE_MAX_DARK
        if hi >= TISSUE_MIN_BRIGHT and (coloured or lo <= TISSUE_GRAY_DARK):
            mine += 1
    if mine > 0:
        cuda.atomic.add(count, 0, mine)
