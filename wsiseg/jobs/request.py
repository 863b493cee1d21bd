"""What a person asked for, how it ended, and the steps that every way of running a job shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsiseg.errors import Interrupted, UsageError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide, find_slides
from wsiseg.jobs.merge import Merged
from wsiseg.jobs.pool import Event, WorkerSpec
from wsiseg.jobs.records import Record
from wsiseg.jobs.work import Summary

CLUSTERS = ("slurm", "dask-slurm", "tcp://HOST:PORT")


@dataclass(frozen=True)
class JobRequest:
    """What a person asked for.

    Attributes:
        inputs: files, folders and globs.
        out: path or URL of the CSV.
        spec: how a worker process makes its processor.
        identity: everything the results depend on, as plain data; None asks the first worker.
        records: folder or URL of the records; None is beside the CSV.
        fresh: forget what earlier runs did. partial: write the CSV even when slides are missing.
        retry_failed: try failed slides again; None does so except in a shard, which may be started many times by its
            cluster.
        shard: "i/n", "auto" or None. shards: how many there are, where the cluster does not say.
        workers: processes on this machine.
        cluster: None, "slurm", "dask-slurm" or a Dask scheduler's address.
        gpus: how many jobs of the cluster at a time. sbatch: more options for sbatch. dry_run: write, do not submit.
        command: the command line that does one shard of this, without the options of the cluster.
        overhead: what going on to the next chunk costs, in bytes of slides; None estimates it.
        job_memory: bytes to ask for, for each Dask worker in a Slurm job. job_host: address that its scheduler listens
            on; None leaves it to Dask.
        lacks: says that a slide lacks an output that its record cannot give, so that it is processed again.
    """

    inputs: tuple[str, ...]
    out: str
    spec: WorkerSpec
    identity: Mapping[str, Any] | None = None
    records: str | None = None
    fresh: bool = False
    partial: bool = False
    retry_failed: bool | None = None
    shard: str | None = None
    shards: int | None = None
    workers: int = 1
    cluster: str | None = None
    gpus: int = 1
    sbatch: str = ""
    dry_run: bool = False
    command: tuple[str, ...] = ()
    overhead: float | None = None
    job_memory: int = 8 << 30
    job_host: str | None = None
    lacks: Callable[[Slide], bool] | None = None

    @property
    def folder(self) -> JobFolder:
        return JobFolder.beside(self.out, self.records)


@dataclass(frozen=True)
class Outcome:
    """How it ended: the slides of this part, the CSV if one was written, or that a cluster has them now."""

    summary: Summary
    merged: Merged | None = None
    submitted: bool = False

    @property
    def exit_code(self) -> int:
        return 0 if self.submitted else self.summary.exit_code


def check(request: JobRequest) -> None:
    """Refuses what does not go together.

    Raises:
        UsageError: in one line.
    """
    cluster = request.cluster
    if cluster and cluster not in CLUSTERS[:2] and not cluster.startswith(("tcp://", "tls://", "ucx://")):
        raise UsageError(f"--cluster {cluster!r} is not known; known: {', '.join(CLUSTERS)}")
    if cluster and request.shard:
        raise UsageError("--cluster and --shard do not go together: the cluster makes its own shards")
    if request.shard and request.fresh:
        raise UsageError(
            "--fresh with --shard would remove what other shards have done; run it once without --shard"
        )
    if request.shards is not None and request.shard != "auto":
        raise UsageError("--shards N goes with --shard auto; write --shard i/n otherwise")
    if request.workers < 1 or request.gpus < 1:
        raise UsageError("--workers and --gpus must be at least 1")


def prepare(request: JobRequest) -> tuple[JobFolder, Manifest]:
    """The job's folder and the list that counts for this request."""
    folder = request.folder
    if request.fresh:
        folder.start_over()
    folder.clean()
    if not request.shard:
        return folder, find_slides(request.inputs)
    frozen = folder.manifest()
    return folder, frozen or folder.freeze_manifest(find_slides(request.inputs))


def reusable(
    request: JobRequest, folder: JobFolder, slides: Sequence[Slide], digest: str
) -> dict[str, Record]:
    """Records that spare their slides; failed ones are forgotten when they are to be tried again."""
    found = folder.scan(slides, digest)
    if request.lacks is not None:
        again = {slide.key for slide in slides if slide.key in found and request.lacks(slide)}
        found = {key: one for key, one in found.items() if one.status != "done" or key not in again}
    retry = not request.shard if request.retry_failed is None else request.retry_failed
    return folder.forget_failures(found) if retry else found


def plan_event(total: int, rest: Sequence[Slide]) -> Event:
    """What is ahead of so many slides, for a progress display."""
    return {
        "type": "plan",
        "total": total,
        "skipped": total - len(rest),
        "bytes": sum(s.size for s in rest),
    }


def interrupted(name: str, summary: Summary) -> Interrupted:
    """The line of a run that a signal ended."""
    done = summary.total - summary.missing
    return Interrupted(
        f"stopped by {name or 'request'} with {done} of {summary.total} slides done; the same command goes on from there"
    )
