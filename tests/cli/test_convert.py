"""`wsiseg convert`: every format into every other and back, exactly."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsiseg.cli import convert
from wsiseg.errors import UsageError
from wsiseg.outputs.coco import read_coco
from wsiseg.outputs.files import safe_name
from wsiseg.outputs.submission import write_submission
from wsiseg.runs import Runs

MASK = cv2.GaussianBlur(np.random.default_rng(0).random((333, 471)), (0, 0), 4) > 0.51
RUNS = Runs.from_mask(MASK)


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_submission("in.csv", [("s", RUNS.to_rle())])
    (tmp_path / "sizes.csv").write_text("id,height,width\ns,333,471\nt,333,471\n")
    return tmp_path


@pytest.mark.parametrize("name", ["s.geojson", "s.json", "s.tif", "s.ome.tif", "s.zarr", "s.png", "s.csv"])
def test_there_and_back(folder: Path, name: str) -> None:
    assert run("in.csv", "-o", name, "--sizes", "sizes.csv", "--mpp", "0.5") == 0
    assert run(name, "-o", "back.csv", "--sizes", "sizes.csv") == 0
    assert (folder / "back.csv").read_bytes() == (folder / "in.csv").read_bytes()


def test_several_slides_into_files_of_one(folder: Path) -> None:
    write_submission("two.csv", [("s", RUNS.to_rle()), ("t", "")])
    with pytest.raises(UsageError, match=r"put \{id\} into the name"):
        run("two.csv", "-o", "x.geojson", "--sizes", "sizes.csv")
    assert run("two.csv", "-o", "{id}.geojson", "--sizes", "sizes.csv") == 0
    assert run("s.geojson", "t.geojson", "-o", "back.csv", "--sizes", "sizes.csv") == 0
    assert (folder / "back.csv").read_bytes() == (folder / "two.csv").read_bytes()
    assert run("two.csv", "-o", "c.json", "--sizes", "sizes.csv", "--instances", "--class", "glom") == 0
    slides = read_coco("c.json")
    assert slides[0].classes == {"glom": RUNS}
    assert [s.id for s in slides] == ["s", "t"]
    assert run("c.json", "-o", "only.csv", "--id", "t") == 0
    assert (folder / "only.csv").read_text() == "id,predicted\nt,\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in.csv", "-o", "s.geojson"), "size of the slide 's' is not known"),
        (("in.csv", "-o", "s.doc", "--sizes", "sizes.csv"), "must follow from the extension"),
        (("none.csv", "-o", "s.json"), "no such file"),
        (("in.csv", "in.csv", "-o", "s.csv", "--sizes", "sizes.csv"), "occurs twice"),
        (("in.csv", "-o", "s.csv", "--sizes", "sizes.csv", "--id", "q"), "no mask with the id 'q'"),
        (("in.csv", "-o", "s.geojson", "--sizes", "sizes.csv", "--mpp", "0"), "--mpp must lie"),
    ],
)
def test_bad_input_is_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=message):
        run(*words)
    assert sorted(folder.iterdir()) == before


def test_names_that_are_no_file_names() -> None:
    assert safe_name("plain-1 ż.x") == "plain-1 ż.x"
    names = ["<script>", "a/b", "a\\b", "..", "", "a:b", "x" * 400, "a\nb"]
    made = [safe_name(name) for name in names]
    assert len(set(made)) == len(names)
    for name in made:
        assert not set('<>/\\:"\n') & set(name)
        assert 0 < len(name) < 200
        assert name not in (".", "..")
