"""Shards cover every slide exactly once, whoever asks, and odd arrays are refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.shards import equal_shards, guided_chunks, parse_shard


def slides_of(sizes: list[int]) -> list[Slide]:
    return [Slide(i, f"s{i}", f"/s{i}", f"{i:016x}", size, 0) for i, size in enumerate(sizes)]


def slurm(task: int, low: int, high: int, count: int, step: int = 1) -> dict[str, str]:
    names = {"ID": task, "MIN": low, "MAX": high, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items()}


@pytest.mark.parametrize(
    ("text", "shards", "environ", "index", "count"),
    [
        ("0/1", None, {}, 0, 1),
        ("3/8", None, {}, 3, 8),
        ("auto", None, slurm(5, 0, 7, 8), 5, 8),
        ("auto", 8, slurm(12, 10, 17, 8), 2, 8),
        ("auto", 4, {"JOB_COMPLETION_INDEX": "3"}, 3, 4),
        ("auto", 9, {"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 0, 9),
    ],
)
def test_where_a_shard_comes_from(
    text: str, shards: int | None, environ: dict[str, str], index: int, count: int
) -> None:
    shard = parse_shard(text, shards, environ)
    assert (shard.index, shard.count) == (index, count)


@pytest.mark.parametrize(
    ("text", "shards", "environ", "message"),
    [
        ("8/8", None, {}, "the last of 8 is 7/8"),
        ("1", None, {}, "write i/n"),
        ("-1/3", None, {}, "write i/n"),
        ("auto", None, {}, "no job array here"),
        ("auto", None, {"JOB_COMPLETION_INDEX": "3"}, "--shards N"),
        ("auto", 3, {"JOB_COMPLETION_INDEX": "3"}, "only 3"),
        ("auto", 3, {"JOB_COMPLETION_INDEX": "x"}, "not a number"),
        ("auto", None, slurm(4, 0, 8, 5, 2), "not contiguous"),
        ("auto", None, slurm(7, 1, 7, 3), "not contiguous"),
        ("auto", 3, slurm(0, 0, 7, 8), "--shards says 3"),
    ],
)
def test_what_is_refused(text: str, shards: int | None, environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text, shards, environ)


@given(st.lists(st.integers(0, 10**10), max_size=80), st.integers(1, 20))
def test_equal_shards_cover_everything_once(sizes: list[int], count: int) -> None:
    parts = equal_shards(slides_of(sizes), count)
    assert len(parts) == count
    assert sorted(slide.index for part in parts for slide in part) == list(range(len(sizes)))
    loads = [sum(max(slide.size, 1) for slide in part) for part in parts]
    assert max(loads) - min(loads) <= max([max(size, 1) for size in sizes], default=1)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=200), st.integers(1, 64), st.floats(0, 100))
def test_guided_chunks_cover_everything_once_largest_first(
    costs: list[float], workers: int, overhead: float
) -> None:
    chunks = guided_chunks(costs, workers, overhead)
    order = [i for chunk in chunks for i in chunk]
    assert sorted(order) == list(range(len(costs)))
    assert [costs[i] for i in order] == sorted(costs, reverse=True)
    assert all(chunks)


def test_chunks_shrink_towards_the_end() -> None:
    sizes = [len(chunk) for chunk in guided_chunks([1.0] * 1000, 4, 1.0)]
    assert sizes[0] > 70
    assert all(b <= a for a, b in itertools.pairwise(sizes))
    assert all(3 <= size <= 5 for size in sizes[-10:-1])
