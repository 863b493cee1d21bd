"""A slide that was interrupted goes on in its midst, and its bytes are the same."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests import fixtures_models
from wsiseg.errors import Interrupted
from wsiseg.geometry import Size
from wsiseg.memory import MemoryPlan
from wsiseg.pipeline.options import RunOptions, SlideResult, SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.tiling import TileGrid

GRAPH = fixtures_models.random_conv(4, classes=2, tissue="none")


class Kept:
    """A checkpoint in memory that is due at every row of tiles, and asks for a stop after some of them."""

    def __init__(self, stop: threading.Event, after: int) -> None:
        self.arrays: dict[str, Any] = {}
        self.about: dict[str, Any] | None = None
        self.resumed: list[bool] = []
        self.saved, self.seconds, self.problem, self.settled = 0, 0.0, "", 0
        self._stop, self._left = stop, after

    def begin(self, resumed: bool) -> None:
        self.resumed.append(resumed)
        if not resumed:
            self.arrays, self.about = {}, None

    def due(self, size: int) -> bool:
        return True

    def save(
        self, grown: Mapping[str, Any], state: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> None:
        for name, array in grown.items():
            self.arrays[name] = np.concatenate([self.arrays.get(name, array[:0]), array])
        # not copied: nothing may change what was given
        self.arrays |= state
        self.about = dict(about or {})
        self.saved += 1
        self._left -= 1
        if self._left <= 0:
            self._stop.set()

    def settle(self) -> None:
        self.settled += 1

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        return None if self.about is None else (dict(self.arrays), dict(self.about))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (900, 400, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(48, 48), compression="deflate")
    return path


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_slide_goes_on_with_the_same_bytes(
    panels: int, scale: int, after: int, slide, sessions, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    plain = Processor.plan

    def in_panels(self: Processor, grid: TileGrid, *rest: object) -> MemoryPlan:
        return dataclasses.replace(plain(self, grid, *rest), panels=tuple(grid.panels(panels)))  # type: ignore[arg-type]

    monkeypatch.setattr(Processor, "plan", in_panels)
    session = sessions(GRAPH, 32, 1, 1)
    options = RunOptions(tile=32, overlap=0.25, scale=scale)
    task = SlideTask(0, "slide", str(slide))
    (whole,) = Processor(session, options, memory=4 << 30, threads=2).process([task])
    assert isinstance(whole, SlideResult)
    stop = threading.Event()
    kept = Kept(stop, after)
    processor = Processor(session, options, memory=4 << 30, threads=2, checkpoints=lambda _: kept)
    with pytest.raises(Interrupted):
        list(processor.process([task], stop))
    assert kept.about is not None
    assert kept.settled >= 1
    again = kept.about
    (resumed,) = processor.process([task])
    assert isinstance(resumed, SlideResult)
    assert kept.resumed == [False, True]
    # what a tile covers that is not final is one row of tiles at this overlap, which is run again for its sums
    rows = TileGrid(Size(*whole.size).over(scale), 32, 24).y.count
    left = panels * rows - (again["panel"] * rows + max(0, again["row"] - 1))
    assert resumed.stats["counts"]["tiles"] * panels * rows == pytest.approx(
        whole.stats["counts"]["tiles"] * left, rel=0.3
    )
    assert left < panels * rows or again["row"] <= 1
    assert [r.to_rle() for r in resumed.runs] == [r.to_rle() for r in whole.runs]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_a_slide_that_is_stopped_at_every_row_goes_on_with_the_same_bytes(  # type: ignore[no-untyped-def]
    overlap: float, slide, sessions, monkeypatch
) -> None:
    plain = Processor.plan

    def in_panels(self: Processor, grid: TileGrid, *rest: object) -> MemoryPlan:
        return dataclasses.replace(plain(self, grid, *rest), panels=tuple(grid.panels(2)))  # type: ignore[arg-type]

    monkeypatch.setattr(Processor, "plan", in_panels)
    session = sessions(GRAPH, 32, 1, 1)
    options = RunOptions(tile=32, overlap=overlap, scale=3)
    task = SlideTask(0, "slide", str(slide))
    (whole,) = Processor(session, options, memory=4 << 30, threads=2).process([task])
    assert isinstance(whole, SlideResult)
    stop = threading.Event()
    kept = Kept(stop, 1)
    processor = Processor(session, options, memory=4 << 30, threads=2, checkpoints=lambda _: kept)
    at, result = [], None
    while result is None:
        kept._left = 1
        stop.clear()
        try:
            (result,) = processor.process([task], stop)
        except Interrupted:
            assert kept.about is not None
            at.append((kept.about["panel"], kept.about["row"]))
    assert at == sorted(set(at))  # it never stands still
    assert len(at) >= 5
    assert isinstance(result, SlideResult)
    assert [r.to_rle() for r in result.runs] == [r.to_rle() for r in whole.runs]


def test_a_stop_saves_what_there_is_though_nothing_is_due(slide, sessions, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    session = sessions(GRAPH, 32, 1, 1)
    stop = threading.Event()
    kept = Kept(stop, 99)
    monkeypatch.setattr(kept, "due", lambda size: False)
    rows = []

    def progress(job: object, share: float) -> None:
        rows.append(share)
        if share > 0.6:
            stop.set()

    options = RunOptions(tile=32, overlap=0.25)
    processor = Processor(
        session, options, memory=4 << 30, threads=2, checkpoints=lambda _: kept, progress=progress
    )
    task = SlideTask(0, "slide", str(slide))
    with pytest.raises(Interrupted):
        list(processor.process([task], stop))
    assert kept.saved == 1
    assert kept.about is not None
    # what was on its way through the network is dropped
    assert len(rows) - 2 <= kept.about["row"] <= len(rows)
    (resumed,) = processor.process([task])
    (whole,) = Processor(session, options, memory=4 << 30, threads=2).process([task])
    assert isinstance(resumed, SlideResult)
    assert isinstance(whole, SlideResult)
    assert [r.to_rle() for r in resumed.runs] == [r.to_rle() for r in whole.runs]


def test_a_slide_that_goes_on_below_its_tissue_is_not_called_empty(tmp_path, sessions, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pixels = np.full((900, 400, 3), 250, np.uint8)
    pixels[:200] = np.random.default_rng(0).integers(0, 256, (200, 400, 3), np.uint8)
    path = tmp_path / "top.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(48, 48))
    session = sessions(GRAPH, 32, 1, 1)
    stop, below = threading.Event(), threading.Event()
    kept = Kept(stop, 99)
    save = kept.save

    def saves(grown: Any, state: Any, about: Mapping[str, Any]) -> None:
        save(grown, state, about)
        if about["row"] > 15:  # the tissue ends in the ninth row of tiles
            below.set()

    def progress(job: object, share: float) -> None:
        if (
            share > 0.8 and not stop.is_set()
        ):  # the feeder waits here for the collector, which has enough to do
            assert below.wait(60)
            stop.set()

    monkeypatch.setattr(kept, "save", saves)
    processor = Processor(
        session, RunOptions(tile=32, tissue="auto"), memory=4 << 30, threads=2,
        checkpoints=lambda _: kept, progress=progress,
    )  # fmt: skip
    task = SlideTask(0, "top", str(path))
    with pytest.raises(Interrupted):
        list(processor.process([task], stop))
    (resumed,) = processor.process([task])
    assert isinstance(resumed, SlideResult)
    assert not resumed.stats["counts"].get("tiles")
    assert len(resumed.runs[0].starts) > 5
    assert not any("no tissue" in warning for warning in resumed.warnings)


def test_a_checkpoint_that_cannot_be_written_is_a_warning(slide, sessions) -> None:  # type: ignore[no-untyped-def]
    session = sessions(GRAPH, 32, 1, 1)
    kept = Kept(threading.Event(), 99)
    kept.problem = "no space left"
    processor = Processor(session, RunOptions(tile=32), memory=4 << 30, threads=2, checkpoints=lambda _: kept)
    (result,) = processor.process([SlideTask(0, "slide", str(slide))])
    assert isinstance(result, SlideResult)
    assert "its state in progress could not be saved: no space left" in result.warnings


def test_a_checkpoint_of_another_cut_is_not_used(slide, sessions) -> None:  # type: ignore[no-untyped-def]
    session = sessions(GRAPH, 32, 1, 1)
    stop = threading.Event()
    kept = Kept(stop, 2)
    task = SlideTask(0, "slide", str(slide))
    first = Processor(
        session, RunOptions(tile=32, overlap=0.25), memory=4 << 30, threads=2, checkpoints=lambda _: kept
    )
    with pytest.raises(Interrupted):
        list(first.process([task], stop))
    other = Processor(
        session, RunOptions(tile=32, overlap=0.5), memory=4 << 30, threads=2, checkpoints=lambda _: kept
    )
    (result,) = other.process([task])
    assert kept.resumed == [False, False]
    (expected,) = Processor(session, RunOptions(tile=32, overlap=0.5), memory=4 << 30, threads=2).process(
        [task]
    )
    assert isinstance(result, SlideResult)
    assert isinstance(expected, SlideResult)
    assert result.stats["counts"]["tiles"] == expected.stats["counts"]["tiles"]
    assert result.runs[1].to_rle() == expected.runs[1].to_rle()
