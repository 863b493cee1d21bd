"""Writes a synthetic slide band by band, in any layout, with its ground truth beside it.

Segments are painted and encoded by a pool of threads and written in order, so a file's bytes do not depend on the
number of threads. A pyramid's upper levels are means of the level below, kept meanwhile in a temporary file
(1/16 of the slide).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tifffile

from wsiseg.errors import OutputError
from wsiseg.geometry import Rect, Size, ceil_div
from wsiseg.outputs.files import output_errors, refuse_special
from wsiseg.outputs.submission import write_submission
from wsiseg.synth.layouts import DEFAULT_LAYOUT, TILE, Layout, encode, jpeg_tables, layout_named
from wsiseg.synth.scene import Scene
from wsiseg_kernels import cpu

_STRIP_ROWS = 64  # rows painted at once for strips
_TILES_AT_ONCE = 16  # tiles per task, so that handing tasks over costs little beside them
_SMALLEST_LEVEL = 1024  # a pyramid ends with the first level whose longer side is not larger
_CLASSIC_LIMIT = 3_900_000_000  # bytes beyond which 32-bit offsets might not do

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int], None]


@dataclass(frozen=True)
class WriteReport:
    """What was written: files, number of glomeruli and mask pixels, bytes, seconds."""

    path: Path
    truth: Path
    glomeruli: int
    mask_pixels: int
    file_bytes: int
    seconds: float


def write_slide(
    path: str | os.PathLike[str],
    scene: Scene,
    layout: str = DEFAULT_LAYOUT,
    *,
    threads: int = 0,
    truth: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> WriteReport:
    """Writes `scene` to `path` and its ground truth, a CSV row, beside it.

    Args:
        layout: one of LAYOUTS. BigTIFF is used when the file might pass 4 GB.
        threads: that paint and encode; 0 for as many as this process may use.
        truth: the CSV's name; None for the slide's name with .truth.csv.
        progress: called with the number of slide pixels written since its last call.

    Memory bound: `threads` + 2 tasks, each 16 tiles or 64 rows of the slide.

    Raises:
        UsageError: an unknown layout. OutputError: the file cannot be written.
    """
    began = time.monotonic()
    chosen, path = layout_named(layout), Path(path)
    truth_path = Path(truth) if truth is not None else path.with_name(path.stem + ".truth.csv")
    threads = threads or len(os.sched_getaffinity(0))
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    refuse_special(path)
    with output_errors(path):
        try:
            with ThreadPoolExecutor(threads, thread_name_prefix="synth") as pool:
                work = _Work(scene, chosen, pool, threads + 2, progress or (lambda _: None))
                (_write_zarr if chosen.zarr else _write_tiff)(partial, work)
            if path.is_dir():
                if not chosen.zarr or not (path / "zarr.json").exists():
                    raise OutputError(f"{path}: is a folder with something else in it")
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
    runs = scene.truth()
    write_submission(truth_path, [(path.stem, runs.to_rle())])
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return WriteReport(
        path,
        truth_path,
        len(scene.glomeruli),
        runs.area,
        sum(p.stat().st_size for p in files),
        time.monotonic() - began,
    )


class _Work:
    """What the writers share: the scene, the pool, and the encoded background segments."""

    def __init__(
        self, scene: Scene, layout: Layout, pool: ThreadPoolExecutor, ahead: int, progress: Progress
    ) -> None:
        self.scene, self.layout, self.pool, self.ahead, self.progress = scene, layout, pool, ahead, progress
        # Background repeats every paint.NOISE pixels, so few different background tiles exist: encoded once each.
        self._blank: dict[tuple[int, ...], tuple[bytes, np.ndarray | None]] = {}

    def in_order(self, task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """task(item) for each item, computed by the pool at most `ahead` items early."""
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(self.pool.submit(task, item))
                if len(pending) >= self.ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def tile(self, rect: Rect, plane: int | None) -> tuple[bytes, np.ndarray | None]:
        """A tile's bytes (one colour's if `plane` is given), and its means if the layout is a pyramid."""
        clipped = rect.intersect(Rect(0, 0, self.scene.size.height, self.scene.size.width)).size
        key = (rect.y0 % TILE, rect.x0 % TILE, clipped.height, clipped.width, -1 if plane is None else plane)
        blank = self.scene.is_background(rect)
        if blank and key in self._blank:
            return self._blank[key]
        pixels = self.scene.render(rect)
        made = (
            encode(self.layout, pixels if plane is None else pixels[:, :, plane]),
            shrunk(pixels[: clipped.height, : clipped.width], self.layout.factor)
            if self.layout.factor
            else None,
        )
        if blank:
            self._blank[key] = made
        return made


def shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Exact rounded means of factor x factor blocks, ragged at the right and bottom: uint8 [ceil(h/f), ceil(w/f), 3]."""
    out = np.empty((ceil_div(pixels.shape[0], factor), ceil_div(pixels.shape[1], factor), 3), np.uint8)
    cpu.shrink(np.ascontiguousarray(pixels), factor, out)
    return out


def _write_tiff(path: Path, work: _Work) -> None:
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


def _tags(work: _Work, size: Size, level: int) -> dict[str, Any]:
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


def _tiles(work: _Work, below: _Level | None = None) -> Iterator[bytes]:
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


def _strips(work: _Work) -> Iterator[bytes]:
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


def _fill_strip(path: Path, offset: int, work: _Work) -> None:
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


def _level_tiles(work: _Work, level: _Level, above: _Level) -> Iterator[bytes]:
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


def _write_zarr(path: Path, work: _Work) -> None:
    """An OME-Zarr 0.5 image with one level: axes c, y, x; chunks of 512."""
    import zarr
    from zarr.codecs import ZstdCodec

    size, scene, chunk = work.scene.size, work.scene, 2 * TILE
    group = zarr.create_group(path, zarr_format=3)
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": "wsiseg synth",
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, scene.mpp, scene.mpp]}
                        ],
                    }
                ],
            }
        ],
    }
    array = group.create_array(
        "0",
        shape=(3, size.height, size.width),
        chunks=(3, chunk, chunk),
        dtype="uint8",
        compressors=ZstdCodec(level=1),
        dimension_names=["c", "y", "x"],
    )

    def block(at: tuple[int, int]) -> int:
        y, x = at
        y1, x1 = min(y + chunk, size.height), min(x + chunk, size.width)
        array[:, y:y1, x:x1] = scene.render(Rect(y, x, y1, x1)).transpose(2, 0, 1)
        return (y1 - y) * (x1 - x)

    corners = ((y, x) for y in range(0, size.height, chunk) for x in range(0, size.width, chunk))
    for done in work.in_order(block, corners):
        work.progress(done)
