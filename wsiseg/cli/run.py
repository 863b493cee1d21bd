"""`wsiseg run`: slides in, submission.csv out.

The work is done in supervised child processes; this one stays light, so that whatever a slide does to its decoder,
somebody is there to write down the reason and go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wsiseg.cli.options import add_model_options, run_config, settle
from wsiseg.errors import BudgetError, UsageError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, find_slides
from wsiseg.jobs.merge import merge
from wsiseg.jobs.pool import Pool, WorkerSpec
from wsiseg.jobs.stop import StopSignals
from wsiseg.pipeline.config import RunConfig
from wsiseg.resident import peak_bytes
from wsiseg.units import format_bytes

HELP = """Segment slides (files, folders, globs) and write one row per slide to a CSV. A run that was stopped, in whatever
way, goes on where it was when the same command is given again."""

FACTORY = "wsiseg.jobs.segmenter:make"
# What this parent process holds besides its workers, with room to grow: 30 to 45 MB were measured.
PARENT_BYTES = 56 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slides", nargs="+", metavar="SLIDE", help="slide files, folders or globs")
    parser.add_argument("--output", "-o", default=None, metavar="CSV", help="the submission to write (default: submission.csv)")
    add_model_options(parser)
    group = parser.add_argument_group("job")
    group.add_argument("--workers", type=int, metavar="N", help="processes that share the slides, the memory and the threads (default: 1)")
    group.add_argument("--fresh", action="store_true", help="start over: forget the records of earlier runs")
    group.add_argument("--records", metavar="DIR", help="where finished slides are kept (default: CSV.wsiseg)")
    group.add_argument("--partial", action="store_true", help="write the CSV even when slides are missing")
    group.add_argument("--stage", metavar="DIR", help="copy each slide to this node-local folder first")
    group.add_argument("--dry-run", action="store_true", help="print the plan of each slide and stop")
    group.add_argument("--quiet", "-q", action="store_true", help="print failures only")


def main(args: argparse.Namespace) -> int:
    settle(args)
    config = run_config(args)
    output = args.output or "submission.csv"
    manifest = find_slides(args.slides)
    workers = args.workers or 1
    if workers < 1:
        raise UsageError(f"--workers {workers}: must be at least 1")
    if args.dry_run:
        from wsiseg.cli.plan import print_plans

        return print_plans(worker_config(config, workers), manifest, workers)
    return run(config, manifest, output, args, workers)


def worker_config(config: RunConfig, workers: int) -> RunConfig:
    """A worker's share of the memory and the threads.

    Raises:
        BudgetError: when nothing is left for a worker.
    """
    memory = (config.memory - PARENT_BYTES) // workers
    if memory < 64 << 20:
        raise BudgetError(
            f"the memory budget is too small: --memory {format_bytes(config.memory)} for {workers} worker(s) leaves "
            f"{format_bytes(max(0, memory))} each; give --memory 700MB or more per worker"
        )
    return replace(config, memory=memory, threads=max(1, config.threads // workers))


def run(config: RunConfig, manifest: Manifest, output: str, args: argparse.Namespace, workers: int) -> int:
    """Process what has no record yet, then write the CSV; returns the exit code."""
    from wsiseg.cli.display import Display

    folder = JobFolder.beside(output, args.records)
    spec = WorkerSpec(FACTORY, worker_config(config, workers).to_dict(), stage=args.stage)
    display: Display | None = None
    about: dict[str, Any] = {}

    def on_event(event: Mapping[str, Any]) -> None:
        if event["type"] == "ready":
            about.update(event["about"] or {})
        elif display is None:
            return
        elif event["type"] == "record":
            display.record(event["record"])
        elif event["type"] == "report":
            display.report(event["worker"], event["data"])
        elif event["type"] == "death":
            names = ", ".join(slide.id for slide in event["slides"]) or "no slide"
            display.note(f"worker {event['worker']} died ({event['how']}) with {names} in its hands; trying again")

    with StopSignals() as stop, Pool(folder, spec, workers, on_event) as pool:
        stop.on_stop, stop.on_kill = pool.wake, pool.kill
        identity = pool.identity() or {}
        if args.fresh:
            folder.start_over()
        folder.clean()
        digest = folder.claim(identity)
        folder.write_manifest(manifest)
        found = folder.forget_failures(folder.scan(manifest.slides, digest))
        rest = [slide for slide in manifest.slides if slide.key not in found]
        display = Display(len(manifest.slides), len(found), args.quiet)
        try:
            display.note(
                f"{len(rest)} slides to do" + (f", {len(found)} done before" if found else "")
                + f"; model {about.get('model')}, {about.get('description')}, memory {format_bytes(config.memory)}"
            )  # fmt: skip
            records = pool.run(rest, digest, stop.event)
        finally:
            display.close()
        interrupted = stop.event.is_set() and len(records) < len(rest)
    if interrupted:
        display.note(f"stopped by {stop.name}: {len(rest) - len(records)} slides are left; the same command goes on")
        if not args.partial:
            return 75
    merged = merge(folder, output, partial=args.partial, manifest=manifest)
    peak = display.peak + peak_bytes()
    display.note(
        f"{output}: {merged.rows} rows" + (f", {len(merged.failed)} slides failed" if merged.failed else "")
        + f"; {display.total_line()}; peak memory {format_bytes(peak)} of {format_bytes(config.memory)}"
    )  # fmt: skip
    return 75 if interrupted else merged.exit_code


