"""The network-grid image of a slide, read by the processor's own reader so that training sees what `run` will see."""

from __future__ import annotations

import os

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.slide import DecodePool, NetworkReader, Slide, open_slide


def pick_scale(slide: Slide, mpp: float | None, scale: int | None) -> int:
    """Slide pixels per network pixel for a wanted mpp, or the scale given.

    Raises:
        UsageError: neither is known.
    """
    if scale is not None:
        return scale
    if mpp is None:
        return 1
    if slide.mpp is None:
        raise UsageError(f"{slide.path}: its microns per pixel are unknown; give --slide-mpp, or --scale")
    return max(1, round(mpp / slide.mpp))


def read_bands(
    path: str | os.PathLike[str], scale: int, rows: int = 512, threads: int = 2
) -> tuple[Size, object]:
    """(network size, iterator of (y0, uint8 [n, w, 3])) of a slide, top to bottom; each segment is decoded once."""
    slide = open_slide(path)
    plan = slide.plan(scale)
    return plan.network, _bands(slide, plan, rows, threads)


def _bands(slide: Slide, plan, rows: int, threads: int):  # type: ignore[no-untyped-def]
    height = plan.network.height
    with slide, DecodePool(threads) as pool:
        ring = plan.ring_rows(rows)
        with NetworkReader(slide, plan, rows=ring, pool=pool) as reader:
            for y0 in range(0, height, rows):
                y1 = min(height, y0 + rows)
                reader.wait(y1)
                yield y0, np.take(reader.ring, np.arange(y0, y1) % len(reader.ring), axis=0)
                reader.release(y1)
