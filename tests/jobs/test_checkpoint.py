"""What is loaded is exactly what was saved for the same slide, model and options, or nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsiseg.errors import OutputError
from wsiseg.jobs.checkpoint import Checkpoint
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.pace import Prices
from wsiseg.jobs.store import DiskStore, open_store

SLIDE = Slide(0, "a", "/a.tif", "0011223344556677", 10, 20)


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints" / SLIDE.key).iterdir())


def save(checkpoint: Checkpoint, grown: dict[str, Any], state: dict[str, Any], **about: Any) -> None:
    checkpoint.save(grown, state, about)
    checkpoint.settle()


def load(folder: Path, slide: Slide = SLIDE, digest: str = "digest") -> tuple[dict[str, Any], Any] | None:
    return Checkpoint(DiskStore(folder), slide, digest).load()


def saved(folder: Path, count: int, first: int = 0) -> Checkpoint:
    """A checkpoint of `count` parts, of which each adds its number."""
    checkpoint = Checkpoint(DiskStore(folder), SLIDE, "digest")
    for i in range(first, first + count):
        save(checkpoint, {"x": np.array([i], np.int32)}, {"now": np.array([i])}, row=i)
    return checkpoint


def test_arrays_come_back_with_their_types_and_shapes(tmp_path: Path) -> None:
    state = {
        "acc": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "x": np.array([], np.int32),
        "flag": np.array(7, np.uint8),
    }
    save(Checkpoint(DiskStore(tmp_path), SLIDE, "digest"), {}, state, band=3)
    loaded = load(tmp_path)
    assert loaded is not None
    arrays, about = loaded
    assert about == {"band": 3}
    for name, array in state.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].flags.writeable


def test_growing_arrays_come_back_whole_and_no_part_is_written_twice(tmp_path: Path) -> None:
    checkpoint = Checkpoint(DiskStore(tmp_path), SLIDE, "digest")
    save(checkpoint, {"0.x": np.arange(3), "0.y": np.zeros(0, np.int32)}, {"now": np.array([1])}, row=1)
    before = parts(tmp_path)[0].read_bytes()
    save(checkpoint, {"0.x": np.arange(3, 5)}, {"now": np.array([2])}, row=2)
    save(checkpoint, {"0.x": np.arange(5, 6), "1.x": np.arange(2)}, {"now": np.array([3])}, row=3)
    assert parts(tmp_path)[0].read_bytes() == before
    assert parts(tmp_path)[2].stat().st_size < 1000
    loaded = load(tmp_path)
    assert loaded is not None
    arrays, about = loaded
    assert about == {"row": 3}
    assert arrays["0.x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays["0.y"].tolist() == []
    assert arrays["1.x"].tolist() == [0, 1]
    assert arrays["now"].tolist() == [3]


def test_another_owner_loads_nothing(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    checkpoint = saved(tmp_path, 2)
    assert load(tmp_path) is not None
    assert load(tmp_path, digest="other") is None
    assert load(tmp_path, replace(SLIDE, mtime=21)) is None
    checkpoint.discard()
    assert load(tmp_path) is None
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_damaged_part_ends_the_chain_before_it(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    for number, rows in ((2, 1), (1, 0), (0, None)):
        path = parts(tmp_path)[number]
        data = path.read_bytes()
        other = data.replace(b'"row": %d' % number, b'"row": 9')
        assert other != data
        for broken in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), other, b"{}\n", b""):
            path.write_bytes(broken)
            loaded = load(tmp_path)
            assert loaded is None if rows is None else loaded is not None and loaded[1] == {"row": rows}
        path.write_bytes(data)


def test_a_slide_that_goes_on_adds_to_what_was_loaded(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    checkpoint = Checkpoint(DiskStore(tmp_path), SLIDE, "digest")
    checkpoint.load()
    checkpoint.begin(resumed=True)
    save(checkpoint, {"x": np.array([2], np.int32)}, {}, row=2)
    loaded = load(tmp_path)
    assert loaded is not None
    assert loaded[0]["x"].tolist() == [0, 1, 2]


def test_who_goes_on_knows_what_a_save_costs(tmp_path: Path) -> None:
    first, second = Prices(), Prices()
    checkpoint = Checkpoint(DiskStore(tmp_path), SLIDE, "digest", first)
    save(checkpoint, {}, {"a": np.arange(5)}, row=0)
    told = first.last
    save(checkpoint, {}, {"a": np.arange(5)}, row=1)
    assert Checkpoint(DiskStore(tmp_path), SLIDE, "digest", second).load() is not None
    assert second.last == told
    third = Prices()
    third.note(7.0, 40)
    Checkpoint(DiskStore(tmp_path), SLIDE, "digest", third).load()
    assert third.last == (7.0, 40)  # what was measured here counts


def test_a_slide_that_begins_anew_leaves_nothing_of_the_old_chain(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    checkpoint = Checkpoint(DiskStore(tmp_path), SLIDE, "digest")
    checkpoint.load()
    checkpoint.begin(resumed=False)
    save(checkpoint, {"x": np.array([7], np.int32)}, {}, row=7)
    loaded = load(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"row": 7}
    assert loaded[0]["x"].tolist() == [7]


def test_two_writers_of_one_slide_leave_a_state_of_one_of_them(tmp_path: Path) -> None:
    one, two = (Checkpoint(DiskStore(tmp_path), SLIDE, "digest") for _ in range(2))
    save(one, {"x": np.array([1], np.int32)}, {}, row=1)
    save(one, {"x": np.array([2], np.int32)}, {}, row=2)
    save(two, {"x": np.array([1, 2], np.int32)}, {}, row=2)
    loaded = load(tmp_path)
    assert loaded is not None
    assert (loaded[1], loaded[0]["x"].tolist()) == ({"row": 2}, [1, 2])
    save(two, {"x": np.array([3], np.int32)}, {}, row=3)
    save(one, {"x": np.array([3, 4], np.int32)}, {}, row=4)
    loaded = load(tmp_path)
    assert loaded is not None
    assert (loaded[1], loaded[0]["x"].tolist()) == ({"row": 3}, [1, 2, 3])


def test_checkpoints_behind_a_url() -> None:
    pytest.importorskip("fsspec", reason="needs fsspec (the cluster extra)")
    store = open_store("memory://wsiseg-tests/checkpoints")
    checkpoint = Checkpoint(store, SLIDE, "digest")
    for i in range(3):
        save(checkpoint, {"x": np.array([i], np.int32)}, {"now": np.array([i])}, row=i)
    loaded = Checkpoint(store, SLIDE, "digest").load()
    assert loaded is not None
    assert (loaded[0]["x"].tolist(), loaded[1]) == ([0, 1, 2], {"row": 2})
    checkpoint.discard()
    assert Checkpoint(store, SLIDE, "digest").load() is None
    assert list(store.names("checkpoints")) == []


class Held(DiskStore):
    """A disk that takes its time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.go, self.problem = threading.Event(), threading.Event(), ""

    def write(self, name: str, *data: Any, sync: bool = True) -> None:
        self.begun.set()
        assert self.go.wait(60)
        if self.problem:
            raise OutputError(self.problem)
        super().write(name, *data, sync=sync)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_pipeline_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    store, clock, prices = Held(tmp_path), Clock(), Prices()
    prices.note(0.01, 100)
    checkpoint = Checkpoint(store, SLIDE, "digest", prices, clock)
    checkpoint.begin(False)
    clock.now = 100.0
    assert checkpoint.due(100)
    checkpoint.save({"x": np.arange(3)}, {})
    assert store.begun.wait(60)
    clock.now = 1e6
    assert not checkpoint.due(100)  # one at a time
    assert checkpoint.saved == 0
    store.go.set()
    checkpoint.settle()
    assert (checkpoint.saved, checkpoint.seconds) == (1, 1e6 - 100)
    assert prices.price(100) > 1
    assert load(tmp_path) is not None


def test_a_disk_that_is_full_ends_the_saving_and_not_the_slide(tmp_path: Path) -> None:
    store, clock = Held(tmp_path), Clock()
    store.go.set()
    store.problem = "no space left"
    checkpoint = Checkpoint(store, SLIDE, "digest", clock=clock)
    save(checkpoint, {}, {"a": np.arange(5)})
    assert (checkpoint.saved, checkpoint.problem) == (0, "no space left")
    clock.now = 1e6
    assert not checkpoint.due(1)
