"""Blending of overlapping tiles: weighted sums in a ring of rows, then division by separable denominators."""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import F32
from ..definitions import QUANTA
from .jit import kernel
from .vectors import AHEAD, LINE, prefetch

# A float32 between 8 and 16 is a multiple of 2**-20: adding this to a number of [-4, 4) and taking it away again rounds
# it to one, ties to even, as rint(x * 2**20) / 2**20 does, in two steps that every processor does on whole vectors.
SHIFT = 1.5 * 2**23 / QUANTA


def accumulate(acc: F32, prob: F32, weights: F32, y0: int, x0: int, height: int) -> None:
    """Add one tile's weighted probabilities to the ring of sums; see `reference.accumulate`.

    acc float32 [C, R, w]; prob float32 [C, T, T]; weights float32 [T]; corner (y0, x0); rows clip to [0, height).
    """
    _accumulate(acc, prob, weights, y0, x0, height)


def finish(acc: F32, y0: int, y1: int, den_y: F32, den_x: F32, out: F32) -> None:
    """Divide rows y0..y1 by den_y * den_x, quantise to 2**-20, zero them in the ring; see `reference.finish`.

    acc float32 [C, R, w]; den_y float32 [y1-y0]; den_x float32 [w]; out float32 [C, y1-y0, w].
    """
    _finish(acc, y0, y1, den_y, den_x, out)


@kernel
def _accumulate(acc, prob, weights, y0, x0, height):
    rows, width, tile = acc.shape[1], acc.shape[2], prob.shape[1]
    j0, j1 = max(0, -x0), min(tile, width - x0)
    if j1 <= j0:
        return
    across, shift = weights[j0:j1], np.float32(SHIFT)
    for c in range(acc.shape[0]):
        plane = acc[c]
        for i in range(max(0, -y0), min(tile, height - y0)):
            for j in range(x0 + j0, x0 + j1, LINE // 4):
                prefetch(plane, (y0 + i + AHEAD) % rows, j)
            sums, votes, weight = acc[c, (y0 + i) % rows, x0 + j0 : x0 + j1], prob[c, i, j0:j1], weights[i]
            for j in range(j1 - j0):
                sums[j] += (weight * across[j]) * ((votes[j] + shift) - shift)


@kernel
def _finish(acc, y0, y1, den_y, den_x, out):
    rows, width = acc.shape[1], acc.shape[2]
    quanta, quantum = np.float32(QUANTA), np.float32(1 / QUANTA)
    for c in range(acc.shape[0]):
        for y in range(y0, y1):
            sums, result, down = acc[c, y % rows], out[c, y - y0], den_y[y - y0]
            for x in range(width):
                result[x] = np.rint(sums[x] / (down * den_x[x]) * quanta) * quantum
                sums[x] = 0
