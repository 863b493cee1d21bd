"""Run a command and measure its whole process tree: time on the clock, CPU seconds, and the most resident memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.resident import children

ROOT = Path(__file__).resolve().parents[1]
EVERY = 0.02


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        wall, cpu: seconds on the clock, and CPU seconds of it and every child it waited for.
        peak: the largest sum over living processes of each one's own peak (VmHWM) in bytes: never below the true peak.
        code, output: exit status and what it printed on either stream.
    """

    wall: float
    cpu: float
    peak: int
    code: int
    output: str


def peaks(pid: int) -> int:
    """Sum of VmHWM over a process and its descendants, in bytes."""
    total = 0
    for process in (pid, *children(pid)):
        try:
            text = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def measure(argv: Sequence[str], environ: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Measured:
    """Run `argv` to its end. A process that lives for less than two samples (40 ms) may be missed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        list(argv),
        env={**environment(), **(environ or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    most, done = 0, threading.Event()

    def sample() -> None:
        nonlocal most
        while not done.wait(EVERY):
            most = max(most, peaks(process.pid))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    assert process.stdout is not None
    with process.stdout as pipe:
        output = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    done.set()
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(wall, usage.ru_utime + usage.ru_stime, most, process.returncode, output)


def environment() -> dict[str, str]:
    """The environment in which `python -m wsiseg` finds this checkout."""
    paths = [str(ROOT / part) for part in (".", "kernels", "train")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def wsiseg(*arguments: str | Path) -> list[str]:
    """The command line of `wsiseg ...` by this interpreter."""
    return [sys.executable, "-m", "wsiseg", *map(str, arguments)]


def checked(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Measured:
    """`measure`, and the command's output as an error when it fails."""
    done = measure(argv, environ)
    if done.code:
        raise SystemExit(f"{' '.join(argv)}\nexit code {done.code}\n{done.output}")
    return done
