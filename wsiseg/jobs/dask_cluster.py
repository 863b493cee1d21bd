"""Dask: a key per slide, tiny return values, one single-threaded worker per GPU, and no `resources=`.

A Dask worker keeps one supervised child process (`pool`) that holds the model, so a slide that crashes costs a child
and not the Dask worker. When a Dask worker itself dies (its node, its memory limit), Dask gives the slide to another;
one that outlives more deaths than the scheduler allows is tried once more by itself, after all others, and is then a
failed record. It takes nobody with it: with `resources=`, tasks queue on workers and die with their neighbours.

The driver holds nothing that matters: it may be killed and started again, since the records are what counts.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from wsiseg.errors import UsageError, WsisegError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.merge import merge
from wsiseg.jobs.pool import Event, Pool, WorkerSpec
from wsiseg.jobs.records import Record
from wsiseg.jobs.request import JobRequest, Outcome, interrupted, plan_event, prepare, reusable
from wsiseg.jobs.slurm import names_gpu
from wsiseg.jobs.stop import StopSignals
from wsiseg.jobs.work import Summary
from wsiseg.limits import available_memory

_pools: dict[str, Pool] = {}
_lock = threading.Lock()


def run_dask(request: JobRequest, on_event: Callable[[Event], None]) -> Outcome:
    """The slides on a Dask cluster, then the CSV.

    Raises:
        UsageError: no Dask, no scheduler there. Interrupted: a signal; the same command goes on from there.
    """
    try:
        import distributed
    except ImportError as error:
        raise UsageError("--cluster needs Dask; pip install 'wsiseg[cluster]'") from error
    with StopSignals() as signals:
        folder, manifest = prepare(request)
        with _client(request, on_event) as client:
            on_event({"type": "note", "text": f"dashboard: {client.dashboard_link}"})
            identity = request.identity
            if identity is None:
                identity = _first_identity(client, folder, request.spec, signals.event)
            digest = folder.claim(identity or {})
            folder.write_manifest(manifest)
            found = reusable(request, folder, manifest.slides, digest)
            rest = [slide for slide in manifest.slides if slide.key not in found]
            on_event(plan_event(len(manifest.slides), rest))
            summary = Summary(len(manifest.slides), skipped=len(found))
            for record in _records(client, distributed, folder, request.spec, rest, digest, signals.event):
                summary.add(record)
                on_event({"type": "record", "record": record, "worker": 0})
        summary.interrupted = signals.event.is_set()
        folder.clean()
    if summary.missing and not request.partial:
        raise interrupted(signals.name, summary)
    return Outcome(summary, merge(folder, request.out, request.partial, manifest))


@contextlib.contextmanager
def _client(request: JobRequest, on_event: Callable[[Event], None]) -> Iterator[Any]:
    """A client of the scheduler that the request names, or of a cluster of Slurm jobs that lives as long as it."""
    from distributed import Client

    assert request.cluster is not None
    if request.cluster != "dask-slurm":
        try:
            client = Client(request.cluster, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"--cluster {request.cluster}: no Dask scheduler answers there ({type(error).__name__})"
            ) from error
        with client:
            yield client
        return
    with _slurm_cluster(request) as cluster, Client(cluster, set_as_default=False) as client:
        on_event(
            {
                "type": "note",
                "text": f"asked Slurm for {request.gpus} Dask workers; scheduler {cluster.scheduler_address}",
            }
        )
        yield client


def _slurm_cluster(request: JobRequest) -> Any:
    """Dask workers as Slurm jobs, one with one thread for each GPU."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise UsageError("--cluster dask-slurm needs dask-jobqueue; pip install 'wsiseg[cluster]'") from error
    options = shlex.split(request.sbatch)
    if not names_gpu(options):
        options.append("--gres=gpu:1")
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        memory=f"{request.job_memory}B",
        job_extra_directives=[" ".join(pair) for pair in _pairs(options)],
        # the person's own request goes before what cores=1 and memory= would ask for
        job_directives_skip=[
            name for name in ("--mem", "--cpus-per-task") if any(o.startswith(name) for o in options)
        ],
        job_script_prologue=[f"export PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])}"]
        if "PYTHONPATH" in os.environ
        else [],
        log_directory=f"{request.folder.url}/logs",
        # a limit of the Dask worker's own would end it for what its child uses under the job's budget
        worker_extra_args=["--memory-limit", "0"],
        scheduler_options={"host": request.job_host} if request.job_host else {},
    )
    # `scale` never replaces workers that died with their node; `adapt` between equal bounds does
    cluster.adapt(minimum=request.gpus, maximum=request.gpus)
    return cluster


def _pairs(options: Sequence[str]) -> Iterator[list[str]]:
    """["-p", "gpu", "--time=4"] as [["-p", "gpu"], ["--time=4"]]: directives of a script, one a line."""
    pair: list[str] = []
    for word in options:
        if word.startswith("-") and pair:
            yield pair
            pair = []
        pair.append(word)
    if pair:
        yield pair


def _first_identity(
    client: Any, folder: JobFolder, spec: WorkerSpec, stop: threading.Event
) -> dict[str, Any] | None:
    future = client.submit(
        identity_on_worker, folder.url, spec, pure=False, key=f"wsiseg-identity-{id(stop)}"
    )
    answer = future.result()
    if isinstance(answer, str):
        raise WsisegError(answer)
    return answer


def _records(
    client: Any,
    distributed: Any,
    folder: JobFolder,
    spec: WorkerSpec,
    slides: Sequence[Slide],
    digest: str,
    stop: threading.Event,
) -> Iterator[Record]:
    """Submits every slide, largest first, and yields the records as they come."""
    order = sorted(slides, key=lambda slide: (-slide.size, slide.index))
    # a new key each time: an old one may still hold the error that a scheduler remembers
    again = f"{id(stop):x}"

    def submit(slide: Slide, attempt: str) -> Any:
        key = f"wsiseg-{slide.key}-{attempt}"
        return client.submit(slide_on_worker, folder.url, spec, slide, digest, pure=False, key=key, retries=0)

    by_key = {}
    futures = []
    for slide in order:
        future = submit(slide, again)
        by_key[future.key] = slide
        futures.append(future)
    suspects: list[Slide] = []
    for future in _completed(client, distributed, futures, stop):
        slide = by_key[future.key]
        if future.status == "error":
            if not isinstance(future.exception(), distributed.KilledWorker):
                raise WsisegError(f"{slide.path}: a Dask worker failed: {_line(future.exception())}")
            suspects.append(slide)
            continue
        answer = future.result()
        future.release()
        if isinstance(answer, dict):
            yield _record(answer)
        elif answer is not None:
            raise WsisegError(answer)
    for slide in suspects:
        if stop.is_set():
            break
        future = submit(slide, again + "-alone")
        for done in _completed(client, distributed, [future], stop):
            answer = None if done.status == "error" else done.result()
            if isinstance(answer, dict):
                yield _record(answer)
            else:
                why = _line(done.exception()) if done.status == "error" else str(answer)
                yield folder.write_failed(
                    slide, digest, f"{slide.path}: every Dask worker that had it died: {why}", "WorkerDied"
                )
    if stop.is_set():
        client.cancel([future for future in futures if not future.done()], force=True)


def _completed(client: Any, distributed: Any, futures: list[Any], stop: threading.Event) -> Iterator[Any]:
    """`as_completed` that a signal ends at once."""
    waiting = distributed.as_completed(futures, loop=client.loop)
    while waiting.count() and not stop.is_set():
        if waiting.has_ready():
            yield next(waiting)
        else:
            stop.wait(0.01)


def _line(error: object) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _record(values: dict[str, Any]) -> Record:
    return Record(**{**values, **{name: tuple(values[name]) for name in ("classes", "lengths", "warnings")}})


# -- in the Dask worker


def _pool(url: str, spec: WorkerSpec) -> Pool:
    """This Dask worker's supervised child, started once for a job."""
    key = f"{url}\n{spec}"
    with _lock:
        if key not in _pools:
            for old in list(_pools):
                _pools.pop(old).close()
            payload = dict(spec.payload_of(0))
            if "memory" in payload:
                # planned on the driver's machine; this one may have less
                payload["memory"] = min(payload["memory"], available_memory())
            _pools[key] = Pool(JobFolder(url), replace(spec, environ=(), payload=payload), 1)
            atexit.register(_close_pools)
        return _pools[key]


def _close_pools() -> None:
    for key in list(_pools):
        _pools.pop(key).close()


def identity_on_worker(url: str, spec: WorkerSpec) -> dict[str, Any] | str | None:
    """What the results depend on, as the processor of this worker says; a text is an error's line."""
    try:
        return _pool(url, spec).identity()
    except WsisegError as error:
        _close_pools()
        return str(error)


def slide_on_worker(url: str, spec: WorkerSpec, slide: Slide, digest: str) -> dict[str, Any] | str | None:
    """Processes one slide and returns its record's header; a text is the line of an error that ends the job."""
    # Dask runs a task again when the worker that holds its result dies; the record outlives both
    record = JobFolder(url).header(slide)
    if record is not None and record.matches(slide, digest):
        return asdict(record)
    try:
        found = _pool(url, spec).run([slide], digest)
    except WsisegError as error:
        _close_pools()
        return str(error)
    return asdict(found[0]) if found else None
