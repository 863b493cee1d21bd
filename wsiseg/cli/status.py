"""`wsiseg status OUT`: how far a run is."""

from __future__ import annotations

import argparse
import dataclasses
import json

from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from wsiseg.jobs.status import Status, find_folder, status_of
from wsiseg.units import format_duration, format_megapixels

HELP = (
    "Show how far a run is: slides done, failed with their reasons, missing, slides per hour and time left."
)
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", help="the submission CSV of the run, its .wsiseg folder, or the folder that holds it"
    )
    parser.add_argument(
        "--json", action="store_true", help="everything as one JSON object on standard output"
    )
    parser.add_argument(
        "--all", action="store_true", help=f"list every failed and missing slide, not the first {SHOWN}"
    )


def main(args: argparse.Namespace) -> int:
    status = status_of(find_folder(args.out))
    if args.json:
        print(json.dumps(dataclasses.asdict(status), ensure_ascii=False, default=str))
    else:
        show(status, Console(soft_wrap=True, highlight=False), None if args.all else SHOWN)
    return 3 if status.missing else 1 if status.failed else 0


def show(status: Status, console: Console, limit: int | None) -> None:
    """Prints the status: counts, speed, reasons of failures, names of missing slides."""
    console.print(f"[bold]{escape(status.url)}[/bold]")
    finished = len(status.done) + len(status.failed)
    if console.is_terminal:
        console.print(ProgressBar(total=max(status.total, 1), completed=finished, width=50))
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "done",
        f"{len(status.done)} of {status.total}",
        format_megapixels(status.pixels) if status.pixels else "",
    )
    table.add_row("failed", str(len(status.failed)))
    table.add_row("missing", str(len(status.missing)))
    if status.per_hour is not None:
        left = (
            ""
            if status.seconds_left is None or not status.missing
            else f"about {format_duration(status.seconds_left)} left"
        )
        table.add_row("speed", f"{status.per_hour:,.0f} slides an hour", left)
    console.print(table)
    for record in status.failed[:limit]:
        console.print(f"[red]failed[/red]  {escape(record.id)}: {escape(record.error)}")
    for slide in status.missing[:limit]:
        console.print(f"[yellow]missing[/yellow] {escape(slide.id)}: {escape(slide.path)}")
    hidden = (
        sum(max(0, len(part) - limit) for part in (status.failed, status.missing)) if limit is not None else 0
    )
    if hidden:
        console.print(f"... and {hidden} more; --all lists them")
    warned = [record for record in status.done if record.warnings]
    if warned:
        console.print(
            f"{len(warned)} slides have warnings, such as {escape(warned[0].id)}: {escape(warned[0].warnings[0])}"
        )
