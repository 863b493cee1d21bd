"""Single objects of a mask: touching ones split at their waists, and the CSV with one row per object.

Splitting: the distance to the background has a summit in each nucleus; summits that rise at least `depth` pixels above
the pass to a higher one become objects, and pixels go to the summit whose basin they lie in (a watershed of the
distance, within each connected component).
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.objects import find_objects
from wsiseg.outputs.files import atomic_file
from wsiseg.outputs.submission import csv_field
from wsiseg.runs import Runs
from wsiseg_kernels.cpu.jit import kernel

LARGEST_BOX = 16_000_000
"""Pixels of a bounding box beyond which an object is left whole: splitting draws the box."""


def split_objects(runs: Runs, depth: float = 1.0) -> Iterator[Runs]:
    """The objects of a mask one by one, those that touch split at their waists; together they are the mask.

    Args:
        depth: how far, in pixels, a summit of the distance must rise above the pass to a higher one; 0 splits nothing.

    Memory bound: the runs, and 14 bytes per pixel of one object's bounding box (up to LARGEST_BOX).

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
        if not depth or whole.area < 2 * np.pi * depth**2 or (y1 - y0) * (x1 - x0) > LARGEST_BOX:
            yield Runs.merged(whole.starts, whole.lengths, runs.size)
            continue
        mask = _drawn(whole, y0, x0, Size(y1 - y0, x1 - x0))
        labels, count = _basins(mask, depth)
        if count == 1:
            yield Runs.merged(whole.starts, whole.lengths, runs.size)
            continue
        for label in range(1, count + 1):
            yield _placed(labels == label, y0, x0, runs.size)


def _drawn(whole: Runs, y0: int, x0: int, box: Size) -> np.ndarray:
    """One object alone in its box: uint8 [h, w]."""
    column, row = whole.starts // whole.size.height - x0, whole.starts % whole.size.height - y0
    starts = column * box.height + row
    steps = np.zeros(box.pixels + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + whole.lengths, -1)
    return np.ascontiguousarray(np.cumsum(steps[:-1]).astype(np.uint8).reshape(box.width, box.height).T)


def _placed(mask: np.ndarray, y0: int, x0: int, size: Size) -> Runs:
    """The runs on the slide of what is drawn in a box."""
    local = Runs.from_mask(mask)
    starts, lengths = local.split()
    height = mask.shape[0]
    return Runs.merged((x0 + starts // height) * size.height + y0 + starts % height, lengths, size)


def _basins(mask: np.ndarray, depth: float) -> tuple[np.ndarray, int]:
    """(int32 labels [h, w] from 1, how many) of the parts of one object."""
    framed = np.pad(mask, 1)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)
    summits = _summits(distance, depth)
    count, markers = cv2.connectedComponents(summits.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask.astype(np.int32), 1
    labels = np.where(summits, markers, 0).astype(np.int32)
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
    """Where a surface (float32) has summits that rise at least `depth` above their pass: its h-maxima, bool."""
    low, kernel = np.maximum(height - np.float32(depth), 0), np.ones((3, 3), np.uint8)
    while True:
        grown = np.minimum(cv2.dilate(low, kernel), height)
        if np.array_equal(grown, low):
            break
        low = grown
    # What the flood does not reach: a full `depth` only at summits that are high enough, and tops near them.
    return height - low >= depth - 1e-4


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
