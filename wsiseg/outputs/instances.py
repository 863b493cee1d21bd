"""Single objects of a mask: touching ones split at their waists, and the CSV with one row per object.

Splitting: the distance to the background has a summit in each nucleus; summits that rise at least `depth` pixels above
the pass to a higher one become objects, and pixels go to the summit whose basin they lie in (a watershed of the
distance, within each connected component).
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size, ceil_div
from wsiseg.instances import split_inside
from wsiseg.objects import find_objects
from wsiseg.outputs.files import atomic_file, output_errors
from wsiseg.outputs.probability import ProbabilityPlanes
from wsiseg.outputs.submission import csv_field
from wsiseg.runs import Runs
from wsiseg_kernels.cpu.jit import kernel

LARGEST_BOX = 16_000_000
"""Pixels of a bounding box beyond which an object is left whole: splitting draws the box."""


def split_objects(
    runs: Runs,
    depth: float = 1.0,
    share: float = 0.0,
    largest: int = LARGEST_BOX,
    left: list[int] | None = None,
) -> Iterator[Runs]:
    """The objects of a mask one by one, those that touch split at their waists; together they are the mask.

    Args:
        depth: how far, in pixels, a summit of the distance must rise above the pass to a higher one; 0 splits nothing.
        share: it must rise by this share of the object's highest summit too.
        largest: pixels of a bounding box beyond which an object is left whole; the numbers of these go into `left`.

    Memory bound: the runs, and 20 bytes per pixel of one object's bounding box (up to `largest`).

    Raises:
        UsageError: a negative depth.
    """
    if depth < 0:
        raise UsageError(f"the depth of splitting must not be negative, not {depth:g}")
    objects = find_objects(runs)
    order, bounds = objects.grouped()
    for k in range(len(objects)):
        mine = order[bounds[k] : bounds[k + 1]]
        whole = Runs(objects.starts[mine], objects.lengths[mine], runs.size)
        y0, x0, y1, x1 = objects.boxes[k].tolist()
        # A summit needs a disc of radius `depth` around it, two of them twice that.
        large = (y1 - y0) * (x1 - x0) > largest
        if not depth or whole.area < 2 * np.pi * depth**2 or large:
            if large and left is not None:
                left.append(k)
            yield Runs.merged(whole.starts, whole.lengths, runs.size)
            continue
        mask = _drawn(whole, y0, x0, Size(y1 - y0, x1 - x0))
        labels, count = _basins(mask, depth, share)
        if count == 1:
            yield Runs.merged(whole.starts, whole.lengths, runs.size)
            continue
        yield from _pieces(labels, y0, x0, runs.size)


def split_at_cores(
    runs: Runs, planes: ProbabilityPlanes, classes: tuple[int, int], scale: int, core_threshold: float,
    largest: int = LARGEST_BOX, left: list[int] | None = None,
) -> Iterator[Runs]:  # fmt: skip
    """The objects of a mask one by one, those that touch told apart by their cores (`wsiseg.instances.split_inside`).

    Each component is split in its own box, which gives exactly what splitting the whole slide would. Instances of fewer than
    12 network pixels are dropped.

    Args:
        planes, classes: where the probabilities of objects and of cores are. scale: slide pixels per network pixel.
        largest, left: see `split_objects`.

    Memory bound: the runs, and 20 bytes per pixel of one object's bounding box (up to `largest`).
    """
    objects = find_objects(runs)
    order, bounds = objects.grouped()
    for k in range(len(objects)):
        mine = order[bounds[k] : bounds[k + 1]]
        whole = Runs(objects.starts[mine], objects.lengths[mine], runs.size)
        y0, x0, y1, x1 = objects.boxes[k].tolist()
        if (y1 - y0) * (x1 - x0) > largest:
            if left is not None:
                left.append(k)
            yield Runs.merged(whole.starts, whole.lengths, runs.size)
            continue
        box = Rect(y0, x0, y1, x1)
        inside = _drawn(whole, y0, x0, box.size)
        body, core = (_enlarged(planes, index, box, scale) for index in classes)
        labels = split_inside(inside.view(bool), body, core, int(core_threshold * 255), 12 * scale * scale)
        yield from _pieces(labels, y0, x0, runs.size)


def _enlarged(planes: ProbabilityPlanes, index: int, box: Rect, scale: int) -> np.ndarray:
    """The plane's values under a rectangle of the slide: uint8 [h, w], each network pixel repeated."""
    y0, x0 = box.y0 // scale, box.x0 // scale
    small = planes.window(index, Rect(y0, x0, ceil_div(box.y1, scale), ceil_div(box.x1, scale)))
    if scale == 1:
        return small
    ys = np.arange(box.y0, box.y1) // scale - y0
    xs = np.arange(box.x0, box.x1) // scale - x0
    return small[ys[:, None], xs]


def _drawn(whole: Runs, y0: int, x0: int, box: Size) -> np.ndarray:
    """One object alone in its box: uint8 [h, w]."""
    column, row = whole.starts // whole.size.height - x0, whole.starts % whole.size.height - y0
    starts = column * box.height + row
    steps = np.zeros(box.pixels + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + whole.lengths, -1)
    return np.ascontiguousarray(np.cumsum(steps[:-1]).astype(np.uint8).reshape(box.width, box.height).T)


def _pieces(labels: np.ndarray, y0: int, x0: int, size: Size) -> Iterator[Runs]:
    """The runs on the slide of each number in a box of labels int32 [h, w], from 1; 0 is nothing."""
    height = labels.shape[0]
    flat = np.ascontiguousarray(labels.T).ravel()
    new = np.empty(len(flat), bool)
    np.not_equal(flat[1:], flat[:-1], out=new[1:])
    new[::height] = True  # every column
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(flat))
    numbers = flat[starts]
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(1, int(numbers.max(initial=0)) + 2))
    places = (x0 + starts // height) * size.height + y0 + starts % height
    for first, last in itertools.pairwise(bounds.tolist()):
        mine = order[first:last]
        if len(mine):
            yield Runs.merged(places[mine], lengths[mine], size)


def _basins(mask: np.ndarray, depth: float, share: float = 0.0) -> tuple[np.ndarray, int]:
    """(int32 labels [h, w] from 1, how many) of the parts of one object."""
    framed = np.pad(mask, 1)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)
    summits = _summits(distance, max(depth, share * float(distance.max())))
    count, labels = cv2.connectedComponents(summits.view(np.uint8), connectivity=8)
    if count <= 2:
        return mask.astype(np.int32), 1
    _flood(distance, labels)
    return labels[1:-1, 1:-1], count - 1


@kernel
def _flood(distance: Any, labels: Any) -> None:
    """Watershed: labels spread to their 8 neighbours with a distance above 0, from the highest down, first come first.

    OpenCV's watershed orders pixels by the difference between neighbours, not by height, and so crosses passes.
    """
    h, w = distance.shape
    order = 0
    heap = [(np.float32(0), 0, 0)]
    heap.pop()
    for y in range(1, h - 1):
        for x in range(1, w - 1):
            if labels[y, x]:
                heapq.heappush(heap, (-distance[y, x], order, y * w + x))
                order += 1
    while len(heap):
        _, _, at = heapq.heappop(heap)
        y, x = at // w, at % w
        for v in range(y - 1, y + 2):
            for u in range(x - 1, x + 2):
                if distance[v, u] > 0 and labels[v, u] == 0:
                    labels[v, u] = labels[y, x]
                    heapq.heappush(heap, (-distance[v, u], order, v * w + u))
                    order += 1


def _summits(height: np.ndarray, depth: float) -> np.ndarray:
    """Where a surface (float32) has summits that rise at least `depth` above their pass: its h-maxima, bool.

    Each summit is one 8-connected region, also a ridge whose highest points are equal and lie apart.
    """
    low, kernel = np.maximum(height - np.float32(depth), 0), np.ones((3, 3), np.uint8)
    while True:
        grown = np.minimum(cv2.dilate(low, kernel), height)
        if np.array_equal(grown, low):
            break
        low = grown
    # What the flood does not reach: regions around every top, by a full `depth` only where a summit is high enough.
    above = height - low
    count, regions = cv2.connectedComponents((above > 1e-4).view(np.uint8), connectivity=8)
    high = np.zeros(count, bool)
    high[regions[above >= depth - 1e-4]] = True
    high[0] = False
    return high[regions]


WAIST_SHARE = 0.1
"""Of an object's largest distance to its edge: how deep a waist must be to split what a mask alone shows as one object."""
INSTANCE_COLUMNS = ("ImageId", "EncodedPixels")


def write_instances(path: str | os.PathLike[str], slides: Iterable[tuple[str, Iterable[Runs]]]) -> int:
    """Writes the submission of the 2018 Data Science Bowl, one row per object, and returns how many.

    A slide without objects gets one row with an empty field.

    Raises:
        OutputError: the file cannot be written.
    """
    count = 0
    with atomic_file(path) as file:
        file.write((",".join(INSTANCE_COLUMNS) + "\n").encode())
        for name, objects in slides:
            before = count
            for runs in objects:
                file.write(f"{csv_field(name)},{runs.to_rle()}\n".encode())
                count += 1
            if count == before:
                file.write(f"{csv_field(name)},\n".encode())
    return count


def join_instances(path: str | os.PathLike[str], parts: Iterable[str | os.PathLike[str]]) -> int:
    """Writes the rows of several such files, in this order, as one, and returns how many.

    Memory bound: 1 MiB.

    Raises:
        OutputError: one cannot be read, or the file cannot be written.
    """
    rows = 0
    head = (",".join(INSTANCE_COLUMNS) + "\n").encode()
    with atomic_file(path) as file:
        file.write(head)
        for part in parts:
            with output_errors(part), open(part, "rb") as source:
                source.seek(len(head))
                while chunk := source.read(1 << 20):
                    rows += chunk.count(b"\n")
                    file.write(chunk)
    return rows
