"""The tile grid against its definition, pixel by pixel."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.geometry import Size, reflect
from wsiseg.tiling import Axis, TileGrid, stride_of

few = settings(max_examples=150, deadline=None)
axes = st.builds(
    lambda length, tile, share: Axis(length, tile, stride_of(tile, share)),
    st.integers(1, 90),
    st.integers(1, 24),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]),
)


@given(axes)
@few
def test_every_pixel_is_covered_as_in_an_infinite_grid(axis: Axis) -> None:
    phase = axis.origin(0)
    for pixel in range(axis.length):
        tiles = {
            axis.origin(i) for i in range(axis.count) if axis.origin(i) <= pixel < axis.origin(i) + axis.tile
        }
        infinite = {o for o in range(pixel - axis.tile + 1, pixel + 1) if (o - phase) % axis.stride == 0}
        assert tiles == infinite


@given(axes)
@few
def test_final_rows_partition_the_axis_and_no_later_tile_touches_them(axis: Axis) -> None:
    spans = [axis.final(i) for i in range(axis.count)]
    assert [p for a, b in spans for p in range(a, b)] == list(range(axis.length))
    for i, (start, stop) in enumerate(spans[:-1]):
        assert start == stop or all(axis.origin(j) >= stop for j in range(i + 1, axis.count))


@given(axes, st.booleans())
@few
def test_source_holds_every_pixel_a_tile_looks_at(axis: Axis, reflected: bool) -> None:
    for i in range(axis.count):
        low, high = axis.source(i, i + 1, reflected)
        for p in range(axis.origin(i), axis.origin(i) + axis.tile):
            if reflected or 0 <= p < axis.length:
                assert low <= reflect(p, axis.length) < high


@given(axes, st.data())
@few
def test_covering_names_exactly_the_tiles_that_touch(axis: Axis, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, axis.length - 1))
    stop = data.draw(st.integers(start + 1, axis.length))
    touching = [i for i in range(axis.count) if axis.origin(i) < stop and axis.origin(i) + axis.tile > start]
    assert list(range(*axis.covering(start, stop))) == touching


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 16), st.sampled_from([0.0, 0.25, 0.5]))
@few
def test_rows_that_are_let_go_are_not_looked_at_again(
    height: int, width: int, tile: int, share: float
) -> None:
    grid = TileGrid(Size(height, width), tile, stride_of(tile, share))
    spans = grid.row_spans()
    for row, (keep, need) in enumerate(spans):
        low, high = grid.y.source(row, row + 1, True)
        assert keep <= low
        assert high == need
    assert [k for k, _ in spans] == sorted(k for k, _ in spans)
    assert grid.resident_rows() <= height


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_panels_partition_the_width(count: int) -> None:
    grid = TileGrid(Size(50, 77), 16, 12)
    panels = grid.panels(count)
    assert [x for p in panels for x in range(p.x0, p.x1)] == list(range(77))
    for p in panels:
        assert p.a0 == max(0, p.x0 - 1)
        assert p.a1 == min(77, p.x1 + 1)
        assert 0 <= p.c0 < p.c1 <= 77


@given(st.integers(-200, 200), st.integers(1, 30))
def test_reflect_mirrors_about_the_end_samples(index: int, length: int) -> None:
    steps, position, direction = abs(index), 0, 1
    if length > 1:
        for _ in range(steps):
            if not 0 <= position + direction < length:
                direction = -direction
            position += direction
    assert reflect(index, length) == position
