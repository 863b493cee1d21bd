"""Everything `--save` can write, for one slide, by name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsiseg.errors import OutputError, UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.outputs.geojson import ObjectClass, read_geojson
from wsiseg.outputs.images import read_mask
from wsiseg.outputs.kinds import KINDS, parse_kinds
from wsiseg.outputs.probability import object_means
from wsiseg.outputs.save import SlideOutputs, save_bytes, save_outputs
from wsiseg.outputs.spool import ProbabilitySpool
from wsiseg.slide import open_slide
from wsiseg.synth import Scene, write_slide

SIZE = Size(900, 1300)


def test_every_kind(tmp_path: Path) -> None:
    scene = Scene(SIZE, seed=2, mpp=3.0, tissue=0.8)
    path = tmp_path / "in" / "a <b> ż.tif"
    path.parent.mkdir()
    write_slide(path, scene, "tiled-deflate")
    runs = scene.truth()
    spool = ProbabilitySpool(tmp_path / "spool", 1, SIZE)
    spool.begin(False)
    spool.add(runs.mask(Rect(0, 0, SIZE.height, SIZE.width))[None] * np.float32(0.8), 0, 0)
    means = object_means(runs, spool, 0, 1)
    slide = SlideOutputs(
        path.stem,
        [ObjectClass("glomerulus", runs, means)],
        3.0,
        lambda: open_slide(path),
        planes=spool,
    )
    kinds = [kind for kind in KINDS if kind != "objects-parquet"]
    written = save_outputs(tmp_path / "deep" / "out", kinds, slide)
    assert [p.exists() for p in written] == [True] * len(kinds)
    assert sorted((tmp_path / "deep" / "out").iterdir()) == sorted(written)
    by_kind = dict(zip(kinds, written, strict=True))
    assert read_mask(by_kind["mask"]) == read_mask(by_kind["mask-zarr"]) == runs
    assert read_geojson(by_kind["geojson"], SIZE) == {"glomerulus": runs}
    assert len(by_kind["objects"].read_text().splitlines()) == len(scene.glomeruli) + 1
    rows = by_kind["objects"].read_text().splitlines()[1:]
    assert {row.split(",")[-1] for row in rows} == {"0.8"}
    features = json.loads(by_kind["geojson"].read_text())["features"]
    assert {f["properties"]["measurements"]["Mean probability"] for f in features} == {0.8}
    sheet = cv2.imread(str(by_kind["uncertain"]))
    assert sheet.shape[1] == 4 * 240
    assert len(np.unique(sheet)) > 50
    # Objects do not touch in this scene.
    assert len(by_kind["instances"].read_text().splitlines()) == len(scene.glomeruli) + 1
    # Again into the same folder, which by now holds other things too.
    (tmp_path / "deep" / "out" / "notes.txt").write_text("mine")
    assert save_outputs(tmp_path / "deep" / "out", kinds, slide) == written
    assert (tmp_path / "deep" / "out" / "notes.txt").read_text() == "mine"


def test_names(tmp_path: Path) -> None:
    assert parse_kinds(["geojson, mask", "mask"]) == ("mask", "geojson")
    with pytest.raises(UsageError, match="unknown output 'masks'; known: mask, "):
        parse_kinds(["masks"])
    assert save_bytes([], SIZE, 10) == 0
    assert save_bytes(["mask"], SIZE, 0) == 3 * 512 * 1300


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    slide = SlideOutputs("a", [], None, lambda: open_slide("none"))
    with pytest.raises(OutputError, match="cannot be written"):
        save_outputs(tmp_path / "file" / "x", ["geojson"], slide)
