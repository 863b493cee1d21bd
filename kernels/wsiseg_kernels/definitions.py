"""The numbers that every implementation shares: blending weights, denominators, the quantum, thresholds as integers.

They are small and not hot, so there is one plain numpy form of each. Compiled kernels freeze the constants, and numba's
cache on disc looks only at a kernel's own file: after a change here, delete the `__pycache__` folders.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import F32

QUANTUM_BITS = 20
"""Finished probabilities are multiples of 2**-20; float32 holds each of them exactly."""

QUANTA = 1 << QUANTUM_BITS

MAX_SCALE = 256
"""The largest scale for which every integer of the interpolation is known to fit its type."""

WEIGHT_FLOOR = 1e-3
"""Smallest blending weight: keeps the denominator well away from zero in a tile's corners."""

FILL_REFLECT = 0
FILL_VALUE = 1

TISSUE_MIN_CHROMA = 12
TISSUE_MIN_BRIGHT = 20
TISSUE_MAX_DARK = 235
TISSUE_GRAY_DARK = 200
"""Over its three channels a pixel is tissue when max >= 20 (not the black beside a scan) and either it is coloured and
not nearly white (max - min >= 12 and min <= 235), or it is dark whatever its colour (min <= 200), so that gray slides
have tissue too. White, light gray fill (230) and black have none."""


def gaussian_weights(tile: int) -> F32:
    """Blending weights of one axis of a tile.

    g(i) = max(exp(-(i - (T-1)/2)^2 / (2 (T/8)^2)), 1e-3): nnU-Net's Gaussian importance map (Isensee et al. 2021,
    sigma = T/8), separable, with a floor. Returns float32 [tile].
    """
    i = np.arange(tile, dtype=np.float64)
    g = np.exp(-((i - (tile - 1) / 2) ** 2) / (2 * (tile / 8) ** 2))
    return np.maximum(g, WEIGHT_FLOOR).astype(np.float32)


def denominator(length: int, tile: int, stride: int) -> F32:
    """Sum of the blending weights over every tile of the grid that covers a position of one axis.

    The grid's origins are -(tile-stride) + i*stride, so that each of the `length` positions is covered by all the
    tiles that an endless grid would lay over it. Summed in float64 from the float32 weights, in grid order.
    Returns float32 [length]; the denominator of pixel (y, x) is the product of the two axes' values.
    """
    weights = gaussian_weights(tile).astype(np.float64)
    total = np.zeros(length, np.float64)
    for origin in range(stride - tile, length, stride):
        lo, hi = max(origin, 0), min(origin + tile, length)
        total[lo:hi] += weights[lo - origin : hi - origin]
    return total.astype(np.float32)


def vote_limit(threshold: float, scale: int) -> int:
    """The integer L for which a full-size pixel is in the mask when its interpolated sum V is greater than L.

    V = sum of four (quanta x integer weights), where the weights add up to 4 * scale**2.
    """
    return math.floor(threshold * QUANTA * 4 * scale * scale)


def first_full_row(network_row: int, scale: int) -> int:
    """The first full-size row (or column) whose centre is not before the centre of network row `network_row`.

    Rows from it up to the same of the next network row are interpolated between those two network rows.
    """
    return network_row * scale + scale // 2


def check_band(
    n: int, cw: int, row0: int, col0: int, scale: int, height: int, width: int, x0: int, x1: int
) -> None:
    """Refuse a band that lacks a network column or row which the wanted full-size columns are interpolated from."""
    if not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"scale {scale} is not in 1..{MAX_SCALE}")
    if row0 < 0 or row0 + n > -(-height // scale):
        raise ValueError(
            f"network rows {row0}..{row0 + n} are not inside the grid's {-(-height // scale)} rows"
        )
    if not 0 <= x0 <= x1 <= width:
        raise ValueError(f"columns {x0}..{x1} are not inside the slide's {width}")
    if x0 == x1:
        return
    need0 = max((2 * x0 + 1 - scale) // (2 * scale), 0)
    need1 = min(-((1 + scale - 2 * x1) // (2 * scale)) + 1, -(-width // scale))
    if need0 < col0 or need1 > col0 + cw:
        raise ValueError(
            f"full-size columns {x0}..{x1} need network columns {need0}..{need1}, the band has {col0}..{col0 + cw}"
        )
