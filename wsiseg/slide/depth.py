"""How many bits samples of more than 8 bits really use, decided once per slide, so that every panel scales alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsiseg.errors import BadSegment
from wsiseg.slide.level import Scratch
from wsiseg.slide.streams import BadStream

SAMPLED = 64


def used_bits(
    samples: Callable[[int, int, Scratch], Sequence[Any] | None], rows: int, cols: int, bits: int
) -> int:
    """The declared bits when they are 10, 12 or 14; else the bits of the largest of the sampled values, at least 8.

    All segments of a slide of up to `SAMPLED` segments are looked at, else `SAMPLED` spread evenly over it: bounded
    work, and the same answer for every panel, budget and thread count.

    Args:
        samples: decodes segment (row, col) of a grid of rows x cols into arrays.
    """
    if bits in (10, 12, 14):
        return bits
    total = rows * cols
    scratch = Scratch()
    largest = 0
    for k in range(min(total, SAMPLED)):
        index = k * total // min(total, SAMPLED)
        try:
            planes = samples(index // cols, index % cols, scratch)
        except (BadStream, BadSegment, RuntimeError, ValueError, MemoryError, IndexError, TypeError, OSError):
            continue  # reported when the segment is read
        for plane in planes or ():
            largest = max(largest, int(np.max(plane, initial=0)))
    return min(bits, max(8, largest.bit_length()))
