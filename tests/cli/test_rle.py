"""`wsiseg rle` as a person calls it."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from wsiseg.cli import rle
from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.outputs.submission import read_row, write_submission
from wsiseg.runs import Runs
from wsiseg.synth import Scene, write_slide

SIZES = "id,height,width\na,5,7\nb,3,3\n"


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    rle.add_arguments(parser)
    return rle.main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sizes.csv").write_text(SIZES)
    return tmp_path


def test_a_good_file_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.csv").write_text("id,encoding\nb,\na,1 5 7 29\n")
    assert run("check", "s.csv", "--sizes", "sizes.csv") == 0
    assert capsys.readouterr().out == "s.csv: 2 rows, 2 slides, no problems\n"


def test_every_problem_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.csv").write_text("id,predicted\na,0 1 4 0 40 2\na,1 x\nc,1 1\nd,1 1,2\n")
    assert run("check", "s.csv", "--sizes", "sizes.csv") == 1
    out = capsys.readouterr().out
    for words in (
        "line 2, id 'a': run 1: start 0",
        "run 2: length 0",
        "run 3: start 40 length 2 ends at 41, beyond the slide's 35 pixels (7 x 5)",
        "line 3, id 'a': the id occurs twice, first on line 2",
        "line 3, id 'a': run 1: length 'x' is not a whole number",
        "line 4, id 'c': no such slide",
        "line 5, id 'd': 3 fields where the header has 2",
        "id 'b': the slide has no row",
        "4 rows, 2 slides, 9 problems",
    ):
        assert words in out


def test_sizes_of_real_slides(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene(Size(300, 500), seed=1, mpp=4.0, tissue=0.9)
    (folder / "slides").mkdir()
    for name in ("x", "y"):
        path = folder / "slides" / f"{name}.tif"
        write_slide(path, scene, "tiled-deflate", truth=folder / f"{name}.csv")
    y_row = (folder / "y.csv").read_text().split("\n")[1]
    (folder / "s.csv").write_text((folder / "x.csv").read_text() + y_row + "\n")
    assert run("check", "s.csv", "slides") == 0
    assert run("check", "s.csv", "slides/x.tif") == 1
    assert "id 'y': no such slide" in capsys.readouterr().out


def test_decoding_draws_the_mask(folder: Path) -> None:
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((700, 900)), (0, 0), 5) > 0.5
    write_submission("s.csv", [("m", Runs.from_mask(mask).to_rle())])
    (folder / "sizes.csv").write_text("id,width,height\nm,900,700\n")
    want = np.where(mask, 255, 0)
    assert run("decode", "s.csv", "--sizes", "sizes.csv", "-o", "m.png") == 0
    assert np.array_equal(cv2.imread("m.png", cv2.IMREAD_UNCHANGED), want)
    assert run("decode", "s.csv", "--id", "m", "--sizes", "sizes.csv", "-o", "m.tif") == 0
    assert np.array_equal(tifffile.imread("m.tif"), want)
    assert run("decode", "s.csv", "--sizes", "sizes.csv", "-o", "small.png", "--downscale", "7") == 0
    small = cv2.imread("small.png", cv2.IMREAD_UNCHANGED)
    assert small.shape == (100, 129)
    assert small[3, 128] == (255 if 2 * mask[21:28, 896:].sum() >= 28 else 0)
    assert small[50, 60] == (255 if 2 * mask[350:357, 420:427].sum() >= 49 else 0)


def test_diff_counts_pixels_and_needs_no_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.csv").write_text("id,predicted\nx,1 4 10 2\ny,\nz,5 5\n")
    (folder / "b.csv").write_text("id,encoding\nz,5 5\ny,\nx,3 4 10 2\n")
    assert run("diff", "a.csv", "b.csv") == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines[1:4]] == [
        ["y", "1.000000", "0", "0", "0"],
        ["z", "1.000000", "0", "5", "5"],
        ["x", "0.666667", "4", "6", "6"],
    ]
    assert lines[4] == "3 rows: mean Dice 0.888889, smallest 0.666667, 4 pixels differ"
    assert run("diff", "a.csv", "b.csv", "--fail-under", "0.9") == 1
    assert run("diff", "a.csv", "a.csv", "--fail-under", "1") == 0


def test_diff_names_rows_without_a_partner(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.csv").write_text("id,predicted\nx,\ny,\n")
    (folder / "b.csv").write_text("id,predicted\ny,\nz,\n")
    assert run("diff", "a.csv", "b.csv") == 1
    assert capsys.readouterr().err == "'x' only in a.csv\n'z' only in b.csv\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "s.csv"), "--sizes"),
        (("check", "s.csv", "--sizes", "none.csv"), "none.csv: no such file"),
        (("check", "none.csv", "--sizes", "sizes.csv"), "none.csv: no such file"),
        (("check", "s.csv", "empty"), "no slide in this folder"),
        (("decode", "s.csv", "--sizes", "sizes.csv", "-o", "m.png"), "several rows; say which with --id"),
        (("decode", "s.csv", "--sizes", "sizes.csv", "--id", "q", "-o", "m.png"), "no row with the id 'q'"),
        (("decode", "s.csv", "--sizes", "sizes.csv", "--id", "c", "-o", "m.png"), "size of 'c' is not known"),
        (("decode", "s.csv", "--sizes", "sizes.csv", "--id", "a", "-o", "m.jpg"), "ends in .png or .tif"),
        (
            ("decode", "s.csv", "--sizes", "sizes.csv", "--id", "a", "-o", "m.tif", "--downscale", "2"),
            "for .png",
        ),
        (
            ("decode", "s.csv", "--sizes", "sizes.csv", "--id", "a", "-o", "m.png"),
            "line 2, id 'a': run 1: start 0",
        ),
        (("diff", "c.csv", "twice.csv"), "line 3: the id 'a' occurs twice"),
        (("check", "s.csv", "--sizes", "bad.csv"), "line 2: height 'x'"),
        (("check", "s.csv", "--sizes", "s.csv"), "height, width missing"),
    ],
)
def test_bad_input_is_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    (folder / "s.csv").write_text("id,predicted\na,0 1\nc,\n")
    (folder / "twice.csv").write_text("id,predicted\na,1 1\na,2 1\n")
    (folder / "bad.csv").write_text("id,height,width\na,x,1\n")
    (folder / "c.csv").write_text("id,predicted\nc,\n")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        run(*words)
    assert not (folder / "m.png").exists()


@pytest.mark.data
def test_the_competitions_row(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, sizes = shared_data / "kaggle" / "aaa6a05cc_train.csv", tmp_path / "sizes.csv"
    sizes.write_text("id,height,width\naaa6a05cc,18484,13013\n")
    assert run("check", train, "--sizes", sizes) == 0
    assert run("diff", train, train, "--fail-under", "1") == 0
    capsys.readouterr()
    assert run("decode", train, "--sizes", sizes, "-o", tmp_path / "m.png", "--downscale", "8") == 0
    runs = Runs.from_rle(read_row(train, "aaa6a05cc").rle, Size(18484, 13013))
    picture = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert abs((picture > 0).sum() * 64 - runs.area) < 0.01 * runs.area
    y, x = 10000, 6000
    block = runs.mask(Rect(y, x, y + 8, x + 8))
    assert (picture[y // 8, x // 8] > 0) == (2 * block.sum() >= 64)
