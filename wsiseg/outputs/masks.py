"""Masks as images: tiled pyramidal TIFF and OME-TIFF, OME-Zarr 0.5, PNG; drawn from runs band by band.

One class is drawn with 255, several with their numbers from 1 (a later class over an earlier one). Microns per pixel,
where known, go into every format that can hold them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from wsiseg.errors import OutputError, UsageError
from wsiseg.geometry import Rect, Size, ceil_div
from wsiseg.outputs.files import write_atomically
from wsiseg.outputs.planes import TILE, Band, Planes, write_plane_tiff, write_plane_zarr
from wsiseg.outputs.pyramid import Reduce, halved
from wsiseg.runs import Runs

PNG_LIMIT = 400_000_000
"""Pixels beyond which a PNG, which must be held whole, is refused."""


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

    Memory bound: `planes.plane_bytes(size)`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_plane_tiff(path, _planes(classes, mpp, names), ome=ome, pyramid=pyramid)


def _planes(classes: Sequence[Runs], mpp: float | None, names: Sequence[str]) -> Planes:
    how: Reduce = "half" if len(classes) == 1 else "nearest"
    return Planes(_checked(classes), [mask_bands(classes)], how, _legend(names, len(classes)), mpp=mpp)


def _legend(names: Sequence[str], count: int) -> str:
    names = names or ("mask",)
    return f"{names[0]} 255" if count == 1 else ", ".join(f"{name} {k}" for k, name in enumerate(names, 1))


def write_mask_zarr(
    path: str | os.PathLike[str],
    classes: Sequence[Runs],
    mpp: float | None = None,
    *,
    names: Sequence[str] = (),
) -> None:
    """Writes masks as an OME-Zarr 0.5 image with a pyramid: axes y, x; chunks of 512; zstd; empty chunks left out.

    A folder that is an OME-Zarr is replaced; one with something else in it is refused.

    Memory bound: `planes.plane_bytes(size)`.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_plane_zarr(path, _planes(classes, mpp, names))


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
