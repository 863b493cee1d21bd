"""True, false and missed objects in colours over the slide, through the command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from wsiseg.cli.main import main
from wsiseg.outputs.compare import COMPARISON_COLOURS
from wsiseg.outputs.submission import write_submission
from wsiseg.runs import Runs


def disc(*centres: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((600, 900), np.uint8)
    for x, y in centres:
        cv2.circle(mask, (x, y), 60, 255, -1)
    return mask


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "slides").mkdir()
    pixels = np.full((600, 900, 3), 235, np.uint8)
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tif", pixels, photometric="rgb", tile=(64, 64))
    found = Runs.from_mask(disc((150, 300), (450, 300))).to_rle()
    true = Runs.from_mask(disc((150, 300), (750, 300))).to_rle()
    write_submission(tmp_path / "found.csv", [("a", found), ("b", "")])
    write_submission(tmp_path / "true.csv", [("a", true), ("b", true)])
    return tmp_path


def near(image: np.ndarray, colour: tuple[int, int, int], x: int) -> int:
    """Pixels about this colour around an object in column x."""
    part = image[200:400, x - 80 : x + 80, ::-1].astype(int)
    return int((np.abs(part - colour).max(axis=2) < 30).sum())


def test_a_folder_of_slides_and_one_slide(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(files / "found.csv"), str(files / "true.csv")]
    assert main([*words, "--slide", str(files / "slides"), "--picture", str(files / "pictures")]) == 0
    assert "1 found, 1 false, 1 missed" in capsys.readouterr().err
    assert sorted(p.name for p in (files / "pictures").iterdir()) == ["a.compare.png", "b.compare.png"]
    image = cv2.imread(str(files / "pictures" / "a.compare.png"))
    assert image.shape[0] > 600  # and the legend below
    false, missed, found = COMPARISON_COLOURS
    for x, mine in ((150, found), (450, false), (750, missed)):
        for colour in COMPARISON_COLOURS:
            assert (near(image, colour, x) > 200) == (colour == mine)
    write_submission(files / "one.csv", [("a", "1 5")])
    words[1] = str(files / "one.csv")
    assert (
        main([*words, "--slide", str(files / "slides" / "a.tif"), "--picture", str(files / "one.png")]) == 0
    )
    assert "0 found, 1 false, 2 missed" in capsys.readouterr().err
    assert (files / "one.png").is_file()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--picture", "x.png"], "give it with --slide"),
        (["--picture", "x.png", "--slide", "{}/slides"], "2 images need a folder"),
        (["--picture", "p", "--slide", "{}/slides", "--instances"], "leave out --instances"),
        (["--picture", "p", "--slide", "{}"], "no slide named a"),
    ],
)
def test_what_does_not_go_together(
    files: Path, options: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(files)
    words = ["evaluate", str(files / "found.csv"), str(files / "true.csv")]
    assert main([*words, *(option.format(files) for option in options)]) == 2
    assert line in capsys.readouterr().err
