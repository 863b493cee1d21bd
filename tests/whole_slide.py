"""The meaning of a run in plain numpy on whole arrays: no bands, no panels, no kernels, no threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]


def shrink(slide: U8, scale: int) -> U8:
    """Each network pixel is the mean, rounded half up, of the slide pixels under it; fewer at the right and bottom."""
    height, width = slide.shape[:2]
    h, w = -(-height // scale), -(-width // scale)
    padded = np.zeros((h * scale, w * scale, 3), np.int64)
    padded[:height, :width] = slide
    there = np.zeros((h * scale, w * scale), np.int64)
    there[:height, :width] = 1
    sums = padded.reshape(h, scale, w, scale, 3).sum((1, 3))
    count = there.reshape(h, scale, w, scale).sum((1, 3))[..., None]
    return ((sums + count // 2) // count).astype(np.uint8)


def tissue(tile: U8) -> npt.NDArray[np.bool_]:
    """Which pixels are tissue, by the documented rule."""
    high, low = tile.max(2).astype(int), tile.min(2).astype(int)
    return (high >= 20) & (((high - low >= 12) & (low <= 235)) | (low <= 200))


def probability(
    grid: U8,
    network: Callable[[U8], npt.NDArray[np.float32]],
    tile: int,
    stride: int,
    *,
    fill: str = "reflect",
    skip_empty: bool = False,
) -> npt.NDArray[np.float64]:
    """sum(w p) / sum(w) over every tile of the grid that covers a pixel, [C, h, w], to 2**-20."""
    h, w = grid.shape[:2]
    margin = tile - stride
    deep = margin + tile + stride
    pad = ((deep, deep), (deep, deep), (0, 0))
    if fill == "reflect":
        padded = np.pad(grid, pad, "reflect") if min(h, w) > 1 else _reflect_thin(grid, deep)
    else:
        padded = np.pad(grid, pad, "constant", constant_values=255 if fill == "white" else 0)
    position = np.arange(tile) - (tile - 1) / 2
    weight_1d = (
        np.maximum(np.exp(-(position**2) / (2 * (tile / 8) ** 2)), 1e-3).astype(np.float32).astype(np.float64)
    )
    weight = np.outer(weight_1d, weight_1d)
    total, sums = np.zeros((h + 2 * deep, w + 2 * deep)), None
    for y in range(-margin, h, stride):
        for x in range(-margin, w, stride):
            window = np.s_[y + deep : y + deep + tile, x + deep : x + deep + tile]
            pixels = padded[window]
            total[window] += weight
            if skip_empty and tissue(pixels).sum() < max(1, tile * tile // 1024):
                continue
            p = np.rint(network(pixels).astype(np.float64) * 2**20) / 2**20
            if sums is None:
                sums = np.zeros((len(p), *total.shape))
            sums[(slice(None), *window)] += weight * p
    inner = np.s_[deep : deep + h, deep : deep + w]
    if sums is None:
        return np.zeros((1, h, w))
    return np.rint(sums[(slice(None), *inner)] / total[inner] * 2**20) / 2**20


def _reflect_thin(grid: U8, deep: int) -> U8:
    """Reflection about a single sample is that sample; numpy refuses it."""
    h, w = grid.shape[:2]
    rows = np.pad(grid, ((deep, deep), (0, 0), (0, 0)), "edge" if h == 1 else "reflect")
    return np.pad(rows, ((0, 0), (deep, deep), (0, 0)), "edge" if w == 1 else "reflect")


def full_size(plane: npt.NDArray[np.float64], scale: int, height: int, width: int) -> npt.NDArray[np.float64]:
    """Bilinear with half-pixel centres and clamped edges."""

    def taps(
        length: int, cells: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        u = np.clip((np.arange(length) + 0.5) / scale - 0.5, 0, cells - 1)
        low = np.floor(u).astype(np.int64)
        return low, np.minimum(low + 1, cells - 1), u - low

    ya, yb, fy = taps(height, plane.shape[0])
    xa, xb, fx = taps(width, plane.shape[1])
    rows = plane[ya] * (1 - fy)[:, None] + plane[yb] * fy[:, None]
    return rows[:, xa] * (1 - fx) + rows[:, xb] * fx


def runs(mask: npt.NDArray[np.bool_]) -> str:
    """The usual one-liner: column-major, 1-based."""
    pixels = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges[1::2] -= edges[::2]
    return " ".join(str(x) for x in edges)
