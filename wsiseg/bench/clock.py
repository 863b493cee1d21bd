"""Wall and CPU time of a piece of work, on one thread or many.

CPU time is what other programs on the machine disturb least, and what the ideal is made of: so many CPU seconds of
decoding and inference, spread over the cores.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What an amount of work took: seconds on the clock, and CPU seconds of all threads."""

    wall: float
    cpu: float
    amount: float

    def per(self, amount: float) -> Cost:
        """What `amount` of the same work would take."""
        share = amount / self.amount if self.amount else 0.0
        return Cost(self.wall * share, self.cpu * share, amount)


def median(costs: Sequence[Cost], amount: float) -> Cost:
    """The medians of several measurements, each for `amount` of work."""
    same = [cost.per(amount) for cost in costs if cost.amount]
    if not same:
        return Cost(0.0, 0.0, 0.0)
    return Cost(statistics.median(c.wall for c in same), statistics.median(c.cpu for c in same), amount)


def on_threads(threads: int, seconds: float, worker: Callable[[], Callable[[], float | None]]) -> Cost:
    """Run steps on every thread until the time is over or a step returns None.

    Args:
        worker: called in each thread for its step, a function that does some work and returns how much.

    Raises:
        what a step raises.
    """
    amounts, errors = [0.0] * threads, []
    began, cpu = time.perf_counter(), time.process_time()
    until = began + seconds

    def loop(index: int) -> None:
        try:
            step = worker()
            while (done := step()) is not None:
                amounts[index] += done
                if time.perf_counter() >= until:
                    break
        except BaseException as error:  # told to the caller below
            errors.append(error)

    pool = [threading.Thread(target=loop, args=(i,), daemon=True) for i in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    if errors:
        raise errors[0]
    return Cost(time.perf_counter() - began, time.process_time() - cpu, sum(amounts))
