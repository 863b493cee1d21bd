"""The pixels of a synthetic slide: a numba function of parameters and coordinates, without any state.

The picture is laid out on an absolute grid of blocks of BLOCK x BLOCK pixels. What varies slowly (the tissue's
outline, the warp of the tubules) is evaluated on the corners of that grid and interpolated bilinearly inside a
block; the Voronoi seeds that can matter to a block are gathered once per block. Since the grid does not move with
the window, a pixel has the same value in whatever window it is asked for.

Colours are of a PAS-stained kidney: purple walls and nuclei, magenta epithelium, lilac lumens, pale spaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsiseg.synth.fields import hash2, jit, outline_depth, unit, value_noise

BLOCK = 16
NOISE = 256  # period of the noise tables: background-only tiles of 256 or 512 pixels are identical
MASK = NOISE - 1
TUBULE_UM = 62.0  # distance of tubule seeds


@jit
def mix(a: float, b: float, t: float) -> float:
    """From a to b as t goes from 0 to 1."""
    return a + (b - a) * t


@jit
def mix3(
    a: tuple[float, float, float], b: tuple[float, float, float], t: float
) -> tuple[float, float, float]:
    """From one colour to another."""
    return mix(a[0], b[0], t), mix(a[1], b[1], t), mix(a[2], b[2], t)


@jit
def ramp(edge0: float, edge1: float, x: float) -> float:
    """0 before edge0, 1 beyond edge1, straight between."""
    t = (x - edge0) / (edge1 - edge0)
    return 0.0 if t < 0 else (1.0 if t > 1 else t)


@jit
def nucleus(seed: int, y: float, x: float, share: float, radius: float) -> float:
    """Cell nuclei: in a share of the unit squares one dot, wholly inside; 1 in a dot's middle, 0 outside."""
    fy, fx = np.floor(y), np.floor(x)
    h = hash2(seed, int(fy), int(fx))
    if unit(h, 0) > share:
        return 0.0
    r = radius * (0.75 + 0.25 * unit(h, 16))
    dy = y - fy - (r + (1 - 2 * r) * unit(h, 32))
    dx = x - fx - (r + (1 - 2 * r) * unit(h, 48))
    d2 = (dy * dy + dx * dx) / (r * r)
    return 0.0 if d2 >= 1 else min(1.0, 1.6 * (1 - d2))


@jit
def warp_corner(seed: int, y: float, x: float, mpp: float) -> tuple[float, float]:
    """Where the pixel (y, x) lies among the tubules' seeds, in units of their distance."""
    ym, xm = y * mpp, x * mpp
    wy = value_noise(seed + 21, ym / 170.0, xm / 170.0) + 2.2 * value_noise(seed + 23, ym / 900.0, xm / 900.0)
    wx = value_noise(seed + 22, ym / 170.0, xm / 170.0) + 2.2 * value_noise(seed + 24, ym / 900.0, xm / 900.0)
    return ym / TUBULE_UM + 0.9 * wy, xm / TUBULE_UM + 0.9 * wx


@jit
def gather_seeds(seed: int, cy: float, cx: float, reach: float, seeds: Any, dist: Any) -> int:
    """The tubules that can be nearest or second nearest within `reach` of (cy, cx); returns how many.

    A tubule grows around a short segment: seeds float64 [25, 6] gets its middle y, x, its direction y, x, half its
    length, and how open its lumen is (0 to 1). `dist` float64 [25] is scratch.
    """
    near, second = 1e9, 1e9
    m = 0
    for iy in range(int(np.floor(cy)) - 2, int(np.floor(cy)) + 3):
        for ix in range(int(np.floor(cx)) - 2, int(np.floor(cx)) + 3):
            h = hash2(seed + 31, iy, ix)
            py, px = iy + 0.1 + 0.8 * unit(h, 0), ix + 0.1 + 0.8 * unit(h, 16)
            # A direction without cosines: a point of a square, normalised.
            ry, rx = unit(h, 32) - 0.5, unit(h, 48) - 0.5
            norm = np.sqrt(ry * ry + rx * rx) + 1e-9
            half = 0.62 * unit(h, 40)
            seeds[m, 0], seeds[m, 1], seeds[m, 2], seeds[m, 3] = py, px, ry / norm, rx / norm
            seeds[m, 4], seeds[m, 5] = half, unit(h, 24)
            dist[m] = np.sqrt(segment_distance2(seeds, m, cy, cx))
            if dist[m] < near:
                near, second = dist[m], near
            elif dist[m] < second:
                second = dist[m]
            m += 1
    kept = 0
    for k in range(m):
        if dist[k] <= second + 2 * reach:
            for field in range(6):
                seeds[kept, field] = seeds[k, field]
            kept += 1
    return kept


@jit
def segment_distance2(seeds: Any, k: int, y: float, x: float) -> float:
    """Squared distance of (y, x) from the segment of tubule k."""
    dy, dx = y - seeds[k, 0], x - seeds[k, 1]
    t = dy * seeds[k, 2] + dx * seeds[k, 3]
    t = min(max(t, -seeds[k, 4]), seeds[k, 4])
    dy -= t * seeds[k, 2]
    dx -= t * seeds[k, 3]
    return dy * dy + dx * dx


@jit
def glomerulus_colour(
    seed: int, g: Any, depth: float, y: int, x: int, mpp: float, cloud: float
) -> tuple[float, float, float]:
    """Capsule, Bowman's space, or the tuft with its lobes, open loops and nuclei."""
    ym, xm = y * mpp, x * mpp
    rim = (1.0 - depth) * g[2] * mpp  # microns inside the outline
    dy, dx = (y - g[0]) / g[2], (x - g[1]) / g[2]
    lobe = value_noise(seed + 44, ym / 16.0, xm / 16.0) - 0.5
    tuft = (depth - (dy * g[9] + dx * g[10]) / (depth + 0.3)) / g[11] + 0.16 * lobe + 0.03 * cloud
    if rim < 3.0 + 2.0 * lobe + 0.5 * cloud + 14.0 * abs(g[9] + g[10]):
        return 126.0, 34.0, 124.0
    if tuft > 1.0:
        return 206.0, 186.0, 210.0
    clump = value_noise(seed + 45, ym / 9.0, xm / 9.0)
    loop = ramp(0.70, 0.84, clump + 0.08 * cloud)
    colour = mix3(mix3((128.0, 34.0, 134.0), (160.0, 84.0, 164.0), clump), (206.0, 182.0, 210.0), loop)
    dark = nucleus(seed + 41, (ym + 6 * lobe) / 7.5, (xm + 8 * clump) / 7.5, 0.75, 0.31)
    return mix3(colour, (88.0, 36.0, 116.0), (1 - loop) * dark)


@jit
def tubule_colour(
    seed: int, wall: float, lumen: float, ym: float, xm: float, cloud: float
) -> tuple[float, float, float]:
    """Interstitium, basement membrane, epithelium with nuclei, or lumen, `wall` microns inside a tubule's border."""
    # The lumen begins where the epithelium ends: some tubules are closed, some wide, a few empty and nearly white.
    edge = 10.0 + 26.0 * max(0.0, 0.45 - lumen) + 2.5 * cloud
    if wall < 1.2:
        dark = nucleus(seed + 42, ym * 0.133, xm * 0.133, 0.5, 0.34)
        return mix3((134.0, 52.0, 138.0), (98.0, 62.0, 134.0), dark)
    if wall < 2.9:
        return 124.0, 34.0, 128.0
    if wall < edge:
        dark = nucleus(seed + 43, ym * 0.095, xm * 0.095 + lumen, 0.55, 0.27)
        colour = mix3((156.0, 70.0, 160.0), (168.0, 92.0, 172.0), ramp(2.9, edge, wall))
        return mix3(colour, (98.0, 62.0, 134.0), dark)
    inner = mix3((188.0, 158.0, 204.0), (226.0, 219.0, 227.0), ramp(0.86, 0.9, lumen))
    return mix3((176.0, 120.0, 186.0), inner, ramp(edge, edge + 3.0, wall))


@jit
def put_background(out: Any, i: int, j: int, noise: float) -> None:
    """The light beside the tissue."""
    out[i, j, 0], out[i, j, 1], out[i, j, 2] = int(240.5 + noise), int(237.5 + noise), int(241.5 + noise)


@jit
def paint(
    out: Any, y0: int, x0: int, field: Any, threshold: float, seed: int, mpp: float, glomeruli: Any,
    fine: Any, soft: Any, gain: Any,
) -> None:  # fmt: skip
    """Paints the window of the slide whose first pixel is (y0, x0).

    Args:
        out: uint8 [h, w, 3], RGB.
        field: float64 tissue field on the block corners, from block (y0 // BLOCK, x0 // BLOCK) on.
        threshold: above which the field is tissue.
        glomeruli: float64 [n, GLOMERULUS_FIELDS], those that touch the window.
        fine, soft: float32 [NOISE, NOISE] noise tables, white and smooth, about -1 to 1.
        gain: float64 [3], the slide's stain: factors on the absorption of R, G and B.
    """
    h, w = out.shape[0], out.shape[1]
    seeds, dist, corner = np.empty((25, 6)), np.empty(25), np.empty((2, 2, 2))
    for by in range(y0 // BLOCK, (y0 + h - 1) // BLOCK + 1):
        for bx in range(x0 // BLOCK, (x0 + w - 1) // BLOCK + 1):
            ya, xa = max(y0, by * BLOCK), max(x0, bx * BLOCK)
            yb, xb = min(y0 + h, (by + 1) * BLOCK), min(x0 + w, (bx + 1) * BLOCK)
            i, j = by - y0 // BLOCK, bx - x0 // BLOCK
            f00, f01, f10, f11 = field[i, j], field[i, j + 1], field[i + 1, j], field[i + 1, j + 1]
            first, last = -1, -2  # the glomeruli that may touch the block
            for k in range(len(glomeruli)):
                dy = max(by * BLOCK - glomeruli[k, 0], glomeruli[k, 0] - (by + 1) * BLOCK, 0.0)
                dx = max(bx * BLOCK - glomeruli[k, 1], glomeruli[k, 1] - (bx + 1) * BLOCK, 0.0)
                if dy * dy + dx * dx <= glomeruli[k, 12]:
                    first, last = (k if first < 0 else first), k
            if first < 0 and max(max(f00, f01), max(f10, f11)) <= threshold:
                for y in range(ya, yb):
                    for x in range(xa, xb):
                        put_background(
                            out, y - y0, x - x0, 1.3 * fine[y & MASK, x & MASK] + soft[y & MASK, x & MASK]
                        )
                continue
            for a in range(2):
                for b in range(2):
                    v, u = warp_corner(seed, (by + a) * BLOCK, (bx + b) * BLOCK, mpp)
                    corner[a, b, 0], corner[a, b, 1] = v, u
            cy, cx = 0.25 * corner[:, :, 0].sum(), 0.25 * corner[:, :, 1].sum()
            reach = 0.0
            for a in range(2):
                for b in range(2):
                    reach = max(reach, np.sqrt((corner[a, b, 0] - cy) ** 2 + (corner[a, b, 1] - cx) ** 2))
            kept = gather_seeds(seed, cy, cx, reach, seeds, dist)
            dy8, dx8 = (bx * BLOCK // NOISE) * 37, (by * BLOCK // NOISE) * 91
            for y in range(ya, yb):
                ty = (y - by * BLOCK) * (1.0 / BLOCK)
                fa, fb = mix(f00, f10, ty), mix(f01, f11, ty)
                va, vb = mix(corner[0, 0, 0], corner[1, 0, 0], ty), mix(corner[0, 1, 0], corner[1, 1, 0], ty)
                ua, ub = mix(corner[0, 0, 1], corner[1, 0, 1], ty), mix(corner[0, 1, 1], corner[1, 1, 1], ty)
                for x in range(xa, xb):
                    tx = (x - bx * BLOCK) * (1.0 / BLOCK)
                    white, smooth = fine[y & MASK, x & MASK], soft[y & MASK, x & MASK]
                    depth, which = 9.0, -1
                    for k in range(first, last + 1):
                        depth = outline_depth(glomeruli[k], y, x)
                        if depth <= 1.0:
                            which = k
                            break
                    level = mix(fa, fb, tx) - threshold
                    if which < 0 and level <= 0:
                        put_background(out, y - y0, x - x0, 1.3 * white + smooth)
                        continue
                    # Two reads of the periodic table at different places: the sum does not repeat visibly.
                    cloud = smooth + soft[(y + dy8) & MASK, (x + dx8) & MASK]
                    if which >= 0:
                        colour = glomerulus_colour(seed, glomeruli[which], depth, y, x, mpp, cloud)
                    else:
                        v, u = mix(va, vb, tx), mix(ua, ub, tx)
                        near, second, lumen = 1e9, 1e9, 0.0
                        for k in range(kept):
                            d2 = segment_distance2(seeds, k, v, u)
                            if d2 < near:
                                second, near, lumen = near, d2, seeds[k, 5]
                            elif d2 < second:
                                second = d2
                        wall = 0.5 * (np.sqrt(second) - np.sqrt(near)) * TUBULE_UM + 0.8 * cloud
                        colour = tubule_colour(seed, wall, lumen, y * mpp, x * mpp, cloud)
                        # The section's capsule: a darker rim where the tissue ends.
                        colour = mix3(colour, (138.0, 54.0, 136.0), ramp(0.004, 0.0, level))
                    noise = 6.0 * cloud + 4.0 * white
                    for c in range(3):
                        value = 250.0 - gain[c] * (250.0 - colour[c]) + noise
                        out[y - y0, x - x0, c] = int(min(max(value, 0.0), 255.0))
