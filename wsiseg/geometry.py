"""Integer geometry shared by every stage: sizes, rectangles, and reflection. Order is (y, x); imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


def ceil_div(a: int, b: int) -> int:
    """The smallest integer >= a / b, for b > 0."""
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width in pixels."""

    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def over(self, scale: int) -> Size:
        """The network grid of a slide of this size: each network pixel is `scale` slide pixels wide."""
        return Size(ceil_div(self.height, scale), ceil_div(self.width, scale))

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True, slots=True)
class Rect:
    """Half-open rectangle [y0, y1) x [x0, x1)."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def size(self) -> Size:
        return Size(self.y1 - self.y0, self.x1 - self.x0)

    def intersect(self, other: Rect) -> Rect:
        """The common part; its size is never negative."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Rect(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))


def reflect(index: int, length: int) -> int:
    """Where `index` lies in [0, length) when the signal is mirrored about its first and last sample.

    The samples at the ends are not repeated (OpenCV's BORDER_REFLECT_101, numpy's "reflect"), as often as needed;
    a signal of one sample is constant.
    """
    if length == 1:
        return 0
    period = 2 * (length - 1)
    index %= period
    return index if index < length else period - index
