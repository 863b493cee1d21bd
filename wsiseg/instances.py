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
    import cv2

    inside = objects > threshold
    _, labels = cv2.connectedComponents((inside & (cores > core_threshold)).astype(np.uint8), connectivity=8)
    labels = labels.astype(np.int32)
    _, blobs = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    seeded = np.zeros(int(blobs.max()) + 1, bool)
    seeded[np.unique(blobs[labels > 0])] = True
    lone = inside & ~seeded[blobs]
    labels[lone] = blobs[lone] + int(labels.max())
    score = np.clip((objects + cores) * 0.5, 0.0, 1.0)
    level = np.where(inside, (score * (LEVELS - 1)).astype(np.int32), -1)
    _grow(labels, level, LEVELS)
    return _renumbered(labels, min_area)


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


def _renumbered(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Labels 1.. in order of first pixel, without objects below `min_area` pixels."""
    values, firsts, inverse, counts = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    keep = (values > 0) & (counts >= min_area)
    order = np.argsort(np.where(keep, firsts, labels.size), kind="stable")
    new = np.zeros(len(values), np.int32)
    kept = order[: int(keep.sum())]
    new[kept] = np.arange(1, len(kept) + 1, dtype=np.int32)
    return np.asarray(new[inverse].reshape(labels.shape))
