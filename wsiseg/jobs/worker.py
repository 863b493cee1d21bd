"""The supervised child process: builds the processor once, asks for slides, writes their records.

    python -m wsiseg.jobs.worker FD

FD is a socket to the parent that carries one JSON object a line (`pool` has the other end):

    parent -> child   setup · task · flush (end this call of `process`) · stop · exit
    child -> parent   ready · want (a task) · record · report · fatal · crash

The child pulls: nothing is sent that it did not ask for, so what it was given and has not answered is exactly what it
had in its hands when it died. When the parent dies the socket closes, and the child ends at once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from wsiseg.errors import Interrupted, WsisegError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.stage import Stage
from wsiseg.jobs.work import WorkerContext, work

CRASHED = 70


class _Link:
    """The child's end: a thread reads, anybody sends."""

    def __init__(self, fd: int, stop: threading.Event) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lock = threading.Lock()
        self._stop = stop
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="wsiseg-parent", daemon=True).start()

    def send(self, **message: Any) -> None:
        data = json.dumps(message, default=_plain).encode() + b"\n"
        with self._lock:
            self._socket.sendall(data)

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                message = json.loads(line)
                if message["type"] == "stop":
                    self._stop.set()
                self.inbox.put(message)
        # the parent is gone: nobody will count or merge what this process still makes
        os._exit(CRASHED)


def make_processor(factory: str, payload: dict[str, Any], context: WorkerContext) -> Any:
    """Calls "package.module:function" with the payload and the context.

    Raises:
        WsisegError: what the factory raises.
    """
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(payload, context)


def main(fd: int) -> int:
    """The child's life; returns its exit code."""
    stop = threading.Event()
    # a terminal sends Ctrl-C to the whole group; the parent decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = _Link(fd, stop)

    def heed(*_: object) -> None:
        stop.set()
        link.inbox.put({"type": "stop"})  # a SimpleQueue may be put to from a signal handler

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, heed)
    setup = link.inbox.get()
    folder = JobFolder(setup["folder"])
    context = WorkerContext(setup["worker"], folder)
    context.report = lambda data: link.send(type="report", data=dict(data))
    stage: Stage | None = None
    try:
        stage = Stage(setup["stage"]) if setup["stage"] else None
        processor = make_processor(setup["factory"], setup["payload"], context)
        link.send(
            type="ready",
            identity=getattr(processor, "identity", None),
            about=getattr(processor, "about", None),
        )
        _serve(link, folder, context, processor, stop, stage)
    except WsisegError as error:
        link.send(type="fatal", name=type(error).__name__, message=str(error), exit_code=error.exit_code)
        return error.exit_code
    except Exception as error:
        text = traceback.format_exc()
        with contextlib.suppress(WsisegError, OSError):
            folder.store.write(f"logs/crash-{folder.host}-{os.getpid()}.txt", text.encode())
        link.send(type="crash", message=f"{type(error).__name__}: {error}")
        return CRASHED
    finally:
        if stage:
            stage.close()
    return 0


def _serve(
    link: _Link,
    folder: JobFolder,
    context: WorkerContext,
    processor: Any,
    stop: threading.Event,
    stage: Stage | None,
) -> None:
    """Calls `process` again and again, each time with the tasks up to the next flush, until told to exit."""
    ended = False

    def take(open_call: bool) -> Slide | None:
        nonlocal ended
        if stop.is_set():
            ended = True
            return None
        link.send(type="want", open=open_call)
        message = link.inbox.get()
        if message["type"] == "task":
            context.digest = message["digest"]
            return Slide(**message["slide"])
        ended = message["type"] != "flush"
        return None

    while not ended:
        # the first task is taken before `process` is called, so that an idle worker has no call open
        first = take(False)
        if first is None:
            continue

        def tasks(first: Slide = first) -> Iterator[Slide]:
            slide: Slide | None = first
            while slide is not None:
                yield slide
                slide = take(True)

        try:
            for record in work(folder, tasks(), processor, lambda: context.digest, stop, stage):
                link.send(type="record", record=asdict(record))
        except Interrupted:
            return


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
