"""The one entry that the command line calls: many slides, on this machine, as a shard, or on a cluster."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.merge import merge
from wsiseg.jobs.plan import Plan
from wsiseg.jobs.pool import Event, Pool, WorkerSpec
from wsiseg.jobs.request import JobRequest, Outcome, check, interrupted, plan_event, prepare, reusable
from wsiseg.jobs.shards import PLAN_VARIABLE, equal_shards, parse_shard
from wsiseg.jobs.stop import StopSignals
from wsiseg.jobs.work import Summary
from wsiseg.limits import available_gpus


def launch(request: JobRequest, on_event: Callable[[Event], None] = lambda event: None) -> Outcome:
    """Does what the request says.

    Args:
        on_event: what `pool.Pool` reports, and {"type": "plan", "total": n, "skipped": n, "bytes": n} once, or,
            in a job of a plan, again with what it goes on to,
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


def parts_of(
    request: JobRequest, folder: JobFolder, manifest: Manifest
) -> tuple[Iterator[Sequence[Slide]], Plan | None]:
    """The slides that this process is asked to do, in parts that it does one after the other; and the plan they are of.

    Raises:
        UsageError: what --shard says makes no sense here.
    """
    if not request.shard:
        return iter([manifest.slides]), None
    shard = parse_shard(request.shard, request.shards)
    name = os.environ.get(PLAN_VARIABLE) if request.shard == "auto" else None
    if not name:
        return iter([equal_shards(manifest.slides, shard.count)[shard.index]]), None
    plan = Plan(folder.store, name, shard, manifest.slides)
    return iter(plan.take, None), plan


def run_here(request: JobRequest, on_event: Callable[[Event], None]) -> Outcome:
    """The slides, or one shard of them, in worker processes of this machine; without a shard, the CSV too."""
    with StopSignals() as signals:
        folder, manifest = prepare(request)
        parts, plan = parts_of(request, folder, manifest)
        first = next(parts, None)
        if first is None:
            on_event({"type": "note", "text": "nothing to do: other jobs of this submission have all of it"})
            return Outcome(Summary())
        spec = (
            on_own_gpus(request.spec, request.workers, available_gpus())
            if request.workers > 1
            else request.spec
        )
        summary, todo = Summary(), list[Slide]()
        with Pool(folder, spec, request.workers, on_event) as pool:
            signals.on_stop, signals.on_kill = pool.wake, pool.kill
            identity = request.identity if request.identity is not None else pool.identity(signals.event)
            digest = folder.claim(identity or {})
            if not request.shard:
                folder.write_manifest(manifest)
            for slides in itertools.chain([first], parts):
                found = reusable(request, folder, slides, digest)
                rest = [slide for slide in slides if slide.key not in found]
                todo += rest
                summary.total += len(slides)
                summary.skipped += len(found)
                summary.failures += [record for record in found.values() if record.status != "done"]
                # one that was started again may come through many chunks that it has finished before
                if rest or slides is first:
                    on_event(plan_event(summary.total, todo))
                for record in pool.run(rest, digest, signals.event):
                    summary.add(record)
                if signals.event.is_set():
                    break
        summary.interrupted = signals.event.is_set()
        folder.clean()
    # one that is stopped between two chunks has more to do when the cluster starts it again
    undone = summary.interrupted and plan is not None and plan.left()
    if undone or (summary.missing and (request.shard or not request.partial)):
        raise interrupted(signals.name, summary)
    if request.shard:
        return Outcome(summary)
    return Outcome(summary, merge(folder, request.out, request.partial, manifest, patience=0))


def on_own_gpus(spec: WorkerSpec, workers: int, gpus: Sequence[str]) -> WorkerSpec:
    """`spec` for several workers on one machine: each sees one GPU, in turn, unless the spec says otherwise."""
    if workers == 1 or not gpus or spec.environ:
        return spec
    return replace(spec, environ=[{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)])
