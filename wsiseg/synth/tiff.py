"""A synthetic slide as TIFF: tiles or strips, contiguous or planar, one level or a pyramid."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wsiseg.geometry import Rect, Size, ceil_div
from wsiseg.synth.layouts import TILE, encode, jpeg_tables
from wsiseg.synth.work import Work, shrunk

_STRIP_ROWS = 64  # rows painted at once for strips
_TILES_AT_ONCE = 16  # tiles per task, so that handing tasks over costs little beside them
_SMALLEST_LEVEL = 1024  # a pyramid ends with the first level whose longer side is not larger
_CLASSIC_LIMIT = 3_900_000_000  # bytes beyond which 32-bit offsets might not do


def write_tiff(path: Path, work: Work) -> None:
    layout, size = work.layout, work.scene.size
    worst = size.pixels * (1 if layout.codec == "jpeg" else 3)
    bigtiff = layout.bigtiff or worst > _CLASSIC_LIMIT
    with (
        tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=layout.byteorder) as tiff,
        tempfile.TemporaryFile(dir=path.parent) as spill,
    ):
        if layout.rows == -1:
            offset, _ = tiff.write(None, **_tags(work, size, 0), returnoffset=True)  # type: ignore[misc]
            _fill_strip(path, offset, work)
        elif layout.rows:
            tiff.write(_strips(work), **_tags(work, size, 0))
        elif not layout.factor:
            tiff.write(_tiles(work), **_tags(work, size, 0))
        else:
            below = _Level(size.over(layout.factor), spill, 0)
            tiff.write(_tiles(work, below), **_tags(work, size, 0))
            level = 1
            while True:
                # Level n+1 is written after level n in the temporary file, never over it.
                above = _Level(below.size.over(layout.factor), spill, below.end)
                tiff.write(_level_tiles(work, below, above), **_tags(work, below.size, level))
                if max(below.size.height, below.size.width) <= _SMALLEST_LEVEL:
                    break
                below, level = above, level + 1


def _tags(work: Work, size: Size, level: int) -> dict[str, Any]:
    """The arguments of TiffWriter.write for one page of this layout."""
    layout, scene = work.layout, work.scene
    per_cm = 1e4 / (scene.mpp * layout.factor**level)
    tags: dict[str, Any] = {
        "shape": (size.height, size.width, 3),
        "dtype": np.uint8,
        "photometric": "rgb",
        "resolution": (per_cm, per_cm),
        "resolutionunit": "CENTIMETER",
        "software": "wsiseg synth",
        "metadata": None,
    }
    if not level:
        tags["description"] = (
            f"wsiseg synthetic kidney seed={scene.seed} mpp={scene.mpp:g} tissue={scene.tissue:g}"
        )
    else:
        tags["subfiletype"] = 1
    if layout.rows:
        tags["rowsperstrip"] = size.height if layout.rows == -1 else layout.rows
    else:
        tags["tile"] = (TILE, TILE)
    if layout.codec == "jpeg":
        tags |= {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
        if layout.tables:
            tags["jpegtables"] = jpeg_tables()
    elif layout.codec != "raw":
        names = {"lzw": "lzw", "deflate": "adobe_deflate", "zstd": "zstd", "jp2k": "jpeg2000"}
        tags["compression"] = names[layout.codec]
        if layout.codec == "lzw":
            tags["predictor"] = 2
    if layout.planes == "planar":
        tags |= {"shape": (3, size.height, size.width), "planarconfig": "separate"}
    elif layout.planes == "pages":
        tags |= {"shape": (1, 1, 3, size.height, size.width), "photometric": "minisblack", "metadata": {}}
        del tags["description"]  # tifffile keeps the five axes' lengths there
    return tags


def _tiles(work: Work, below: _Level | None = None) -> Iterator[bytes]:
    """Every tile of the full-size level in the file's order; means go to `below`."""
    size = work.scene.size
    planes: tuple[int | None, ...] = (0, 1, 2) if work.layout.planes == "planar" else (None,)
    for plane in planes:
        for y in range(0, size.height, TILE):
            rects = [Rect(y, x, y + TILE, x + TILE) for x in range(0, size.width, TILE)]
            batches = [rects[i : i + _TILES_AT_ONCE] for i in range(0, len(rects), _TILES_AT_ONCE)]
            made, means = work.in_order(lambda batch: [work.tile(r, plane) for r in batch], batches), []  # noqa: B023
            for batch, tiles in zip(batches, made, strict=True):
                means += [mean for _, mean in tiles if mean is not None]
                # Before the tiles are handed over: nobody asks for more after the last tile.
                if below is not None and batch is batches[-1]:
                    below.append(np.concatenate(means, axis=1))
                columns = min(batch[-1].x1, size.width) - batch[0].x0
                work.progress(min(TILE, size.height - y) * columns // len(planes))
                yield from (data for data, _ in tiles)


def _strips(work: Work) -> Iterator[bytes]:
    """Every strip in the file's order."""
    size, rows = work.scene.size, work.layout.rows
    at_once = max(rows, _STRIP_ROWS // rows * rows)
    planes: tuple[int | None, ...] = (0, 1, 2) if work.layout.planes == "pages" else (None,)

    for plane in planes:

        def strips(y: int, plane: int | None = plane) -> list[bytes]:
            y1 = min(y + at_once, size.height)
            pixels = work.scene.render(Rect(y, 0, y1, size.width))
            if plane is not None:
                pixels = pixels[:, :, plane]
            return [encode(work.layout, pixels[k : k + rows]) for k in range(0, y1 - y, rows)]

        for y, made in zip(
            range(0, size.height, at_once), work.in_order(strips, range(0, size.height, at_once)), strict=True
        ):
            work.progress(min(at_once, size.height - y) * size.width // len(planes))
            yield from made


def _fill_strip(path: Path, offset: int, work: Work) -> None:
    """The pixels of a single uncompressed strip, at `offset` of the file."""
    size = work.scene.size
    file = os.open(path, os.O_WRONLY)
    try:

        def rows(y: int) -> int:
            y1 = min(y + _STRIP_ROWS, size.height)
            data = memoryview(work.scene.render(Rect(y, 0, y1, size.width)).tobytes())
            at = offset + y * size.width * 3
            while data:
                written = os.pwrite(file, data, at)
                data, at = data[written:], at + written
            return (y1 - y) * size.width

        for done in work.in_order(rows, range(0, size.height, _STRIP_ROWS)):
            work.progress(done)
    finally:
        os.close(file)


class _Level:
    """A pyramid level in the temporary file, written and read in whole rows."""

    def __init__(self, size: Size, file: Any, offset: int) -> None:
        self.size, self._file, self._offset, self._rows = size, file, offset, 0

    @property
    def end(self) -> int:
        return self._offset + self.size.pixels * 3

    def append(self, rows: np.ndarray) -> None:
        self._file.seek(self._offset + self._rows * self.size.width * 3)
        self._file.write(np.ascontiguousarray(rows))
        self._rows += rows.shape[0]

    def rows(self, y0: int, y1: int) -> np.ndarray:
        self._file.seek(self._offset + y0 * self.size.width * 3)
        count = (y1 - y0) * self.size.width * 3
        return np.frombuffer(self._file.read(count), np.uint8).reshape(y1 - y0, self.size.width, 3)


def _level_tiles(work: Work, level: _Level, above: _Level) -> Iterator[bytes]:
    """Every tile of an upper level; its means go to `above`."""
    for y in range(0, level.size.height, TILE):
        band = level.rows(y, min(y + TILE, level.size.height))
        above.append(shrunk(band, work.layout.factor))
        full = ceil_div(level.size.width, TILE) * TILE
        band = np.pad(band, ((0, TILE - band.shape[0]), (0, full - band.shape[1]), (0, 0)), mode="edge")
        yield from work.in_order(
            lambda x: encode(work.layout, band[:, x : x + TILE]),  # noqa: B023
            range(0, full, TILE),
        )
