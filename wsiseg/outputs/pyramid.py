"""One pass down a plane makes every level of its pyramid, in whole rows of tiles and bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from wsiseg.geometry import Size, ceil_div

Reduce = Literal["half", "nearest", "mean"]


def level_sizes(size: Size, smallest: int) -> list[Size]:
    """The sizes of a pyramid: each level half the one before (rounded up), until the longer side is <= `smallest`."""
    sizes = [size]
    while max(sizes[-1].height, sizes[-1].width) > smallest:
        sizes.append(sizes[-1].over(2))
    return sizes


def halved(band: np.ndarray, how: Reduce) -> np.ndarray:
    """A band at half the resolution, ragged at its right and bottom: uint8 [h, w] -> [ceil(h/2), ceil(w/2)].

    "half": set where at least half of the (real) pixels are set, for masks of 0 and one other value; "nearest": the
    upper left pixel, for labels; "mean": rounded half up, for probabilities.
    """
    if how == "nearest":
        return band[::2, ::2]
    h, w = ceil_div(band.shape[0], 2), ceil_div(band.shape[1], 2)
    # A missing row or column repeats its neighbour, which leaves shares and means of the real pixels as they are.
    if band.shape != (2 * h, 2 * w):
        band = np.pad(band, ((0, 2 * h - band.shape[0]), (0, 2 * w - band.shape[1])), mode="edge")
    if how == "half":
        a, b, c, d = (band[i::2, j::2] for i in (0, 1) for j in (0, 1))
        # At least two of four: a pair in which both, or two pairs in which one is set.
        return (a & b) | (c & d) | ((a | b) & (c | d))
    total = band[::2].astype(np.uint16) + band[1::2]
    return ((total[:, ::2] + total[:, 1::2] + 2) >> 2).astype(np.uint8)


class Cascade:
    """Takes rows of the full-size plane from top to bottom and gives back finished rows of tiles of every level.

    Args:
        sizes: of the levels, each half the one before.
        tile: rows of a row of tiles; even.
        how: see `halved`.

    Memory bound: `tile` rows of each level: 2 x tile x width bytes together.
    """

    def __init__(self, sizes: list[Size], tile: int, how: Reduce) -> None:
        self._sizes, self._tile, self._how = sizes, tile, how
        self._buffers = [np.zeros((tile, size.width), np.uint8) for size in sizes[1:]]
        self._filled, self._done = [0] * len(self._buffers), [0] * len(sizes)

    def push(self, band: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Gives (level, first row, rows) for every row of tiles that this one finishes.

        Args:
            band: uint8 [tile, width]; fewer rows only at the bottom. Bands given back are valid until the next push.
        """
        yield from self._push(0, band)

    def _push(self, level: int, band: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        first = self._done[level]
        self._done[level] += len(band)
        yield level, first, band
        if level + 1 == len(self._sizes):
            return
        buffer, at = self._buffers[level], self._filled[level]
        rows = buffer[at : at + ceil_div(len(band), 2)]
        at += len(rows)
        for x in range(0, band.shape[1], self._tile):
            piece, target = band[:, x : x + self._tile], rows[:, x // 2 : (x + self._tile) // 2]
            # Most of a mask is empty, and looking is far cheaper than halving.
            target[:] = halved(piece, self._how) if piece.any() else 0
        last = self._done[level] == self._sizes[level].height
        if at == self._tile or last:
            self._filled[level] = 0
            yield from self._push(level + 1, buffer[:at])
        else:
            self._filled[level] = at
