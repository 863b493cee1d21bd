"""Small slides made in the tests, a plain reference of shrinking, and reading a whole slide through the ring."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wsiseg.slide import DecodePool, NetworkReader, Slide, open_slide


def picture(height: int, width: int, seed: int = 0, noise: int = 40) -> np.ndarray:
    """uint8 [height, width, 3]: smooth colours with noise, so that every pixel matters and JPEG has something to do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [127 + 90 * np.sin(y / (17 + 5 * c) + c) * np.cos(x / (23 + 3 * c)) for c in range(3)]
    smooth = np.stack(waves, -1) + rng.integers(-noise, noise + 1, (height, width, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def plain_shrink(array: np.ndarray, scale: int) -> np.ndarray:
    """Mean of every scale x scale block, rounded half up, fewer pixels at the edges: no kernels, no bands."""
    height, width = array.shape[:2]
    sums = np.add.reduceat(array.astype(np.int64), np.arange(0, height, scale), axis=0)
    sums = np.add.reduceat(sums, np.arange(0, width, scale), axis=1)
    down = np.minimum(scale, height - np.arange(0, height, scale))
    across = np.minimum(scale, width - np.arange(0, width, scale))
    counts = (down[:, None] * across[None])[..., None]
    return ((sums + counts // 2) // counts).astype(np.uint8)


def drain(reader: NetworkReader, height: int, window: int) -> np.ndarray:
    """All network rows of a reader, taken `window` at a time."""
    out = np.zeros((height, reader.ring.shape[1], 3), np.uint8)
    for y0 in range(0, height, window):
        y1 = min(height, y0 + window)
        reader.wait(y1)
        for y in range(y0, y1):
            out[y] = reader.ring[y % len(reader.ring)]
        reader.release(y1)
    return out


def read_slide(slide: Slide, scale: int, pool: DecodePool, **options: Any) -> np.ndarray:
    """The whole network grid (or its `columns`) of an open slide, through a ring as small as can be."""
    plan = slide.plan(scale, options.pop("level", "auto"))
    window = options.pop("window", 8)
    rows = options.pop("rows", plan.ring_rows(window))
    with NetworkReader(slide, plan, rows=rows, pool=pool, **options) as reader:
        return drain(reader, plan.network.height, window)


def read_path(path: str | os.PathLike[str], scale: int, pool: DecodePool, **options: Any) -> np.ndarray:
    with open_slide(path) as slide:
        return read_slide(slide, scale, pool, **options)


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles 64x48": {"tile": (64, 48)},
    "tiles 16x16": {"tile": (16, 16)},
    "strips of 1": {"rowsperstrip": 1},
    "strips of 13": {"rowsperstrip": 13},
    "one strip": {"rowsperstrip": 1 << 20},
}
LOSSLESS: dict[str, dict[str, Any]] = {
    "none": {},
    "LZW": {"compression": "lzw"},
    "LZW + predictor": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "deflate + predictor": {"compression": "zlib", "predictor": True},
    "zstd": {"compression": "zstd"},
    "LZMA": {"compression": "lzma"},
    "PackBits": {"compression": "packbits"},
    "WebP": {"compression": "webp", "compressionargs": {"lossless": True, "level": 0}},
    "JPEG 2000": {"compression": "jpeg2000"},
    "JPEG XL": {"compression": "jpegxl", "compressionargs": {"lossless": True}},
}


def write_tiff(path: Path, array: np.ndarray, planar: bool = False, **options: Any) -> Path:
    """Write RGB [h, w, 3], planar if asked."""
    data = np.ascontiguousarray(np.moveaxis(array, -1, 0)) if planar else array
    options.setdefault("photometric", "rgb")
    config = "separate" if planar else "contig"
    tifffile.imwrite(path, data, planarconfig=config, metadata=None, **options)
    return path


def patch_tag(
    path: Path, code: int, *, value: bytes | None = None, count: int | None = None, page: int = 0
) -> None:
    """Overwrite a tag's stored value (where it lies), or its count, in place."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[page].tags[code]  # type: ignore[union-attr]
        order, big = tiff.byteorder, tiff.is_bigtiff
        offset, at = tag.offset, tag.valueoffset
    with open(path, "r+b") as file:
        if value is not None:
            file.seek(at)
            file.write(value)
        if count is not None:
            file.seek(offset + 4)
            name = "little" if order == "<" else "big"
            file.write(count.to_bytes(8 if big else 4, name))  # type: ignore[arg-type]


def segments(path: Path, page: int = 0) -> list[tuple[int, int]]:
    """(offset, byte count) of a page's segments."""
    with tifffile.TiffFile(path) as tiff:
        found = tiff.pages[page]
        return list(zip(found.dataoffsets, found.databytecounts, strict=True))


def patch_bytes(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
