"""Properties of the CPU kernels on drawn inputs: sizes of one, odd sizes, any bands and panels, malformed text."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import parity_cases
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsiseg_kernels import cpu, reference

few = settings(max_examples=60, deadline=None)
sizes = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["noise", "threshold", "smooth", "dots", "empty", "full"])


@st.composite
def slides(draw: Any) -> tuple[np.ndarray, int, tuple[int, int]]:
    """A field of network pixels, a scale, and a slide size that the field covers, whole or ragged."""
    h, w, scale = draw(sizes), draw(sizes), draw(st.integers(1, 8))
    field = parity_cases.quantised(np.random.default_rng(draw(seeds)), h, w, draw(kinds))
    size = h * scale - draw(st.integers(0, scale - 1)), w * scale - draw(st.integers(0, scale - 1))
    return field, scale, size


@few
@given(slides(), st.data(), st.sampled_from([0.5, 0.25, 0.3, 0.75]))
def test_any_bands_give_the_runs_of_one_band(slide: Any, data: Any, threshold: float) -> None:
    field, scale, size = slide
    bands, left = [], len(field)
    while left:
        bands.append(data.draw(st.integers(1, left)))
        left -= bands[-1]
    want = parity_cases.stream(reference, field, scale, size, threshold, [len(field)])
    parity_cases.same(parity_cases.stream(cpu, field, scale, size, threshold, bands), want)


@few
@given(slides(), st.data())
def test_panels_side_by_side_are_the_whole(slide: Any, data: Any) -> None:
    field, scale, (height, width) = slide
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, width - 1)), max_size=3)) - {width})
    mask = np.zeros((height, width), np.uint8)
    parts = []
    for x0, x1 in zip([0, *cuts], [*cuts, width], strict=True):
        runs = parity_cases.stream(cpu, field, scale, (height, width), 0.5, [1] * len(field), (x0, x1))
        part = np.empty((height, x1 - x0), np.uint8)
        cpu.runs_to_mask(*runs, height, 0, x0, part)
        parts.append(part)
    cpu.runs_to_mask(
        *parity_cases.stream(cpu, field, scale, (height, width), 0.5, [len(field)]), height, 0, 0, mask
    )
    np.testing.assert_array_equal(np.hstack(parts), mask)


@given(sizes, sizes, st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(-1, 1))
@few
def test_a_constant_is_inside_only_above_the_threshold(
    h: int, w: int, scale: int, value: float, step: int
) -> None:
    field = np.full((h, w), value + step * 2.0**-20, np.float32)
    starts, lengths = parity_cases.stream(cpu, field, scale, (h * scale, w * scale), value, [h])
    whole = [(0, h * w * scale * scale)] if step > 0 else []
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == whole


def blended_constant(value: float, tile: int, stride: int, height: int, width: int) -> np.ndarray:
    """What comes out [height, width] where every tile of the grid says `value`."""
    weights = cpu.gaussian_weights(tile)
    den_y, den_x = cpu.denominator(height, tile, stride), cpu.denominator(width, tile, stride)
    acc, out = np.zeros((1, height, width), np.float32), np.empty((1, height, width), np.float32)
    prob = np.full((1, tile, tile), value, np.float32)
    for y0 in range(stride - tile, height, stride):
        for x0 in range(stride - tile, width, stride):
            cpu.accumulate(acc, prob, weights, y0, x0, height)
    cpu.finish(acc, 0, height, den_y, den_x, out)
    return out[0]


@pytest.mark.parametrize("value", [0.0, 0.001, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("overlap", [0, 0.1, 0.25, 0.5])
def test_a_constant_comes_out_as_one_constant_borders_included(overlap: float, value: float) -> None:
    out = blended_constant(value, 64, round(64 * (1 - overlap)), 130, 171)
    assert (out == np.rint(np.float32(value) * 2.0**20) / 2.0**20).all()


@given(st.integers(1, 40), st.integers(1, 40), sizes, sizes, st.floats(0, 1))
@few
def test_constants_are_kept_at_any_overlap_up_to_three_quarters(
    tile: int, stride: int, height: int, width: int, value: float
) -> None:
    stride = min(tile, max(stride, -(-tile // 4)))
    whole = np.rint(np.float32(value) * np.float32(2**20)) * np.float32(2.0**-20)
    assert (blended_constant(value, tile, stride, height, width) == whole).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), seeds)
@few
def test_shrink_is_the_exact_mean(bh: int, bw: int, scale: int, seed: int) -> None:
    src = np.random.default_rng(seed).integers(0, 256, (bh, bw, 3), np.uint8)
    out = np.empty((-(-bh // scale), -(-bw // scale), 3), np.uint8)
    want = out.copy()
    cpu.shrink(src, scale, out)
    reference.shrink(src, scale, want)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("scale", [1, 2, 16, 17, 100, 256])
def test_the_largest_sums_do_not_overflow(scale: int, value: int) -> None:
    src = np.full((scale, scale + 1, 3), value, np.uint8)
    out = np.zeros((1, 2, 3), np.uint8)
    cpu.shrink(src, scale, out)
    assert (out == value).all()
    sums = np.zeros((1, 2, 3), np.uint32)
    cpu.shrink_add(src, 0, 0, scale, sums)
    out[:] = 0
    cpu.shrink_finish(sums, 0, scale, scale, scale + 1, out[0])
    assert (out == value).all()


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 24),
    st.integers(-30, 30),
    st.integers(-30, 30),
    seeds,
)
@few
def test_tiles_are_mirrored_at_the_edges(
    height: int, width: int, tile: int, y0: int, x0: int, seed: int
) -> None:
    ring = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for fill in (0, 1):
        out, want = np.empty((2, tile, tile, 3), np.uint8)
        cpu.gather_tile(ring, y0, x0, height, width, 0, fill, 9, out)
        reference.gather_tile(ring, y0, x0, height, width, 0, fill, 9, want)
        np.testing.assert_array_equal(out, want)


@given(sizes, sizes, st.floats(0, 1), seeds)
@few
def test_runs_and_masks_are_the_same_thing(height: int, width: int, density: float, seed: int) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    runs = cpu.mask_to_runs(mask)
    back = np.empty_like(mask)
    cpu.runs_to_mask(*runs, height, 0, 0, back)
    np.testing.assert_array_equal(back, mask)
    parity_cases.same(cpu.decode_runs(cpu.encode_runs(*runs)), runs)
    assert (
        cpu.fill_holes(*cpu.filter_area(*runs, height, 1), height, width, 1)[0].tolist() == runs[0].tolist()
    )


def test_runs_that_meet_at_a_column_border_are_one() -> None:
    mask = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 0]], np.uint8)
    assert cpu.encode_runs(*cpu.mask_to_runs(mask)) == b"2 4 7 1"
    labels, count, starts, lengths = cpu.label_runs(*cpu.mask_to_runs(mask), 3)
    assert (labels.tolist(), count, starts.tolist(), lengths.tolist()) == ([0, 0, 0], 1, [1, 3, 6], [2, 2, 1])


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)), max_size=8))
@few
def test_any_numbers_are_decoded_as_they_stand(pairs: list[tuple[int, int]]) -> None:
    text = " ".join(f"{a} {b}" for a, b in pairs).encode()
    starts, lengths = cpu.decode_runs(b"\n" + text.replace(b" ", b" \t") + b"\r\n")
    assert list(zip((starts + 1).tolist(), lengths.tolist(), strict=True)) == pairs


@given(st.text("0123456789 -+.a\t\nx", max_size=30).map(str.encode))
@example(b"1 2 3")
@example(b"1 -2")
@example(b"9223372036854775807 9223372036854775808")
@example(b"99999999999999999999999x 1")
@example(b"\xff")
@few
def test_malformed_text_is_refused_at_the_same_byte_as_the_reference(text: bytes) -> None:
    said = []
    for k in (cpu, reference):
        try:
            said.append([a.tolist() for a in k.decode_runs(text)])
        except ValueError as error:
            said.append(str(error))
    assert said[0] == said[1]


def test_bad_arguments_are_refused_by_name() -> None:
    field, line = np.zeros((2, 3), np.float32), np.zeros(3, np.float32)
    wide, out = np.zeros(12, np.uint8), np.zeros(9, np.int32)
    for row0, col0, scale, x1, said in (
        (0, 0, 0, 3, "scale 0"),
        (2, 0, 4, 12, "rows 2..4"),
        (0, 1, 4, 12, "need"),
    ):
        for k in (cpu, reference):
            with pytest.raises(ValueError, match=said):
                k.find_transitions(field, row0, col0, scale, 12, 12, 0, x1, 0.5, wide, line, out, out, 0)
    for k in (cpu, reference):
        with pytest.raises(ValueError, match="odd number"):
            k.transitions_to_runs(np.array([0, 1], np.int32), np.array([1, 2], np.int32), 0, 2, 5)
        with pytest.raises(ValueError, match="outside"):
            k.transitions_to_runs(np.array([4, 4], np.int32), np.array([1, 2], np.int32), 0, 2, 5)
    with pytest.raises(ValueError, match="does not give"):
        cpu.shrink(np.zeros((4, 4, 3), np.uint8), 2, np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="side by side"):
        cpu.shrink(np.zeros((4, 4, 3), np.uint8), 2, np.zeros((2, 4, 3), np.uint8)[:, ::2])


@pytest.mark.parametrize("scale", range(1, 17))
def test_every_sum_of_a_block_has_its_exact_mean(scale: int) -> None:
    # Blocks of up to 16 x 16, ragged ones too, are divided in float32 or by a shift: all sums that there are.
    means_narrow = importlib.import_module("wsiseg_kernels.cpu.shrink")._means_narrow
    for rows in range(1, scale + 1):
        n = rows * scale
        sums = np.minimum(np.arange(-(-(255 * n + 1) // 3) * 3), 255 * n).astype(np.uint16)
        out = np.empty((1, len(sums) // 3, 3), np.uint8)
        means_narrow(sums, len(sums), n, out, 0)
        np.testing.assert_array_equal(out.ravel(), (sums.astype(np.int64) + n // 2) // n)
