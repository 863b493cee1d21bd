"""How one TIFF image is stored, as plain checked data: the only thing that decoding needs of a page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Size, ceil_div

I64 = npt.NDArray[np.int64]

# Rows of a virtual strip, when uncompressed strips lie one after another.
VIRTUAL_ROWS = 64


@dataclass(frozen=True, eq=False)
class TiffLayout:
    """A TIFF page's structure.

    Attributes:
        name: which page, for messages.
        size: pixels as stored (before orientation).
        segment: pixels of a stored tile or strip.
        tiled: tiles, else strips.
        samples: channels of a pixel. planar: each channel has its own segments.
        bits, kind: bits of a sample and its numpy kind (u, i, f). byteorder: "<" or ">".
        compression, predictor, photometric, fillorder, orientation: TIFF tag values.
        extra: ExtraSamples. colormap: uint16 [3, n] or None. subsampling: YCbCr (horizontal, vertical).
        offsets, counts: int64 [planes * rows * cols], where the segments lie in the file.
        tables, header: JPEG tables shared by all segments, or the header that NDPI's segments lack.
    """

    name: str
    size: Size
    segment: Size
    tiled: bool
    samples: int
    planar: bool
    bits: int
    kind: str
    byteorder: str
    compression: int
    predictor: int
    photometric: int
    fillorder: int
    orientation: int
    extra: tuple[int, ...]
    subsampling: tuple[int, int]
    colormap: npt.NDArray[np.uint16] | None
    offsets: I64
    counts: I64
    tables: bytes | None = None
    header: bytes | None = None
    oddities: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> int:
        return ceil_div(self.size.height, self.segment.height)

    @property
    def cols(self) -> int:
        return ceil_div(self.size.width, self.segment.width)

    @property
    def planes(self) -> int:
        return self.samples if self.planar else 1

    @property
    def segment_samples(self) -> int:
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of an uncompressed segment."""
        return ceil_div(self.segment.width * self.segment_samples * self.bits, 8)

    def segment_bytes(self, row: int | None = None) -> int:
        """Decoded bytes of one stored segment; strips of the last row are cut at the image's end."""
        height = self.segment.height
        if row is not None and not self.tiled:
            height = min(height, self.size.height - row * height)
        return height * self.row_bytes


def join_planes(pages: list[TiffLayout]) -> TiffLayout:
    """One planar image of several gray pages with the same layout, one per channel."""
    first = pages[0]
    return replace(
        first,
        samples=len(pages),
        planar=True,
        photometric=2,
        extra=(),
        offsets=np.concatenate([p.offsets for p in pages]),
        counts=np.concatenate([p.counts for p in pages]),
    )


def split_strips(layout: TiffLayout) -> TiffLayout:
    """Uncompressed strips that lie one after another, cut into virtual strips of `VIRTUAL_ROWS` rows.

    One huge strip would otherwise be held whole, and one-row strips would cost a read each. Left alone when the strips
    are already of a good height, compressed, or not contiguous.
    """
    if (
        layout.tiled
        or layout.compression != 1
        or layout.segment.width * layout.segment_samples * layout.bits % 8
    ):
        return layout
    if (
        VIRTUAL_ROWS // 2 <= layout.segment.height <= VIRTUAL_ROWS * 4
        or layout.size.height <= VIRTUAL_ROWS // 2
    ):
        return layout
    per_plane, height = layout.rows, layout.size.height
    offsets, counts = layout.offsets.reshape(-1, per_plane), layout.counts.reshape(-1, per_plane)
    full = layout.segment.height * layout.row_bytes
    if per_plane > 1 and (
        np.any(offsets <= 0) or np.any(np.diff(offsets, axis=1) != full) or np.any(counts[:, :-1] != full)
    ):
        return layout
    starts = np.arange(0, height, VIRTUAL_ROWS, dtype=np.int64)
    rows = np.minimum(VIRTUAL_ROWS, height - starts)
    stored = offsets[:, -1] - offsets[:, 0] + counts[:, -1]
    new_offsets = offsets[:, :1] + starts[None] * layout.row_bytes
    # A count of 0 would mean "missing, white"; a strip cut short stays damaged: at least one byte.
    new_counts = np.clip(stored[:, None] - starts[None] * layout.row_bytes, 1, rows[None] * layout.row_bytes)
    missing = (offsets[:, :1] <= 0) | (stored[:, None] <= 0)
    new_offsets, new_counts = np.where(missing, 0, new_offsets), np.where(missing, 0, new_counts)
    return replace(
        layout,
        segment=Size(VIRTUAL_ROWS, layout.segment.width),
        offsets=new_offsets.ravel(),
        counts=new_counts.ravel(),
    )
