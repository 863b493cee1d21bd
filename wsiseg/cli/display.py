"""What a person sees of a run: live bars on a terminal, one plain line per slide elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wsiseg.jobs.records import Record
from wsiseg.units import format_duration, format_megapixels

# Which stage the feeder waited for, and what to call it. Cutting tiles is our own work between the two.
WAITS = {"wait for reading": "reading", "wait for network": "network", "cut": "cutting tiles"}


def bottleneck(times: Mapping[str, float]) -> str:
    """The stage that held a slide back: the one that its feeder spent most of its time on."""
    waits = {name: times.get(stage, 0.0) for stage, name in WAITS.items()}
    return max(waits, key=lambda name: waits[name]) if any(waits.values()) else "opening"


class Display:
    """Progress of a run of `total` slides, of which `done` are there already.

    Args:
        quiet: print failures only.
    """

    def __init__(self, total: int, done: int, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._total, self._done, self._quiet = total, done, quiet
        self._started, self._pixels, self.peak = time.monotonic(), 0, 0
        self._peaks: dict[int, int] = {}
        self._live = not quiet and self.console.is_terminal
        self._bars: dict[int, tuple[str, TaskID]] = {}
        self._progress: Progress | None = None
        if self._live:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn(), console=self.console,
            )  # fmt: skip
            self._overall = self._progress.add_task("[bold]slides", total=max(1, total), completed=done, note="")
            self._progress.start()

    def report(self, worker: int, data: Mapping[str, Any]) -> None:
        """A slide's progress, from a worker."""
        self._peaks[worker] = max(self._peaks.get(worker, 0), int(data.get("peak", 0)))
        self.peak = sum(self._peaks.values())
        if self._progress is None:
            return
        name, task = self._bars.get(worker, ("", TaskID(-1)))
        if name != data["id"]:
            if name:
                self._progress.remove_task(task)
            task = self._progress.add_task(_short(data["id"]), total=1.0, note="")
            self._bars[worker] = (data["id"], task)
        elapsed = max(1e-3, sum(data["times"].get(stage, 0.0) for stage in WAITS))
        speed = data["share"] * data["pixels"] / elapsed / 1e6
        note = f"{speed:.0f} Mpx/s, limited by {bottleneck(data['times'])}"
        self._progress.update(task, completed=data["share"], note=note)
        self._progress.update(self._overall, completed=self._done + sum(self._progress.tasks[i].completed for i in range(0)), note=self._overall_note())

    def _overall_note(self) -> str:
        elapsed = time.monotonic() - self._started
        return f"{self._done} of {self._total}" + (f", {self._pixels / elapsed / 1e6:.0f} Mpx/s" if self._pixels else "")

    def record(self, record: Record) -> None:
        """A slide is done or failed."""
        self._done += 1
        if record.status == "done":
            height, width = record.size or (0, 0)
            self._pixels += height * width
            counts, times = record.stats.get("counts", {}), record.stats.get("times", {})
            runs = sum(record.stats.get("runs", ())) if record.stats.get("runs") else None
            parts = [
                f"{width} x {height}",
                format_duration(record.seconds),
                f"{height * width / max(record.seconds, 1e-3) / 1e6:.0f} Mpx/s",
                f"{counts.get('tiles', 0)} tiles ({counts.get('empty tiles', 0)} empty skipped)",
                *([f"{runs} runs"] if runs is not None else []),
                f"limited by {bottleneck(times)}",
            ]
            line = f"{record.id}: " + ", ".join(parts)
        else:
            line = f"{record.id}: FAILED: {record.error}"
        if self._progress is not None:
            self._progress.update(self._overall, completed=self._done, note=self._overall_note())
        if not self._quiet or record.status != "done":
            self._print(f"[{self._done}/{self._total}] {line}")
        for warning in record.warnings if not self._quiet else ():
            self._print(f"    {record.id}: note: {warning}")

    def note(self, line: str) -> None:
        """A line for people."""
        if not self._quiet:
            self._print(line)

    def _print(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the live part."""
        if self._progress is not None:
            for _, task in self._bars.values():
                self._progress.remove_task(task)
            self._progress.stop()
            self._progress = None

    def total_line(self) -> str:
        """What was done in this run, in one line."""
        elapsed = time.monotonic() - self._started
        return f"{format_megapixels(self._pixels)} in {format_duration(elapsed)} ({self._pixels / max(elapsed, 1e-3) / 1e6:.0f} Mpx/s)"


def _short(name: str) -> str:
    """A name that leaves room for the bar."""
    return name if len(name) <= 28 else name[:13] + "…" + name[-14:]
