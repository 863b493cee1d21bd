"""The pure plan of reading a slide at a scale: which level, in which units, and what memory that takes.

A *unit* is what one thread decodes at a time: one tile, a few tiles beside each other, or a group of strips. Units of
whole network rows need no sums; where a tile's edge lies inside a network pixel (240-pixel tiles at scale 7) the pixel
becomes the sum of two or four units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.errors import UsageError, unknown_name
from wsiseg.geometry import Size, ceil_div
from wsiseg.slide.level import Level

# A unit has at least about this many pixels, so that the interpreter's share of the work stays small.
UNIT_PIXELS = 1 << 16
# Tiles whose edges split no network pixel are decoded one by one, so several beside each other take no memory more.
WIDE_PIXELS = 1 << 19
# Segments are grouped to whole network rows (columns) as long as the group stays within this many pixels on that axis;
# beside each other also further, as long as what is put together fits a processor's second-level cache (1 MiB).
MAX_GROUP = 512
WHOLE_PIXELS = 350_000


@dataclass(frozen=True)
class ReadPlan:
    """How a slide is read at one scale.

    Attributes:
        level: index of the level that is read.
        scale: slide pixels per network pixel.
        level_size: size of that level in its own pixels.
        downsample: slide pixels per level pixel.
        remaining: level pixels per network pixel (scale / downsample).
        network: size of the network grid, ceil(slide / scale).
        rows_per_unit, cols_per_unit: segments per unit.
        unit: network rows that one row of units touches, at most.
        scratch: (buffer, bytes) of one decoding thread.
        segments, pixels, stored: tiles or strips, level pixels and file bytes that a full read decodes.
        row_seams, col_seams: unit edges that lie inside a network pixel.
    """

    level: int
    scale: int
    level_size: Size
    downsample: int
    remaining: int
    network: Size
    rows_per_unit: int
    cols_per_unit: int
    unit: int
    scratch: tuple[tuple[str, int], ...]
    segments: int
    pixels: int
    stored: int
    row_seams: int
    col_seams: int

    @property
    def scratch_bytes(self) -> int:
        """Bytes of one decoding thread."""
        return sum(size for _, size in self.scratch)

    def ring_rows(self, window: int) -> int:
        """The smallest ring in which a consumer may hold `window` rows and still get every row."""
        return min(self.network.height, window + self.unit)


def unit_edges(edges: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.int64]:
    """Edges of groups of `group` segments; the last group may have fewer."""
    picked = edges[:-1:group]
    return np.append(picked, edges[-1])


def candidates(levels: tuple[Level, ...], scale: int, level: str) -> list[Level]:
    """Levels that can be read for `scale`, best first; the last is the full size.

    Raises:
        UsageError: unknown `level`, or a scale below 1.
    """
    if scale < 1:
        raise UsageError(f"scale {scale} is not possible; it is a whole number of slide pixels, at least 1")
    if level == "0":
        return [levels[0]]
    if level != "auto":
        raise UsageError(unknown_name("level", level, ("auto", "0")))
    fitting = [x for x in levels[1:] if x.downsample > 1 and scale % x.downsample == 0]
    return [*sorted(fitting, key=lambda x: (-x.downsample, not x.exact, x.index)), levels[0]]


def plan_read(slide: Size, level: Level, scale: int, stored: int) -> ReadPlan:
    """Plan reading `level` of a slide of size `slide` at `scale`; `stored` is the level's bytes in the file."""
    remaining = scale // level.downsample if level.downsample else scale
    rows = _group(level.ys, remaining, max(1, level.segment.width), MAX_GROUP)
    across = level.segment.width if level.cols > 1 else level.size.width
    height = min(level.size.height, level.segment.height * rows)
    cols = (
        _group(level.xs, remaining, height, max(MAX_GROUP, WHOLE_PIXELS // height)) if level.cols > 1 else 1
    )
    if not assembles(level, rows, cols, remaining) and not np.any(level.xs[1:-1] % remaining):
        # At least a few units stay beside each other, for the threads.
        cols = max(cols, min(WIDE_PIXELS // (across * height), level.cols // 4))
    width = min(level.size.width, across * cols)
    ys, xs = unit_edges(level.ys, rows), unit_edges(level.xs, cols)
    seams_y = int(np.count_nonzero(ys[1:-1] % remaining))
    seams_x = int(np.count_nonzero(xs[1:-1] % remaining))
    touched = (ys[1:] + remaining - 1) // remaining - ys[:-1] // remaining
    network = slide.over(scale)
    touched[-1] += network.height - ceil_div(level.size.height, remaining)
    scratch = dict(level.scratch)
    if assembles(level, rows, cols, remaining):
        scratch["unit"] = height * width * 3
    return ReadPlan(
        level=level.index,
        scale=scale,
        level_size=level.size,
        downsample=level.downsample or 1,
        remaining=remaining,
        network=network,
        rows_per_unit=rows,
        cols_per_unit=cols,
        unit=int(touched.max()),
        scratch=tuple(scratch.items()),
        segments=level.rows * level.cols,
        pixels=level.size.pixels,
        stored=stored,
        row_seams=seams_y,
        col_seams=seams_x,
    )


def assembles(level: Level, rows: int, cols: int, remaining: int) -> bool:
    """Whether a unit's segments are put together before shrinking: some edge inside the unit splits a network pixel."""
    inner_y = np.any(level.ys[1:-1] % remaining) if rows > 1 else False
    inner_x = np.any(level.xs[1:-1] % remaining) if cols > 1 else False
    return bool(inner_y or inner_x)


def _group(edges: npt.NDArray[np.int64], remaining: int, across: int, most: int) -> int:
    """How many segments along one axis make a unit, given its length on the other axis, and how long it may become."""
    count = len(edges) - 1
    step = int(np.diff(edges).max())
    whole = remaining // math.gcd(step, remaining)
    group = whole if whole * step <= max(most, remaining) else ceil_div(remaining, step)
    # Groups of at least one network pixel: then no more than two units share a seam.
    least = ceil_div(remaining, step)
    wanted = ceil_div(UNIT_PIXELS, step * across)
    group = max(group, least) * max(1, ceil_div(min(wanted, max(1, MAX_GROUP // step)), max(group, least)))
    return max(1, min(group, count))


def seam_slots(plan: ReadPlan, rows: int) -> int:
    """Seam rows that can be open at once in a ring of `rows` rows."""
    return min(plan.row_seams, rows // max(1, plan.unit - 2) + 3)


def ring_bytes(plan: ReadPlan, columns: tuple[int, int], rows: int, threads: int) -> list[tuple[str, int]]:
    """(buffer, bytes) of a NetworkReader with `rows` rows of `columns`, decoded by `threads` threads."""
    width = columns[1] - columns[0]
    seam_cols = min(plan.col_seams, ceil_div(plan.col_seams * width, plan.network.width) + 1)
    return [
        ("ring of network rows", rows * width * 3),
        ("sums of rows between tiles", seam_slots(plan, rows) * width * 12),
        ("sums of columns between tiles", rows * seam_cols * 12),
        ("decoding", threads * plan.scratch_bytes),
    ]
