"""Where things lie in a synthetic slide: hashes, smooth noise, the tissue's outline, the glomeruli's outlines.

Only additions, multiplications, divisions and square roots are used for pixels (no libm), so the same seed gives
the same pixels on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

GLOMERULUS_CELL_UM = 480.0  # at most one glomerulus in each cell of this width
# One row of the table of glomeruli: centre y, x and mean radius in pixels, cos and sin coefficients of the second,
# third and fifth harmonic of the outline, offset of the tuft (y, x) in radii, tuft radius in radii, squared reach.
GLOMERULUS_FIELDS = 13

jit: Any = njit(nogil=True, cache=True)


@jit
def hash2(seed: int, a: int, b: int) -> np.uint64:
    """A 64-bit hash of two integers and a seed (the finaliser of MurmurHash3 over their combination)."""
    h = (
        np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(a) * np.uint64(0xD6E8FEB86659FD93)
        + np.uint64(b) * np.uint64(0xCA5A826395121157)
    )
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@jit
def unit(h: np.uint64, shift: int) -> float:
    """Sixteen bits of a hash, from bit `shift`, as a number in [0, 1)."""
    return float((h >> np.uint64(shift)) & np.uint64(0xFFFF)) / 65536.0


@jit
def value_noise(seed: int, y: float, x: float) -> float:
    """Smooth noise in [0, 1) with one random value per unit square's corner."""
    fy, fx = np.floor(y), np.floor(x)
    iy, ix = int(fy), int(fx)
    ty, tx = y - fy, x - fx
    ty, tx = ty * ty * (3 - 2 * ty), tx * tx * (3 - 2 * tx)
    a, b = unit(hash2(seed, iy, ix), 0), unit(hash2(seed, iy, ix + 1), 0)
    c, d = unit(hash2(seed, iy + 1, ix), 0), unit(hash2(seed, iy + 1, ix + 1), 0)
    return (a + (b - a) * tx) * (1 - ty) + (c + (d - c) * tx) * ty


@jit
def tissue_field(seed: int, y: float, x: float, height: float, width: float, mpp: float) -> float:
    """How deep in tissue the pixel (y, x) is; tissue is where this exceeds a slide's threshold.

    A flattened dome over the slide, bent by noise from a third of the slide down to 60 microns.
    """
    v, u = 2 * y / height - 1, 2 * x / width - 1
    field = -0.9 * (v * v * v * v + u * u * u * u)
    coarse = max(min(height, width) / 2.6, 1.0)
    field += 1.1 * value_noise(seed + 11, y / coarse, x / coarse)
    field += 0.45 * value_noise(seed + 12, 2.7 * y / coarse, 2.7 * x / coarse)
    ym, xm = y * mpp, x * mpp
    field += 0.10 * value_noise(seed + 13, ym / 900.0, xm / 900.0)
    field += 0.035 * value_noise(seed + 14, ym / 210.0, xm / 210.0)
    field += 0.012 * value_noise(seed + 15, ym / 60.0, xm / 60.0)
    return field


@jit
def sample_tissue(seed: int, ys: Any, xs: Any, height: float, width: float, mpp: float) -> Any:
    """tissue_field on the grid of float64 rows `ys` and columns `xs`: float64 [len(ys), len(xs)]."""
    out = np.empty((len(ys), len(xs)))
    for i in range(len(ys)):
        for j in range(len(xs)):
            out[i, j] = tissue_field(seed, ys[i], xs[j], height, width, mpp)
    return out


@jit
def outline_radius(g: Any, c: float, s: float) -> float:
    """The outline's radius in pixels in the direction with cosine `c` (x) and sine `s` (y)."""
    c2, s2 = c * c - s * s, 2 * c * s
    c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
    c5, s5 = c2 * c3 - s2 * s3, s2 * c3 + c2 * s3
    return g[2] * (1 + g[3] * c2 + g[4] * s2 + g[5] * c3 + g[6] * s3 + g[7] * c5 + g[8] * s5)


@jit
def outline_depth(g: Any, y: int, x: int) -> float:
    """0 at the glomerulus's centre, 1 on its outline, more outside; a pixel is in the mask where this is <= 1."""
    dy, dx = y - g[0], x - g[1]
    d2 = dy * dy + dx * dx
    if d2 > g[12]:
        return 9.0
    d = np.sqrt(d2)
    if d < 1e-9:
        return 0.0
    return d / outline_radius(g, dx / d, dy / d)


@jit
def outline_runs(g: Any, height: int, width: int, starts: Any, lengths: Any) -> int:
    """Writes the runs of one glomerulus, column by column, clipped to the slide; returns how many (they fit)."""
    reach = np.sqrt(g[12])
    n = 0
    for x in range(max(0, int(np.floor(g[1] - reach))), min(width, int(np.ceil(g[1] + reach)) + 1)):
        open_at = -1
        y1 = min(height, int(np.ceil(g[0] + reach)) + 1)
        for y in range(max(0, int(np.floor(g[0] - reach))), y1):
            inside = outline_depth(g, y, x) <= 1.0
            if inside and open_at < 0:
                open_at = y
            elif not inside and open_at >= 0:
                starts[n], lengths[n] = np.int64(x) * height + open_at, y - open_at
                n += 1
                open_at = -1
        if open_at >= 0:
            starts[n], lengths[n] = np.int64(x) * height + open_at, y1 - open_at
            n += 1
    return n
