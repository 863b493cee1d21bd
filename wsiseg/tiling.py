"""The tile grid of a slide, the rows each row of tiles makes final, and vertical panels. Pure; no I/O.

All coordinates are network pixels. Per axis the tiles start at `-(T - S) + k S`, as many as touch the slide: every
pixel is covered by exactly the tiles that would cover it in an infinite grid, so one at the slide's edge is seen as
fully as one inside.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from wsiseg.geometry import Size, ceil_div, reflect


def stride_of(tile: int, overlap: float) -> int:
    """The stride S of tiles of edge T that overlap by this share of T; at least 1."""
    return max(1, round(tile * (1 - overlap)))


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis of `length` network pixels."""

    length: int
    tile: int
    stride: int

    @property
    def count(self) -> int:
        return ceil_div(self.length + self.tile - self.stride, self.stride)

    def origin(self, index: int) -> int:
        """First pixel of tile `index`; negative in the margin."""
        return index * self.stride - (self.tile - self.stride)

    def final(self, index: int) -> tuple[int, int]:
        """Pixels [a, b) that no tile after `index` touches and that were not final before it."""
        start = self.origin(index)
        return min(max(start, 0), self.length), min(max(start + self.stride, 0), self.length)

    def source(self, first: int, last: int, reflected: bool) -> tuple[int, int]:
        """Pixels [a, b) of the slide that tiles first..last-1 look at, those that the margin mirrors included."""
        start, stop = self.origin(first), self.origin(last - 1) + self.tile
        low, high = max(start, 0), min(stop, self.length)
        if reflected:
            # The margin is at most a tile deep on each side, so looking at every mirrored pixel is cheap.
            outside = [
                reflect(i, self.length)
                for i in (*range(start, min(stop, 0)), *range(max(start, self.length), stop))
            ]
            if outside:
                low, high = min(low, *outside), max(high, 1 + max(outside))
        return low, high

    def covering(self, start: int, stop: int) -> tuple[int, int]:
        """Tiles [i, j) that touch the pixels [start, stop)."""
        margin = self.tile - self.stride
        first = max(0, (start + margin - self.tile) // self.stride + 1)
        return first, min(self.count, (stop - 1 + margin) // self.stride + 1)


@dataclass(frozen=True)
class Panel:
    """A vertical strip that is processed by itself; the whole slide is one panel when it fits.

    Attributes:
        x0, x1: columns that this panel makes final.
        a0, a1: columns that it accumulates: one more on each side, which the interpolation looks at.
        j0, j1: tile columns that it runs.
        c0, c1: slide columns that it reads.
    """

    x0: int
    x1: int
    a0: int
    a1: int
    j0: int
    j1: int
    c0: int
    c1: int


@dataclass(frozen=True)
class TileGrid:
    """Tiles of edge `tile` at `stride` over a network grid of `size`; `reflected` says whether the margin mirrors."""

    size: Size
    tile: int
    stride: int
    reflected: bool = True

    @property
    def y(self) -> Axis:
        return Axis(self.size.height, self.tile, self.stride)

    @property
    def x(self) -> Axis:
        return Axis(self.size.width, self.tile, self.stride)

    @property
    def count(self) -> int:
        return self.y.count * self.x.count

    def row_spans(self) -> list[tuple[int, int]]:
        """For each row of tiles, the slide rows [keep, need) that must be in memory while it is cut.

        `need` is the first row it does not look at; rows before `keep` are not looked at by it or any later one.
        """
        axis = self.y
        spans = [axis.source(i, i + 1, self.reflected) for i in range(axis.count)]
        keep, spans_out = self.size.height, []
        for low, high in reversed(spans):
            keep = min(keep, low)
            spans_out.append((keep, high))
        return spans_out[::-1]

    def resident_rows(self) -> int:
        """The most rows that have to be in memory at once."""
        return max(need - keep for keep, need in self.row_spans())

    def panel(self, x0: int, x1: int) -> Panel:
        """The panel that makes columns [x0, x1) final."""
        a0, a1 = max(0, x0 - 1), min(self.size.width, x1 + 1)
        j0, j1 = self.x.covering(a0, a1)
        c0, c1 = self.x.source(j0, j1, self.reflected)
        return Panel(x0, x1, a0, a1, j0, j1, c0, c1)

    def panels(self, count: int) -> list[Panel]:
        """`count` panels of nearly equal width, left to right; fewer when the grid is narrower than that."""
        width = self.size.width
        count = max(1, min(count, width))
        edges = [round(k * width / count) for k in range(count + 1)]
        return [self.panel(a, b) for a, b in itertools.pairwise(edges)]
