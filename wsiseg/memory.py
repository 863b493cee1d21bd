"""The memory plan: from sizes to a list of buffers that stays under the budget. Pure; no I/O, no defaults.

Bounded memory rests on three things: every large buffer of a run is in the plan and is allocated from it; what is
already resident (interpreter, libraries, the loaded model) is measured before planning and is part of it; and what a
decoder or an encoder allocates for a moment has its own row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from wsiseg.errors import BudgetError
from wsiseg.geometry import ceil_div
from wsiseg.tiling import Panel, TileGrid
from wsiseg.units import format_bytes

BYTES_PER_RUN = 64  # two transitions, start and length, their sorted copy, and about 20 digits
# Finished rows go to the run kernel in slices of so many: they stay in the cache on the way.
BAND_ROWS = 64
# Very wide slides are cut into panels above this, even where more would fit, as long as few tiles are run twice for it.
COMFORT_BYTES, COMFORT_COST = 40 << 20, 0.07
MIN_RUNS_BYTES = 16 << 20
READ_REASON = "read once: decoded, shrunk and kept only while tiles look at it"


@dataclass(frozen=True)
class Buffer:
    """One row of the plan: `count` arrays of `shape` and `dtype`, why, and whether it is free once the slide is read."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    count: int
    reason: str
    reading: bool = False

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.itemsize * self.count


@dataclass(frozen=True)
class Share:
    """A process's part of `--memory`: `bytes` for itself, `workers` such processes, and `apart` bytes for the rest."""

    bytes: int
    workers: int = 1
    apart: int = 0

    def option(self, needed: int) -> int:
        """The bytes of `--memory` with which a process gets `needed`."""
        return needed * self.workers + self.apart

    def argument(self, needed: int) -> str:
        """`option` as a person types it, rounded up to 50 MB."""
        return f"{math.ceil(self.option(needed) / 50e6) * 50}MB"


@dataclass(frozen=True)
class ReadCost:
    """What the reader of one slide needs.

    Attributes:
        unit_rows: network rows that one decode unit makes.
        buffers: (columns, ring rows) -> (name, bytes) of every buffer of a reader of these network columns.
    """

    unit_rows: int
    buffers: Callable[[tuple[int, int], int], list[tuple[str, int]]]


@dataclass(frozen=True)
class OutputCost:
    """What writing a slide's results needs: `per_run` bytes for each run of its mask, and `bytes` besides.

    `probabilities`: finished bands are kept in 8 bit too.
    """

    per_run: int = BYTES_PER_RUN
    bytes: int = 0
    probabilities: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """The buffers of one slide, and the panels and ring that follow from the budget."""

    budget: int
    resident: int
    buffers: tuple[Buffer, ...]
    panels: tuple[Panel, ...]
    ring_rows: int

    @property
    def slide_bytes(self) -> int:
        """What this slide adds to what is already resident."""
        return sum(b.bytes for b in self.buffers)

    @property
    def streaming_bytes(self) -> int:
        """The part that grows with the slide's width: what is read, blended and finished at a time."""
        return sum(b.bytes for b in self.buffers if b.reading or b.name in ("accumulator", "band"))

    @property
    def total(self) -> int:
        return self.resident + self.slide_bytes

    @property
    def max_runs(self) -> int:
        """The most runs that the plan has room for."""
        return next(b.shape[0] for b in self.buffers if b.name == "runs")


def _buffers(
    grid: TileGrid,
    panels: list[Panel],
    ring_rows: int,
    classes: int,
    read: ReadCost,
    runs: int,
    full_width: int,
    outputs: OutputCost,
) -> tuple[Buffer, ...]:
    widest = max(panels, key=lambda p: p.c1 - p.c0)
    columns = max(p.a1 - p.a0 for p in panels)
    reading = [
        Buffer(name, (size,), "uint8", 1, 1, READ_REASON, reading=True)
        for name, size in read.buffers((widest.c0, widest.c1), ring_rows)
        if size
    ]
    return (
        *reading,
        Buffer(
            "accumulator",
            (classes, grid.tile, columns),
            "float32",
            4,
            1,
            "weighted sums of the rows that tiles still touch",
        ),
        Buffer(
            "band",
            (classes, min(BAND_ROWS, grid.stride, grid.size.height), columns),
            "float32",
            4,
            1,
            "finished probabilities on their way to runs",
        ),
        Buffer("columns", (classes, full_width), "uint8", 1, 1, "whether each slide column is inside a run"),
        Buffer(
            "runs",
            (runs // outputs.per_run, outputs.per_run),
            "uint8",
            1,
            1,
            "run-length mask, its objects and its digits",
        ),
        *(
            [
                Buffer(
                    "levels",
                    (min(BAND_ROWS, grid.stride, grid.size.height) + 4, columns),
                    "uint8",
                    1,
                    1,
                    "probabilities of one class in 8 bit on their way to the disk",
                )
            ]
            if outputs.probabilities
            else []
        ),
        *(
            [Buffer("outputs", (outputs.bytes,), "uint8", 1, 1, "what --save writes")]
            if outputs.bytes
            else []
        ),
    )


def _comfortable(plan: MemoryPlan, attempt: Callable[[int], MemoryPlan], grid: TileGrid) -> MemoryPlan:
    """The plan with a few more panels when its slide is very wide, so that memory hardly grows with the slide.

    A tile on a border between panels is run in both, so this stops before more than COMFORT_COST of the tiles are.
    """
    best, twice_each = plan, ceil_div(grid.tile, grid.stride) / grid.x.count
    while best.streaming_bytes > COMFORT_BYTES and len(best.panels) * twice_each <= COMFORT_COST:
        best = attempt(len(best.panels) + 1)
    return best


def plan_memory(
    grid: TileGrid,
    *,
    classes: int,
    read: ReadCost,
    resident: int,
    budget: Share,
    reserve: int,
    full_width: int,
    outputs: OutputCost | None = None,
) -> MemoryPlan:
    """The plan with the fewest panels, then the most read-ahead, that fits.

    Args:
        grid: the tile grid of the slide. classes: probability planes.
        read: what the reader needs. resident: bytes already in use by the process tree, model included.
        outputs: what writing the results needs; by default the CSV's record alone.
        budget: what this process may hold. reserve: bytes kept free for the allocator's slack.
        full_width: W of the slide in slide pixels; the state of open runs is kept per slide column.

    Raises:
        BudgetError: needed, budget, and the setting that would fit.
    """
    free = budget.bytes - resident - reserve
    needed = grid.resident_rows()
    outputs = outputs or OutputCost()
    runs = max(MIN_RUNS_BYTES, free // 8)

    def attempt(count: int, ahead: int, more: int = 0) -> MemoryPlan:
        # A unit may begin only when all of its rows are free, so one more unit keeps the reader from stalling.
        ring_rows = min(needed + read.unit_rows + ahead, grid.size.height + read.unit_rows)
        panels = grid.panels(count)
        buffers = _buffers(grid, panels, ring_rows, classes, read, runs + more, full_width, outputs)
        return MemoryPlan(budget.bytes, resident, buffers, tuple(panels), ring_rows)

    def roomy(plan: MemoryPlan, ahead: int) -> MemoryPlan:
        # Outputs need several times as much for a run: half of what is left over makes up for it, up to as many runs as
        # without them. The other half is for the next slide.
        wanted = runs * outputs.per_run // BYTES_PER_RUN - runs
        return attempt(len(plan.panels), ahead, max(0, min(wanted, (free - plan.slide_bytes) // 2)))

    most = max(1, min(grid.x.count, 256))
    ahead_choices = (grid.stride + read.unit_rows, read.unit_rows, 0)
    for count in range(1, most + 1):
        for ahead in ahead_choices:
            plan = attempt(count, ahead)
            if plan.slide_bytes <= free:
                best = _comfortable(plan, partial(attempt, ahead=ahead), grid) if ahead else plan
                return roomy(best, ahead)
    smallest, whole = attempt(most, 0), attempt(1, ahead_choices[0])
    fits = resident + reserve + smallest.slide_bytes - runs + MIN_RUNS_BYTES
    raise BudgetError(
        f"the memory budget is too small: {format_bytes(budget.option(fits))} needed at the least ({format_bytes(resident)} "
        f"for the program and the model), --memory is {format_bytes(budget.option(budget.bytes))}; give "
        f"--memory {budget.argument(fits)} or more ({budget.argument(resident + reserve + whole.slide_bytes)} avoids panels), "
        f"or a smaller --tile or --batch"
    )
