"""Probabilities of a finished slide: as images at network resolution, and as the mean over each object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from wsiseg.geometry import Rect, Size
from wsiseg.objects import Objects, find_objects
from wsiseg.outputs.planes import Planes, write_plane_tiff, write_plane_zarr
from wsiseg.runs import Runs
from wsiseg_kernels.cpu.jit import kernel

BAND = 256  # network rows that are looked at at a time


class ProbabilityPlanes(Protocol):
    """C planes of round(255 p) on the network grid; see `wsiseg.outputs.spool.ProbabilitySpool`."""

    classes: int
    size: Size

    def band(self, index: int, y0: int, y1: int) -> np.ndarray: ...
    def window(self, index: int, rect: Rect) -> np.ndarray: ...


def write_probability(
    path: str | os.PathLike[str],
    planes: ProbabilityPlanes,
    names: Sequence[str],
    scale: int,
    mpp: float | None = None,
) -> None:
    """Writes the planes as a pyramid, a channel per class: OME-Zarr 0.5 if the name ends in .zarr, else OME-TIFF.

    A value is round(255 p); upper levels are means. The pixels are the network's: `scale` slide pixels wide, and the
    file says so (mpp x scale, where the slide's mpp is known, and in words).

    Memory bound: `planes.plane_bytes(planes.size)`.

    Raises:
        OutputError: the file cannot be written.
    """

    def reader(index: int) -> Any:
        return lambda y0, y1: planes.band(index, y0, y1)

    image = Planes(
        planes.size,
        [reader(k) for k in range(planes.classes)],
        "mean",
        "probability of " + ", ".join(names),
        channels=tuple(names),
        note=f"probability x 255 at network resolution: one pixel is {scale} slide pixels wide",
        mpp=mpp * scale if mpp else None,
        scale=scale,
    )
    if os.fspath(path).endswith(".zarr"):
        write_plane_zarr(path, image)
    else:
        write_plane_tiff(path, image, ome=True)


def object_means(runs: Runs, planes: ProbabilityPlanes, index: int, scale: int) -> np.ndarray:
    """The mean probability of each object of a mask, in the order of `find_objects`: float64 [n].

    Defined as the mean, over the object's mask pixels at full size, of the value of the network pixel that each lies in
    (8 bit, so in steps of 1/255). Sums are of whole numbers: panels, bands and threads do not change them.

    Memory bound: the objects' runs, and BAND network rows.

    Raises:
        OutputError: the planes cannot be read.
    """
    objects = find_objects(runs)
    return object_sums(objects, planes, index, scale) / (255.0 * np.maximum(objects.area, 1))


def object_sums(objects: Objects, planes: ProbabilityPlanes, index: int, scale: int) -> np.ndarray:
    """The sum of `planes`' 8-bit values under the mask pixels of each object: int64 [n]."""
    sums = np.zeros(len(objects), np.int64)
    height = objects.runs.size.height
    if not len(objects):
        return sums
    first, last = int(objects.boxes[:, 0].min()) // scale, -(-int(objects.boxes[:, 2].max()) // scale)
    for y in range(first, last, BAND):
        band = planes.band(index, y, min(y + BAND, planes.size.height))
        _add_band(objects.starts, objects.lengths, objects.labels, height, scale, band, y, sums)
    return sums


@kernel
def _add_band(
    starts: Any, lengths: Any, labels: Any, height: Any, scale: Any, band: Any, row0: Any, sums: Any
) -> None:
    """Adds what lies in network rows row0.. to the sums; runs are cut at columns."""
    low, high = row0 * scale, (row0 + band.shape[0]) * scale
    for k in range(len(starts)):
        x, top = starts[k] // height, starts[k] % height
        a, b = max(top, low), min(top + lengths[k], high)
        column = x // scale
        while a < b:
            row = a // scale
            end = min(b, (row + 1) * scale)
            sums[labels[k]] += (end - a) * np.int64(band[row - row0, column])
            a = end
