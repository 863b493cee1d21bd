"""Mutants of valid slides with fixed seeds: no crash, no hang, no large allocation, no exception but our own.

`WSISEG_FUZZ=100000 pytest tests/slide/test_slide_fuzz.py` reads more of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
MUTANTS = int(os.environ.get("WSISEG_FUZZ", "20000"))
HANG_SECONDS = 5.0
# The ring, the buffers and the codecs of such small slides, with the allocator's slack.
GROWTH = 192 * 2**20


@dataclass
class Findings:
    """What a share of the mutants did."""

    outcomes: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0

    def add(self, line: dict[str, Any]) -> None:
        self.outcomes[line["outcome"]] = self.outcomes.get(line["outcome"], 0) + 1
        self.slowest, self.grown = max(self.slowest, line["seconds"]), max(self.grown, line["grown"])
        if line["outcome"] == "wrong error":
            self.wrong.append(f"mutant {line['n']}: {line['detail']}")


def run_share(folder: Path, first: int, count: int, findings: Findings) -> None:
    """Read mutants first..first+count; after a crash or a hang, note it and go on with the next one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in (str(HERE), *sys.path) if p)}
    end = first + count
    while first < end:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "fuzz_worker.py"), str(folder), str(first), str(end - first)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        started: dict[str, Any] | None = None
        hung = threading.Event()

        def stop(process: subprocess.Popen[str] = child, flag: threading.Event = hung) -> None:
            flag.set()
            process.kill()

        timer = threading.Timer(60, stop)  # imports and compiled kernels come first
        timer.start()
        for text in child.stdout:
            line = json.loads(text)
            timer.cancel()
            if "outcome" in line:
                findings.add(line)
                started = None
            else:
                started = line
            timer = threading.Timer(HANG_SECONDS * 4, stop)
            timer.start()
        timer.cancel()
        child.stdout.close()
        code = child.wait()
        if started is None:
            assert code == 0, f"the fuzzing process ended with {code} between mutants"
            return
        what = "hung" if hung.is_set() else f"crashed the process ({code})"
        findings.wrong.append(f"mutant {started['n']} of {started['seed']}: {what}")
        first = started["n"] + 1


@pytest.mark.timeout(900)
def test_mutants(tmp_path: Path, record_property: Any) -> None:
    shares = min(2, len(os.sched_getaffinity(0)))
    findings = [Findings() for _ in range(shares)]
    edges = [MUTANTS * i // shares for i in range(shares + 1)]
    threads = [
        threading.Thread(target=run_share, args=(tmp_path, edges[i], edges[i + 1] - edges[i], findings[i]))
        for i in range(shares)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [w for f in findings for w in f.wrong]
    outcomes = {k: sum(f.outcomes.get(k, 0) for f in findings) for k in ("read", "refused", "wrong error")}
    slowest, grown = max(f.slowest for f in findings), max(f.grown for f in findings)
    print(
        f"\n{sum(outcomes.values())} mutants: {outcomes}, slowest {slowest:.2f} s, memory grew by {grown / 2**20:.0f} MiB"
    )
    record_property("mutants", json.dumps(outcomes))
    assert not wrong, "\n".join(wrong)
    assert sum(outcomes.values()) == MUTANTS
    assert outcomes["read"] > MUTANTS // 20
    assert outcomes["refused"] > MUTANTS // 4
    assert slowest < HANG_SECONDS
    assert grown < GROWTH
