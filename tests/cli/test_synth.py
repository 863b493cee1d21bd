"""`wsiseg synth` as a person calls it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import tifffile

from wsiseg.cli import synth
from wsiseg.errors import UsageError


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    synth.add_arguments(parser)
    return synth.main(parser.parse_args([str(word) for word in words]))


def test_a_slide_and_its_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    assert run(path, "--size", "700x400", "--mpp", "2", "--seed", "3", "--layout", "strip-lzw") == 0
    assert "700 x 400" in capsys.readouterr().out
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].shape == (400, 700, 3)
    assert (tmp_path / "a.truth.csv").read_text().startswith("id,predicted\na,")
    assert len(list(tmp_path.iterdir())) == 2


def test_layouts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("x", "--layout", "list") == 0
    assert "tiled-jpeg" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [("--size", "12by9"), ("--layout", "svs"), ("--tissue", "2"), ("--mpp", "0"), ("--threads", "-1")],
)
def test_bad_arguments(tmp_path: Path, words: tuple[str, str]) -> None:
    with pytest.raises(UsageError):
        run(tmp_path / "a.tif", *words)
    assert list(tmp_path.iterdir()) == []
