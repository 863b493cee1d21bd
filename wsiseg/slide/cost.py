"""What reading a slide costs on this machine, from decoding a few of its segments."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wsiseg.errors import BadSegment
from wsiseg.slide.level import Scratch
from wsiseg.slide.plan import ReadPlan
from wsiseg.slide.slide import Slide


@dataclass(frozen=True)
class Cost:
    """Seconds that one thread needs for the whole slide, and what they were estimated from."""

    seconds: float
    pixels_per_second: float
    sampled: int
    damaged: tuple[str, ...]


def estimate(slide: Slide, plan: ReadPlan, *, limit: float = 0.5, most: int = 16) -> Cost | None:
    """Decode up to `most` segments spread over the planned level, for about `limit` seconds; None if none can be read."""
    level = slide.levels[plan.level]
    total = level.rows * level.cols
    scratch = Scratch()
    pixels, seconds, sampled, damaged = 0, 0.0, 0, []
    count = min(total, most)
    for k in range(count):
        index = (2 * k + 1) * total // (2 * count)
        began = time.perf_counter()
        try:
            pixels += level.source.read(index // level.cols, index % level.cols, scratch).size // 3
        except BadSegment as error:
            damaged.append(error.reason)
            continue
        seconds += time.perf_counter() - began
        sampled += 1
        if seconds > limit:
            break
    if not sampled:
        return Cost(0.0, 0.0, 0, tuple(damaged)) if damaged else None
    speed = pixels / max(seconds, 1e-9)
    return Cost(plan.pixels / speed, speed, sampled, tuple(damaged))
