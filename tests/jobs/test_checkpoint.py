"""What is loaded is exactly what was saved for the same slide, model and options, or nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsiseg.jobs.checkpoint import Checkpoint
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.store import DiskStore

SLIDE = Slide(0, "a", "/a.tif", "0011223344556677", 10, 20)


def test_arrays_come_back_with_their_types_and_shapes(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    state = {
        "acc": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "x": np.array([], np.int32),
        "flag": np.array(7, np.uint8),
    }
    Checkpoint(store, SLIDE, "digest").save(state, {"band": 3})
    loaded = Checkpoint(store, SLIDE, "digest").load()
    assert loaded is not None
    arrays, about = loaded
    assert about == {"band": 3}
    for name, array in state.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].flags.writeable


def test_another_owner_or_damage_loads_nothing(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    checkpoint = Checkpoint(store, SLIDE, "digest")
    assert checkpoint.load() is None
    checkpoint.save({"a": np.arange(5)})
    assert Checkpoint(store, SLIDE, "other").load() is None
    assert Checkpoint(store, replace(SLIDE, mtime=21), "digest").load() is None
    path = tmp_path / "checkpoints" / SLIDE.key
    data = path.read_bytes()
    for broken in (data[:-1], data[:-1] + b"\1", b"{}\n", b""):
        path.write_bytes(broken)
        assert checkpoint.load() is None
    path.write_bytes(data)
    assert checkpoint.load() is not None
    checkpoint.discard()
    assert checkpoint.load() is None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5  # so that each saving seems to take half a second
        return self.now


def test_saving_costs_at_most_one_percent(tmp_path: Path) -> None:
    clock = Clock()
    checkpoint = Checkpoint(DiskStore(tmp_path), SLIDE, "digest", every=1.0, clock=clock)
    saved = []
    while len(saved) < 3:
        if checkpoint.due():
            checkpoint.save({"a": np.zeros(3)})
            saved.append(clock.now)
    assert all(later - earlier >= 50 for earlier, later in itertools.pairwise(saved))
