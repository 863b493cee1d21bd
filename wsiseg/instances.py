"""Touching objects are told apart: two probability planes of one image become a plane of instance numbers.

The second plane is the objects' *core* (`wsiseg_train.labels.instance_targets`): cores of touching objects do not touch. Each
core is a seed, and the seeds grow over the first plane until they meet.
"""

from __future__ import annotations

import numba
import numpy as np

LEVELS = 64  # the growth goes down the probabilities in this many steps


def split_instances(
    objects: np.ndarray,
    cores: np.ndarray,
    *,
    threshold: float = 0.5,
    core_threshold: float = 0.5,
    min_area: int = 12,
) -> np.ndarray:
    """Instance numbers int32 [h, w], 0 for background, 1.. in order of each object's first pixel (row by row).

    Args:
        objects, cores: float32 [h, w], probabilities.
        threshold: a pixel above it belongs to some object.
        core_threshold: components (8-connected) of the cores above it are the seeds. An object without a seed is one itself.
        min_area: smaller objects are dropped, in pixels.

    The growth is a watershed: pixels join in falling order of (object + core) / 2, through their 4 neighbours, so seeds
    meet where that is lowest. Deterministic: ties go by row, then column.
    """
    score = np.clip((objects + cores) * 0.5, 0.0, 1.0)
    level = (score * (LEVELS - 1)).astype(np.int8)
    return grow_instances(objects > threshold, cores > core_threshold, level, min_area)


def split_inside(
    inside: np.ndarray, objects: np.ndarray, cores: np.ndarray, core_level: int, min_area: int = 12
) -> np.ndarray:
    """`split_instances` of 8-bit planes within a mask that is known: instance numbers int32 [h, w].

    Args:
        inside: bool [h, w]. objects, cores: uint8 [h, w], round(255 p). core_level: cores above it are seeds.

    Parts of the mask that do not touch (8-connected) do not influence each other, so splitting each component in its own
    box gives what splitting the whole picture gives.

    Memory bound: 20 bytes per pixel.
    """
    total = objects.astype(np.uint16)
    total += cores
    total *= LEVELS - 1  # at most 510 x 63, which 16 bits hold
    total //= 510
    return grow_instances(inside, cores > core_level, total.astype(np.int8), min_area)


def grow_instances(inside: np.ndarray, cores: np.ndarray, level: np.ndarray, min_area: int) -> np.ndarray:
    """The instance numbers of a mask bool [h, w] with seeds bool [h, w] and a surface int8 [h, w] of 0..LEVELS - 1."""
    import cv2

    _, labels = cv2.connectedComponents((inside & cores).view(np.uint8), connectivity=8)
    _, blobs = cv2.connectedComponents(np.ascontiguousarray(inside).view(np.uint8), connectivity=4)
    seeded = np.zeros(int(blobs.max()) + 1, bool)
    seeded[blobs[labels > 0]] = True
    lone = inside & ~seeded[blobs]
    labels[lone] = blobs[lone] + int(labels.max())
    del blobs
    level[~inside] = -1
    _grow(labels, level, LEVELS)
    _renumber(labels, min_area, int(labels.max()))
    return labels


@numba.njit(cache=True, nogil=True)
def _grow(labels, level, levels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Bucket watershed: labels int32 [h, w] grows in place over pixels with level >= 0, highest level first."""
    h, w = labels.shape
    n = h * w
    following = np.full(n, -1, np.int32)
    first = np.full(levels, -1, np.int32)
    last = np.full(levels, -1, np.int32)
    waiting = np.zeros(n, np.uint8)
    for pixel in range(n):
        if labels[pixel // w, pixel % w] > 0:
            _put(pixel, levels - 1, first, last, following)
            waiting[pixel] = 1
    at = levels - 1
    while at >= 0:
        pixel = first[at]
        if pixel < 0:
            at -= 1
            continue
        first[at] = following[pixel]
        if first[at] < 0:
            last[at] = -1
        y, x = pixel // w, pixel % w
        for k in range(4):
            v = y + (k == 0) - (k == 1)
            u = x + (k == 2) - (k == 3)
            if v < 0 or u < 0 or v >= h or u >= w:
                continue
            other = v * w + u
            if waiting[other] or level[v, u] < 0:
                continue
            labels[v, u] = labels[y, x]
            waiting[other] = 1
            following[other] = -1
            # a pixel higher than the present level is flooded from here at the present level
            _put(other, min(at, level[v, u]), first, last, following)


@numba.njit(cache=True, nogil=True)
def _put(pixel, bucket, first, last, following):  # type: ignore[no-untyped-def]  # pragma: no cover
    following[pixel] = -1
    if last[bucket] < 0:
        first[bucket] = pixel
    else:
        following[last[bucket]] = pixel
    last[bucket] = pixel


@numba.njit(cache=True, nogil=True)
def _renumber(labels, min_area, most):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Labels become 1.. in order of first pixel (row by row), without objects below `min_area` pixels; in place."""
    h, w = labels.shape
    counts = np.zeros(most + 1, np.int64)
    for y in range(h):
        for x in range(w):
            counts[labels[y, x]] += 1
    new = np.full(most + 1, -1, np.int32)
    new[0], given = 0, 0
    for y in range(h):
        for x in range(w):
            label = labels[y, x]
            if new[label] < 0:
                given += counts[label] >= min_area
                new[label] = given if counts[label] >= min_area else 0
            labels[y, x] = new[label]
