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
from wsiseg.memory import MemoryPlan
from wsiseg.pipeline.options import RunOptions, SlideResult, SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.tiling import TileGrid

GRAPH = fixtures_models.random_conv(4, classes=2, tissue="none")


class Kept:
    """A checkpoint in memory that is due at every band, and asks for a stop after some of them."""

    def __init__(self, stop: threading.Event, after: int) -> None:
        self.saved: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._stop, self._left = stop, after

    def due(self) -> bool:
        return True

    def save(self, state: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        self.saved = ({k: np.array(v) for k, v in state.items()}, dict(about or {}))
        self._left -= 1
        if self._left <= 0:
            self._stop.set()

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        return self.saved


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
    assert kept.saved is not None
    (resumed,) = processor.process([task])
    assert isinstance(resumed, SlideResult)
    assert resumed.stats["counts"]["tiles"] < whole.stats["counts"]["tiles"]
    assert [r.to_rle() for r in resumed.runs] == [r.to_rle() for r in whole.runs]


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
    (expected,) = Processor(session, RunOptions(tile=32, overlap=0.5), memory=4 << 30, threads=2).process(
        [task]
    )
    assert isinstance(result, SlideResult)
    assert isinstance(expected, SlideResult)
    assert result.stats["counts"]["tiles"] == expected.stats["counts"]["tiles"]
    assert result.runs[1].to_rle() == expected.runs[1].to_rle()
