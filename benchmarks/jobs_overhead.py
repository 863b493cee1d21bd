"""What does managing many slides cost, apart from segmenting them?

    python -m benchmarks.jobs_overhead [--slides 100000] [--engine-slides 1000]

1. Plan, resume and merge for 100,000 simulated slides with records of 2 kB.
2. The supervised child: start-up, and milliseconds per slide beside the same work in the same process.
3. A simulation of 64 mixed GPUs: guided chunks, taken one after the other by jobs that keep their model, the same with a
   job for each chunk, and equal shards, against the lower bound of the makespan. The bound is all work and one start of
   20 s on each GPU over the sum of speeds, or a start and the largest slide on the fastest GPU if that is longer.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, machine
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide, find_slides
from wsiseg.jobs.merge import merge
from wsiseg.jobs.pool import Pool, WorkerSpec
from wsiseg.jobs.records import done_record, encode, record_name
from wsiseg.jobs.shards import equal_shards, guided_chunks
from wsiseg.jobs.work import run_local

START, BETWEEN = 20.0, 2.0  # seconds, in the simulation
TEXT = " ".join(str(i) for i in range(100, 1000, 2))


@dataclass(frozen=True)
class Text:
    text: str

    def to_rle(self) -> str:
        return self.text


@dataclass(frozen=True)
class Result:
    task: Any
    size: tuple[int, int] = (30000, 40000)
    runs: tuple[Text, ...] = (Text(TEXT),)
    classes: tuple[str, ...] = ("object",)
    mpp: float = 0.5
    scale: int = 2
    seconds: float = 0.0
    stats: tuple[()] = ()
    warnings: tuple[str, ...] = ()


class Instant:
    """A processor that takes no time, so that what is left is the cost of everything around it."""

    def __init__(self) -> None:
        self.identity = {"model": "none"}

    def process(self, tasks: Iterable[Any], stop: threading.Event | None = None) -> Iterator[Result]:
        for task in tasks:
            yield Result(task)


def make_processor(payload: dict[str, Any], context: Any) -> Instant:
    """The factory of a worker process."""
    return Instant()


def timed(name: str, figures: dict[str, Any], call: Callable[[], Any]) -> Any:
    """Runs `call` and notes its seconds."""
    began = time.perf_counter()
    value = call()
    figures[name] = round(time.perf_counter() - began, 3)
    print(f"{name:46} {figures[name]:10.3f} s", flush=True)
    return value


def make_slides(folder: Path, count: int) -> Path:
    for i in range(count):
        part = folder / f"{i // 1000:03d}"
        if i % 1000 == 0:
            part.mkdir(parents=True)
        (part / f"slide{i:06d}.tif").touch()
    return folder


def plan_scan_merge(folder: Path, count: int) -> dict[str, Any]:
    """Seconds for the whole life of a job of `count` slides."""
    figures: dict[str, Any] = {"slides": count}
    slides_folder = make_slides(folder / "slides", count)
    job = JobFolder.beside(folder / "out.csv")
    manifest = timed("find the slides", figures, lambda: find_slides([slides_folder]))
    timed("write the manifest", figures, lambda: job.write_manifest(manifest))
    timed("read the manifest", figures, job.manifest)
    digest = job.claim({"model": "none"})
    sizes = [float(1 + i * 7919 % 1000) for i in range(count)]
    timed("cut guided chunks for 64 GPUs", figures, lambda: guided_chunks(sizes, 64, 100.0))
    # written without fsync: this is how the folder comes to be, not what is measured
    for slide in manifest.slides:
        record, lines = done_record(slide, digest, Result(slide, stats={}), "host")  # type: ignore[arg-type]
        job.store.write(record_name(slide.key), *encode(record, lines), sync=False)
    found = timed("resume: read all records", figures, lambda: job.scan(manifest.slides, digest))
    assert len(found) == count
    merged = timed(
        "merge (scan, read, check, write the CSV)",
        figures,
        lambda: merge(job, folder / "out.csv", manifest=manifest),
    )
    assert merged.rows == count
    return figures


def engine(folder: Path, count: int, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds per slide through the supervised child and without it, in turns; both write and fsync each record."""
    figures: dict[str, Any] = {"slides": count, "rounds": rounds}
    manifest = find_slides([make_slides(folder / "some", count)])
    identity = Instant().identity
    inside, outside, starts = [], [], []
    for i in range(rounds):
        began = time.perf_counter()
        run_local(manifest, JobFolder.beside(folder / f"inside{i}.csv"), Instant(), identity)
        inside.append(time.perf_counter() - began)
        child = JobFolder.beside(folder / f"child{i}.csv")
        digest = child.claim(identity)
        began = time.perf_counter()
        with Pool(child, WorkerSpec("benchmarks.jobs_overhead:make_processor")) as pool:
            pool.identity()
            starts.append(time.perf_counter() - began)
            began = time.perf_counter()
            pool.run(manifest.slides, digest)
            outside.append(time.perf_counter() - began)
    differences = sorted(b - a for a, b in zip(inside, outside, strict=True))
    for name, seconds in (
        ("start of the child, ms", sorted(starts)[rounds // 2]),
        ("a record in the same process, ms", sorted(inside)[rounds // 2] / count),
        ("a record in the supervised child, ms", sorted(outside)[rounds // 2] / count),
        ("supervision per slide, ms", differences[rounds // 2] / count),
    ):
        figures[name] = round(1000 * seconds, 3)
        print(f"{name:46} {figures[name]:10.3f}")
    return figures


def simulate(slides: int, gpus: int, seed: int) -> dict[str, float]:
    """Makespans over the lower bound, for slides of log-normal size on GPUs of four speeds that nobody knows beforehand.

    A start (queue, interpreter, model) costs START seconds and going on to another chunk BETWEEN, on any GPU.
    """
    dice = random.Random(seed)
    speeds = [dice.choice((1.0, 1.6, 2.5, 4.0)) for _ in range(gpus)]
    costs = [30.0 * dice.lognormvariate(0, 0.8) for _ in range(slides)]  # seconds on the slowest
    total = sum(costs)
    # no schedule avoids one start on each GPU that takes part, and the largest slide runs somewhere
    bound = max((total + sum(START * s for s in speeds)) / sum(speeds), START + max(costs) / max(speeds))

    def queue(parts: list[list[int]], start: float, between: float) -> float:
        """The next part goes to the GPU that is free first; each pays `start` before its first, `between` before others."""
        free = [(start, i) for i in range(gpus)]
        end = 0.0
        for part in parts:
            now, gpu = heapq.heappop(free)
            now += sum(costs[i] for i in part) / speeds[gpu]
            end = max(end, now)
            heapq.heappush(free, (now + between, gpu))
        return end

    as_slides = [Slide(i, str(i), "", "", round(cost * 1000), 0) for i, cost in enumerate(costs)]
    # what the planner believes in is a GPU of middle speed
    guided = guided_chunks(costs, gpus, BETWEEN * 2)
    coarse = guided_chunks(costs, gpus, START * 2)
    equal = [[slide.index for slide in part] for part in equal_shards(as_slides, gpus)]
    return {
        "guided": queue(guided, START, BETWEEN) / bound,
        "guided, a job per chunk": queue(coarse, START, START) / bound,
        "equal": queue(equal, START, START) / bound,
        "chunks": len(guided),
    }


def mixed_gpus(slides: int, gpus: int, rounds: int) -> dict[str, Any]:
    """Mean and worst over random mixtures."""
    runs = [simulate(slides, gpus, seed) for seed in range(rounds)]
    figures: dict[str, Any] = {
        "slides": slides,
        "gpus": gpus,
        "mixtures": rounds,
        "chunks": round(sum(r["chunks"] for r in runs) / rounds),
    }
    for name in ("guided", "guided, a job per chunk", "equal"):
        figures[f"{name}, mean"] = round(sum(r[name] for r in runs) / rounds, 4)
        figures[f"{name}, worst"] = round(max(r[name] for r in runs), 4)
        print(
            f"{gpus} mixed GPUs, {slides} slides, {name:23} over the bound: mean {figures[f'{name}, mean']:.3f}, worst {figures[f'{name}, worst']:.3f}"
        )
    return figures


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=100_000)
    parser.add_argument("--engine-slides", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20, help="random mixtures of GPUs")
    parser.add_argument("--folder", help="where to work; default: the system's temporary folder")
    parser.add_argument("--output", default=RESULTS / "jobs_overhead.json", help="JSON file for the figures")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures = {
            "machine": machine(()),
            "jobs": plan_scan_merge(Path(folder), args.slides),
            "engine": engine(Path(folder), args.engine_slides),
            "simulation": [
                mixed_gpus(count, 64, args.rounds) for count in (3_000, 10_000, 30_000, args.slides)
            ],
        }
    Path(args.output).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
