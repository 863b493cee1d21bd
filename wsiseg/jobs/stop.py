"""Signals: SIGINT, SIGTERM and USR1 ask for an orderly end; a second Ctrl-C ends everything at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

ORDERLY = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """While inside `with`, signals set `event`.

    Attributes:
        event: set by the first signal.
        name: of the first signal, "" before.
        on_stop: called in the handler, to wake a loop that waits.
        on_kill: called in the handler of the second Ctrl-C, before the process ends with 130.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.name = ""
        self.on_stop: Callable[[], None] = lambda: None
        self.on_kill: Callable[[], None] = lambda: None
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in ORDERLY:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self.on_kill()
                os._exit(130)
        self.name = self.name or signal.Signals(number).name
        self.event.set()
        self.on_stop()
