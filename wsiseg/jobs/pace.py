"""When to save the state of a slide in progress: what a kill would repeat, against what saving costs. No I/O.

A save is made when both hold:

    worth it      since the last one (or the slide's start) at least STEP of the time that the slide took so far went by,
                  so that a kill at any moment repeats at most that share of the slide, and never mind how tissue lies in it
    affordable    all saves of this slide, the coming one at twice its usual price, take at most COST of its time

Before anything was measured a save counts as FIRST seconds and its bytes at RATE, so the first slide of a process is
saved after some 12 s at the earliest, and one that is killed before begins anew. From then on the price is known, also
to the process that goes on: where a save takes 10 ms, one may come every 2 s. All of STEP's promise holds for a slide
that takes longer than SAFETY / COST / STEP (6,667) saves: 67 s on such a disk, 11 minutes where a save takes 0.1 s. A
shorter one repeats up to SAFETY / COST (200) saves' time rather than pay more than COST. A disk that takes longer than
FIRST says is found out by one save, in a thread that the slide does not wait for.

To what lies between two saves come the row of tiles that was in work, and the rows that are run again for their sums
(`pipeline.job.Resume`), one at the usual overlaps: with 20 rows of tiles or more that is within a tenth of the slide.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

COST = 0.01
STEP = 0.03
SAFETY = 2.0  # a save may take so much longer than the usual one
FIRST, RATE = (
    0.05,
    200e6,
)  # seconds, and bytes per second: noisy masks grow by some 0.1 MB a second, and must not outrun it


def worth_saving(elapsed: float, since: float, paid: float, price: float, before: float = 0.0) -> bool:
    """Whether to save now.

    Args:
        elapsed: seconds since this process began the slide. since: those since the last save, or `elapsed`.
        paid: seconds that its saves took. price: those that the next one may take.
        before: seconds that earlier processes spent on what this one went on from.
    """
    return since >= STEP * (before + elapsed) and paid + price <= COST * elapsed


class Prices:
    """What a save costs here; shared by the slides of one process, since they have one disk."""

    def __init__(self) -> None:
        self._last: deque[tuple[float, int]] = deque(maxlen=3)

    @property
    def last(self) -> tuple[float, int] | None:
        """Seconds and bytes of the last save, or None before there was one."""
        return self._last[-1] if self._last else None

    def note(self, seconds: float, size: int) -> None:
        """A save of `size` bytes took so long."""
        self._last.append((seconds, size))

    def price(self, size: int) -> float:
        """What a save of `size` bytes may take: the usual one and its further bytes at RATE, with SAFETY."""
        if not self._last:
            return SAFETY * (FIRST + size / RATE)
        # the middle one: a disk that was slow once is not slow for good
        return SAFETY * statistics.median(s + max(0, size - least) / RATE for s, least in self._last)


class Pace:
    """The saves of one slide.

    Args:
        clock: seconds that only go forward.

    Attributes:
        paid: seconds that saves took.
    """

    def __init__(self, prices: Prices, clock: Callable[[], float] = time.monotonic) -> None:
        self._prices, self._clock = prices, clock
        self.begin()

    def begin(self, before: float = 0.0) -> None:
        """The slide begins now; `before` seconds were spent on what it goes on from."""
        self.paid, self._before = 0.0, before
        self._began = self._last = self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds of the slide so far, those of earlier processes included."""
        return self._before + self._clock() - self._began

    def due(self, size: int) -> bool:
        """Whether to save `size` bytes now; cheap."""
        now = self._clock()
        return worth_saving(
            now - self._began, now - self._last, self.paid, self._prices.price(size), self._before
        )

    def taken(self) -> None:
        """What would be repeated from here on begins now."""
        self._last = self._clock()

    def saved(self, seconds: float, size: int) -> None:
        """A save has ended, well or not, that took so long."""
        self.paid += seconds
        self._prices.note(seconds, size)
