"""A slide on its way through the pipeline, and the entries that the feeder hands to the collector, in order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wsiseg.errors import WsisegError
from wsiseg.geometry import Size
from wsiseg.memory import MemoryPlan
from wsiseg.pipeline.options import SlideTask
from wsiseg.pipeline.settings import SlideSettings
from wsiseg.slide import ReadPlan, Slide
from wsiseg.tiling import Panel, TileGrid


class Checkpoint(Protocol):
    """Where the state of a slide in progress is kept; see `wsiseg.jobs.checkpoint`."""

    saved: int
    problem: str

    @property
    def seconds(self) -> float: ...
    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None: ...
    def begin(self, resumed: bool) -> None: ...
    def due(self, size: int) -> bool: ...
    def save(
        self, grown: Mapping[str, Any], state: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> None: ...
    def settle(self) -> None: ...


class BandSink(Protocol):
    """Takes the probabilities of one slide as they become final, from one thread.

    Each panel brings its strip of columns from top to bottom, panels come from left to right. `token` names what was
    taken so far: a checkpoint keeps it, and its slide goes on from there only if the sink still has that.
    """

    token: str

    def begin(self, resume: bool) -> None: ...
    def add(self, band: npt.NDArray[np.float32], row0: int, col0: int) -> None: ...
    def sync(self) -> None: ...


@dataclass(frozen=True)
class Resume:
    """Where a slide goes on: at this row of tiles of this panel, with the arrays that were saved there.

    Sums are not saved, since they are a hundred times larger than all the rest: the rows of tiles that reach below the
    finished ones, one at the usual overlaps, are run again for them.
    """

    panel: int
    row: int
    arrays: Mapping[str, Any]


@dataclass
class SlideJob:
    """One open slide with its plans. `times` sums seconds per stage; `counts` counts tiles and pixels."""

    task: SlideTask
    slide: Slide
    size: Size
    settings: SlideSettings
    read: ReadPlan
    grid: TileGrid
    memory: MemoryPlan
    warnings: list[str]
    started: float = field(default_factory=time.perf_counter)
    times: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    resume: Resume | None = None
    sink: BandSink | None = None

    def progress(self, panel: int, row: int) -> dict[str, Any]:
        """Where a checkpoint was taken; it fits only a slide that is cut in the same way, with the same sink."""
        cut = [[p.x0, p.x1] for p in self.memory.panels]
        place = {"panel": panel, "row": row, "panels": cut, "grid": [self.grid.tile, self.grid.stride]}
        return place if self.sink is None else {**place, "sink": self.sink.token}

    def resume_from(self, saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None) -> None:
        """Go on from a loaded checkpoint, if there is one and the slide is still cut in the same way."""
        if saved is None:
            return
        arrays, about = saved
        panel, row = about.get("panel"), about.get("row")
        if self.sink is None:  # a run that keeps no probabilities does not care who kept them before
            about = {k: v for k, v in about.items() if k != "sink"}
        elif not self.sink.token:
            return
        if isinstance(panel, int) and isinstance(row, int) and dict(about) == self.progress(panel, row):
            self.resume = Resume(panel, row, arrays)

    def first_row(self, panel: int) -> int:
        """The row of tiles at which a panel begins: 0, unless the slide goes on in its midst."""
        if self.resume is None or self.resume.panel != panel:
            return 0
        return max(0, self.resume.row - (self.grid.tile - 1) // self.grid.stride)

    def found_before(self, panel: int, row: int) -> bool:
        """Whether the runs of what this row of tiles makes final are among those that were saved."""
        return self.resume is not None and self.resume.panel == panel and row < self.resume.row

    @property
    def read_bytes(self) -> int:
        """The part of the plan that is free once the slide has been read."""
        return sum(b.bytes for b in self.memory.buffers if b.reading)

    @property
    def blend_bytes(self) -> int:
        """The part that is free once the runs are out."""
        return self.memory.slide_bytes - self.read_bytes

    def spent(self, stage: str, since: float) -> float:
        """Add the time since `since` to a stage; returns now."""
        now = time.perf_counter()
        self.times[stage] = self.times.get(stage, 0.0) + now - since
        return now

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number


@dataclass(frozen=True, slots=True)
class Begin:
    job: SlideJob


@dataclass(frozen=True, slots=True)
class BeginPanel:
    panel: Panel
    number: int


@dataclass(frozen=True, slots=True)
class Tile:
    """The next tile of the batch: origin in network pixels of the slide."""

    y: int
    x: int


@dataclass(frozen=True, slots=True)
class RowDone:
    """Every tile of this row of tiles has been handed over."""

    row: int


@dataclass(frozen=True, slots=True)
class PanelDone:
    pass


@dataclass(frozen=True, slots=True)
class SlideDone:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    """The slide cannot be done; what it had is dropped. `begun` says whether a Begin came before."""

    task: SlideTask
    error: WsisegError
    begun: bool


Entry = Begin | BeginPanel | Tile | RowDone | PanelDone | SlideDone | Failed


@dataclass(frozen=True, slots=True)
class Work:
    """A batch in flight (slot None: no tiles in it) and everything that happened up to its last tile, in order."""

    slot: int | None
    entries: list[Entry]
