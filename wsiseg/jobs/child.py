"""One supervised child process as its parent sees it: how it is made, what it says, how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide


@dataclass(frozen=True)
class WorkerSpec:
    """How a process with nothing loaded makes a processor.

    Attributes:
        factory: "package.module:function", called with (payload, WorkerContext).
        payload: plain JSON data; a list gives each worker its own (its share of memory, its GPU).
        environ: added to each worker's environment, one mapping per worker or none.
        stage: folder on the node's own disk to copy slides to, or None.
    """

    factory: str
    payload: Mapping[str, Any] | Sequence[Mapping[str, Any]] = field(default_factory=dict)
    environ: Sequence[Mapping[str, str]] = ()
    stage: str | None = None

    def payload_of(self, worker: int) -> Mapping[str, Any]:
        return self.payload if isinstance(self.payload, Mapping) else self.payload[worker % len(self.payload)]

    def environ_of(self, worker: int) -> Mapping[str, str]:
        return self.environ[worker % len(self.environ)] if self.environ else {}


class Child:
    """One child process, the parent's end of its socket, and what is in its hands."""

    def __init__(self, number: int, spec: WorkerSpec, folder: JobFolder) -> None:
        self.number = number
        self.hands: dict[int, Slide] = {}
        self.alone = False  # its only slide is a suspect
        self.wants = False
        self.in_call = False  # its wish comes from inside a call of `process`, which must not be left waiting
        self.ready: dict[str, Any] | None = None
        self.reason = ""
        self.told_to_stop = False
        self._buffer = b""
        self.socket, theirs = socket.socketpair()
        # the child finds the same packages, however the parent came to find them
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wsiseg.jobs.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path, **spec.environ_of(number)},
            )
        self.send(
            type="setup",
            folder=folder.url,
            worker=number,
            factory=spec.factory,
            payload=dict(spec.payload_of(number)),
            stage=spec.stage,
        )

    def send(self, **message: Any) -> None:
        # a child that just died cannot read; its end of the socket tells the loop
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Messages that arrived; None when the child has closed its end."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> int:
        """Waits for a child that has closed its end; returns its exit status as `subprocess` gives it."""
        self.socket.close()
        return self.process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


def how_it_ended(status: int) -> str:
    """How a process ended, for people."""
    if status >= 0:
        return f"exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"{name} (out of memory, or killed from outside)" if name == "SIGKILL" else name
