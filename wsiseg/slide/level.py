"""One resolution of a slide: a grid of segments (tiles, strips or chunks), each decoded to RGB by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Size

U8 = npt.NDArray[np.uint8]


# libjpeg-turbo writes around the caches when its output is aligned to 32 bytes: a fifth slower, and what is to be shrunk
# next is then not in them. So buffers begin half way between two such places.
ALIGN, BESIDE = 32, 16


class Scratch:
    """Byte buffers that one decoding thread keeps and reuses; each grows to the largest size ever asked of it.

    Memory bound: the sum over names of the largest request, which is what `Level.scratch` lists, and a few bytes each.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, U8] = {}

    def take(self, name: str, nbytes: int) -> U8:
        """uint8 [nbytes], valid until the same name is taken again."""
        held = self._buffers.get(name)
        if held is None or held.size < nbytes:
            whole = np.empty(nbytes + ALIGN, np.uint8)
            start = (BESIDE - whole.ctypes.data) % ALIGN
            held = self._buffers[name] = whole[start : start + nbytes]
        return held[:nbytes]


class SegmentSource(Protocol):
    """What decodes a level's segments; `read` is called from several threads at once."""

    def read(self, row: int, col: int, scratch: Scratch) -> U8:
        """Pixels of the segment, uint8 [h, w, 3], cropped to the level.

        Raises:
            BadSegment: the segment is damaged.
        """

    def stored(self, row: int, col: int) -> int:
        """Bytes that the segment takes in the file; 0 when unknown."""

    def total_stored(self) -> int:
        """Bytes that all segments take in the file; 0 when unknown.

        Raises:
            SlideError: it should be known, but cannot be told. The pixels can be read for all that.
        """


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a slide.

    Attributes:
        index: 0 is the full size.
        size: pixels.
        downsample: full-size pixels per pixel on each axis; 0 when that is no whole number.
        ys, xs: int64 [rows + 1], [cols + 1], the segments' edges; segment (i, j) covers ys[i]..ys[i+1] by xs[j]..xs[j+1].
        source: what decodes the segments.
        scratch: bytes that one thread needs to decode a segment, by buffer name.
        note: where in the file it is, for people.
        exact: False for what `--fast-jpeg` decodes at a lower resolution.
    """

    index: int
    size: Size
    downsample: int
    ys: npt.NDArray[np.int64]
    xs: npt.NDArray[np.int64]
    source: SegmentSource
    scratch: dict[str, int] = field(default_factory=dict)
    note: str = ""
    exact: bool = True

    @property
    def rows(self) -> int:
        return len(self.ys) - 1

    @property
    def cols(self) -> int:
        return len(self.xs) - 1

    @property
    def segment(self) -> Size:
        """The largest segment."""
        return Size(int(np.diff(self.ys).max()), int(np.diff(self.xs).max()))


def edges(length: int, step: int) -> npt.NDArray[np.int64]:
    """Edges of segments `step` long that cover [0, length); the last may be shorter."""
    return np.append(np.arange(0, length, step, dtype=np.int64), np.int64(length))


def whole_downsample(full: Size, size: Size) -> int:
    """The whole number by which `size` is a reduction of `full`, each side rounded down or up; 0 when there is none."""
    candidates = {round(full.width / size.width), round(full.height / size.height)}
    if (
        max(full.height, full.width) // max(size.height, size.width, 1) > 1
        and min(size.height, size.width) < 8
    ):
        # A side of a few pixels does not tell the factor; the longer one does.
        long_full, long = (
            (full.width, size.width) if full.width >= full.height else (full.height, size.height)
        )
        candidates = {round(long_full / long)}
    for n in sorted(candidates):
        if n < 1:
            continue
        pairs = ((full.width, size.width), (full.height, size.height))
        if all(part in (max(1, whole // n), -(-whole // n)) for whole, part in pairs):
            return n
    return 0
