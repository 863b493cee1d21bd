"""The layouts in which a synthetic slide can be written, and how one segment of each is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np

from wsiseg.errors import UsageError, unknown_name

TILE = 256
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Layout:
    """How a slide lies in its file.

    `rows` is the height of a strip (0: tiles of TILE, -1: one strip for the whole slide). `planes`: "contiguous" RGB,
    "planar" (one page, planar configuration 2) or "pages" (three gray pages, shape 1 x 1 x 3 x H x W). `factor` is the
    down-sampling from one pyramid level to the next, 0 for a single level.
    """

    name: str
    what: str
    codec: Literal["raw", "jpeg", "lzw", "deflate", "zstd", "jp2k"] = "raw"
    rows: int = 0
    planes: Literal["contiguous", "planar", "pages"] = "contiguous"
    factor: int = 0
    tables: bool = False
    byteorder: Literal["<", ">"] = "<"
    bigtiff: bool = False
    zarr: bool = False

    @property
    def lossless(self) -> bool:
        return self.codec != "jpeg"


_ALL = (
    Layout("tiled-jpeg", "tiles, JPEG 4:2:0 with shared tables, as scanners write", "jpeg", tables=True),
    Layout("tiled-raw", "tiles, uncompressed"),
    Layout("tiled-lzw", "tiles, LZW with predictor", "lzw"),
    Layout("tiled-deflate", "tiles, deflate", "deflate"),
    Layout("tiled-zstd", "tiles, zstd", "zstd"),
    Layout("tiled-jp2k", "tiles, lossless JPEG 2000", "jp2k"),
    Layout("strip-raw", "strips of 64 rows, uncompressed", rows=64),
    Layout("strip-lzw", "strips of 16 rows, LZW with predictor", "lzw", rows=16),
    Layout("strip-one-row", "strips of one row, deflate", "deflate", rows=1),
    Layout("strip-huge", "one uncompressed strip for the whole slide", rows=-1),
    Layout("planar-lzw", "tiles of one colour each (planar configuration 2), LZW", "lzw", planes="planar"),
    Layout("planar-5d", "three gray pages, 1 x 1 x 3 x H x W, strips, uncompressed", rows=64, planes="pages"),
    Layout("pyramid-jpeg", "levels of 1, 1/4, 1/16 ..., JPEG without shared tables", "jpeg", factor=4),
    Layout("pyramid-deflate", "levels of 1, 1/4, 1/16 ..., deflate", "deflate", factor=4),
    Layout("big-endian", "tiles, deflate, Motorola byte order", "deflate", byteorder=">"),
    Layout("bigtiff", "tiles, deflate, 64-bit offsets whatever the size", "deflate", bigtiff=True),
    Layout("zarr", "OME-Zarr 0.5, one level, chunks of 512, zstd", "zstd", zarr=True),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
DEFAULT_LAYOUT = "tiled-jpeg"


def layout_named(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UsageError: listing the known names.
    """
    if name not in LAYOUTS:
        raise UsageError(unknown_name("layout", name, LAYOUTS))
    return LAYOUTS[name]


def encode(layout: Layout, pixels: np.ndarray) -> bytes:
    """One segment's bytes: `pixels` uint8 [h, w, 3], or [h, w] for a single colour plane."""
    if layout.codec == "raw":
        return np.ascontiguousarray(pixels).tobytes()
    data: Any = np.ascontiguousarray(pixels)
    if layout.codec == "jpeg":
        stream = bytes(
            imagecodecs.jpeg8_encode(
                data, level=JPEG_QUALITY, colorspace="RGB", outcolorspace="YCbCr", subsampling="420"
            )
        )
        return split_tables(stream)[1] if layout.tables else stream
    if layout.codec == "lzw":
        # The horizontal predictor: differences between a sample and the same sample of the pixel to its left.
        return bytes(imagecodecs.lzw_encode(imagecodecs.delta_encode(data, axis=1)))
    if layout.codec == "deflate":
        return bytes(imagecodecs.deflate_encode(data, level=1))
    if layout.codec == "zstd":
        return bytes(imagecodecs.zstd_encode(data, level=1))
    return bytes(imagecodecs.jpeg2k_encode(data, level=0, codecformat="J2K", reversible=True, numthreads=1))


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """(tables-only stream, stream without tables) of a JPEG whose tables do not depend on the picture."""
    tables, rest, at = [], [stream[:2]], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        marker = stream[at + 1]
        if marker in (0xDB, 0xC4):
            tables.append(stream[at:end])
        elif marker != 0xE0:  # JFIF's own header says nothing that TIFF does not
            rest.append(stream[at:end])
        at = end
    return stream[:2] + b"".join(tables) + b"\xff\xd9", b"".join(rest) + stream[at:]


def jpeg_tables() -> bytes:
    """The tables that every JPEG segment of JPEG_QUALITY shares, for the tag JPEGTables."""
    flat: Any = np.zeros((16, 16, 3), np.uint8)
    stream = imagecodecs.jpeg8_encode(
        flat, level=JPEG_QUALITY, colorspace="RGB", outcolorspace="YCbCr", subsampling="420"
    )
    return split_tables(bytes(stream))[0]
