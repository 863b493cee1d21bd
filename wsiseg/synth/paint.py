"""The pixels of a synthetic slide: numba functions of (parameters, coordinates), without any state.

The picture is laid out on an absolute grid of blocks of BLOCK x BLOCK pixels. What varies slowly (the tissue's
outline, the warp of the tubules) is evaluated on the corners of that grid and interpolated bilinearly inside a
block; the Voronoi seeds that can matter to a block are gathered once per block. Since the grid does not move with
the window, a pixel has the same value in whatever window it is asked for.

Only additions, multiplications, divisions and square roots are used for pixels (no libm), so the same seed gives
the same pixels on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

BLOCK = 16
NOISE = 256  # period of the noise tables: background-only tiles of 256 or 512 pixels are identical
MASK = NOISE - 1
TUBULE_UM = 62.0  # distance of tubule seeds
GLOMERULUS_CELL_UM = 480.0  # at most one glomerulus in each cell of this width
# One row of the table of glomeruli: centre y, x and mean radius in pixels, cos and sin coefficients of the second,
# third and fifth harmonic of the outline, offset of the tuft (y, x) in radii, tuft radius in radii, squared reach.
GLOMERULUS_FIELDS = 13

_jit: Any = njit(nogil=True, cache=True, fastmath=False)


@_jit
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


@_jit
def unit(h: np.uint64, shift: int) -> float:
    """Sixteen bits of a hash, from bit `shift`, as a number in [0, 1)."""
    return float((h >> np.uint64(shift)) & np.uint64(0xFFFF)) / 65536.0


@_jit
def value_noise(seed: int, y: float, x: float) -> float:
    """Smooth noise in [0, 1) with one random value per unit square's corner."""
    fy, fx = np.floor(y), np.floor(x)
    iy, ix = int(fy), int(fx)
    ty, tx = y - fy, x - fx
    ty, tx = ty * ty * (3 - 2 * ty), tx * tx * (3 - 2 * tx)
    a, b = unit(hash2(seed, iy, ix), 0), unit(hash2(seed, iy, ix + 1), 0)
    c, d = unit(hash2(seed, iy + 1, ix), 0), unit(hash2(seed, iy + 1, ix + 1), 0)
    return (a + (b - a) * tx) * (1 - ty) + (c + (d - c) * tx) * ty


@_jit
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


@_jit
def sample_tissue(seed: int, ys: Any, xs: Any, height: float, width: float, mpp: float) -> Any:
    """tissue_field on the grid of float64 rows `ys` and columns `xs`: float64 [len(ys), len(xs)]."""
    out = np.empty((len(ys), len(xs)))
    for i in range(len(ys)):
        for j in range(len(xs)):
            out[i, j] = tissue_field(seed, ys[i], xs[j], height, width, mpp)
    return out


@_jit
def outline_radius(g: Any, c: float, s: float) -> float:
    """The outline's radius in pixels in the direction with cosine `c` (x) and sine `s` (y)."""
    c2, s2 = c * c - s * s, 2 * c * s
    c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
    c5, s5 = c2 * c3 - s2 * s3, s2 * c3 + c2 * s3
    return g[2] * (1 + g[3] * c2 + g[4] * s2 + g[5] * c3 + g[6] * s3 + g[7] * c5 + g[8] * s5)


@_jit
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


@_jit
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


@_jit
def mix(a: float, b: float, t: float) -> float:
    return a + (b - a) * t


@_jit
def ramp(edge0: float, edge1: float, x: float) -> float:
    """0 below edge0, 1 above edge1, straight between."""
    t = (x - edge0) / (edge1 - edge0)
    return 0.0 if t < 0 else (1.0 if t > 1 else t)


@_jit
def dot(seed: int, y: float, x: float, share: float, radius: float) -> float:
    """Cell nuclei: at most one dot per unit square, wholly inside it; 1 in a dot's middle, 0 outside."""
    fy, fx = np.floor(y), np.floor(x)
    h = hash2(seed, int(fy), int(fx))
    if unit(h, 0) > share:
        return 0.0
    r = radius * (0.75 + 0.25 * unit(h, 16))
    dy = y - fy - (r + (1 - 2 * r) * unit(h, 32))
    dx = x - fx - (r + (1 - 2 * r) * unit(h, 48))
    d2 = (dy * dy + dx * dx) / (r * r)
    return 0.0 if d2 >= 1 else min(1.0, 1.6 * (1 - d2))


@_jit
def paint(
    out: Any, y0: int, x0: int, field: Any, threshold: float, seed: int, mpp: float,
    glomeruli: Any, fine: Any, soft: Any, gain: Any,
) -> None:  # fmt: skip
    """Paints the window of the slide whose first pixel is (y0, x0).

    Args:
        out: uint8 [h, w, 3], RGB.
        field: float64 tissue field on the block corners, from block (y0 // BLOCK, x0 // BLOCK) on.
        glomeruli: float64 [n, GLOMERULUS_FIELDS], those that touch the window.
        fine, soft: float32 [NOISE, NOISE] noise tables, white and smooth, about -1 to 1.
        gain: float64 [3], the slide's stain: factors on the absorption of R, G and B.
    """
    h, w = out.shape[0], out.shape[1]
    step = mpp / TUBULE_UM
    cand = np.empty((25, 6))  # y, x, direction y, x, half length, lumen
    dist = np.empty(25)
    warp = np.empty((2, 2, 2))
    for by in range(y0 // BLOCK, (y0 + h - 1) // BLOCK + 1):
        for bx in range(x0 // BLOCK, (x0 + w - 1) // BLOCK + 1):
            ya, xa = max(y0, by * BLOCK), max(x0, bx * BLOCK)
            yb, xb = min(y0 + h, (by + 1) * BLOCK), min(x0 + w, (bx + 1) * BLOCK)
            i, j = by - y0 // BLOCK, bx - x0 // BLOCK
            f00, f01, f10, f11 = field[i, j], field[i, j + 1], field[i + 1, j], field[i + 1, j + 1]
            tissue = max(max(f00, f01), max(f10, f11)) > threshold
            first, last = -1, -2
            for k in range(len(glomeruli)):
                dy = max(by * BLOCK - glomeruli[k, 0], glomeruli[k, 0] - (by + 1) * BLOCK, 0.0)
                dx = max(bx * BLOCK - glomeruli[k, 1], glomeruli[k, 1] - (bx + 1) * BLOCK, 0.0)
                if dy * dy + dx * dx <= glomeruli[k, 12]:
                    if first < 0:
                        first = k
                    last = k
            if not tissue and first < 0:
                for y in range(ya, yb):
                    for x in range(xa, xb):
                        n = 1.3 * fine[y & MASK, x & MASK] + 1.0 * soft[y & MASK, x & MASK]
                        out[y - y0, x - x0, 0] = int(240.5 + n)
                        out[y - y0, x - x0, 1] = int(237.5 + n)
                        out[y - y0, x - x0, 2] = int(241.5 + n)
                continue
            # Where the block's corners lie among the tubules' seeds.
            for a in range(2):
                for b in range(2):
                    ym, xm = (by + a) * BLOCK * mpp, (bx + b) * BLOCK * mpp
                    wy = value_noise(seed + 21, ym / 170.0, xm / 170.0) + 2.2 * value_noise(
                        seed + 23, ym / 900.0, xm / 900.0
                    )
                    wx = value_noise(seed + 22, ym / 170.0, xm / 170.0) + 2.2 * value_noise(
                        seed + 24, ym / 900.0, xm / 900.0
                    )
                    warp[a, b, 0] = (by + a) * BLOCK * step + 0.9 * wy
                    warp[a, b, 1] = (bx + b) * BLOCK * step + 0.9 * wx
            cy = 0.25 * (warp[0, 0, 0] + warp[0, 1, 0] + warp[1, 0, 0] + warp[1, 1, 0])
            cx = 0.25 * (warp[0, 0, 1] + warp[0, 1, 1] + warp[1, 0, 1] + warp[1, 1, 1])
            reach = 0.0
            for a in range(2):
                for b in range(2):
                    reach = max(reach, (warp[a, b, 0] - cy) ** 2 + (warp[a, b, 1] - cx) ** 2)
            reach = np.sqrt(reach)
            near, second = 1e9, 1e9
            m = 0
            for iy in range(int(np.floor(cy)) - 2, int(np.floor(cy)) + 3):
                for ix in range(int(np.floor(cx)) - 2, int(np.floor(cx)) + 3):
                    q = hash2(seed + 31, iy, ix)
                    py, px = iy + 0.1 + 0.8 * unit(q, 0), ix + 0.1 + 0.8 * unit(q, 16)
                    # A direction without cosines: a point of the unit square's rim, normalised.
                    ry, rx = unit(q, 32) - 0.5, unit(q, 48) - 0.5
                    norm = np.sqrt(ry * ry + rx * rx) + 1e-9
                    half = 0.62 * unit(q, 40)
                    cand[m, 0], cand[m, 1], cand[m, 2], cand[m, 3] = py, px, ry / norm, rx / norm
                    cand[m, 4], cand[m, 5] = half, unit(q, 24)
                    t = (cy - py) * cand[m, 2] + (cx - px) * cand[m, 3]
                    t = min(max(t, -half), half)
                    dy, dx = cy - py - t * cand[m, 2], cx - px - t * cand[m, 3]
                    dist[m] = np.sqrt(dy * dy + dx * dx)
                    if dist[m] < near:
                        near, second = dist[m], near
                    elif dist[m] < second:
                        second = dist[m]
                    m += 1
            kept = 0
            for k in range(m):
                if dist[k] <= second + 2 * reach:
                    for a in range(6):
                        cand[kept, a] = cand[k, a]
                    kept += 1
            dy8, dx8 = (bx * BLOCK // NOISE) * 37, (by * BLOCK // NOISE) * 91
            for y in range(ya, yb):
                ty = (y - by * BLOCK) / BLOCK
                fa, fb = f00 + (f10 - f00) * ty, f01 + (f11 - f01) * ty
                va, vb = mix(warp[0, 0, 0], warp[1, 0, 0], ty), mix(warp[0, 1, 0], warp[1, 1, 0], ty)
                ua, ub = mix(warp[0, 0, 1], warp[1, 0, 1], ty), mix(warp[0, 1, 1], warp[1, 1, 1], ty)
                for x in range(xa, xb):
                    tx = (x - bx * BLOCK) * (1.0 / BLOCK)
                    white = fine[y & MASK, x & MASK]
                    # Two reads of the periodic table at different pitches: the sum does not repeat visibly.
                    cloud = soft[y & MASK, x & MASK] + soft[(y + dy8) & MASK, (x + dx8) & MASK]
                    depth = 9.0
                    which = -1
                    for k in range(first, last + 1):
                        depth = outline_depth(glomeruli[k], y, x)
                        if depth <= 1.0:
                            which = k
                            break
                    level = fa + (fb - fa) * tx - threshold
                    if which < 0 and level <= 0:
                        n = 1.3 * white + 1.0 * soft[y & MASK, x & MASK]
                        out[y - y0, x - x0, 0] = int(240.5 + n)
                        out[y - y0, x - x0, 1] = int(237.5 + n)
                        out[y - y0, x - x0, 2] = int(241.5 + n)
                        continue
                    ym, xm = y * mpp, x * mpp
                    if which >= 0:
                        g = glomeruli[which]
                        rim = (1.0 - depth) * g[2] * mpp  # microns inside the outline
                        dy, dx = (y - g[0]) / g[2], (x - g[1]) / g[2]
                        # Lobes: a noise four times as coarse as the texture bends the tuft's edge.
                        lobe = value_noise(seed + 44, ym / 16.0, xm / 16.0) - 0.5
                        tuft = (
                            (depth - (dy * g[9] + dx * g[10]) / (depth + 0.3)) / g[11]
                            + 0.16 * lobe
                            + 0.03 * cloud
                        )
                        if rim < 3.0 + 2.0 * lobe + 0.5 * cloud + 14.0 * abs(g[9] + g[10]):
                            r, gr, b = 126.0, 34.0, 124.0
                        elif tuft > 1.0:
                            r, gr, b = 206.0, 186.0, 210.0
                        else:
                            clump = value_noise(seed + 45, ym / 9.0, xm / 9.0)
                            loop = ramp(0.70, 0.84, clump + 0.08 * cloud)
                            r, gr, b = (
                                mix(128.0, 160.0, clump),
                                mix(34.0, 84.0, clump),
                                mix(134.0, 164.0, clump),
                            )
                            r, gr, b = mix(r, 206.0, loop), mix(gr, 182.0, loop), mix(b, 210.0, loop)
                            n = (1 - loop) * dot(
                                seed + 41, (ym + 6 * lobe) / 7.5, (xm + 8 * clump) / 7.5, 0.75, 0.31
                            )
                            r, gr, b = mix(r, 88.0, n), mix(gr, 36.0, n), mix(b, 116.0, n)
                    else:
                        v, u = va + (vb - va) * tx, ua + (ub - ua) * tx
                        d1, d2 = 1e9, 1e9
                        lumen = 0.0
                        for k in range(kept):
                            dy, dx = v - cand[k, 0], u - cand[k, 1]
                            t = dy * cand[k, 2] + dx * cand[k, 3]
                            t = min(max(t, -cand[k, 4]), cand[k, 4])
                            dy -= t * cand[k, 2]
                            dx -= t * cand[k, 3]
                            q2 = dy * dy + dx * dx
                            if q2 < d1:
                                d2, d1, lumen = d1, q2, cand[k, 5]
                            elif q2 < d2:
                                d2 = q2
                        wall = (
                            0.5 * (np.sqrt(d2) - np.sqrt(d1)) * TUBULE_UM + 0.8 * cloud
                        )  # microns to the wall
                        # The lumen's share of the tubule: closed, lilac, or open and nearly white.
                        edge = 10.0 + 26.0 * max(0.0, 0.45 - lumen) + 2.5 * cloud
                        if wall < 1.2:
                            r, gr, b = 134.0, 52.0, 138.0
                            n = dot(seed + 42, ym * 0.133, xm * 0.133, 0.5, 0.34)
                        elif wall < 2.9:
                            r, gr, b = 124.0, 34.0, 128.0
                            n = 0.0
                        elif wall < edge:
                            t = ramp(2.9, edge, wall)
                            r, gr, b = mix(156.0, 168.0, t), mix(70.0, 92.0, t), mix(160.0, 172.0, t)
                            n = dot(seed + 43, ym * 0.095, xm * 0.095 + lumen, 0.55, 0.27)
                        else:
                            t = ramp(edge, edge + 3.0, wall)
                            open_ = ramp(0.86, 0.9, lumen)
                            r = mix(176.0, mix(188.0, 226.0, open_), t)
                            gr = mix(120.0, mix(158.0, 219.0, open_), t)
                            b = mix(186.0, mix(204.0, 227.0, open_), t)
                            n = 0.0
                        r, gr, b = mix(r, 98.0, n), mix(gr, 62.0, n), mix(b, 134.0, n)
                        # The capsule: a darker rim where the tissue ends.
                        rim = ramp(0.004, 0.0, level)
                        r, gr, b = mix(r, 138.0, rim), mix(gr, 54.0, rim), mix(b, 136.0, rim)
                    n = 6.0 * cloud + 4.0 * white
                    out[y - y0, x - x0, 0] = int(min(max(250.0 - gain[0] * (250.0 - r) + n, 0.0), 255.0))
                    out[y - y0, x - x0, 1] = int(min(max(250.0 - gain[1] * (250.0 - gr) + n, 0.0), 255.0))
                    out[y - y0, x - x0, 2] = int(min(max(250.0 - gain[2] * (250.0 - b) + n, 0.0), 255.0))
