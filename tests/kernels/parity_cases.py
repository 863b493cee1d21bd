"""Cases of the parity matrix: each draws its inputs from a seeded generator, runs the reference and an implementation on
copies of them, and compares everything that either may have written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.random import Generator

from wsiseg_kernels import reference

Case = Callable[[Any, Generator], None]


def quantised(rng: Generator, h: int, w: int, kind: str = "noise") -> np.ndarray:
    """A field [h, w] of probabilities that are multiples of 2**-20."""
    if kind == "noise":
        field = rng.random((h, w))
    elif kind == "threshold":  # exactly at 0.5, one quantum beside it, and far from it
        field = 0.5 + rng.choice([-0.25, -(2.0**-20), 0, 0, 2.0**-20, 0.25], (h, w))
    elif kind == "smooth":
        y, x = np.mgrid[:h, :w]
        field = 0.5 + 0.5 * np.sin(y / 2.3 + rng.random()) * np.cos(x / 3.1 + rng.random())
    elif kind == "dots":
        field = (rng.random((h, w)) < 0.1).astype(float)
    else:
        field = np.full((h, w), {"empty": 0.0, "full": 1.0}[kind])
    return (np.rint(field * 2**20) / 2**20).astype(np.float32)


def random_runs(rng: Generator, height: int, width: int, density: float) -> tuple[np.ndarray, np.ndarray]:
    """Canonical runs of a random mask made of noise and rectangles."""
    mask = (rng.random((height, width)) < density).astype(np.uint8)
    y, x = rng.integers(0, height), rng.integers(0, width)
    mask[y : y + height // 2 + 1, x : x + width // 2 + 1] ^= 1
    return reference.mask_to_runs(mask)


def stream(
    k: Any,
    field: np.ndarray,
    scale: int,
    size: tuple[int, int],
    threshold: float,
    bands: list[int],
    columns: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs of columns x0..x1 of a field [h, w] at full size, in bands of the given numbers of network rows."""
    (height, width), (h, w) = size, field.shape
    x0, x1 = columns or (0, width)
    c0, c1 = max(0, x0 // scale - 1), min(w, (x1 - 1) // scale + 2)
    part = np.ascontiguousarray(field[:, c0:c1])
    inside, prev = np.zeros(x1 - x0, np.uint8), np.zeros(c1 - c0, np.float32)
    out_x, out_y = np.empty(2, np.int32), np.empty(2, np.int32)
    count = row = 0

    def grown(needed: int) -> tuple[np.ndarray, np.ndarray]:
        return np.resize(out_x, needed), np.resize(out_y, needed)

    for n in bands:
        args = (part[row : row + n], row, c0, scale, height, width, x0, x1, threshold, inside, prev)
        before = inside.copy(), prev.copy()
        found = k.find_transitions(*args, out_x, out_y, count)
        if found < 0:
            assert (inside == before[0]).all()
            assert (prev == before[1]).all()
            out_x, out_y = grown(-found)
            assert k.find_transitions(*args, out_x, out_y, count) == -found
            found = -found
        count, row = found, row + n
    assert row == h
    found = k.close_transitions(inside, x0, height, out_x, out_y, count)
    if found < 0:
        out_x, out_y = grown(-found)
        found = k.close_transitions(inside, x0, height, out_x, out_y, count)
    assert not inside.any()
    return k.transitions_to_runs(out_x[:found], out_y[:found], x0, x1, height)


def same(got: Any, want: Any) -> None:
    """Equal in type, shape and every byte."""
    if isinstance(want, tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
    elif isinstance(want, np.ndarray):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(got, want)
    else:
        assert type(got) is type(want)
        assert got == want


def blend(classes: int, tile: int, stride: int, height: int, width: int) -> Case:
    def case(k: Any, rng: Generator) -> None:
        rows = tile + 1
        weights, den_y = k.gaussian_weights(tile), k.denominator(height, tile, stride)
        den_x = k.denominator(width, tile, stride)
        same(weights, reference.gaussian_weights(tile))
        acc = np.zeros((classes, rows, width), np.float32)
        want = acc.copy()
        done = 0
        for y0 in range(stride - tile, height, stride):
            for x0 in range(stride - tile, width, stride):
                prob = rng.random((classes, tile, tile), dtype=np.float32)
                k.accumulate(acc, prob, weights, y0, x0, height)
                reference.accumulate(want, prob, weights, y0, x0, height)
            same(acc, want)
            end = min(height, max(0, y0 + stride))
            out = np.full((classes, end - done, width), -1, np.float32)
            expected = out.copy()
            k.finish(acc, done, end, den_y[done:end], den_x, out)
            reference.finish(want, done, end, den_y[done:end], den_x, expected)
            same(out, expected)
            same(acc, want)
            done = end
        assert done == height
        assert not acc.any()

    return case


def shrinking(scale: int, bh: int, bw: int) -> Case:
    def case(k: Any, rng: Generator) -> None:
        src = rng.integers(0, 256, (bh, bw, 3), np.uint8)
        out = np.full((-(-bh // scale), -(-bw // scale), 3), 77, np.uint8)
        want = out.copy()
        k.shrink(src, scale, out)
        reference.shrink(src, scale, want)
        same(out, want)
        # Into a window of a larger array, from a window of a larger block.
        ring = np.full((out.shape[0] + 2, out.shape[1] + 3, 3), 55, np.uint8)
        k.shrink(np.pad(src, ((1, 1), (2, 1), (0, 0)))[1:-1, 2:-1], scale, ring[1:-1, 2:-1])
        same(ring[1:-1, 2:-1], want)
        assert (ring.sum() - want.sum(dtype=np.int64)) == 55 * (ring.size - want.size)
        # The same slide in four unaligned pieces.
        sums = np.zeros((out.shape[0] + 1, out.shape[1], 3), np.uint32)
        cut_y, cut_x = bh // 2, bw // 3
        for ys in (slice(0, cut_y), slice(cut_y, bh)):
            for xs in (slice(0, cut_x), slice(cut_x, bw)):
                k.shrink_add(src[ys, xs], ys.start, xs.start, scale, sums)
        for row in range(out.shape[0]):
            out[row] = 77
            k.shrink_finish(sums, row, scale, bh, bw, out[row])
        same(out, want)
        assert not sums.any()

    return case


def outside(scale: int) -> Case:
    def case(k: Any, rng: Generator) -> None:
        src = rng.integers(0, 256, (9, 11, 3), np.uint8)
        sums = np.zeros((6, 3, 3), np.uint32)
        want = sums.copy()
        for y0, x0 in ((-2, -3), (3, 2), (0, 40), (0, -40)):
            k.shrink_add(src, y0, x0, scale, sums)
            reference.shrink_add(src, y0, x0, scale, want)
        same(sums, want)

    return case


def gather(height: int, width: int, tile: int, col0: int, held: int, fill: int) -> Case:
    def case(k: Any, rng: Generator) -> None:
        ring = rng.integers(0, 256, (2 * tile + 3, held, 3), np.uint8)
        for y0, x0 in (
            (-tile + 1, -tile + 1),
            (0, 0),
            (height - 1, width - 1),
            (height - tile, width - tile // 2),
        ):
            out = np.full((tile, tile, 3), 99, np.uint8)
            want = out.copy()
            k.gather_tile(ring, y0, x0, height, width, col0, fill, 255, out)
            reference.gather_tile(ring, y0, x0, height, width, col0, fill, 255, want)
            same(out, want)

    return case


def tissue(h: int, w: int, low: int, high: int) -> Case:
    def case(k: Any, rng: Generator) -> None:
        tile = rng.integers(low, high, (h, w, 3), np.uint8)
        for limit in (0, 1, 7, h * w, h * w + 1):
            same(k.tissue_count(tile, limit), reference.tissue_count(tile, limit))

    return case


def transitions(scale: int, h: int, w: int, cut: tuple[int, int], kind: str, threshold: float) -> Case:
    """A slide that lacks cut[0] rows and cut[1] columns of whole network pixels."""

    def case(k: Any, rng: Generator) -> None:
        field = quantised(rng, h, w, kind)
        size = (h * scale - min(cut[0], scale - 1), w * scale - min(cut[1], scale - 1))
        want = stream(reference, field, scale, size, threshold, [h])
        same(stream(k, field, scale, size, threshold, [h]), want)
        same(stream(k, field, scale, size, threshold, [1] * h), want)
        panels = [0, size[1] // 3, size[1] // 3, 2 * size[1] // 3 + 1, size[1]]
        strips = [
            stream(k, field, scale, size, threshold, [h - h // 2, h // 2], (a, b))
            for a, b in pairwise(panels)
            if a < b
        ]
        mask, part = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        reference.runs_to_mask(*want, size[0], 0, 0, mask)
        total = np.zeros(size, np.uint8)
        for strip in strips:
            k.runs_to_mask(*strip, size[0], 0, 0, part)
            total += part
        same(total, mask)

    return case


def run_lists(height: int, width: int, density: float) -> Case:
    def case(k: Any, rng: Generator) -> None:
        runs = random_runs(rng, height, width, density)
        text = reference.encode_runs(*runs)
        same(k.encode_runs(*runs), text)
        same(k.decode_runs(text), runs)
        for y0, x0, h, w in (
            (0, 0, height, width),
            (height // 3, width // 2, 3, 2),
            (-1, -2, height + 3, width + 4),
            (0, width, 2, 2),
        ):
            out = np.full((h, w), 9, np.uint8)
            want = out.copy()
            k.runs_to_mask(*runs, height, y0, x0, out)
            reference.runs_to_mask(*runs, height, y0, x0, want)
            same(out, want)
        mask = np.zeros((height, width), np.uint8)
        reference.runs_to_mask(*runs, height, 0, 0, mask)
        same(k.mask_to_runs(mask * 200), runs)

    return case


def objects(height: int, width: int, density: float) -> Case:
    def case(k: Any, rng: Generator) -> None:
        runs = random_runs(rng, height, width, density)
        same(k.label_runs(*runs, height), reference.label_runs(*runs, height))
        same(k.label_runs(*runs, height, 4), reference.label_runs(*runs, height, 4))
        for area in (0, 1, 2, 5, height * width + 1):
            same(k.filter_area(*runs, height, area), reference.filter_area(*runs, height, area))
            same(k.fill_holes(*runs, height, width, area), reference.fill_holes(*runs, height, width, area))

    return case
