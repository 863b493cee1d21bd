"""Blending, area means, tiles and tissue in plain numpy."""

from __future__ import annotations

import numpy as np

from ..arrays import F32, I64, U8, U32
from ..definitions import (
    FILL_REFLECT,
    QUANTA,
    TISSUE_GRAY_DARK,
    TISSUE_MAX_DARK,
    TISSUE_MIN_BRIGHT,
    TISSUE_MIN_CHROMA,
)


def accumulate(acc: F32, prob: F32, weights: F32, y0: int, x0: int, height: int) -> None:
    """Add one tile's weighted probabilities to the ring of sums.

    acc float32 [C, R, w], row y of the grid at acc[:, y % R]; prob float32 [C, T, T]; weights float32 [T]; the tile's
    corner (y0, x0) may be negative. Only rows in [0, height) and columns in [0, w) are touched. Each element gets
    (weights[i] * weights[j]) * q, rounded to float32 after each of the three operations (never fused), where q is
    prob[c, i, j] rounded to a multiple of 2**-20. A constant then lies on the grid that `finish` rounds to, far from
    where it would round either way, and comes out as itself at any overlap.
    """
    quanta = np.float32(QUANTA)
    votes = np.rint(prob * quanta) / quanta
    rows, w, tile = acc.shape[1], acc.shape[2], prob.shape[1]
    j0, j1 = max(0, -x0), min(tile, w - x0)
    if j1 <= j0:
        return
    for i in range(max(0, -y0), min(tile, height - y0)):
        acc[:, (y0 + i) % rows, x0 + j0 : x0 + j1] += (weights[i] * weights[j0:j1]) * votes[:, i, j0:j1]


def finish(acc: F32, y0: int, y1: int, den_y: F32, den_x: F32, out: F32) -> None:
    """Divide finished rows by their denominators, quantise, and zero them in the ring.

    acc float32 [C, R, w]; rows y0..y1 (y1 - y0 <= R); den_y float32 [y1-y0], den_x float32 [w]; out float32
    [C, y1-y0, w] gets rint(sum / (den_y * den_x) * 2**20) / 2**20. The quantum makes all that follows exact integer
    arithmetic.
    """
    quanta = np.float32(QUANTA)
    for y in range(y0, y1):
        row = acc[:, y % acc.shape[1]]
        out[:, y - y0] = np.rint(row / (den_y[y - y0] * den_x) * quanta) / quanta
        row[:] = 0


def shrink(src: U8, scale: int, out: U8) -> None:
    """Exact mean of every scale x scale block, rounded half up; ragged blocks at the right and bottom edge.

    src uint8 [bh, bw, 3], its corner on a block's corner; out uint8 [ceil(bh/scale), ceil(bw/scale), 3].
    """
    bh, bw = src.shape[:2]
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            block = src[v * scale : min(bh, (v + 1) * scale), u * scale : min(bw, (u + 1) * scale)]
            n = block.shape[0] * block.shape[1]
            out[v, u] = (block.reshape(n, 3).sum(0, dtype=np.int64) + n // 2) // n


def shrink_add(src: U8, y0: int, x0: int, scale: int, sums: U32) -> None:
    """Add slide pixels to the sums of the network pixels they lie under, wherever the segment's corner is.

    src uint8 [bh, bw, 3] with its corner at slide pixel (y0, x0), both counted from the sums' own origin; sums uint32
    [R, w, 3], network row v at sums[v % R]. Pixels left of or above the origin or right of column w are ignored.
    """
    for i in range(max(0, -y0), src.shape[0]):
        row = sums[(y0 + i) // scale % sums.shape[0]]
        for j in range(max(0, -x0), min(src.shape[1], row.shape[0] * scale - x0)):
            row[(x0 + j) // scale] += src[i, j]


def shrink_finish(sums: U32, row: int, scale: int, height: int, width: int, out: U8) -> None:
    """Turn one network row of sums into means over the pixels really there, rounded half up, and zero the sums.

    sums uint32 [R, w, 3]; `row` the network row; (height, width) the slide's size in slide pixels, counted from the
    sums' origin; out uint8 [w, 3].
    """
    line = sums[row % sums.shape[0]]
    for u in range(line.shape[0]):
        n = min(scale, height - row * scale) * min(scale, width - u * scale)
        out[u] = (line[u].astype(np.int64) + n // 2) // n
    line[:] = 0


def _reflected(first: int, count: int, length: int) -> I64:
    """Where positions first..first+count lie when the signal is mirrored about its first and last sample."""
    period = max(1, 2 * (length - 1))
    i = np.arange(first, first + count, dtype=np.int64) % period
    return np.minimum(i, period - i) if length > 1 else np.zeros(count, np.int64)


def gather_tile(
    ring: U8, y0: int, x0: int, height: int, width: int, col0: int, fill: int, value: int, out: U8
) -> None:
    """Copy one tile out of the ring of network rows, filling what lies outside the slide.

    ring uint8 [R, w, 3] holds network columns col0..col0+w of a grid of height x width, row y at ring[y % R]; the tile's
    corner (y0, x0) may be negative; out uint8 [T, T, 3]. fill 0: mirror about the edge pixels (reflect-101); 1: the
    constant `value`. A column that the ring does not hold is taken from the nearest one that it does.
    """
    ys, xs = np.arange(y0, y0 + out.shape[0]), np.arange(x0, x0 + out.shape[1])
    rows = _reflected(y0, len(ys), height)
    cols = np.clip(_reflected(x0, len(xs), width) - col0, 0, ring.shape[1] - 1)
    out[:] = ring[(rows % ring.shape[0])[:, None], cols]
    if fill != FILL_REFLECT:
        out[(ys < 0) | (ys >= height)] = value
        out[:, (xs < 0) | (xs >= width)] = value


def tissue_count(tile: U8, limit: int) -> int:
    """How many pixels of a tile are tissue, or `limit` when there are at least that many (counting may stop there).

    tile uint8 [h, w, 3] RGB. Tissue: max >= 20, and max - min >= 12 with min <= 235, or min <= 200.
    """
    hi, lo = tile.max(2).astype(int), tile.min(2).astype(int)
    coloured = (hi - lo >= TISSUE_MIN_CHROMA) & (lo <= TISSUE_MAX_DARK)
    tissue = (hi >= TISSUE_MIN_BRIGHT) & (coloured | (lo <= TISSUE_GRAY_DARK))
    return min(int(tissue.sum()), max(limit, 0))
