"""Elements share a plan out: every chunk is begun once, whoever comes, and taken up again by who began it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.jobs.conftest import expected_csv, run_driver, write_slides
from wsiseg.errors import UsageError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide, find_slides
from wsiseg.jobs.plan import Plan, active_keys, claims
from wsiseg.jobs.shards import PLAN_VARIABLE, Shard, guided_chunks, plan_bytes
from wsiseg.jobs.store import DiskStore

NAME = "slurm/0001/plan.json"
SLIDES = [Slide(i, f"s{i}", f"/s{i}", f"{i:016x}", 100 - i, 0) for i in range(12)]
CHUNKS = [SLIDES[:4], SLIDES[4:6], SLIDES[6:8], SLIDES[8:9], SLIDES[9:]]


def element(folder: Path, index: int, count: int = 3) -> Plan:
    return Plan(DiskStore(folder), NAME, Shard(index, count), SLIDES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    DiskStore(tmp_path).write(NAME, plan_bytes(CHUNKS))
    return tmp_path


def test_each_begins_with_its_own_and_goes_on_with_what_nobody_began(folder: Path) -> None:
    one, two, late = (element(folder, i) for i in (1, 0, 2))
    assert one.take() == CHUNKS[1]
    assert two.take() == CHUNKS[0]
    assert two.take() == CHUNKS[2]  # the third has not come yet, and the largest that is left goes first
    assert late.take() == CHUNKS[3]
    assert (one.left(), one.take()) == (True, CHUNKS[4])
    for plan in (one, two, late):
        assert not plan.left()
        assert plan.take() is None
    assert claims(DiskStore(folder), "slurm/0001") == {0: 0, 1: 1, 2: 0, 3: 2, 4: 1}


def test_who_was_killed_takes_up_what_it_had_begun(folder: Path) -> None:
    before = element(folder, 1)
    assert [before.take() for _ in range(2)] == [CHUNKS[1], CHUNKS[0]]
    again = element(folder, 1)
    assert [again.take() for _ in range(3)] == [CHUNKS[0], CHUNKS[1], CHUNKS[2]]


def test_what_is_left_includes_what_a_stopped_one_had_begun(folder: Path) -> None:
    first = element(folder, 0, 1)
    assert [first.take() for _ in CHUNKS] == CHUNKS
    assert not first.left()
    again = element(folder, 0, 1)
    assert again.take() == CHUNKS[0]
    assert again.left()


def test_many_at_once_begin_every_chunk_once(tmp_path: Path) -> None:
    chunks = [[slide] for slide in SLIDES] * 1
    DiskStore(tmp_path).write(NAME, plan_bytes(chunks))
    plans = [element(tmp_path, i, 6) for i in range(6)]

    def all_of(plan: Plan) -> list[Slide]:
        return [slide for part in iter(plan.take, None) for slide in part]

    with ThreadPoolExecutor(6) as pool:
        taken = [slide.index for part in pool.map(all_of, plans) for slide in part]
    assert sorted(taken) == list(range(12))


class Stale(DiskStore):
    """A file system that does not list new names, as NFS does for a while."""

    def names(self, folder: str):  # type: ignore[no-untyped-def]
        return iter(())


def test_a_listing_that_is_late_takes_nothing_twice(folder: Path) -> None:
    other = element(folder, 0)
    assert [other.take(), other.take()] == [CHUNKS[0], CHUNKS[1]]
    plan = Plan(Stale(folder), NAME, Shard(1, 3), SLIDES)
    assert plan.take() == CHUNKS[2]


def test_a_plan_that_is_gone_or_too_small_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="the plan has 5 chunks, fewer"):
        element(folder, 0, 6)
    (folder / NAME).unlink()
    with pytest.raises(UsageError, match="submit again"):
        element(folder, 0)


def test_slides_that_left_the_manifest_are_passed_over(folder: Path) -> None:
    assert Plan(DiskStore(folder), NAME, Shard(0, 3), SLIDES[2:]).take() == SLIDES[2:4]


def test_which_slides_are_in_hands() -> None:
    chunks, owners = [["a"], ["b"], ["c"], ["d", "e"]], {0: 0, 1: 1, 2: 0}
    assert active_keys(chunks, owners, []) == set()
    assert active_keys(chunks, owners, [0]) == {"a", "c", "d", "e"}
    assert active_keys(chunks, owners, [1, 2]) == {"b", "d", "e"}


def as_slurm(index: int, count: int) -> dict[str, str]:
    names = {"ID": index, "MIN": 0, "MAX": count - 1, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items()} | {PLAN_VARIABLE: NAME}


def test_elements_one_after_the_other_do_all_with_one_start(tmp_path: Path) -> None:
    slides, out = write_slides(tmp_path / "slides"), tmp_path / "out.csv"
    manifest, job = find_slides([slides]), JobFolder.beside(out)
    job.write_manifest(manifest)
    chunks = guided_chunks([float(s.size) for s in manifest.slides], 4, 300.0)
    assert len(chunks) > 8
    job.store.write(NAME, plan_bytes([[manifest.slides[i] for i in part] for part in chunks]))
    first = run_driver(slides, "-o", out, "--shard", "auto", **as_slurm(2, 4))
    assert "0 of 60 slides were done before" in first.stderr.splitlines()[-1]
    again = run_driver(slides, "-o", out, "--shard", "auto", **as_slurm(2, 4))
    assert len(again.stderr.splitlines()) == 1
    late = run_driver(slides, "-o", out, "--shard", "auto", **as_slurm(0, 4))
    assert late.stderr.splitlines() == ["nothing to do: other jobs of this submission have all of it"]
    run_driver(slides, "-o", out)
    assert out.read_bytes() == expected_csv(slides)


def makespan(chunks: list[float], speeds: list[float], overhead: float) -> float:
    """When the last of some workers ends that take chunks in order."""
    free = [0.0] * len(speeds)
    for chunk in chunks:
        worker = free.index(min(free))
        free[worker] += overhead + chunk / speeds[worker]
    return max(free)


@pytest.mark.parametrize("seed", range(10))
def test_guided_chunks_end_together_on_workers_of_mixed_speed(seed: int) -> None:
    dice = random.Random(seed)
    speeds = [dice.choice((1.0, 1.6, 2.5, 4.0)) for _ in range(16)]
    costs = [30 * dice.lognormvariate(0, 0.8) for _ in range(4000)]
    chunks = [sum(costs[i] for i in part) for part in guided_chunks(costs, 16, 2.0)]
    assert len(chunks) < 500
    assert makespan(chunks, speeds, 2.0) <= 1.05 * sum(costs) / sum(speeds)
