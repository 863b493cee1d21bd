"""Masks as images: tiled pyramidal TIFF and OME-TIFF, OME-Zarr 0.5, PNG; drawn from runs band by band.

One class is drawn with 255, several with their numbers from 1 (a later class over an earlier one). Microns per pixel,
where known, go into every format that can hold them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.errors import OutputError, UsageError
from wsiseg.geometry import Rect, Size, ceil_div
from wsiseg.outputs.files import output_errors, refuse_special, write_atomically
from wsiseg.outputs.pyramid import Cascade, Reduce, halved, level_sizes
from wsiseg.runs import Runs

TILE = 512
SMALLEST_LEVEL = 1024
PNG_LIMIT = 400_000_000
"""Pixels beyond which a PNG, which must be held whole, is refused."""
_CLASSIC_LIMIT = 3_900_000_000

Band = Callable[[int, int], np.ndarray]
"""(y0, y1) -> uint8 [y1 - y0, width] of a plane at full size; asked from top to bottom."""


def mask_bands(classes: Sequence[Runs]) -> Band:
    """The bands of the image of one or several masks of the same slide.

    Memory bound: two bands.
    """
    size = classes[0].size

    def band(y0: int, y1: int) -> np.ndarray:
        rect = Rect(y0, 0, y1, size.width)
        out = classes[0].mask(rect)
        if len(classes) == 1:
            out *= 255
            return out
        for number, runs in enumerate(classes[1:], 2):
            np.copyto(out, np.uint8(number), where=runs.mask(rect) > 0)
        return out

    return band


def _checked(classes: Sequence[Runs]) -> Size:
    if not classes:
        raise ValueError("no mask given")
    if len(classes) > 255:
        raise UsageError(f"{len(classes)} classes do not fit an 8-bit mask; 255 do")
    return classes[0].size


def write_mask_tiff(
    path: str | os.PathLike[str],
    classes: Sequence[Runs],
    mpp: float | None = None,
    *,
    names: Sequence[str] = (),
    ome: bool = False,
    pyramid: bool = True,
) -> None:
    """Writes masks as an 8-bit tiled TIFF (deflate), pyramidal, BigTIFF when it might pass 4 GB.

    Args:
        names: of the classes, for the description.
        ome: write OME-XML and keep the levels in SubIFDs, as OME-TIFF does; else each level is a page.

    Memory bound: `plane_bytes(size)` and the compressed tiles of the upper levels.

    Raises:
        OutputError: the file cannot be written.
    """
    size = _checked(classes)
    write_plane_tiff(
        path, size, mask_bands(classes), mpp, how="half" if len(classes) == 1 else "nearest",
        name=_legend(names, len(classes)), ome=ome, pyramid=pyramid,
    )  # fmt: skip


def _legend(names: Sequence[str], count: int) -> str:
    names = names or ("mask",)
    return f"{names[0]} 255" if count == 1 else ", ".join(f"{name} {k}" for k, name in enumerate(names, 1))


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
    """Writes one 8-bit plane given in bands as a tiled TIFF; see `write_mask_tiff`."""
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


def write_mask_zarr(
    path: str | os.PathLike[str],
    classes: Sequence[Runs],
    mpp: float | None = None,
    *,
    names: Sequence[str] = (),
) -> None:
    """Writes masks as an OME-Zarr 0.5 image with a pyramid: axes y, x; chunks of 512; zstd; empty chunks left out.

    A folder that is an OME-Zarr is replaced; one with something else in it is refused.

    Memory bound: `plane_bytes(size)`.

    Raises:
        OutputError: the folder cannot be written.
    """
    size = _checked(classes)
    how: Reduce = "half" if len(classes) == 1 else "nearest"
    write_plane_zarr(path, size, mask_bands(classes), mpp, how=how, name=_legend(names, len(classes)))


def write_plane_zarr(
    path: str | os.PathLike[str], size: Size, band: Band, mpp: float | None = None, *, how: Reduce, name: str
) -> None:
    """Writes one 8-bit plane given in bands as OME-Zarr 0.5; see `write_mask_zarr`."""
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


def write_mask_png(path: str | os.PathLike[str], classes: Sequence[Runs], downscale: int = 1) -> None:
    """Writes masks as an 8-bit PNG; with `downscale` a pixel is set where at least half of what it covers is.

    Raises:
        UsageError: the picture would be too large. OutputError: the file cannot be written.
    """
    import cv2

    size = _checked(classes)
    out = size.over(downscale)
    if out.pixels > PNG_LIMIT:
        fits = ceil_div(int((size.pixels / PNG_LIMIT) ** 0.5 * 1000) + 1, 1000)
        raise UsageError(
            f"a PNG of {out} pixels must be held whole in memory; the limit is {PNG_LIMIT // 10**6} Mpx: "
            f"use --downscale {fits}, or write a .tif"
        )
    image = downscaled(classes, downscale)
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise OutputError(f"{os.fspath(path)}: the picture of {out} pixels cannot be encoded as PNG")
    write_atomically(path, data.tobytes())


def downscaled(classes: Sequence[Runs], factor: int) -> np.ndarray:
    """The image of masks at 1/factor: uint8 [ceil(H/f), ceil(W/f)].

    One class: 255 where at least half of the pixels are inside. Several: each block's middle pixel.
    """
    size, band = _checked(classes), mask_bands(classes)
    out = np.empty((ceil_div(size.height, factor), ceil_div(size.width, factor)), np.uint8)
    rows = max(1, TILE // factor)
    for v in range(0, out.shape[0], rows):
        part = band(v * factor, min((v + rows) * factor, size.height))
        if factor == 1:
            out[v : v + rows] = part
        elif len(classes) > 1:
            ys = np.minimum(np.arange(0, len(part), factor) + factor // 2, len(part) - 1)
            xs = np.minimum(np.arange(0, size.width, factor) + factor // 2, size.width - 1)
            out[v : v + rows] = part[ys[:, None], xs]
        elif factor == 2:
            out[v : v + rows] = halved(part, "half")
        else:
            starts_y, starts_x = np.arange(0, len(part), factor), np.arange(0, size.width, factor)
            inside = (part > 0).view(np.uint8)
            sums = np.add.reduceat(
                np.add.reduceat(inside, starts_y, axis=0, dtype=np.uint32), starts_x, axis=1
            )
            count = np.outer(
                np.diff(np.append(starts_y, len(part))), np.diff(np.append(starts_x, size.width))
            )
            out[v : v + rows] = np.where(2 * sums >= count, np.uint8(255), np.uint8(0))
    return out
