"""One 8-bit plane of a slide as an image with a pyramid, written from bands: tiled TIFF, OME-TIFF, OME-Zarr 0.5."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def write_plane_tiff(
    path: str | os.PathLike[str],
    size: Size,
    band: Band,
    mpp: float | None = None,
    *,
    how: Reduce,
    name: str,
    ome: bool = False,
    pyramid: bool = True,
) -> None:
    """Writes a plane as a tiled TIFF (deflate), BigTIFF when it might pass 4 GB.

    Args:
        size, band: the plane. how: makes the upper levels, see `pyramid.halved`. name: for the description.
        ome: write OME-XML and keep the levels in SubIFDs, as OME-TIFF does; else each level is a page.

    Memory bound: `plane_bytes(size)` and the compressed tiles of the upper levels.

    Raises:
        OutputError: the file cannot be written.
    """
    import imagecodecs
    import tifffile

    path = Path(path)
    sizes = level_sizes(size, SMALLEST_LEVEL) if pyramid else [size]
    cascade = Cascade(sizes, TILE, how)
    upper: list[list[bytes]] = [[] for _ in sizes]
    blank: dict[int, bytes] = {}

    def encoded(rows: np.ndarray) -> Iterator[bytes]:
        for x in range(0, rows.shape[1], TILE):
            piece = rows[:, x : x + TILE]
            if 0 in blank and not piece.any():
                yield blank[0]
                continue
            tile: Any = np.zeros((TILE, TILE), np.uint8)
            tile[: piece.shape[0], : piece.shape[1]] = piece
            value = int(tile[0, 0])
            # Most tiles of a mask are all one value: encoded once each.
            if (tile == value).all():
                if value not in blank:
                    blank[value] = bytes(imagecodecs.deflate_encode(tile, level=4))
                yield blank[value]
            else:
                yield bytes(imagecodecs.deflate_encode(tile, level=4))

    def full() -> Iterator[bytes]:
        for y in range(0, size.height, TILE):
            for level, _, rows in cascade.push(band(y, min(y + TILE, size.height))):
                if level:
                    upper[level] += encoded(rows)
                else:
                    bottom = list(encoded(rows))
            yield from bottom

    def tags(level: int) -> dict[str, Any]:
        return {
            "shape": (sizes[level].height, sizes[level].width),
            "dtype": np.uint8,
            "tile": (TILE, TILE),
            "compression": "adobe_deflate",
            "photometric": "minisblack",
            "resolution": (1e4 / (mpp * 2**level),) * 2 if mpp else (1, 1),
            "resolutionunit": "CENTIMETER" if mpp else "NONE",
            "software": "wsiseg",
            "subfiletype": 1 if level else 0,
        }

    metadata: dict[str, Any] | None = None
    if ome:
        metadata = {"axes": "YX", "Name": name}
        if mpp:
            unit = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
            metadata |= {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp} | unit
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    refuse_special(path)
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give the name of a file")
        try:
            with tifffile.TiffWriter(partial, bigtiff=size.pixels > _CLASSIC_LIMIT, ome=ome) as tiff:
                extra: dict[str, Any] = {"subifds": len(sizes) - 1} if ome and len(sizes) > 1 else {}
                description = None if ome else f"wsiseg mask: {name}"
                tiff.write(full(), **tags(0), metadata=metadata, description=description, **extra)
                for level in range(1, len(sizes)):
                    tiff.write(iter(upper[level]), **tags(level), metadata=None)
                    upper[level].clear()
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_plane_zarr(
    path: str | os.PathLike[str], size: Size, band: Band, mpp: float | None = None, *, how: Reduce, name: str
) -> None:
    """Writes a plane as an OME-Zarr 0.5 image: axes y, x; chunks of 512; zstd; empty chunks are left out.

    A folder that is a Zarr is replaced; one with something else in it is refused.

    Memory bound: `plane_bytes(size)`.

    Raises:
        OutputError: the folder cannot be written.
    """
    import zarr
    from zarr.codecs import ZstdCodec

    path = Path(path)
    sizes = level_sizes(size, SMALLEST_LEVEL)
    cascade = Cascade(sizes, TILE, how)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with output_errors(path):
        if path.exists() and not is_zarr(path) and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"{path}: exists and is not a Zarr folder; give another name or remove it")
        try:
            group = zarr.create_group(partial, zarr_format=3)
            group.attrs["ome"] = _multiscales(name, len(sizes), mpp)
            levels = [
                group.create_array(
                    str(k),
                    shape=(s.height, s.width),
                    chunks=(TILE, TILE),
                    dtype="uint8",
                    fill_value=0,
                    compressors=ZstdCodec(level=5),
                    dimension_names=["y", "x"],
                )
                for k, s in enumerate(sizes)
            ]
            for y in range(0, size.height, TILE):
                for level, first, rows in cascade.push(band(y, min(y + TILE, size.height))):
                    for x in range(0, rows.shape[1], TILE):
                        piece = rows[:, x : x + TILE]
                        # Chunks that do not exist read as zeros.
                        if piece.any():
                            levels[level][first : first + len(rows), x : x + piece.shape[1]] = piece
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def is_zarr(path: Path) -> bool:
    """Whether a folder is the root of a Zarr hierarchy."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _multiscales(name: str, levels: int, mpp: float | None) -> dict[str, Any]:
    """The attributes of an OME-NGFF 0.5 image: https://ngff.openmicroscopy.org/0.5/."""
    unit = {"unit": "micrometer"} if mpp else {}
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [(mpp or 1.0) * 2**k] * 2},
                # A coarse pixel's middle lies (2^k - 1) / 2 fine pixels from the first one's.
                {"type": "translation", "translation": [(mpp or 1.0) * (2**k - 1) / 2] * 2},
            ],
        }
        for k in range(levels)
    ]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}
