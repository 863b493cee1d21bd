"""`wsiseg run`: slides in, submission.csv out.

The work is done in supervised child processes; this one stays light, so that whatever a slide does to its decoder,
somebody is there to write down the reason and go on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from wsiseg.cli.job_options import add_job_arguments, request_from, running_command
from wsiseg.cli.options import add_model_options, run_config, settle
from wsiseg.cli.saved import add_output_arguments, after, asked, with_outputs
from wsiseg.errors import BudgetError
from wsiseg.jobs.launch import launch
from wsiseg.jobs.pool import WorkerSpec
from wsiseg.pipeline.config import RunConfig
from wsiseg.units import format_bytes

HELP = """Segment slides (files, folders, globs) and write one row per slide to a CSV. A run that was stopped, in whatever
way, goes on where it was when the same command is given again."""

FACTORY = "wsiseg.jobs.segmenter:make"
DEFAULT_OUTPUT = "submission.csv"
# What this parent process holds besides its workers, with room to grow: 30 to 45 MB were measured.
PARENT_BYTES = 56 << 20
LEAST_WORKER_BYTES = 64 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slides", nargs="+", metavar="SLIDE", help="slide files, folders or globs")
    parser.add_argument(
        "--output",
        "-o",
        default=None,
        metavar="CSV",
        help=f"the submission to write (default: {DEFAULT_OUTPUT})",
    )
    add_model_options(parser)
    add_job_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the memory plan of each slide and stop; with --cluster, write what would be submitted",
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="print failures only")


def main(args: argparse.Namespace) -> int:
    settle(args)
    output = args.output or DEFAULT_OUTPUT
    wanted = asked(args, output)
    config = with_outputs(run_config(args), wanted)
    share = worker_config(config, args.workers)
    if args.dry_run and not args.cluster:
        from wsiseg.cli.plan import print_plans
        from wsiseg.jobs.manifest import find_slides

        return print_plans(share, find_slides(args.slides), args.workers)
    from wsiseg.cli.display import Display

    spec = WorkerSpec(FACTORY, share.to_dict(), stage=args.stage)
    request = request_from(args, args.slides, output, spec, running_command(sys.argv[1:]), lacks=wanted.lacks)
    display = Display(output, config.memory, quiet=args.quiet)
    try:
        outcome = launch(request, display)
    finally:
        display.close()
    if not outcome.submitted:
        after(request, config, wanted)
    display.tell(outcome)
    return outcome.exit_code


def worker_config(config: RunConfig, workers: int) -> RunConfig:
    """A worker's share of the memory and the threads.

    Raises:
        BudgetError: when nothing is left for a worker.
    """
    memory = (config.memory - PARENT_BYTES) // max(1, workers)
    if memory < LEAST_WORKER_BYTES:
        raise BudgetError(
            f"the memory budget is too small: --memory {format_bytes(config.memory)} for {workers} worker(s) leaves "
            f"{format_bytes(max(0, memory))} each; give 700MB or more per worker"
        )
    return replace(
        config,
        memory=memory,
        workers=max(1, workers),
        apart=PARENT_BYTES,
        threads=max(1, config.threads // max(1, workers)),
    )
