"""What the collector hands to a sink, whole, in panels, and over an interruption."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests import fixtures_models
from tests.pipeline.test_slide_checkpoint import Kept
from wsiseg.errors import Interrupted, OutputError
from wsiseg.geometry import Rect, Size
from wsiseg.memory import MemoryPlan
from wsiseg.outputs.spool import ProbabilitySpool
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideResult, SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.tiling import TileGrid

GRAPH = fixtures_models.random_conv(4, classes=2, tissue="none")


class Planes:
    """The plain sink: every plane whole, each pixel given once, rows of a strip in order."""

    def __init__(self, classes: int, size: Size) -> None:
        self.token = ""
        self.planes = np.full((classes, size.height, size.width), np.nan, np.float32)
        self.order: list[tuple[int, int]] = []

    def begin(self, resume: bool) -> None:
        assert not resume

    def add(self, band: np.ndarray, row0: int, col0: int) -> None:
        part = self.planes[:, row0 : row0 + band.shape[1], col0 : col0 + band.shape[2]]
        assert part.shape == band.shape
        assert np.isnan(part).all()
        part[:] = band
        self.order.append((col0, row0))

    def sync(self) -> None:
        pass


@pytest.fixture
def slide(tmp_path: Path) -> SlideTask:
    pixels = np.random.default_rng(0).integers(0, 256, (900, 400, 3), np.uint8)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(48, 48), compression="deflate")
    return SlideTask(0, "slide", str(path))


@pytest.fixture
def panelled(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    plain = Processor.plan

    def cut(count: int) -> None:
        def in_panels(self: Processor, grid: TileGrid, *rest: object) -> MemoryPlan:
            return dataclasses.replace(plain(self, grid, *rest), panels=tuple(grid.panels(count)))  # type: ignore[arg-type]

        monkeypatch.setattr(Processor, "plan", in_panels)

    return cut


@pytest.mark.parametrize("scale", [1, 5])
def test_panels_bring_every_pixel_once_and_the_same(scale: int, slide, sessions, panelled) -> None:  # type: ignore[no-untyped-def]
    session, found = sessions(GRAPH, 32, 1, 1), []
    for panels in (1, 3):
        panelled(panels)
        sinks: list[Planes] = []

        def sink(task: SlideTask, size: Size, sinks: list[Planes] = sinks) -> Planes:
            sinks.append(Planes(2, size))
            return sinks[-1]

        processor = Processor(
            session, RunOptions(tile=32, scale=scale), memory=4 << 30, threads=2, sinks=sink
        )
        (result,) = processor.process([slide])
        assert isinstance(result, SlideResult)
        (one,) = sinks
        assert one.order == sorted(one.order)
        assert not np.isnan(one.planes).any()
        found.append(one.planes)
    assert np.array_equal(*found)
    if scale == 1:  # the mask is where the probability is above the threshold
        mask = result.runs[0].mask(Rect(0, 0, 900, 400))
        assert np.array_equal(mask > 0, found[0][0] > 0.5)


def run(session: Any, slide: SlideTask, folder: Path, kept: Kept | None, stop: threading.Event | None) -> Any:
    """A run whose spool lies in `folder`: (outcomes, spool)."""
    spools: list[ProbabilitySpool] = []

    def sink(task: SlideTask, size: Size) -> ProbabilitySpool:
        spools.append(ProbabilitySpool(folder / "spool", 2, size))
        return spools[-1]

    processor = Processor(
        session,
        RunOptions(tile=32, overlap=0.25),
        memory=4 << 30,
        threads=2,
        checkpoints=(lambda _: kept) if kept else None,
        sinks=sink,
    )
    try:
        return list(processor.process([slide], stop)), spools[0]
    except Interrupted:
        spools[0].close()
        raise


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_slide_keeps_its_probabilities(  # type: ignore[no-untyped-def]
    panels: int, after: int, slide, sessions, panelled, tmp_path: Path
) -> None:
    panelled(panels)
    session = sessions(GRAPH, 32, 1, 1)
    (whole,), spool = run(session, slide, tmp_path / "whole", None, None)
    want = [spool.band(k, 0, 900) for k in range(2)]
    for lost in (False, True):
        stop = threading.Event()
        kept = Kept(stop, after)
        with pytest.raises(Interrupted):
            run(session, slide, tmp_path / "cut", kept, stop)
        assert kept.saved
        if lost:  # another node, or somebody tidied up: everything is run again
            (tmp_path / "cut" / "spool").unlink()
        (resumed,), spool = run(session, slide, tmp_path / "cut", kept, None)
        assert kept.resumed[-1] == (not lost)
        assert [r.to_rle() for r in resumed.runs] == [r.to_rle() for r in whole.runs]
        assert all(np.array_equal(spool.band(k, 0, 900), want[k]) for k in range(2))
        spool.discard()


def test_a_checkpoint_of_a_run_without_probabilities_is_not_gone_on_with(  # type: ignore[no-untyped-def]
    slide, sessions, tmp_path: Path
) -> None:
    session = sessions(GRAPH, 32, 1, 1)
    options = RunOptions(tile=32, overlap=0.25)
    stop = threading.Event()
    kept = Kept(stop, 3)
    plain = Processor(session, options, memory=4 << 30, threads=2, checkpoints=lambda _: kept)
    with pytest.raises(Interrupted):
        list(plain.process([slide], stop))
    (result,), spool = run(session, slide, tmp_path / "new", kept, None)
    (whole,), want = run(session, slide, tmp_path / "whole", None, None)
    assert not kept.resumed[-1]
    assert [r.to_rle() for r in result.runs] == [r.to_rle() for r in whole.runs]
    assert np.array_equal(spool.band(1, 0, 900), want.band(1, 0, 900))


def test_a_sink_that_cannot_write_ends_the_run(slide, sessions, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run(sessions(GRAPH, 32, 1, 1), slide, tmp_path / "file", None, None)


def test_a_held_outcome_gives_back_its_memory(slide, sessions) -> None:  # type: ignore[no-untyped-def]
    session = sessions(GRAPH, 32, 1, 1)
    processor = Processor(session, RunOptions(tile=32), memory=4 << 30, threads=2)
    # So tight that a slide must wait until the one before it has been taken away.
    room = processor.prepare(slide)
    room.slide.close()
    processor = Processor(
        session,
        RunOptions(tile=32),
        memory=processor.budget.resident + processor.budget.reserve + room.memory.slide_bytes + (30 << 20),
        threads=2,
    )
    tasks = [dataclasses.replace(slide, index=k) for k in range(4)]
    outcomes = list(processor.process(tasks))
    assert [o.task.index for o in outcomes] == [0, 1, 2, 3]
    assert not any(isinstance(o, SlideFailure) for o in outcomes)
