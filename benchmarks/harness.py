"""Timing of variants against each other: interleaved, medians and ratios, with the machine beside the figures.

One script per question calls `compare` for each of its tables and `write` at the end. Variants take turns within a
round, so that a machine that slows down slows all of them; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Row:
    """One variant: median seconds, rate in `unit` per second, and how many times faster than the table's first."""

    variant: str
    seconds: float
    rate: float
    ratio: float
    spread: float
    """Slowest quarter over fastest quarter of the rounds: 1 is a quiet machine."""


@dataclass(frozen=True)
class Table:
    """The answer to one question."""

    question: str
    unit: str
    rounds: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())


def compare(
    question: str,
    variants: Mapping[str, Callable[[], object]],
    work: float,
    unit: str = "Mpx",
    rounds: int = 11,
    notes: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Table:
    """Time each variant once per round, after one call that does not count. The first variant is the baseline.

    work: how many `unit` one call handles. clock: `time.thread_time` for work of the calling thread alone, which then
    does not pay for the turns of other programs.
    """
    for variant in variants.values():
        variant()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            start = clock()
            variant()
            times[name].append(clock() - start)
    base = next(iter(times.values()))
    rows = []
    for name, taken in times.items():
        seconds = statistics.median(taken)
        ratio = statistics.median(b / t for b, t in zip(base, taken, strict=True))
        ordered = sorted(taken)
        spread = ordered[(3 * rounds) // 4] / ordered[rounds // 4]
        rows.append(Row(name, seconds, work / seconds, ratio, spread))
    table = Table(question, unit, rounds, tuple(rows), tuple(notes))
    print(markdown(table), flush=True)
    return table


def markdown(table: Table) -> str:
    """The table as a section of Markdown."""
    lines = [
        f"## {table.question}",
        "",
        f"| variant | median ms | {table.unit}/s | times the first | spread |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in table.rows:
        lines.append(
            f"| {row.variant} | {row.seconds * 1e3:.3g} | {row.rate:,.0f} | {row.ratio:.2f} | {row.spread:.2f} |"
        )
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def machine(packages: Sequence[str]) -> dict[str, str]:
    """What the figures depend on: processor, cores granted, versions, commit."""
    facts = {
        "processor": _processor(),
        "cores granted": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    for package in packages:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def write(name: str, tables: Sequence[Table], packages: Sequence[str], folder: Path = RESULTS) -> None:
    """Write results/NAME.json and NAME.md with the machine, versions and commit."""
    facts = machine(packages)
    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": facts, "tables": [asdict(table) for table in tables]}
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    head = [f"# {name}", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    (folder / f"{name}.md").write_text(
        "\n".join([*head, *(markdown(table) for table in tables)]).rstrip() + "\n"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    wide = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in named.get("flags", "").split()]
    return " ".join([named.get("model name", platform.processor()), *wide])


def _commit() -> str:
    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parent)
        return run.stdout.strip() if run.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")
