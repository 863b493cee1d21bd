"""Segments of one TIFF image as RGB: reads, decodes, converts, orients, and says exactly which one is damaged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from wsiseg.errors import BadSegment
from wsiseg.geometry import Size
from wsiseg.slide import limits
from wsiseg.slide.level import U8, Scratch, edges
from wsiseg.slide.orientation import turn
from wsiseg.slide.pixels import converter
from wsiseg.slide.rawfile import RawFile
from wsiseg.slide.segments import decoder, pread
from wsiseg.slide.streams import BadStream
from wsiseg.slide.tifflayout import TiffLayout

I64 = npt.NDArray[np.int64]
# What decoders raise for bytes that are no picture, besides our own.
DAMAGE = (BadStream, MemoryError, RuntimeError, ValueError, IndexError, TypeError, OSError)


class TiffSource:
    """A `SegmentSource` over one TIFF layout. Safe from several threads: it keeps no state but the file."""

    def __init__(self, file: RawFile, layout: TiffLayout, depth: int = 8) -> None:
        self.layout = layout
        self._file = file
        self._decode = decoder(file.path, layout)
        self._convert = converter(file.path, layout, depth)
        self._turn = turn(layout.orientation)
        self._upright = layout.orientation == 1
        # Asked for with every segment, and counted out anew by the layout each time.
        self._rows, self._cols, self._planes = layout.rows, layout.cols, layout.planes
        # One stored segment for each shown one, in the same place.
        self._single = self._upright and self._planes == 1
        kind = (layout.samples, layout.bits, layout.kind)
        # What the decoder gives is 8-bit RGB, unless the codec leaves YCbCr to the reader.
        rgb = kind == (3, 8, "u") and layout.photometric in (2, 6) and layout.compression != 33003
        self._as_decoded = self._single and rgb
        self._max_stored = limits.MAX_GROWTH * layout.segment_bytes() + limits.MAX_STORED_EXTRA

    @property
    def size(self) -> Size:
        """Pixels as shown, after orientation."""
        s = self.layout.size
        return Size(s.width, s.height) if self._turn.transpose else s

    @property
    def ys(self) -> I64:
        """Segment edges down the shown image."""
        return self._edges(self._turn.transpose, self._turn.flip_y)

    @property
    def xs(self) -> I64:
        """Segment edges across the shown image."""
        return self._edges(not self._turn.transpose, self._turn.flip_x)

    def _edges(self, across: bool, flip: bool) -> I64:
        stored = self.layout
        length, step = (
            (stored.size.width, stored.segment.width)
            if across
            else (stored.size.height, stored.segment.height)
        )
        e = edges(length, step)
        return length - e[::-1] if flip else e

    @property
    def scratch(self) -> dict[str, int]:
        """Bytes that one thread needs, by buffer."""
        layout = self.layout
        pixels = layout.segment.pixels
        stored = int(min(self._max_stored, max(0, int(layout.counts.max(initial=0)))))
        # A JPEG stream is copied when its headers are read, or when a header has to be put before it.
        need = {"stored": stored * (2 if layout.compression == 7 else 1), "decoded": layout.segment_bytes()}
        need["rgb"] = pixels * 3  # what is missing or damaged is made white there, too
        if layout.samples != 3 or layout.planar or layout.bits != 8 or layout.compression == 33003:
            need["planes"] = pixels * layout.samples * (2 if layout.bits > 8 else 1)
        if layout.planar:
            need["decoded"] *= layout.planes
        if layout.orientation != 1:
            need["oriented"] = pixels * 3
        if layout.photometric == 5 or layout.extra:
            need["conversion"] = pixels * 16
        return need

    def stored(self, row: int, col: int) -> int:
        if self._single:
            return self.layout.counts.item(row * self._cols + col)
        return sum(int(self.layout.counts[i]) for i in self._indices(*self._place(row, col)))

    def total_stored(self) -> int:
        """Bytes of all segments in the file, as far as the header can be believed."""
        return int(np.clip(self.layout.counts, 0, self._file.size).sum())

    def read_stored(
        self, row: int, col: int, scratch: Scratch, size: tuple[int, int], decode: Callable[[bytes], U8]
    ) -> U8:
        """The stored bytes of an upright, contiguous segment through another decoder; white where it is missing.

        Raises:
            BadSegment: as `read`.
        """
        try:
            data = self._stored(row * self._cols + col, scratch, "stored")
            return np.full((*size, 3), 255, np.uint8) if data is None else decode(bytes(data))
        except DAMAGE as error:
            raise self._bad(row, col, _reason(error)) from error

    def read(self, row: int, col: int, scratch: Scratch) -> U8:
        p, q = self._place(row, col)
        lay = self.layout
        height = min(lay.segment.height, lay.size.height - p * lay.segment.height)
        width = min(lay.segment.width, lay.size.width - q * lay.segment.width)
        try:
            planes = self.samples(p, q, scratch)
            if self._as_decoded and planes is not None and planes[0].shape == (height, width, 3):
                return planes[0]  # type: ignore[return-value]
            if planes is None:
                rgb = scratch.take("rgb", height * width * 3).reshape(height, width, 3)
                rgb[:] = 255
                return self._orient(rgb)
            if any(a.shape[0] < height or a.shape[1] < width for a in planes):
                got = planes[0].shape
                raise BadStream(f"it decodes to {got[1]} x {got[0]} of {width} x {height} pixels")
            rgb = self._convert([a[:height, :width] for a in planes], scratch)
        except DAMAGE as error:
            raise self._bad(p, q, _reason(error)) from error
        return self._orient(rgb)

    @property
    def plain(self) -> bool:
        """Whether the file's bytes are the pixels: uncompressed 8-bit RGB in one plane, upright."""
        lay = self.layout
        kind = (
            lay.compression,
            lay.predictor,
            lay.fillorder,
            lay.photometric,
            lay.samples,
            lay.bits,
            lay.kind,
        )
        return kind == (1, 1, 1, 2, 3, 8, "u") and not lay.planar and lay.orientation == 1

    @property
    def descriptor(self) -> int:
        """The open file; as long as the slide is."""
        return self._file.fd

    @property
    def file_size(self) -> int:
        """Bytes."""
        return self._file.size

    def samples(self, p: int, q: int, scratch: Scratch) -> list[npt.NDArray[np.generic]] | None:
        """Decoded samples of stored segment (p, q), one array [h, w, n] per plane; None where it is missing."""
        at = self._indices(p, q)
        if len(at) == 1:
            data = self._stored(at[0], scratch, "stored")
            return None if data is None else [self._decode(data, p, q, scratch)]
        if all(self.layout.counts[i] == 0 for i in at):
            return None
        planes = []
        for k, i in enumerate(at):
            data = self._stored(i, scratch, "stored" if k == 0 else f"stored{k}")
            if data is None:
                raise BadStream(f"channel {k} is missing")
            planes.append(self._decode(data, p, q, scratch).copy())
        return planes

    def _indices(self, p: int, q: int) -> range:
        """Where the planes of stored segment (p, q) stand in the file's tables."""
        at, every = p * self._cols + q, self._rows * self._cols
        return range(at, at + self._planes * every, every)

    def _stored(self, i: int, scratch: Scratch, name: str) -> memoryview | None:
        """The bytes of segment number `i` in the file's tables; None where it is missing."""
        offset, count = int(self.layout.offsets[i]), int(self.layout.counts[i])
        if count == 0:
            return None
        if count < 0:
            raise BadStream("its byte count is negative")
        if offset < 8 or offset + count > self._file.size:
            raise BadStream(f"its {count} bytes at {offset} lie outside the file of {self._file.size} bytes")
        if count > self._max_stored:
            raise BadStream(
                f"its {count} bytes are too many for {self.layout.segment_bytes()} bytes of pixels"
            )
        return pread(self._file.fd, offset, count, scratch.take(name, count))

    def _place(self, row: int, col: int) -> tuple[int, int]:
        """The stored segment shown at (row, col)."""
        if self._upright:
            return row, col
        rows, cols = self._rows, self._cols
        if self._turn.transpose:
            rows, cols = cols, rows
        if self._turn.flip_y:
            row = rows - 1 - row
        if self._turn.flip_x:
            col = cols - 1 - col
        return (col, row) if self._turn.transpose else (row, col)

    def _orient(self, rgb: U8) -> U8:
        return rgb if self._upright else self._turn.apply(rgb)

    def _bad(self, p: int, q: int, why: str) -> BadSegment:
        lay = self.layout
        where = f"tile row {p}, column {q}" if lay.tiled else f"strip at row {p * lay.segment.height}"
        return BadSegment(
            self._file.path,
            f"{where} of {lay.name} is damaged: {why}",
            "--on-bad-tile white goes on without it",
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, BadStream):
        return str(error)
    said = " ".join(str(error).split()) or type(error).__name__
    return f"it cannot be decoded ({said[:120]})"
