"""8-bit planes of a slide as an image with a pyramid, written from bands: tiled TIFF, OME-TIFF, OME-Zarr 0.5."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from wsiseg.errors import OutputError
from wsiseg.geometry import Size
from wsiseg.outputs.files import output_errors, refuse_special
from wsiseg.outputs.pyramid import Cascade, Reduce, level_sizes

TILE = 512
SMALLEST_LEVEL = 1024
_CLASSIC_LIMIT = 3_900_000_000  # bytes beyond which 32-bit offsets might not do

Band = Callable[[int, int], np.ndarray]
"""(y0, y1) -> uint8 [y1 - y0, width] of a plane at full size; asked from top to bottom."""


def plane_bytes(size: Size) -> int:
    """The buffers of writing one full-size plane with its pyramid."""
    return 3 * TILE * size.width


@dataclass(frozen=True)
class Planes:
    """What an image shows: planes of one size, and what is written beside them.

    Args:
        bands: of each plane. channels: their names; none for a single plane without a channel axis.
        name: of the image. note: about it. mpp: microns per pixel of the planes, where known.
        scale: slide pixels per pixel of the planes; they lie over the slide's pixels accordingly.
        how: makes the upper levels, see `pyramid.halved`.
    """

    size: Size
    bands: Sequence[Band]
    how: Reduce
    name: str
    channels: Sequence[str] = ()
    note: str = ""
    mpp: float | None = None
    scale: int = 1

    @property
    def leading(self) -> tuple[int, ...]:
        """The channel axis of the shape, if there is one."""
        return (len(self.bands),) if self.channels else ()


class _Kept:
    """Compressed tiles of the upper levels, on the disk until the full size is written."""

    def __init__(self, file: IO[bytes], levels: int) -> None:
        self._file, self._end = file, 0
        self._sizes: list[list[tuple[int, int]]] = [[] for _ in range(levels)]

    def add(self, level: int, tiles: Iterable[bytes]) -> None:
        for tile in tiles:
            self._file.write(tile)
            self._sizes[level].append((self._end, len(tile)))
            self._end += len(tile)

    def tiles(self, level: int) -> Iterator[bytes]:
        for at, length in self._sizes[level]:
            self._file.seek(at)
            yield self._file.read(length)


def write_plane_tiff(
    path: str | os.PathLike[str], planes: Planes, *, ome: bool = False, pyramid: bool = True
) -> None:
    """Writes planes as a tiled TIFF (deflate), BigTIFF when it might pass 4 GB; several planes are pages.

    Args:
        ome: write OME-XML and keep the levels in SubIFDs, as OME-TIFF does; else each level is a page.

    Memory bound: `plane_bytes(size)`; compressed tiles of the upper levels wait in a temporary file.

    Raises:
        OutputError: the file cannot be written.
    """
    import tifffile

    path, size, mpp = Path(path), planes.size, planes.mpp
    sizes = level_sizes(size, SMALLEST_LEVEL) if pyramid else [size]
    encode = _Deflate()

    def full(kept: _Kept) -> Iterator[bytes]:
        for band in planes.bands:
            cascade = Cascade(sizes, TILE, planes.how)
            for y in range(0, size.height, TILE):
                for level, _, rows in cascade.push(band(y, min(y + TILE, size.height))):
                    if level:
                        kept.add(level, encode(rows))
                    else:
                        bottom = list(encode(rows))
                yield from bottom

    def tags(level: int) -> dict[str, Any]:
        return {
            "shape": (*planes.leading, sizes[level].height, sizes[level].width),
            "dtype": np.uint8,
            "tile": (TILE, TILE),
            "compression": "adobe_deflate",
            "photometric": "minisblack",
            "resolution": (1e4 / (mpp * 2**level),) * 2 if mpp else (1, 1),
            "resolutionunit": "CENTIMETER" if mpp else "NONE",
            "software": "wsiseg",
            "subfiletype": 1 if level else 0,
        }

    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    refuse_special(path)
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give the name of a file")
        try:
            big = size.pixels * len(planes.bands) > _CLASSIC_LIMIT
            with (
                tempfile.TemporaryFile(dir=path.parent) as file,
                tifffile.TiffWriter(partial, bigtiff=big, ome=ome) as tiff,
            ):
                kept = _Kept(file, len(sizes))
                extra: dict[str, Any] = {"subifds": len(sizes) - 1} if ome and len(sizes) > 1 else {}
                metadata = _ome_metadata(planes) if ome else None
                description = None if ome else f"wsiseg mask: {planes.name}"
                tiff.write(full(kept), **tags(0), metadata=metadata, description=description, **extra)
                for level in range(1, len(sizes)):
                    tiff.write(kept.tiles(level), **tags(level), metadata=None)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


class _Deflate:
    """Rows of a plane as compressed tiles, from left to right; tiles of one value are compressed once each."""

    def __init__(self) -> None:
        self._plain: dict[int, bytes] = {}

    def __call__(self, rows: np.ndarray) -> Iterator[bytes]:
        import imagecodecs

        for x in range(0, rows.shape[1], TILE):
            piece = rows[:, x : x + TILE]
            if 0 in self._plain and not piece.any():
                yield self._plain[0]
                continue
            tile: Any = np.zeros((TILE, TILE), np.uint8)
            tile[: piece.shape[0], : piece.shape[1]] = piece
            value = int(tile[0, 0])
            if (tile == value).all():
                if value not in self._plain:
                    self._plain[value] = bytes(imagecodecs.deflate_encode(tile, level=4))
                yield self._plain[value]
            else:
                yield bytes(imagecodecs.deflate_encode(tile, level=4))


def _ome_metadata(planes: Planes) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "CYX" if planes.channels else "YX", "Name": planes.name}
    if planes.channels:
        metadata["Channel"] = {"Name": list(planes.channels)}
    if planes.note:
        metadata["Description"] = planes.note
    if planes.mpp:
        unit = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        metadata |= {"PhysicalSizeX": planes.mpp, "PhysicalSizeY": planes.mpp} | unit
    return metadata


def write_plane_zarr(path: str | os.PathLike[str], planes: Planes) -> None:
    """Writes planes as an OME-Zarr 0.5 image: axes (c,) y, x; chunks of 512; zstd; empty chunks are left out.

    A folder that is a Zarr is replaced; one with something else in it is refused.

    Memory bound: `plane_bytes(size)`.

    Raises:
        OutputError: the folder cannot be written.
    """
    import zarr
    from zarr.codecs import ZstdCodec

    path, size, leading = Path(path), planes.size, planes.leading
    sizes = level_sizes(size, SMALLEST_LEVEL)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with output_errors(path):
        if path.exists() and not is_zarr(path) and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"{path}: exists and is not a Zarr folder; give another name or remove it")
        try:
            group = zarr.create_group(partial, zarr_format=3)
            for key, value in _multiscales(planes, len(sizes)).items():
                group.attrs[key] = value
            levels = [
                group.create_array(
                    str(k),
                    shape=(*leading, s.height, s.width),
                    chunks=(*(1 for _ in leading), TILE, TILE),
                    dtype="uint8",
                    fill_value=0,
                    compressors=ZstdCodec(level=5),
                    dimension_names=[*("c" for _ in leading), "y", "x"],
                )
                for k, s in enumerate(sizes)
            ]
            for channel, band in enumerate(planes.bands):
                cascade = Cascade(sizes, TILE, planes.how)
                at = (channel,) if leading else ()
                for y in range(0, size.height, TILE):
                    pushed = cascade.push(band(y, min(y + TILE, size.height)))
                    for (level, first, rows), x in _across(pushed):
                        piece = rows[:, x : x + TILE]
                        # Chunks that do not exist read as zeros.
                        if piece.any():
                            place = (*at, slice(first, first + len(rows)), slice(x, x + piece.shape[1]))
                            levels[level][place] = piece
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _across(
    pushed: Iterable[tuple[int, int, np.ndarray]],
) -> Iterator[tuple[tuple[int, int, np.ndarray], int]]:
    """Every row of tiles with the first column of each of its tiles."""
    return itertools.chain.from_iterable(
        ((one, x) for x in range(0, one[2].shape[1], TILE)) for one in pushed
    )


def is_zarr(path: Path) -> bool:
    """Whether a folder is the root of a Zarr hierarchy."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _multiscales(planes: Planes, levels: int) -> dict[str, Any]:
    """The attributes of an OME-NGFF 0.5 image: https://ngff.openmicroscopy.org/0.5/."""
    unit = {"unit": "micrometer"} if planes.mpp else {}
    channel = [{"name": "c", "type": "channel"}] if planes.channels else []
    axes = [*channel, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    pixel = planes.mpp or float(planes.scale)
    datasets = []
    for k in range(levels):
        # A coarse pixel's middle lies half of what it is wider to the right of and below the slide's first pixel's.
        shift = (pixel * 2**k - pixel / planes.scale) / 2
        steps = {"scale": pixel * 2**k, "translation": shift}
        plain = {"scale": 1.0, "translation": 0.0}
        datasets.append(
            {
                "path": str(k),
                "coordinateTransformations": [
                    {"type": kind, kind: [*(plain[kind] for _ in channel), value, value]}
                    for kind, value in steps.items()
                ],
            }
        )
    image: dict[str, Any] = {"name": planes.name, "axes": axes, "datasets": datasets}
    if planes.note:
        image["metadata"] = {"description": planes.note}
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [image]}
    if planes.channels:
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        ome["omero"] = {
            "channels": [
                {"label": name, "color": "FFFFFF", "active": True, "window": window}
                for name in planes.channels
            ]
        }
    return {"ome": ome}
