"""The outlines of a mask's objects along the pixels' edges, traced from runs: exact polygons with holes.

Every run has a top and a bottom edge; what is left of an outline are vertical pieces between columns. On the line
between two columns those are exactly the gaps between consecutive ends of edges, taken in pairs: each end of an edge
switches whether the two columns differ. So outlines are found by sorting the ends on each line and following pairs,
without a mask. Where two pixels touch by a corner only, the outline joins them if they belong to the same 4-connected
part, else it parts them; that makes every ring simple, and every part a valid polygon (OGC Simple Features): one
outer ring, holes inside it, rings that touch in points at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsiseg.objects import Objects
from wsiseg_kernels import cpu
from wsiseg_kernels.cpu.jit import kernel


@dataclass(frozen=True, eq=False)
class Outlines:
    """The rings of all objects of a mask.

    Args:
        points: int32 [p, 2], x, y of corners; pixel (y, x) covers x to x + 1 and y to y + 1. A ring's first point is
            not repeated at its end, and no point lies straight between its neighbours.
        bounds: int64 [rings + 1]; ring r is points[bounds[r]:bounds[r + 1]].
        objects: int32 [rings], whose ring it is.
        parts: int32 [rings], which 4-connected part's; rings are sorted by part, and parts by object.
        outer: bool [rings]; each part has one outer ring (its first), counter-clockwise in (x, y); the others,
            clockwise, are holes.
    """

    points: np.ndarray
    bounds: np.ndarray
    objects: np.ndarray
    parts: np.ndarray
    outer: np.ndarray

    def __len__(self) -> int:
        return len(self.outer)

    def ring(self, index: int) -> np.ndarray:
        """The corners of one ring: int32 [n, 2], x, y."""
        return self.points[self.bounds[index] : self.bounds[index + 1]]

    def polygons(self, count: int) -> list[list[list[np.ndarray]]]:
        """For each of `count` objects its polygons: lists of rings, the outer one first."""
        out: list[list[list[np.ndarray]]] = [[] for _ in range(count)]
        for r in range(len(self)):
            polygons = out[self.objects[r]]
            if self.outer[r]:
                polygons.append([])
            polygons[-1].append(self.ring(r))
        return out

    def perimeters(self, count: int) -> np.ndarray:
        """Length of each object's outlines, holes included, in pixels: float64 [count].

        Crofton's formula with two directions: pi / 4 of the length along the pixels' edges. Right on average over a
        shape's orientations, and for discs; the plain length along edges would be 27 % too long.
        """
        following = np.roll(self.points, -1, axis=0)
        last = self.bounds[1:] - 1
        following[last] = self.points[self.bounds[:-1]]
        steps = np.abs(following - self.points).sum(1)
        length = np.add.reduceat(steps, self.bounds[:-1]) if len(self) else np.empty(0)
        return np.pi / 4 * np.bincount(self.objects, weights=length, minlength=count)


def trace(objects: Objects) -> Outlines:
    """Traces the outlines of all objects.

    Memory bound: 100 bytes per run, and the points.
    """
    height = objects.runs.size.height
    # The same runs, cut at columns in the same way, so both labelings speak of the same list.
    parts, count, starts, lengths = cpu.label_runs(objects.runs.starts, objects.runs.lengths, height, 4)
    if not count:
        none = np.empty(0, np.int32)
        return Outlines(none.reshape(0, 2), np.zeros(1, np.int64), none, none, none.astype(bool))
    column, top = starts // height, starts % height
    partner = _partners(column, top, top + lengths, parts)
    points, bounds, owner = _follow(column, top, top + lengths, partner)
    part = parts[owner]
    # The first run of a part lies on its outer ring, so the part's outer ring was begun first.
    first = np.zeros(count, np.int64)
    seen, at = np.unique(part, return_index=True)
    first[seen] = at
    outer = first[part] == np.arange(len(part))
    owners = objects.labels[owner]
    order = np.lexsort((np.arange(len(part)), part, owners))
    return _reordered(points, bounds, order, owners, part, outer)


def _reordered(
    points: np.ndarray,
    bounds: np.ndarray,
    order: np.ndarray,
    owners: np.ndarray,
    part: np.ndarray,
    outer: np.ndarray,
) -> Outlines:
    """The rings in another order."""
    sizes = np.diff(bounds)[order]
    new = np.concatenate([[0], np.cumsum(sizes)])
    source = np.repeat(bounds[:-1][order] - new[:-1], sizes) + np.arange(new[-1])
    return Outlines(points[source], new, owners[order], part[order], outer[order])


@kernel
def _partners(column: Any, top: Any, bottom: Any, parts: Any) -> Any:
    """Which end of an edge each end of an edge is joined with, by a vertical piece (or directly, at the same row).

    The edges of run r are 2r (top) and 2r + 1 (bottom); the left end of edge e is 2e, the right one 2e + 1.
    """
    n = column.size
    partner = np.empty(4 * n, np.int64)
    a, b = 0, 0  # runs a.. lie in the column left of the line, b.. in the column right of it
    left, right = 0, 0
    while left < n or right < n:
        # The next line that has a run on either side.
        line = column[right] if right < n else column[left] + 1
        if left < n and column[left] + 1 < line:
            line = column[left] + 1
        a = left
        while left < n and column[left] == line - 1:
            left += 1
        b = right
        while right < n and column[right] == line:
            right += 1
        i, j = 2 * a, 2 * b  # next edge on each side
        held: Any = np.int64(-1)  # an end that waits for its partner: the columns differ below it
        while i < 2 * left or j < 2 * right:
            y_left = (bottom[i // 2] if i & 1 else top[i // 2]) if i < 2 * left else np.int64(1) << 60
            y_right = (bottom[j // 2] if j & 1 else top[j // 2]) if j < 2 * right else np.int64(1) << 60
            from_left = y_left < y_right
            if y_left == y_right and held >= 0:
                # Two pixels touch by a corner: one column's run ends where the other's begins. Taking the beginning
                # first joins both runs, taking the end first parts them.
                joined = parts[i // 2] == parts[j // 2]
                from_left = ((i & 1) == 0) == joined
            if from_left:
                end = 2 * i + 1
                i += 1
            else:
                end = 2 * j
                j += 1
            if held < 0:
                held = end
            else:
                partner[held], partner[end] = end, held
                held = np.int64(-1)
    return partner


@kernel
def _follow(column: Any, top: Any, bottom: Any, partner: Any) -> Any:
    """Walks every ring, its inside on the right (tops rightwards, bottoms leftwards).

    Returns (points int32 [p, 2], bounds int64 [rings + 1], owner int64 [rings]: a run on each ring, its first).
    """
    n = column.size
    visited = np.zeros(n, np.bool_)  # top edges
    points = np.empty((4 * n + 4, 2), np.int32)
    bounds = np.empty(n + 1, np.int64)
    owner = np.empty(n, np.int64)
    rings, p = 0, 0
    bounds[0] = 0
    for run in range(n):
        if visited[run]:
            continue
        edge = 2 * run
        while True:
            r = edge // 2
            if edge & 1:
                y, leaving = bottom[r], 2 * edge
                x = column[r]
            else:
                if visited[r]:
                    break
                visited[r] = True
                y, leaving = top[r], 2 * edge + 1
                x = column[r] + 1
            following = partner[leaving] // 2
            y_next = bottom[following // 2] if following & 1 else top[following // 2]
            if y_next != y:
                points[p, 0], points[p, 1] = x, y
                points[p + 1, 0], points[p + 1, 1] = x, y_next
                p += 2
            edge = following
        owner[rings] = run
        rings += 1
        bounds[rings] = p
    return points[:p].copy(), bounds[: rings + 1].copy(), owner[:rings].copy()
