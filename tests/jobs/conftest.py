"""Folders of fake slides, and the undisturbed answer that every disturbed run must give byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.fake import rle_of

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 120.0  # seconds after which a state that never comes fails the test


def write_slides(folder: Path, count: int = 60, special: dict[int, str] | None = None) -> Path:
    """`count` files of different sizes; `special` gives some of them their first line."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        head = (special or {}).get(i, "slide")
        (folder / f"s{i:03d}.tif").write_text(f"{head}\n{i}\n" + "x" * (37 * i % 500))
    return folder


def expected_csv(folder: Path, options: str = "", without: Iterable[str] = ()) -> bytes:
    """What an undisturbed run writes, made without any of the code under test."""
    rows = [
        f"{path.stem},{rle_of(path.read_bytes(), options)}\n"
        for path in sorted(folder.glob("*.tif"))
        if path.stem not in set(without)
    ]
    return ("id,predicted\n" + "".join(rows)).encode()


def differences(found: bytes, expected: bytes) -> Counter[str]:
    """How a CSV differs from the undisturbed one: slides that are lost, that are there twice, rows that are wrong."""
    rows, wanted = found.splitlines(), expected.splitlines()
    names, ids = ([line.split(b",")[0] for line in lines[1:]] for lines in (rows, wanted))
    return Counter(
        lost=len(set(ids) - set(names)),
        twice=len(names) - len(set(names)),
        wrong=len(set(rows) - set(wanted)),
    )


def leftovers(folder: Path) -> list[str]:
    """Temporary files below a folder."""
    return [
        str(p) for p in folder.rglob("*") if p.is_file() and (p.name.endswith(".tmp") or ".tmp" in p.name)
    ]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a subprocess that finds wsiseg and the tests."""
    path = os.pathsep.join(str(ROOT / part) for part in (".", "kernels", "train"))
    return {**os.environ, "PYTHONPATH": path, **extra}


def driver(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.jobs.driver", *map(str, arguments)]


def run_driver(*arguments: object, code: int | None = 0, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs the driver to its end and checks its exit code."""
    done = subprocess.run(
        driver(*arguments),
        env=environment(**extra),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return done


def wait_for(state: Callable[[], object], what: str) -> None:
    """Waits until `state()` is true; a test never waits for a number of seconds."""
    deadline = time.monotonic() + PATIENCE
    while not state():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(0.01)


def count_records(out: Path) -> int:
    return sum(1 for _ in Path(f"{out}.wsiseg").glob("records/*/*.txt"))


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    return write_slides(tmp_path / "slides")


@dataclass
class Case:
    """One disturbed job: its slides, its CSV, the gate that holds some slides, and a note of every slide processed."""

    name: str
    engine: str
    dir: Path
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.out, self.gate, self.log = self.dir / "out.csv", self.dir / "gate", self.dir / "log"
        self.log.mkdir()

    def slides(self, special: dict[int, str] | None = None, hold: Iterable[int] = ()) -> Path:
        """60 slides, of which some wait for the gate."""
        return write_slides(
            self.dir / "slides", 60, {**dict.fromkeys(hold, f"hold {self.gate}"), **(special or {})}
        )

    def check(self) -> None:
        """Every slide exactly once, bytes as of the undisturbed run, nothing half-written; notes the row of the table."""
        found, expected = self.out.read_bytes(), expected_csv(self.dir / "slides", without=self.without)
        done = Counter(path.name.split(".")[0] for path in self.log.iterdir())
        note_event(
            engine=self.engine,
            event=self.name,
            slides=60,
            **differences(found, expected),
            again=sum(count - 1 for count in done.values()),
            failed=len(self.without),
        )
        assert found == expected
        assert leftovers(self.dir) == []


EVENTS: list[dict[str, object]] = []


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """A case named by the marks: `@pytest.mark.parametrize("case", [("Slurm", "node killed")], indirect=True)`."""
    engine, name = request.param
    return Case(name, engine, tmp_path)


def note_event(**row: object) -> None:
    """Notes a row of the table of events; also in the file that WSISEG_EVENTS names, which outlives this process."""
    EVENTS.append(row)
    if path := os.environ.get("WSISEG_EVENTS"):
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of events and outcomes."""
    if EVENTS:
        terminalreporter.section("events and outcomes")
        terminalreporter.write_line(events_table(EVENTS))


def events_table(events: Iterable[Mapping[str, object]]) -> str:
    """Markdown; "done again" counts slides that were finished twice, "given up" those that ended with an error record."""
    lines = [
        "| engine | event | slides | lost | twice | wrong | done again | given up |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    keys = ("engine", "event", "slides", "lost", "twice", "wrong", "again", "failed")
    rows = Counter(tuple(str(event[key]) for key in keys) for event in events)
    for row, count in rows.items():
        engine, event, *rest = row
        lines.append(
            "| " + " | ".join([engine, event + (f", {count} times" if count > 1 else ""), *rest]) + " |"
        )
    return "\n".join(lines)
