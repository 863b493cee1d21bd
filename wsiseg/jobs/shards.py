"""Which slides are mine: equal shards cut from the manifest, and guided chunks frozen when a job array is submitted.

Every process derives the same answer from the same manifest, so nobody has to talk to anybody; who does which chunk is
found out as they go (`plan`).
"""

from __future__ import annotations

import heapq
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Slide

PLAN_VARIABLE = "WSISEG_PLAN"


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 0.

    Attributes:
        source: where the numbers come from, for the line that shows them.
    """

    index: int
    count: int
    source: str = "--shard"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str, shards: int | None = None, environ: Mapping[str, str] | None = None) -> Shard:
    """The shard of "i/n" (i from 0 to n - 1) or "auto".

    Raises:
        UsageError: for anything else, an array that is not contiguous, or "auto" outside of a job array.
    """
    if text == "auto":
        return detect_shard(shards, os.environ if environ is None else environ)
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match:
        raise UsageError(f"--shard {text!r}: write i/n, like 0/8 for the first of eight, or auto")
    index, count = int(match[1]), int(match[2])
    if index >= count:
        raise UsageError(
            f"--shard {text}: shards are counted from 0, so the last of {count} is {count - 1}/{count}"
        )
    return Shard(index, count)


def detect_shard(shards: int | None, environ: Mapping[str, str]) -> Shard:
    """The shard from Slurm's array variables, Kubernetes' completion index or AWS Batch's array index."""
    if "SLURM_ARRAY_TASK_ID" in environ:
        return _slurm_shard(shards, environ)
    for name, what in (
        ("JOB_COMPLETION_INDEX", "a Kubernetes indexed Job does not tell its pods how many they are"),
        ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS Batch does not tell its jobs how many they are"),
    ):
        if name in environ:
            index = _number(name, environ)
            if shards is None:
                raise UsageError(f"--shard auto: {what}; add --shards N with the array's size")
            if index >= shards:
                raise UsageError(
                    f"--shard auto: {name} is {index}, but --shards says there are only {shards}"
                )
            return Shard(index, shards, name)
    raise UsageError(
        "--shard auto: no job array here (looked for SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX and "
        "AWS_BATCH_JOB_ARRAY_INDEX); give --shard i/n"
    )


def _slurm_shard(shards: int | None, environ: Mapping[str, str]) -> Shard:
    task, low, high, count = (
        _number(f"SLURM_ARRAY_TASK_{name}", environ) for name in ("ID", "MIN", "MAX", "COUNT")
    )
    step = int(environ.get("SLURM_ARRAY_TASK_STEP", "1"))
    if high - low + 1 != count or step != 1:
        raise UsageError(
            f"--shard auto: the job array {low}-{high} has {count} tasks, so it is not contiguous and its parts cannot "
            f"be told; submit --array={low}-{low + count - 1}, or give --shard i/n"
        )
    if shards is not None and shards != count:
        raise UsageError(f"--shard auto: the job array has {count} tasks, but --shards says {shards}")
    return Shard(task - low, count, "SLURM_ARRAY_TASK_ID")


def _number(name: str, environ: Mapping[str, str]) -> int:
    text = environ.get(name, "")
    if not text.isdigit():
        raise UsageError(f"--shard auto: {name} is {text!r}, not a number")
    return int(text)


def equal_shards(slides: Sequence[Slide], count: int) -> list[list[Slide]]:
    """`count` parts of about the same size in bytes: largest first, each to the part with the least so far."""
    parts: list[list[Slide]] = [[] for _ in range(count)]
    load = [(0, 0, i) for i in range(count)]
    for slide in sorted(slides, key=_largest_first):
        size, length, i = heapq.heappop(load)
        parts[i].append(slide)
        heapq.heappush(load, (size + max(slide.size, 1), length + 1, i))
    return parts


def guided_chunks(costs: Sequence[float], workers: int, overhead: float) -> list[list[int]]:
    """Chunks of indices, largest slides first, to be handed out in order to `workers` of unknown speed.

    A chunk holds max(remaining / (3 workers), 4 overhead) of cost: large ones first, so that few overheads are paid, and
    small ones last, so that all end together (guided self-scheduling: Polychronopoulos and Kuck, 1987).

    Args:
        costs: of each slide, in any unit.
        workers: how many run at the same time.
        overhead: what going on to the next chunk costs, in the same unit; not the start of a worker, which it does once.
    """
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    remaining = float(sum(costs))
    # whoever asks for G workers gets work for G, also when going on costs more than the work
    least = min(4 * overhead, remaining / workers)
    chunks: list[list[int]] = []
    size, target = 0.0, -1.0
    for i in order:
        # a chunk may be exceeded by half a slide, so that equal slides are not always one short of it
        if not chunks or size + costs[i] / 2 > target:
            chunks.append([])
            size, target = 0.0, max(remaining / (3 * workers), least)
        chunks[-1].append(i)
        size += costs[i]
        remaining -= costs[i]
    return chunks


def plan_bytes(chunks: Sequence[Sequence[Slide]]) -> bytes:
    """The plan of one submission: the keys of each chunk, one chunk a line."""
    return (
        "[\n" + ",\n".join(json.dumps([slide.key for slide in chunk]) for chunk in chunks) + "\n]\n"
    ).encode()


def _largest_first(slide: Slide) -> tuple[int, int]:
    return -slide.size, slide.index
