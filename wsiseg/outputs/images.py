"""Reads a mask image (TIFF, Zarr, PNG) into runs, segment by segment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.runs import Runs
from wsiseg_kernels import cpu

_BLOCK = 1024

Piece = tuple[int, int, np.ndarray]
"""(y0, x0, pixels [h, w]) of a part of the image."""


def read_mask(path: str | os.PathLike[str], value: int | None = None) -> Runs:
    """The pixels of a mask image that are not zero, or that equal `value`.

    Takes one-channel TIFF (tiles or strips, any depth), OME-Zarr or a Zarr array (its first level), and PNG.

    Memory bound: the runs and one segment (a PNG: the whole picture).

    Raises:
        UsageError: no such file, not an image, or more than one channel.
    """
    name, suffix = os.fspath(path), Path(path).suffix.lower()
    if not os.path.exists(path):
        raise UsageError(f"{name}: no such file")
    try:
        if os.path.isdir(path):
            size, pieces = _zarr_pieces(name)
        elif suffix in (".tif", ".tiff", ".btf"):
            size, pieces = _tiff_pieces(name)
        else:
            size, pieces = _picture_pieces(name)
        return _collect(size, pieces, value)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # readers of foreign files raise anything
        raise UsageError(f"{name}: cannot be read as a mask: {error}") from error


def _collect(size: Size, pieces: Iterator[Piece], value: int | None) -> Runs:
    """The runs of an image that comes in pieces, in any order."""
    starts, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for y0, x0, pixels in pieces:
        # Pieces may reach beyond the image: tiles are always whole.
        pixels = pixels[: size.height - y0, : size.width - x0]
        inside = (pixels != 0) if value is None else (pixels == value)
        if not inside.any():
            continue
        local = Runs(*cpu.mask_to_runs(np.ascontiguousarray(inside).view(np.uint8)), Size(*inside.shape))
        s, n = local.split()
        h = inside.shape[0]
        starts.append((x0 + s // h) * size.height + y0 + s % h)
        lengths.append(n)
    return Runs.merged(np.concatenate(starts), np.concatenate(lengths), size)


def _single(shape: tuple[int, ...], name: str) -> Size:
    """The size of an array whose other axes have length 1."""
    if sum(n > 1 for n in shape[:-2]) or len(shape) < 2:
        raise UsageError(f"{name}: a mask has one channel; this image has the shape {shape}")
    return Size(shape[-2], shape[-1])


def _tiff_pieces(name: str) -> tuple[Size, Iterator[Piece]]:
    import tifffile

    with tifffile.TiffFile(name) as tiff:
        page: Any = tiff.pages[0]
        size = _single(page.shape, name)
        whole_bytes = page.dtype is not None and page.bitspersample == 8 * page.dtype.itemsize
        memmapped = page.is_memmappable and not page.is_tiled and whole_bytes

    def pieces() -> Iterator[Piece]:
        with tifffile.TiffFile(name) as tiff:
            page: Any = tiff.pages[0]
            if memmapped:
                # Uncompressed strips may be one strip as large as the slide.
                whole = np.memmap(
                    name, page.dtype.newbyteorder(tiff.byteorder), "r", page.dataoffsets[0], page.shape
                )
                for y in range(0, size.height, _BLOCK):
                    yield y, 0, np.asarray(whole[y : y + _BLOCK])
                return
            for data, index, shape in page.segments():
                if data is not None:
                    yield index[-3], index[-2], np.asarray(data).reshape(shape[-3], shape[-2])

    return size, pieces()


def _zarr_pieces(name: str) -> tuple[Size, Iterator[Piece]]:
    import zarr

    node: Any = zarr.open(name, mode="r")
    while not hasattr(node, "shape"):
        multiscales = (node.attrs.get("ome") or node.attrs).get("multiscales")
        key = multiscales[0]["datasets"][0]["path"] if multiscales else next(iter(sorted(node.keys())), None)
        if key is None:
            raise UsageError(f"{name}: no array in this Zarr folder")
        node = node[key]
    size = _single(node.shape, name)
    step_y, step_x = node.chunks[-2:]

    def pieces() -> Iterator[Piece]:
        for y in range(0, size.height, step_y):
            for x in range(0, size.width, step_x):
                yield (
                    y,
                    x,
                    np.asarray(node[..., y : y + step_y, x : x + step_x]).reshape(
                        -1, min(step_x, size.width - x)
                    ),
                )

    return size, pieces()


def _picture_pieces(name: str) -> tuple[Size, Iterator[Piece]]:
    import cv2

    data = np.fromfile(name, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is None:
        raise UsageError(f"{name}: not an image that can be read")
    size = _single(picture.shape, name)
    return size, iter([(0, 0, picture)])
