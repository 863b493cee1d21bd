"""Who may hold memory: slides reserve the whole of what they plan before they begin, so none can starve half way."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ledger:
    """A count of reserved bytes that never goes over `capacity`.

    A slide's reservation covers everything it will ever ask for; since it asks for nothing later, the slide that
    works always finishes, and the next one's reservation is granted in the end.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._used = 0
        self._changed = threading.Condition()

    def try_acquire(self, count: int) -> bool:
        """Reserve `count` bytes now, or say that it cannot be."""
        with self._changed:
            # A slide that is alone may always begin: its own plan was checked against the whole capacity.
            if self._used and self._used + count > self.capacity:
                return False
            self._used += count
            return True

    def acquire(self, count: int, cancelled: Callable[[], bool]) -> bool:
        """Reserve `count` bytes, waiting for others to release; False when `cancelled()` turned true meanwhile."""
        with self._changed:
            while self._used and self._used + count > self.capacity:
                if cancelled():
                    return False
                self._changed.wait()
            self._used += count
            return True

    def release(self, count: int) -> None:
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def wake(self) -> None:
        """Let waiters look at their `cancelled` again."""
        with self._changed:
            self._changed.notify_all()
