"""Timing of variants against each other: interleaved, medians and ratios, with the machine beside the figures.

One script per question calls `compare` for each of its tables and `write` at the end. Variants take turns within a
round, so that a machine that slows down slows all of them; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wsiseg.bench.machine import machine

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


@dataclass(frozen=True)
class Facts:
    """The answer to a question that is not only about seconds: columns of figures, the first one names the row."""

    question: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    notes: tuple[str, ...] = field(default=())


def facts(
    question: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]], notes: Sequence[str] = ()
) -> Facts:
    """A table of measured figures, printed and to be written."""
    table = Facts(question, tuple(columns), tuple(tuple(row) for row in rows), tuple(notes))
    print(markdown(table), flush=True)
    return table


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


def markdown(table: Table | Facts) -> str:
    """The table as a section of Markdown."""
    if isinstance(table, Facts):
        return _plain(table)
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


def _plain(table: Facts) -> str:
    def cell(value: str | float) -> str:
        return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    lines = [f"## {table.question}", "", "| " + " | ".join(table.columns) + " |"]
    lines.append("| --- " + "| ---: " * (len(table.columns) - 1) + "|")
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def write(
    name: str, tables: Sequence[Table | Facts], packages: Sequence[str], folder: Path = RESULTS
) -> None:
    """Write results/NAME.json and NAME.md with the machine, versions and commit."""
    facts = machine(packages)
    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": facts, "tables": [asdict(table) for table in tables]}
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    head = [f"# {name}", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    (folder / f"{name}.md").write_text(
        "\n".join([*head, *(markdown(table) for table in tables)]).rstrip() + "\n"
    )
