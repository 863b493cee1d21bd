"""Runs against plain masks: the same sets of pixels; text that is wrong is refused with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.outputs.submission import read_row, read_rows
from wsiseg.runs import Runs, run_problems

SIZE = Size(5, 7)


def masks(height: int = 5, width: int = 7) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.booleans(), min_size=height * width, max_size=height * width).map(
        lambda bits: np.array(bits).reshape(height, width)
    )


def draw(runs: Runs) -> np.ndarray:
    flat = np.zeros(runs.size.pixels, int)
    for start, length in zip(runs.starts, runs.lengths, strict=True):
        flat[start : start + length] += 1
    assert flat.max(initial=0) <= 1
    assert (runs.starts[1:] > runs.ends[:-1]).all(), "runs touch"
    return flat.reshape(runs.size.width, runs.size.height).T > 0


@settings(deadline=None)
@given(masks(), masks())
def test_algebra_is_that_of_masks(a: np.ndarray, b: np.ndarray) -> None:
    x, y = Runs.from_mask(a), Runs.from_mask(b)
    assert np.array_equal(draw(x), a)
    assert x.area == a.sum()
    assert np.array_equal(draw(x.intersection(y)), a & b)
    assert np.array_equal(draw(x.union(y)), a | b)
    assert np.array_equal(draw(x.difference(y)), a & ~b)
    assert np.array_equal(draw(x.complement()), ~a)
    assert x.overlap(y) == (a & b).sum()
    assert x.differing(y) == (a ^ b).sum()
    assert x.dice(y) == (2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0)
    assert (x == y) == np.array_equal(a, b)


@settings(deadline=None)
@given(masks(), st.integers(-3, 8), st.integers(-3, 8), st.integers(0, 9), st.integers(0, 9))
def test_windows(a: np.ndarray, y0: int, x0: int, h: int, w: int) -> None:
    padded = np.pad(a, 20)
    want = padded[y0 + 20 : y0 + 20 + h, x0 + 20 : x0 + 20 + w]
    assert np.array_equal(Runs.from_mask(a).mask(Rect(y0, x0, y0 + h, x0 + w)), want)


@settings(deadline=None)
@given(masks(), st.integers(0, 7), st.integers(0, 7))
def test_columns_and_split(a: np.ndarray, x0: int, x1: int) -> None:
    runs, cut = Runs.from_mask(a), a.copy()
    cut[:, :x0], cut[:, max(x0, x1) :] = False, False
    assert np.array_equal(draw(runs.columns(x0, max(x0, x1))), cut)
    starts, lengths = runs.split()
    assert (starts // 5 == (starts + lengths - 1) // 5).all()
    assert Runs.merged(starts, lengths, SIZE) == runs


@settings(deadline=None)
@given(masks())
def test_text_goes_both_ways(a: np.ndarray) -> None:
    runs = Runs.from_mask(a)
    assert Runs.from_rle(runs.to_rle(), SIZE) == runs
    # One run per column, as some encoders write.
    starts, lengths = runs.split()
    text = " ".join(f"{s + 1} {n}" for s, n in zip(starts, lengths, strict=True))
    assert Runs.from_rle(text, SIZE) == runs


def test_text_of_a_known_mask() -> None:
    mask = np.zeros((3, 3), bool)
    mask[1:, 0], mask[0, 1], mask[2, 2] = True, True, True
    assert Runs.from_mask(mask).to_rle() == "2 3 9 1"
    assert Runs.empty(SIZE).to_rle() == ""
    assert not Runs.from_rle("", SIZE)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 34), st.integers(0, 10))))
def test_merged_mends_any_order_and_overlap(pairs: list[tuple[int, int]]) -> None:
    pairs = [(s, min(n, 35 - s)) for s, n in pairs]
    flat = np.zeros(35, bool)
    for s, n in pairs:
        flat[s : s + n] = True
    starts, lengths = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs], int)
    assert np.array_equal(draw(Runs.merged(starts, lengths, SIZE)), flat.reshape(7, 5).T)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3", "odd count"),
        ("1 x", "run 1: length 'x' is not a whole number"),
        ("3 1 -4 1", "run 2: start '-4' is not a whole number"),
        ("1 2.0", "length '2.0'"),
        ("1 ²", "not a whole number"),
        ("1 99999999999999999999", "too large"),
        ("0 2", "run 1: start 0, but starts count from 1"),
        ("1 1 4 0", "run 2: length 0"),
        ("9 1 4 2", "run 2: start 4 comes after 9: not sorted"),
        ("1 5 4 2", "run 2: start 4 lies in a run before it, which ends at 5"),
        ("1 20 2 1 8 1", "run 3: start 8 lies in a run before it"),
        ("34 3", "ends at 36, beyond the slide's 35 pixels"),
        ("36 1", "beyond the slide"),
        ("1 9223372036854775807", "beyond the slide"),
    ],
)
def test_bad_text_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        Runs.from_rle(text, SIZE)


def test_lenient_reading_mends_what_strict_refuses() -> None:
    assert Runs.from_rle("9 2 1 3 2 5 34 8", SIZE, strict=False) == Runs.from_rle("1 6 9 2 34 2", SIZE)
    with pytest.raises(UsageError):
        Runs.from_rle("1 2 3", SIZE, strict=False)


def test_all_kinds_of_problems_are_listed_and_counted() -> None:
    starts, lengths = np.arange(20)[::-1] + 1, np.ones(20, int)
    problems = run_problems(starts, lengths, SIZE)
    assert len(problems) == 6
    assert problems[-1] == "... and 14 more like the last"


def test_masks_of_different_slides_do_not_compare() -> None:
    with pytest.raises(ValueError, match="different slides"):
        Runs.empty(SIZE).dice(Runs.empty(Size(7, 5)))


@pytest.mark.data
def test_the_competitions_own_encodings(shared_data: Path) -> None:
    size = Size(18484, 13013)
    row = read_row(shared_data / "kaggle" / "aaa6a05cc_train.csv", "aaa6a05cc")
    runs = Runs.from_rle(row.rle, size)
    assert runs.to_rle() == row.rle
    assert len(runs) == 22950
    mine = Runs.from_rle(read_row(shared_data / "kaggle" / "rle_from_polygons.csv", "aaa6a05cc").rle, size)
    assert runs.dice(mine) > 0.99
    window = Rect(5000, 2000, 9000, 5000)
    a, b = runs.mask(window), mine.mask(window)
    assert a.any()
    assert runs.columns(2000, 5000).area >= a.sum()
    assert runs.intersection(mine).mask(window).sum() == (a & b).sum()


@pytest.mark.data
def test_every_reconstructed_row_is_well_formed(shared_data: Path) -> None:
    import pandas as pd

    slides = pd.read_csv(shared_data / "kaggle" / "slides.csv").set_index("kaggle_id")
    for row in read_rows(shared_data / "kaggle" / "rle_from_polygons.csv"):
        slide = slides.loc[row.id]
        runs = Runs.from_rle(row.rle, Size(int(slide.height_px), int(slide.width_px)))
        assert (len(runs), runs.area) == (slide.n_runs, slide.mask_px)
