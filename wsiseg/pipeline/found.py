"""The runs of a slide while they are found: of its finished panels, and of the one in work; saved now and then.

Belongs to the one thread that finishes rows. What is saved is the state after a finished row of tiles: which rows those
were, the runs, and how each column of pixels stands; the sums of rows that are not final are made again (`job.Resume`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.transitions import ColumnRuns
from wsiseg.tiling import Panel


class Found:
    """What was found of one slide.

    Args:
        thresholds: one per class.

    Attributes:
        panels: of each finished panel, its runs per class.
        columns: of the panel in work.
    """

    def __init__(self, job: SlideJob, thresholds: Sequence[float]) -> None:
        self.job, self._thresholds = job, thresholds
        self.panels: list[list[ColumnRuns]] = []
        self.columns: list[ColumnRuns] = []
        self._at: tuple[int, int] | None = None  # where the slide would go on; None: nowhere in particular
        if job.checkpoint is not None:
            job.checkpoint.begin(job.resume is not None)
        if job.sink is not None:
            job.sink.begin(job.resume is not None)
        if job.resume is not None:
            self.panels = [self._restored(number, done=True) for number in range(job.resume.panel)]

    def begin(self, number: int) -> list[ColumnRuns]:
        """The next panel: its columns, empty, or as they were left in the midst of it."""
        resume = self.job.resume
        if resume is not None and resume.panel == number and resume.row:
            self.columns = self._restored(number, done=False)
        else:
            self.columns = self._blank(self.job.memory.panels[number])
        return self.columns

    def row_done(self, row: int) -> None:
        """This row of tiles is finished, and its runs are in `columns`; saves that when it is time to."""
        number = len(self.panels)
        if self.job.found_before(number, row):
            return
        # after the last one the columns are still open, which is no place to go on from
        self._at = (number, row + 1) if row + 1 < self.job.grid.y.count else None
        checkpoint = self.job.checkpoint
        if self._at is not None and checkpoint is not None and checkpoint.due(self._size()):
            self._save()

    def end(self) -> None:
        """The panel in work is finished."""
        self.panels.append([one.close() for one in self.columns])
        self.columns = []
        last = len(self.panels) == len(self.job.memory.panels)
        self._at = None if last else (len(self.panels), 0)

    def keep(self) -> None:
        """Somebody asks to stop: saves what there is, whatever it costs, and waits for it."""
        checkpoint = self.job.checkpoint
        if checkpoint is not None and self._at is not None and not checkpoint.problem:
            self._save()
            checkpoint.settle()

    def settle(self) -> None:
        """Nothing more will be saved of this slide; says in its figures what that took."""
        checkpoint = self.job.checkpoint
        if checkpoint is None:
            return
        checkpoint.settle()
        if checkpoint.saved:
            self.job.count("checkpoints", checkpoint.saved)
            self.job.times["checkpoint, in the background"] = checkpoint.seconds
        if checkpoint.problem:
            self.job.warnings.append(f"its state in progress could not be saved: {checkpoint.problem}")

    def _blank(self, panel: Panel) -> list[ColumnRuns]:
        job, scale = self.job, self.job.settings.scale
        x0, x1 = panel.x0 * scale, min(panel.x1 * scale, job.size.width)
        return [ColumnRuns(x0, x1, job.size, scale, t, job.memory.max_runs) for t in self._thresholds]

    def _restored(self, number: int, done: bool) -> list[ColumnRuns]:
        assert self.job.resume is not None
        arrays = self.job.resume.arrays
        columns = self._blank(self.job.memory.panels[number])
        for i, one in enumerate(columns):
            state = None if done else {name: arrays[f"{i}.{name}"] for name in ("inside", "previous")}
            found = {name: arrays.get(f"{number}.{i}.{name}", np.zeros(0, np.int32)) for name in ("x", "y")}
            one.restore(found, state)
        return columns

    def _size(self) -> int:
        new = sum(one.unsaved for panel in (*self.panels, self.columns) for one in panel)
        return new + self.job.size.width // 8 + 4 * self.job.grid.size.width

    def _save(self) -> None:
        assert self.job.checkpoint is not None
        assert self._at is not None
        since = time.perf_counter()
        if self.job.sink is not None:
            # What a checkpoint relies on must not be lost when the machine is.
            self.job.sink.sync()
        grown = {
            f"{number}.{i}.{name}": array
            for number, panel in enumerate((*self.panels, self.columns))
            for i, one in enumerate(panel)
            for name, array in one.take_new().items()
            if len(array)
        }
        state = {f"{i}.{name}": a for i, one in enumerate(self.columns) for name, a in one.state().items()}
        self.job.checkpoint.save(grown, state, self.job.progress(*self._at))
        self.job.spent("checkpoint", since)
