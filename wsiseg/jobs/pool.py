"""The supervisor: child processes that process slides, and a parent that survives whatever a slide does to them.

Use it for one worker too. The parent imports no runtime and holds no pixels; a decoder that crashes kills a child,
and the slide that does it three times becomes a failed record while the others go on.

Blame. A child holds more than one slide at a time (the next is read while the last one finishes), so the first death
only makes suspects. A suspect then goes alone, to a child that has nothing else in its hands, until it has a record or
has killed three children; so an innocent neighbour is never convicted.

Cost. Start-up once per child; per slide two lines over a socket.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from wsiseg import errors
from wsiseg.errors import Interrupted, WsisegError
from wsiseg.jobs.child import Child, WorkerSpec, how_it_ended
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.records import Record

DEATHS = 3  # children that one slide may kill before it is given up
GRACE = 25.0  # seconds between a stop and the end of children that do not heed it

Event = Mapping[str, Any]

__all__ = ["DEATHS", "GRACE", "Event", "Pool", "WorkerSpec"]


class Pool:
    """Worker processes on this machine.

    Args:
        folder: of the job; the children write their records there.
        spec: how they make their processor.
        workers: at most so many at a time; they are started when there is work for them.
        on_event: called in the parent's thread with {"type": "record", "record": Record, "worker": i},
            {"type": "death", "worker": i, "how": text, "slides": [Slide]}, {"type": "report", "worker": i, "data": ...},
            {"type": "ready", "worker": i, "about": ...} and {"type": "note", "text": line}.
    """

    def __init__(
        self,
        folder: JobFolder,
        spec: WorkerSpec,
        workers: int = 1,
        on_event: Callable[[Event], None] = lambda event: None,
        grace: float = GRACE,
    ) -> None:
        self._folder, self._spec, self._workers, self._on_event = folder, spec, workers, on_event
        self._grace = grace
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._fatal: WsisegError | None = None
        self._false_starts = 0
        self._begin([])

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def identity(self, stop: threading.Event | None = None) -> dict[str, Any] | None:
        """Starts the first worker and returns what its processor says that its results depend on.

        Raises:
            WsisegError: as the processor's factory raised it. Interrupted: when `stop` is set before.
        """
        while stop is None or not stop.is_set():
            child = self._child(0)
            if child.ready is not None:
                return child.ready["identity"]
            self._step(None)
        raise Interrupted("interrupted while the model was loading; nothing was done")

    def wake(self) -> None:
        """Makes `run` look at its stop event at once; safe in a signal handler."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"!")

    def kill(self) -> None:
        """Ends all children at once, with nothing half-written; safe in a signal handler."""
        for child in list(self._children.values()):
            child.kill()

    def run(self, slides: Iterable[Slide], digest: str, stop: threading.Event | None = None) -> list[Record]:
        """Processes `slides` and returns their records in the order in which they came; fewer when stopped.

        Raises:
            WsisegError: what ends the whole run, like a disk that is full, a model that is damaged, or a worker that
                cannot start.
        """
        self._begin(slides)
        deadline = None
        while self._left:
            if stop is not None and stop.is_set():
                if deadline is None:
                    deadline = time.monotonic() + self._grace
                    self._on_event(
                        {
                            "type": "note",
                            "text": f"stopping, within {self._grace:.0f} s; Ctrl-C again ends at once",
                        }
                    )
                    for child in self._children.values():
                        child.told_to_stop = True
                        child.send(type="stop")
                if not self._children:
                    break
                if time.monotonic() >= deadline:
                    self.kill()
            else:
                self._dispatch(digest)
            self._step(0.2 if deadline is not None else None, digest)
        return self._records

    def close(self) -> None:
        """Ends the children and waits for them."""
        for child in self._children.values():
            child.told_to_stop = True
            child.send(type="exit")
            with contextlib.suppress(OSError):
                child.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 5
        for child in self._children.values():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
            child.end()
        self._children.clear()
        self._selector.close()
        for fd in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._wake_write = -1

    # -- the loop

    def _begin(self, slides: Iterable[Slide]) -> None:
        self._queue = deque(slides)
        self._suspects: deque[Slide] = deque()
        self._left = {slide.index for slide in self._queue}
        self._deaths: Counter[int] = Counter()
        self._records: list[Record] = []

    def _child(self, number: int) -> Child:
        if number not in self._children:
            child = Child(number, self._spec, self._folder)
            self._children[number] = child
            self._selector.register(child.socket, selectors.EVENT_READ, child)
        return self._children[number]

    def _dispatch(self, digest: str) -> None:
        """Starts workers for waiting work and answers those that want a task."""
        waiting = len(self._queue) + len(self._suspects)
        for number in range(self._workers):
            if number not in self._children:
                starting = sum(1 for child in self._children.values() if child.ready is None)
                if starting < waiting:
                    self._child(number)
        for child in self._children.values():
            if not child.wants:
                continue
            if self._suspects and not child.hands:
                self._give(child, self._suspects.popleft(), digest)
                child.alone = True
            elif self._queue and not child.alone:
                self._give(child, self._queue.popleft(), digest)
            elif child.in_call:
                child.wants = False
                child.send(type="flush")

    def _give(self, child: Child, slide: Slide, digest: str) -> None:
        child.wants = False
        child.hands[slide.index] = slide
        child.send(type="task", slide=asdict(slide), digest=digest)

    def _step(self, timeout: float | None, digest: str = "") -> None:
        """Waits for something to happen and deals with it."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                os.read(self._wake_read, 4096)
                continue
            child: Child = key.data
            messages = child.receive()
            if messages is None:
                self._bury(child, digest)
            for message in messages or ():
                self._hear(child, message)
        if self._fatal:
            fatal, self._fatal = self._fatal, None
            self.kill()
            raise fatal

    def _hear(self, child: Child, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "want":
            child.wants, child.in_call = True, message["open"]
        elif kind == "record":
            values = message["record"]
            for name in ("classes", "lengths", "warnings"):
                values[name] = tuple(values[name])
            self._finish(child, Record(**values))
        elif kind == "report":
            self._on_event({"type": "report", "worker": child.number, "data": message["data"]})
        elif kind == "ready":
            child.ready = message
            self._false_starts = 0
            self._on_event({"type": "ready", "worker": child.number, "about": message["about"]})
        elif kind == "crash":
            child.reason = message["message"]
        elif kind == "fatal":
            known: Any = getattr(errors, message["name"], WsisegError)
            # errors of one slide want its path; what ends the run is not one slide's
            self._fatal = (WsisegError if issubclass(known, errors.SlideError) else known)(message["message"])
            self._fatal.exit_code = message["exit_code"]  # type: ignore[union-attr]

    def _finish(self, child: Child, record: Record) -> None:
        for index, slide in list(child.hands.items()):
            if slide.key == record.key:
                del child.hands[index]
                self._left.discard(index)
        child.alone = child.alone and bool(child.hands)
        self._records.append(record)
        self._on_event({"type": "record", "record": record, "worker": child.number})

    def _bury(self, child: Child, digest: str) -> None:
        """A child has ended: find out how, and what becomes of the slides in its hands."""
        self._selector.unregister(child.socket)
        del self._children[child.number]
        status = child.end()
        if child.told_to_stop or self._fatal:
            return
        if status == 0:
            # it was asked to stop by somebody else, as Slurm does with every process of a job
            self._queue.extendleft(reversed(child.hands.values()))
            return
        how = child.reason or how_it_ended(status)
        hands = [slide for slide in child.hands.values() if not self._has_record(child, slide, digest)]
        self._on_event({"type": "death", "worker": child.number, "how": how, "slides": hands})
        if child.ready is None:
            self._false_starts += 1
            if self._false_starts >= DEATHS:
                self._fatal = WsisegError(f"a worker process ended {DEATHS} times while it started: {how}")
            return
        alone = len(hands) == 1
        for slide in hands:
            self._deaths[slide.index] += 1
            if alone and self._deaths[slide.index] >= DEATHS:
                error = (
                    f"{slide.path}: its worker process died {self._deaths[slide.index]} times on it: {how}"
                )
                self._finish(child, self._folder.write_failed(slide, digest, error, "WorkerDied"))
            else:
                self._suspects.append(slide)

    def _has_record(self, child: Child, slide: Slide, digest: str) -> bool:
        """Whether the child wrote the record and died before it could say so."""
        record = self._folder.header(slide)
        if record is None or not record.matches(slide, digest):
            return False
        self._finish(child, record)
        return True
