"""A small picture of a whole slide, read through the ring in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsiseg.geometry import ceil_div
from wsiseg.slide import DecodePool, NetworkReader, ReadPlan, Slide


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """`image` uint8 [h, w, 3] RGB; one of its pixels is `scale` slide pixels wide."""

    image: np.ndarray
    scale: int


def thumbnail_plan(slide: Slide, longest: int) -> ReadPlan:
    """How to read a thumbnail with no side above `longest` pixels, decoding as little as possible.

    Scales up to a quarter coarser than needed are considered, since a pyramid level is used only where its
    down-sampling divides the scale.
    """
    need = max(1, ceil_div(max(slide.size.height, slide.size.width), longest))
    steps = [level.downsample for level in slide.levels if 1 < level.downsample <= need]
    scales = {need} | {ceil_div(need, step) * step for step in steps}
    plans = [slide.plan(scale) for scale in sorted(scales) if scale <= max(need + 1, need * 5 // 4)]
    return min(plans, key=lambda plan: plan.pixels)


def read_thumbnail(slide: Slide, longest: int = 1200, pool: DecodePool | None = None) -> Thumbnail:
    """Reads a slide at a scale at which no side exceeds `longest` pixels. Damaged segments come out white.

    Args:
        pool: threads that decode; by default two of its own.

    Memory bound: the picture, and `wsiseg.slide.ring_bytes(plan, ...)` with a ring of one row of decoding units.
    """
    plan = thumbnail_plan(slide, longest)
    own = None if pool else DecodePool(2)
    image = np.empty((plan.network.height, plan.network.width, 3), np.uint8)
    try:
        rows = plan.ring_rows(plan.unit)
        with NetworkReader(slide, plan, rows=rows, pool=pool or own, on_bad_tile="white") as reader:  # type: ignore[arg-type]
            ring = len(reader.ring)
            for y in range(plan.network.height):
                reader.wait(y + 1)
                image[y] = reader.ring[y % ring]
                reader.release(y + 1)
    finally:
        if own:
            own.close()
    return Thumbnail(image, plan.scale)
