"""A processor whose slides cost milliseconds: runs follow from a file's bytes, and its first words say what happens.

fail REASON      a slide that cannot be read
segv             the process dies of SIGSEGV
kill             the process dies of SIGKILL
hold PATH        waits until PATH exists (or for a stop)
once PATH        the process dies of SIGKILL unless PATH exists; makes it first
raise            an error in the processor itself
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsiseg.errors import Interrupted, ModelError


@dataclass(frozen=True)
class FakeRuns:
    text: str

    def to_rle(self) -> str:
        return self.text


@dataclass(frozen=True)
class FakeResult:
    task: Any
    size: tuple[int, int]
    runs: tuple[FakeRuns, ...]
    classes: tuple[str, ...] = ("object",)
    mpp: float | None = None
    scale: int = 1
    seconds: float = 0.0
    stats: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FakeFailure:
    task: Any
    error: str
    kind: str = "SlideError"


def rle_of(data: bytes, options: str = "") -> str:
    """A run-length text that any change of the bytes or the options changes; every 16th slide is empty."""
    digest = hashlib.sha256(data + options.encode()).digest()
    if digest[0] < 16:
        return ""
    start, words = 1, []
    for byte in digest * 4:
        start += byte + 1
        words += [str(start), str(byte // 2 + 1)]
        start += byte // 2 + 1
    return " ".join(words)


class FakeProcessor:
    """Reads one slide ahead, as the real one does, so that two slides are in its hands."""

    def __init__(self, payload: dict[str, Any]) -> None:
        if payload.get("broken"):
            raise ModelError(f"{payload['broken']}: no such model")
        self.seconds = float(payload.get("seconds", 0.0))
        self.options = str(payload.get("options", ""))
        self.identity = {
            "model": "fake",
            "options": self.options,
            "nested": {"tile": payload.get("tile", 512)},
        }
        self.about = {"pid": os.getpid()}

    def process(self, tasks: Iterable[Any], stop: threading.Event | None = None) -> Iterator[Any]:
        stop = stop or threading.Event()
        ahead: list[tuple[Any, bytes]] = []
        for task in tasks:
            ahead.append((task, Path(task.path).read_bytes()))
            if len(ahead) > 1:
                yield self._one(*ahead.pop(0), stop)
        while ahead:
            yield self._one(*ahead.pop(0), stop)

    def _one(self, task: Any, data: bytes, stop: threading.Event) -> Any:
        word, _, rest = data.split(b"\n", 1)[0].decode().partition(" ")
        if word == "fail":
            return FakeFailure(task, f"{task.path}: {rest}")
        if word in ("segv", "kill"):
            os.kill(os.getpid(), signal.SIGSEGV if word == "segv" else signal.SIGKILL)
        if word == "killparent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if word == "once" and not os.path.exists(rest):
            Path(rest).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "raise":
            raise RuntimeError("the runtime lost its device")
        while word == "hold" and not os.path.exists(rest):
            if stop.wait(0.01):
                break
        while word == "deaf" and not os.path.exists(rest):
            time.sleep(0.01)
        if self.seconds:
            stop.wait(self.seconds)
        if stop.is_set():
            raise Interrupted("stopped")
        if log := os.environ.get("WSISEG_TEST_LOG"):
            Path(log, f"{task.id}.{os.getpid()}.{time.time_ns()}").touch()
        return FakeResult(task, (1000, len(data)), (FakeRuns(rle_of(data, self.options)),))


def make_processor(payload: dict[str, Any], context: Any) -> FakeProcessor:
    """The factory of a worker process."""
    return FakeProcessor(payload)
