"""The pure memory plan: what fits, what is given up first, and what a refusal says."""

from __future__ import annotations

import pytest

from wsiseg.errors import BudgetError
from wsiseg.geometry import Size
from wsiseg.memory import OutputCost, ReadCost, Share, plan_memory
from wsiseg.tiling import TileGrid

MIB = 1 << 20


def read_cost(unit: int = 32, scratch: int = MIB) -> ReadCost:
    return ReadCost(
        unit, lambda columns, rows: [("ring", rows * (columns[1] - columns[0]) * 3), ("decode", 2 * scratch)]
    )


def plan(
    height: int,
    width: int,
    free: int,
    *,
    tile: int = 512,
    overlap: int = 128,
    scratch: int = MIB,
    **more: object,
):  # type: ignore[no-untyped-def]
    grid = TileGrid(Size(height, width), tile, tile - overlap)
    budget = Share(300 * MIB + free)
    return plan_memory(
        grid,
        classes=1,
        read=read_cost(scratch=scratch),
        resident=300 * MIB,
        budget=budget,
        reserve=0,
        full_width=width * 4,
        **more,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("free", [40 * MIB, 60 * MIB, 100 * MIB, 4096 * MIB])
@pytest.mark.parametrize("width", [100, 5_000, 30_000])
def test_a_plan_never_passes_its_budget(free: int, width: int) -> None:
    made = plan(20_000, width, free)
    assert made.total <= made.budget
    assert made.slide_bytes == sum(b.bytes for b in made.buffers)
    assert [p.x0 for p in made.panels[1:]] == [p.x1 for p in made.panels[:-1]]
    assert (made.panels[0].x0, made.panels[-1].x1) == (0, width)


def test_less_memory_means_less_read_ahead_then_panels() -> None:
    roomy, tight, tighter = (plan(20_000, 6_000, free * MIB) for free in (400, 46, 30))
    assert len(roomy.panels) == 1
    assert roomy.ring_rows > tight.ring_rows or len(tight.panels) > 1
    assert len(tighter.panels) > 1


def test_memory_hardly_grows_with_a_very_wide_slide() -> None:
    narrow, wide = plan(2_500, 2_500, 500 * MIB), plan(12_500, 12_500, 500 * MIB)
    assert len(narrow.panels) == 1
    assert wide.slide_bytes - narrow.slide_bytes < 30 * MIB
    grid = TileGrid(Size(12_500, 12_500), 512, 384)
    run = sum(p.j1 - p.j0 for p in wide.panels)
    assert run <= 1.08 * grid.x.count


def test_what_cannot_fit_is_refused_with_numbers_that_do() -> None:
    with pytest.raises(BudgetError) as caught:
        plan(20_000, 6_000, 20 * MIB, scratch=64 * MIB)
    text = str(caught.value)
    assert "\n" not in text
    needed = int(text.split("give --memory ")[1].split("MB")[0]) * 10**6
    enough = plan(20_000, 6_000, needed - 300 * MIB, scratch=64 * MIB)
    assert enough.total <= needed


def test_a_share_speaks_of_the_whole_memory() -> None:
    share = Share(100 * MIB, workers=4, apart=56 * MIB)
    assert share.option(share.bytes) == 456 * MIB
    assert share.argument(100 * MIB) == "500MB"


def test_outputs_have_their_place_in_the_plan() -> None:
    made = plan(5_000, 5_000, 200 * MIB, outputs=OutputCost(per_run=320, bytes=7 * MIB))
    assert any(b.name == "outputs" and b.bytes == 7 * MIB for b in made.buffers)
    assert made.max_runs == next(b.bytes for b in made.buffers if b.name == "runs") // 320
    # What is left over goes to the runs, so that outputs do not make masks fail that would do without them.
    plain = plan(5_000, 5_000, 1000 * MIB)
    with_outputs = plan(5_000, 5_000, 1000 * MIB, outputs=OutputCost(per_run=320, bytes=7 * MIB))
    assert 0.7 * plain.max_runs <= with_outputs.max_runs <= plain.max_runs
    assert with_outputs.total <= 1000 * MIB
