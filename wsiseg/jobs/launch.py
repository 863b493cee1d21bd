"""The one entry that the command line calls: many slides, on this machine, as a shard, or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from wsiseg.errors import UsageError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.merge import merge
from wsiseg.jobs.pool import Event, Pool, WorkerSpec
from wsiseg.jobs.request import JobRequest, Outcome, check, interrupted, plan_event, prepare, reusable
from wsiseg.jobs.shards import PLAN_VARIABLE, equal_shards, parse_shard, planned
from wsiseg.jobs.stop import StopSignals
from wsiseg.jobs.work import Summary
from wsiseg.limits import available_gpus


def launch(request: JobRequest, on_event: Callable[[Event], None] = lambda event: None) -> Outcome:
    """Does what the request says.

    Args:
        on_event: what `pool.Pool` reports, and {"type": "plan", "total": n, "skipped": n, "bytes": n} once,
            {"type": "note", "text": line} for what a person should read.

    Raises:
        WsisegError: one line, with its exit code.
    """
    check(request)
    if request.cluster == "slurm":
        from wsiseg.jobs.slurm import submit

        return submit(request, on_event)
    if request.cluster:
        from wsiseg.jobs.dask_cluster import run_dask

        return run_dask(request, on_event)
    return run_here(request, on_event)


def part_of(request: JobRequest, folder: JobFolder, manifest: Manifest) -> Sequence[Slide]:
    """The slides of the manifest that this process is asked to do."""
    if not request.shard:
        return manifest.slides
    shard = parse_shard(request.shard, request.shards)
    plan = os.environ.get(PLAN_VARIABLE) if request.shard == "auto" else None
    if not plan:
        return equal_shards(manifest.slides, shard.count)[shard.index]
    data = folder.store.read(plan)
    if data is None:
        raise UsageError(f"{folder.url}/{plan}: the plan of this submission is gone; submit again")
    return planned(data, shard, manifest.slides)


def run_here(request: JobRequest, on_event: Callable[[Event], None]) -> Outcome:
    """The slides, or one shard of them, in worker processes of this machine; without a shard, the CSV too."""
    with StopSignals() as signals:
        folder, manifest = prepare(request)
        slides = part_of(request, folder, manifest)
        spec = (
            on_own_gpus(request.spec, request.workers, available_gpus())
            if request.workers > 1
            else request.spec
        )
        with Pool(folder, spec, request.workers, on_event) as pool:
            signals.on_stop, signals.on_kill = pool.wake, pool.kill
            identity = request.identity if request.identity is not None else pool.identity(signals.event)
            digest = folder.claim(identity or {})
            if not request.shard:
                folder.write_manifest(manifest)
            found = reusable(request, folder, slides, digest)
            rest = [slide for slide in slides if slide.key not in found]
            on_event(plan_event(slides, rest))
            summary = Summary(len(slides), skipped=len(found))
            summary.failures += [record for record in found.values() if record.status != "done"]
            for record in pool.run(rest, digest, signals.event):
                summary.add(record)
        summary.interrupted = signals.event.is_set()
        folder.clean()
    if summary.missing and (request.shard or not request.partial):
        raise interrupted(signals.name, summary)
    if request.shard:
        return Outcome(summary)
    return Outcome(summary, merge(folder, request.out, request.partial, manifest, patience=0))


def on_own_gpus(spec: WorkerSpec, workers: int, gpus: Sequence[str]) -> WorkerSpec:
    """`spec` for several workers on one machine: each sees one GPU, in turn, unless the spec says otherwise."""
    if workers == 1 or not gpus or spec.environ:
        return spec
    return replace(spec, environ=[{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)])
