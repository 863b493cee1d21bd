"""The pool of decoding threads that all open slides share."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from wsiseg.slide.level import Scratch


@dataclass(slots=True)
class Done:
    """What a unit's decoding amounted to.

    Attributes:
        segments, stored, pixels: segments, their bytes in the file, and their level pixels.
        bad, bad_pixels: why damaged segments were filled with white, a text each, and how many full-size pixels they have.
    """

    segments: int = 0
    stored: int = 0
    pixels: int = 0
    bad: list[str] = field(default_factory=list)
    bad_pixels: int = 0


class Work(Protocol):
    """What a pool's threads ask for units: a reader. `next_unit` and `finished` are called with the pool's lock held.

    `finished` tells whether somebody who waits on the lock should look again.
    """

    def next_unit(self) -> int | None: ...

    def run_unit(self, unit: int, scratch: Scratch) -> Done: ...

    def finished(self, unit: int, done: Done | BaseException, seconds: float) -> bool: ...


class DecodePool:
    """Threads that decode units of the readers registered with them, the reader that started first served first.

    Thread safety: every method may be called from any thread. `lock` (a condition) guards all readers' states too,
    so that a thread can look for work over all of them and sleep when there is none.
    Memory bound: one `Scratch` per thread.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"a decode pool needs at least one thread, not {threads}")
        self.threads = threads
        self.lock = threading.Condition(threading.Lock())
        self._readers: list[Work] = []
        self._closed = False
        self._workers = [
            threading.Thread(target=self._work, name=f"decode-{i}", daemon=True) for i in range(threads)
        ]
        for worker in self._workers:
            worker.start()

    def add(self, reader: Work) -> None:
        """Start serving `reader`."""
        with self.lock:
            if self._closed:
                raise RuntimeError("the decode pool is closed")
            self._readers.append(reader)
            self.lock.notify_all()

    def remove(self, reader: Work) -> None:
        """Stop serving `reader`; units that are running still call `finished`."""
        with self.lock:
            if reader in self._readers:
                self._readers.remove(reader)

    def close(self) -> None:
        """Stop the threads after the units that they are decoding. Idempotent."""
        with self.lock:
            self._closed = True
            self._readers.clear()
            self.lock.notify_all()
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> tuple[Work, int] | None:
        with self.lock:
            while not self._closed:
                for reader in self._readers:
                    unit = reader.next_unit()
                    if unit is not None:
                        return reader, unit
                self.lock.wait()
        return None

    def _work(self) -> None:
        scratch = Scratch()
        while (taken := self._take()) is not None:
            reader, unit = taken
            done: Done | BaseException
            began = time.perf_counter()
            try:
                done = reader.run_unit(unit, scratch)
            except BaseException as error:  # handed to whoever waits on the reader
                done = error
            seconds = time.perf_counter() - began
            with self.lock:
                if reader.finished(unit, done, seconds):
                    self.lock.notify_all()
            del taken, reader, unit, done
