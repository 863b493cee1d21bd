"""`wsiseg info` tells what a slide is, in words and as JSON, and says no with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from slide_samples import patch_bytes, picture, segments, write_tiff

from wsiseg.cli.main import main


def test_a_good_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiff(
        tmp_path / "a.tif", picture(300, 400), tile=(64, 64), compression="zlib", resolution=(20_000, 20_000), resolutionunit=3
    )  # fmt: skip
    assert main(["info", str(path), "--scale", "4"]) == 0
    text = capsys.readouterr().out
    for part in ("400 x 300 (0.12 Mpx)", "tiles of 64 x 64, RGB", "deflate", "0.5 (resolution tags)", "level 0",
                 "100 x 75 network pixels", "35 segments", "supported    yes"):  # fmt: skip
        assert part in text, part
    assert main(["info", str(path), "--json", "--mpp", "0.25", "--check"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["height"], found["mpp"], found["mpp_source"]) == (400, 300, 0.25, "--mpp")
    assert (found["supported"], found["checked_segments"], found["damaged_segments"]) == (True, 35, 0)
    assert found["reading"]["memory"]["ring of network rows"] == 400 * 300 * 3


def test_damage_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiff(tmp_path / "a.tif", picture(300, 400), tile=(64, 64), compression="zlib")
    patch_bytes(path, segments(path)[12][0], b"\0" * 16)
    assert main(["info", str(path), "--check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["supported"], found["damaged_segments"], found["damaged_pixels"]) == (False, 1, 64 * 64)
    assert found["damaged"][0].startswith("tile row 1, column 5 of page 0 is damaged")
    assert main(["info", str(path), "--check"]) == 1
    assert "supported    no: some of it is damaged" in capsys.readouterr().out


def test_what_is_not_supported_and_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_tiff(tmp_path / "a.tif", picture(30, 40))
    text = tmp_path / "b.tif"
    text.write_text("no slide")
    assert main(["info", str(good), str(text), str(tmp_path / "none.tif")]) == 1
    out = capsys.readouterr().out
    assert "supported    yes" in out
    assert "supported    no: is not a TIFF" in out
    assert "supported    no: cannot be opened: No such file" in out
    assert main(["info", str(good), str(text), "--json"]) == 1
    assert [r["supported"] for r in json.loads(capsys.readouterr().out)] == [True, False]
