"""Options and progress that every command that runs many slides shares; `run` adds them to its own."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from wsiseg.errors import UsageError
from wsiseg.jobs.launch import JobRequest, Outcome
from wsiseg.jobs.pool import Event, WorkerSpec
from wsiseg.jobs.records import Record
from wsiseg.units import format_duration

# Options that a shard of the same command must not be given again, and whether a value follows.
NOT_FOR_SHARDS = {
    "--cluster": True, "--gpus": True, "--sbatch": True, "--dry-run": False, "--fresh": False, "--partial": False,
    "--retry-failed": False,
}  # fmt: skip


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --fresh --partial --retry-failed --records --stage --workers --shard --shards --cluster --gpus --sbatch."""
    again = parser.add_argument_group(
        "resume", "a run goes on where an earlier one with the same options ended"
    )
    again.add_argument("--fresh", action="store_true", help="start over: forget the records of earlier runs")
    again.add_argument("--partial", action="store_true", help="write the CSV even when slides are missing")
    again.add_argument(
        "--retry-failed",
        action="store_true",
        default=None,
        help="a shard tries failed slides again (a run always does)",
    )
    again.add_argument(
        "--records", metavar="DIR", help="folder or URL of the records; default: OUT.wsiseg beside the CSV"
    )
    many = parser.add_argument_group("one machine")
    many.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="worker processes; each gets its share of memory, cores and GPUs",
    )
    many.add_argument(
        "--stage",
        metavar="DIR",
        help="copy each slide to this folder of the node before reading it, when it fits",
    )
    spread = parser.add_argument_group("cluster")
    spread.add_argument(
        "--shard",
        metavar="I/N",
        help="do only this part of the slides, counted from 0; auto asks Slurm, Kubernetes or AWS Batch",
    )
    spread.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="with --shard auto: how many there are, where the cluster does not say",
    )
    spread.add_argument(
        "--cluster",
        metavar="ENGINE",
        help="slurm, dask-slurm, or the address of a Dask scheduler (tcp://host:8786)",
    )
    spread.add_argument(
        "--gpus",
        type=int,
        default=1,
        metavar="G",
        help="with --cluster: how many jobs, with a GPU each, at the same time",
    )
    spread.add_argument(
        "--sbatch",
        default="",
        metavar="OPTIONS",
        help='with --cluster slurm: more options for sbatch, like "-p gpu --time=4:00:00"',
    )


def request_from(
    args: argparse.Namespace,
    inputs: Sequence[str],
    out: str,
    spec: WorkerSpec,
    command: Sequence[str],
    identity: Mapping[str, Any] | None = None,
) -> JobRequest:
    """The request of parsed `add_job_arguments`.

    Args:
        command: program and arguments as they were typed, like [python, "-m", "wsiseg", "run", ...]; a shard of the job
            is the same command without the options of the cluster.
        identity: None asks the first worker for it.
    """
    if args.workers > 1 and args.shard and args.cluster:
        raise UsageError("--workers, --shard and --cluster do not go together")
    return JobRequest(
        inputs=tuple(inputs),
        out=out,
        spec=spec,
        identity=identity,
        records=args.records,
        fresh=args.fresh,
        partial=args.partial,
        retry_failed=args.retry_failed,
        shard=args.shard,
        shards=args.shards,
        workers=args.workers,
        cluster=args.cluster,
        gpus=args.gpus,
        sbatch=args.sbatch,
        dry_run=getattr(args, "dry_run", False),
        command=tuple(shard_command(command)),
    )


def shard_command(command: Sequence[str]) -> list[str]:
    """The command without the options that only the submission needs."""
    kept, skip = [], False
    for word in command:
        if skip:
            skip = False
            continue
        name, equals, _ = word.partition("=")
        if name in NOT_FOR_SHARDS:
            skip = NOT_FOR_SHARDS[name] and not equals
            continue
        kept.append(word)
    return kept


def join_values(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--sbatch VALUE` as one word, since argparse takes a value like `--time=4:00:00` for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--sbatch":
            joined[-1] = f"--sbatch={word}"
        else:
            joined.append(word)
    return joined


class JobProgress:
    """Shows the events of a job: a bar on a terminal, plain lines elsewhere. Use as a context manager; call it with events."""

    EVERY = 10.0  # seconds between two plain lines

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} slides"), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None, visible=False, left="")
        self._total = self._done = self._failed = self._bytes = self._bytes_done = 0
        self._skipped = 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        kind = event["type"]
        if kind == "plan":
            self._total, self._skipped, self._bytes = event["total"], event["skipped"], event["bytes"]
            self._began = self._said = time.monotonic()
            self._bar.update(self._task, total=self._total, completed=self._skipped, visible=True)
            if self._skipped:
                self.console.print(f"{self._skipped} of {self._total} slides were done before", markup=False)
        elif kind == "record":
            self._record(event["record"])
        elif kind == "death":
            names = ", ".join(slide.id for slide in event["slides"]) or "no slide"
            self.console.print(
                f"a worker died ({event['how']}) with {names} in its hands; starting another", markup=False
            )
        elif kind == "note":
            self.console.print(event["text"], markup=False)

    def _record(self, record: Record) -> None:
        self._done += 1
        self._bytes_done += max(record.file_size, 0)
        if record.status != "done":
            self._failed += 1
            self.console.print(f"failed: {record.id}: {record.error}", markup=False)
        for warning in record.warnings:
            self.console.print(f"{record.id}: {warning}", markup=False)
        spent = time.monotonic() - self._began
        left = spent * (self._bytes - self._bytes_done) / self._bytes_done if self._bytes_done else 0.0
        self._bar.update(
            self._task, completed=self._skipped + self._done, left=f"{format_duration(left)} left"
        )
        if not self.console.is_terminal and time.monotonic() - self._said >= self.EVERY:
            self._said = time.monotonic()
            self.console.print(
                f"{self._skipped + self._done} of {self._total} slides, {self._failed} failed, about {format_duration(left)} left"
            )


def tell(outcome: Outcome, out: str, console: Console) -> None:
    """The last lines of a run: what became of its slides, and the CSV."""
    summary, merged = outcome.summary, outcome.merged
    if outcome.submitted:
        return
    before = f" ({summary.skipped} of them before)" if summary.skipped else ""
    text = f"{summary.total - summary.missing - len(summary.failures)} of {summary.total} slides done{before}"
    if summary.failures:
        text += f", {len(summary.failures)} failed"
    if summary.missing:
        text += f", {summary.missing} not reached"
    console.print(text, markup=False)
    if merged is not None:
        console.print(
            f"{out}: {merged.rows} rows" + (", without the slides that failed" if merged.failed else ""),
            markup=False,
        )


def running_command(arguments: Sequence[str]) -> list[str]:
    """How to start this very program again with these arguments, on any node that shares the file system."""
    return [sys.executable, "-m", "wsiseg", *arguments]
