"""What a person sees of a run: live bars on a terminal, one plain line per slide elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from wsiseg.jobs.records import Record
from wsiseg.jobs.request import Outcome
from wsiseg.pipeline.options import WAITS, bottleneck
from wsiseg.resident import peak_bytes
from wsiseg.units import format_bytes, format_duration, format_megapixels


class Display:
    """Shows the events of a job (`wsiseg.jobs.pool.Pool` and `launch` say which); call it with each.

    Args:
        output: the CSV, for the last line. memory: the budget in bytes. quiet: print failures only.
    """

    def __init__(self, output: str, memory: int, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._output, self._memory, self._quiet = output, memory, quiet
        self._about: dict[str, Any] = {}
        self._total = self._skipped = self._done = self._bytes = self._bytes_done = self._pixels = 0
        self._began = time.monotonic()
        self._peaks: dict[int, int] = {}
        self._bars: dict[int, tuple[str, TaskID]] = {}
        self._progress: Progress | None = None
        if not quiet and self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=self.console, transient=True,
            )  # fmt: skip
            self._overall = self._progress.add_task("[bold]slides", total=None, note="loading the model")
            self._progress.start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "ready":
                self._about = dict(event["about"] or {})
            case "plan":
                self._plan(event)
            case "report":
                self._report(event["worker"], event["data"])
            case "record":
                self._record(event["record"])
            case "death":
                names = ", ".join(slide.id for slide in event["slides"]) or "no slide"
                self._print(
                    f"worker {event['worker']} died ({event['how']}) with {names} in its hands; trying again"
                )
            case "note":
                self._print(event["text"])

    def _plan(self, event: Mapping[str, Any]) -> None:
        self._total, self._skipped, self._bytes = event["total"], event["skipped"], event["bytes"]
        self._began = time.monotonic()
        parts = [f"{self._total - self._skipped} slide(s) to do"]
        if self._skipped:
            parts.append(f"{self._skipped} done before")
        if self._about:
            parts.append(f"model {self._about['model']}, {self._about['description']}")
        parts.append(f"memory {format_bytes(self._memory)}")
        self._say("; ".join(parts))
        if self._progress is not None:
            self._progress.update(self._overall, total=self._total, completed=self._skipped, note="")

    def _report(self, worker: int, data: Mapping[str, Any]) -> None:
        self._peaks[worker] = max(self._peaks.get(worker, 0), int(data["peak"]))
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
        left = elapsed * (1 - data["share"]) / max(1e-3, data["share"])
        note = f"{speed:.0f} Mpx/s, limited by {bottleneck(data['times'])}, {format_duration(left)} left"
        self._progress.update(task, completed=data["share"], note=note)

    def _record(self, record: Record) -> None:
        self._done += 1
        self._bytes_done += max(record.file_size, 0)
        if record.status == "done":
            height, width = record.size or (0, 0)
            self._pixels += height * width
            counts = record.stats.get("counts", {})
            speed = height * width / max(record.seconds, 1e-3) / 1e6
            spared = counts.get("tiles without objects", 0)
            spared_text = f"{spared} without objects not decoded, " if spared else ""
            line = (
                f"{record.id}: {width} x {height}, {format_duration(record.seconds)}, {speed:.0f} Mpx/s, {counts.get('tiles', 0)} tiles, "
                f"{counts.get('empty tiles', 0)} empty ones skipped, {spared_text}limited by {bottleneck(record.stats.get('times', {}))}"
            )
            self._say(f"[{self._skipped + self._done}/{self._total}] {line}")
        else:
            self._print(f"[{self._skipped + self._done}/{self._total}] {record.id}: FAILED: {record.error}")
        for warning in record.warnings:
            self._say(f"    {record.id}: note: {warning}")
        if self._progress is not None:
            elapsed = time.monotonic() - self._began
            left = elapsed * (self._bytes - self._bytes_done) / self._bytes_done if self._bytes_done else 0.0
            note = f"{self._skipped + self._done} of {self._total}, {self._pixels / elapsed / 1e6:.0f} Mpx/s, {format_duration(left)} left"
            self._progress.update(self._overall, completed=self._skipped + self._done, note=note)

    def _say(self, line: str) -> None:
        """Print what a quiet run leaves out."""
        if not self._quiet:
            self._print(line)

    def _print(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the live part."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def tell(self, outcome: Outcome) -> None:
        """The last line: what became of the slides, the CSV, and the peak beside the plan."""
        summary, merged = outcome.summary, outcome.merged
        if outcome.submitted:
            return  # its notes have said everything
        parts = []
        if merged is not None:
            parts.append(f"{self._output}: {merged.rows} rows")
        if summary.failures:
            parts.append(f"{len(summary.failures)} of {summary.total} slides failed")
        if summary.missing:
            parts.append(f"{summary.missing} slides are missing")
        if self._pixels:
            elapsed = time.monotonic() - self._began
            parts.append(
                f"{format_megapixels(self._pixels)} in {format_duration(elapsed)} ({self._pixels / max(elapsed, 1e-3) / 1e6:.0f} Mpx/s)"
            )
        if self._peaks:
            parts.append(
                f"peak memory {format_bytes(sum(self._peaks.values()) + peak_bytes())} of {format_bytes(self._memory)}"
            )
        if parts:
            self._say("; ".join(parts))


def _short(name: str) -> str:
    """A name that leaves room for the bar."""
    return name if len(name) <= 28 else name[:13] + "…" + name[-14:]
