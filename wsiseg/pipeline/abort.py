"""The first failure wins: one place that remembers it and wakes everybody who waits."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Abort:
    """Set once, by whichever thread fails first; every registered waker is then called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []
        self.cause: BaseException | None = None

    def __bool__(self) -> bool:
        return self.cause is not None

    def on_abort(self, waker: Callable[[], None]) -> None:
        """Have `waker` called on the first failure; at once when there was one already."""
        with self._lock:
            self._wakers.append(waker)
            late = self.cause is not None
        if late:
            waker()

    def fail(self, cause: BaseException) -> None:
        """Remember `cause` if it is the first, and wake everybody."""
        with self._lock:
            if self.cause is not None:
                return
            self.cause = cause
            wakers = list(self._wakers)
        for waker in wakers:
            waker()
