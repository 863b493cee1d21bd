"""How many bits samples of more than 8 bits really use, decided once per slide, so that every panel scales alike."""

from __future__ import annotations

import numpy as np

from wsiseg.slide.level import Scratch
from wsiseg.slide.streams import BadStream
from wsiseg.slide.tifflayout import TiffLayout
from wsiseg.slide.tiffsource import TiffSource

SAMPLED = 64


def used_bits(source: TiffSource, layout: TiffLayout) -> int:
    """The declared bits when they are 10, 12 or 14; else the bits of the largest of the sampled values, at least 8.

    All segments of a slide of up to `SAMPLED` segments are looked at, else `SAMPLED` spread evenly over it: bounded
    work, and the same answer for every panel, budget and thread count.
    """
    if layout.bits in (10, 12, 14):
        return layout.bits
    stored = source.layout
    total = stored.rows * stored.cols
    scratch = Scratch()
    largest = 0
    for k in range(min(total, SAMPLED)):
        index = k * total // min(total, SAMPLED)
        try:
            planes = source.samples(index // stored.cols, index % stored.cols, scratch)
        except (BadStream, RuntimeError, ValueError, MemoryError, IndexError, TypeError, OSError):
            continue  # reported when the segment is read
        for plane in planes or ():
            largest = max(largest, int(np.max(plane, initial=0)))
    return min(layout.bits, max(8, largest.bit_length()))
