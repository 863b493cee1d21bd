"""Where the mask toggles in each column, collected band by band, and the runs that follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Size
from wsiseg_kernels import cpu

_CHUNK = 1 << 17

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class ColumnRuns:
    """Runs of one class in full-size columns [x0, x1), found from bands of network rows as they become final.

    Memory bound: 8 bytes per transition in chunks that are never copied while they grow, at most `max_runs` runs;
    and 5 bytes per column of state. Saving copies the state, and what was found since the last time.
    """

    def __init__(self, x0: int, x1: int, size: Size, scale: int, threshold: float, max_runs: int) -> None:
        self.x0, self.x1, self._size, self._scale = x0, x1, size, scale
        self._threshold, self._limit = threshold, 2 * max_runs
        self._inside = np.zeros(x1 - x0, np.uint8)
        self._previous: npt.NDArray[np.float32] | None = None
        self._full: list[tuple[Int32, Int32]] = []
        self._stored = 0
        self._saved = 0
        self._new_chunk(_CHUNK)

    def _new_chunk(self, capacity: int) -> None:
        self._x, self._y, self._count = np.empty(capacity, np.int32), np.empty(capacity, np.int32), 0

    def _seal(self) -> None:
        if self._count:
            self._full.append((self._x[: self._count], self._y[: self._count]))
            self._stored += self._count

    def add(self, band: npt.NDArray[np.float32], row0: int, col0: int) -> bool:
        """Take network rows row0.. (columns col0..) into account; False when there are more than `max_runs` runs."""
        if self._previous is None:
            self._previous = np.zeros(band.shape[1], np.float32)
        while True:
            count = cpu.find_transitions(
                band, row0, col0, self._scale, self._size.height, self._size.width, self.x0, self.x1,
                self._threshold, self._inside, self._previous, self._x, self._y, self._count,
            )  # fmt: skip
            if count >= 0:
                self._count = count
                return self._stored + count <= self._limit
            self._seal()
            needed = -count
            if self._stored + needed > 2 * self._limit + _CHUNK:
                return False
            self._new_chunk(max(_CHUNK, needed))

    @property
    def unsaved(self) -> int:
        """Bytes that `take_new` would give."""
        return 8 * (self._stored + self._count - self._saved)

    def take_new(self) -> dict[str, Int32]:
        """Copies of what was found since the last call, or since `restore`."""
        skip, x, y = self._saved, [], []
        for chunk_x, chunk_y in (*self._full, (self._x[: self._count], self._y[: self._count])):
            x.append(chunk_x[skip:])
            y.append(chunk_y[skip:])
            skip = max(0, skip - len(chunk_x))
        self._saved = self._stored + self._count
        return {"x": np.concatenate(x), "y": np.concatenate(y)}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of how each column stands."""
        previous = np.zeros(0, np.float32) if self._previous is None else self._previous.copy()
        return {"inside": np.packbits(self._inside), "previous": previous}

    def restore(
        self, found: Mapping[str, npt.NDArray[Any]], state: Mapping[str, npt.NDArray[Any]] | None
    ) -> ColumnRuns:
        """Go on from all that `take_new` ever gave, and from `state`; None for columns that are closed."""
        self._full, self._stored = [(found["x"], found["y"])], len(found["x"])
        self._saved = self._stored
        if state is not None:
            self._inside = np.unpackbits(state["inside"], count=len(self._inside))
            self._previous = state["previous"] if len(state["previous"]) else None
        return self

    def close(self) -> ColumnRuns:
        """Close the columns that are still open at the slide's lower edge."""
        columns = self.x1 - self.x0
        if self._count + columns > len(self._x):
            self._seal()
            self._new_chunk(columns)
        self._count = cpu.close_transitions(
            self._inside, self.x0, self._size.height, self._x, self._y, self._count
        )
        self._seal()
        self._count = 0
        return self

    def runs(self) -> tuple[Int64, Int64]:
        """Starts and lengths, sorted, after `close`."""
        if not self._full:
            empty = np.empty(0, np.int64)
            return empty, empty.copy()
        x = np.concatenate([c[0] for c in self._full])
        y = np.concatenate([c[1] for c in self._full])
        self._full = []
        return cpu.transitions_to_runs(x, y, self.x0, self.x1, self._size.height)


def join(parts: list[tuple[Int64, Int64]]) -> tuple[Int64, Int64]:
    """Runs of neighbouring panels, left to right, as one list; two that touch across the border become one."""
    parts = [p for p in parts if len(p[0])]
    if not parts:
        empty = np.empty(0, np.int64)
        return empty, empty.copy()
    starts, lengths = (np.concatenate(p) for p in zip(*parts, strict=True))
    touching = np.flatnonzero(starts[1:] == starts[:-1] + lengths[:-1]) + 1
    if len(touching):
        heads = np.ones(len(starts), bool)
        heads[touching] = False
        lengths = np.add.reduceat(lengths, np.flatnonzero(heads))
        starts = starts[heads]
    return starts, lengths
