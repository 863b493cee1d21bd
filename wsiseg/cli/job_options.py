"""Options that every command that runs many slides shares; `run` adds them to its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.pool import WorkerSpec
from wsiseg.jobs.request import JobRequest

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
    lacks: Callable[[Slide], bool] | None = None,
) -> JobRequest:
    """The request of parsed `add_job_arguments`.

    Args:
        command: program and arguments as they were typed, like [python, "-m", "wsiseg", "run", ...]; a shard of the job
            is the same command without the options of the cluster.
        identity: None asks the first worker for it. lacks: see `JobRequest`.
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
        # the budget of the worker, and room for the Dask worker around it
        job_memory=int(spec.payload_of(0).get("memory", 8 << 30)) + (512 << 20),
        lacks=lacks,
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


def running_command(arguments: Sequence[str]) -> list[str]:
    """How to start this very program again with these arguments, on any node that shares the file system."""
    return [sys.executable, "-m", "wsiseg", *arguments]
