"""Blending on the device: a thread per pixel; its sums grow tile by tile, so their order is the launches' order."""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np
from numba import cuda

from ..arrays import F32
from ..definitions import QUANTA
from .launch import add, div, kernel, launch_plane, lent, mul, rint

_QUANTA, _QUANTUM = np.float32(QUANTA), np.float32(1 / QUANTA)


def accumulate(acc: F32, prob: F32, weights: F32, y0: int, x0: int, height: int) -> None:
    """Add one tile's weighted probabilities to the ring of sums; see `reference.accumulate`."""
    tile = prob.shape[1]
    with lent(acc, prob, weights, writes=1) as (acc_, prob_, weights_):
        launch_plane(_accumulate, tile, tile, acc_, prob_, weights_, y0, x0, height)


def finish(acc: F32, y0: int, y1: int, den_y: F32, den_x: F32, out: F32) -> None:
    """Divide rows y0..y1 by den_y * den_x, quantise, zero them in the ring; see `reference.finish`."""
    with lent(acc, out, den_y, den_x, writes=2) as (acc_, out_, den_y_, den_x_):
        launch_plane(_finish, y1 - y0, acc.shape[2], acc_, y0, y1, den_y_, den_x_, out_)


@kernel
def _accumulate(acc, prob, weights, y0, x0, height):
    j, i = cuda.grid(2)
    tile = prob.shape[1]
    y, x = y0 + i, x0 + j
    if i < tile and j < tile and 0 <= y < height and 0 <= x < acc.shape[2]:
        row = y % acc.shape[1]
        weight = mul(weights[i], weights[j])
        for c in range(prob.shape[0]):
            vote = mul(rint(mul(prob[c, i, j], _QUANTA)), _QUANTUM)
            acc[c, row, x] = add(acc[c, row, x], mul(weight, vote))


@kernel
def _finish(acc, y0, y1, den_y, den_x, out):
    x, i = cuda.grid(2)
    if i < y1 - y0 and x < acc.shape[2]:
        row = (y0 + i) % acc.shape[1]
        weight = mul(den_y[i], den_x[x])
        for c in range(acc.shape[0]):
            out[c, i, x] = mul(rint(mul(div(acc[c, row, x], weight), _QUANTA)), _QUANTUM)
            acc[c, row, x] = 0
