"""The four commands as a user calls them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import cv2
import pytest
from fixtures_train import recipe_data

from wsiseg.cli.main import main


def toml(data: dict) -> str:
    """A recipe as TOML (tables of plain values only)."""
    lines = []
    for section, values in data.items():
        lines.append(f"[{section}]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in values.items()]
    return "\n".join(lines) + "\n"


def test_prepare_reports_and_tiles_are_cut(painted, tmp_path):
    code = main(["prepare", str(painted / "slides"), "--labels", str(painted / "masks"), "--scale", "2", "--classes", "disc",
                 "-o", str(tmp_path / "stores"), "--report", str(tmp_path / "report"), "--folds", "3"])  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [s["objects"] for s in report["stores"]] == [9, 9, 9]
    for name in ("tiles", "fold-0", "fold-1", "fold-2"):
        assert cv2.imread(str(tmp_path / "report" / f"{name}.png")) is not None
    (row,) = [r for r in report["folds"] if r["fold"] == 0]
    assert row["held_out_objects"] + row["train_objects"] == 27
    assert 0.01 < row["share"]["disc"] < 0.3
    assert 15 < row["diameter"]["50"] < 40
    assert row["colour_mean"][1] < row["colour_mean"][0]  # pink
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| fold 0 |" in text
    assert text.count("| fold") == len(report["folds"])
    assert (
        main(
            ["tiles", str(tmp_path / "stores"), "-o", str(tmp_path / "tiles"), "--tile", "64", "--folds", "3"]
        )
        == 0
    )
    rows = list(csv.DictReader((tmp_path / "tiles" / "tiles.csv").read_text().splitlines()))
    assert {r["slide"] for r in rows} == {"a", "b", "c"}
    assert len({(r["slide"], r["fold"]) for r in rows}) == 3  # a slide is in one fold
    mask = cv2.imread(str(tmp_path / "tiles" / "masks" / rows[0]["file"]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (64, 64)
    assert all(float(r["tissue"]) >= 0.05 for r in rows)


def test_instances_are_prepared_with_their_cores(painted, tmp_path):
    assert (
        main(
            [
                "prepare",
                str(painted / "slides" / "a.tif"),
                "--labels",
                str(painted / "instances"),
                "--instances",
                "-o",
                str(tmp_path),
            ]
        )
        == 0
    )
    from wsiseg_train.store import open_stores

    (store,) = open_stores([tmp_path])
    assert store.info.classes == ("nucleus", "core")
    assert store.whole("labels").max() == 9
    target = store.whole("target")
    assert (target[1] <= target[0]).all()


def test_one_slide_warns_of_leaks_and_bad_labels_are_one_line(painted, tmp_path, capsys):
    args = ["prepare", str(painted / "slides" / "a.tif"), "--scale", "2", "-o", str(tmp_path)]
    assert main([*args, "--labels", str(painted / "masks" / "a.png")]) == 0
    assert "would leak" in capsys.readouterr().out
    bad = tmp_path / "small.png"
    cv2.imwrite(str(bad), cv2.imread(str(painted / "masks" / "a.png"), 0)[:100])
    assert main([*args, "--labels", str(bad)]) == 2
    captured = capsys.readouterr().err.strip().splitlines()
    assert len(captured) == 1
    assert "700 x 100, the slide is 700 x 520" in captured[0]


def test_evaluate_prints_and_writes_the_table(tmp_path, capsys):
    for name, text in (("p", "1 4"), ("t", "3 4")):
        (tmp_path / f"{name}.csv").write_text(f"id,predicted\na,{text}\n")
    assert (
        main(["evaluate", str(tmp_path / "p.csv"), str(tmp_path / "t.csv"), "--csv", str(tmp_path / "s.csv")])
        == 0
    )
    assert "a,0.5000" in capsys.readouterr().out
    assert (tmp_path / "s.csv").read_text().splitlines()[-1].startswith("mean,0.5")
    assert main(["evaluate", str(tmp_path / "p.csv")]) == 2
    annotators = [str(tmp_path / "t.csv"), str(tmp_path / "p.csv")]
    assert main(["evaluate", str(tmp_path / "p.csv"), *annotators]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(r["truth"], r["id"], r["dice"]) for r in rows] == [
        ("t.csv", "a", "0.5000"), ("t.csv", "mean", "0.5000"), ("p.csv", "a", "1.0000"), ("p.csv", "mean", "1.0000"),
    ]  # fmt: skip


@pytest.mark.torch
def test_train_previews_trains_and_exports(stores, tmp_path):
    pytest.importorskip("lightning", reason="needs the train extra")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(toml(recipe_data(stores, steps=2, epoch=2)))
    assert (
        main(["train", str(recipe), "-o", str(tmp_path / "run"), "--preview", str(tmp_path / "sheet.png")])
        == 0
    )
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (4 * 68, 6 * 68, 3)
    assert (
        main(["train", str(recipe), "-o", str(tmp_path / "run"), "--export", str(tmp_path / "m.onnx")]) == 0
    )
    from wsiseg.model.load import load_models

    assert load_models([str(tmp_path / "m.onnx")]).spec.name == "discs"
    assert (
        main(["train", str(recipe), "-o", str(tmp_path / "lr"), "--find-lr", "--set", "train.batch=1"]) == 0
    )
    assert (tmp_path / "lr" / "lr.csv").read_text().startswith("lr,loss")
    assert cv2.imread(str(tmp_path / "lr" / "lr.png")) is not None


@pytest.mark.torch
def test_two_processes_train_one_network(stores, tmp_path):
    """The library's data parallelism, on the CPU: every process has its own tiles, one of them writes."""
    pytest.importorskip("lightning", reason="needs the train extra")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(toml(recipe_data(stores, steps=2, epoch=1, devices=2, threads=1)))
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", "train", str(recipe), "-o", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=300, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path / "run" / "curves.csv").read_text().splitlines()))
    assert [r["step"] for r in rows] == ["1", "2"]
    assert {"best.pt", "last.pt", "resume.ckpt"} <= {p.name for p in (tmp_path / "run").iterdir()}


def test_a_missing_train_extra_is_said_in_one_line(stores, tmp_path, monkeypatch, capsys):
    import importlib.util

    recipe = tmp_path / "recipe.toml"
    recipe.write_text(toml(recipe_data(stores)))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    assert main(["train", str(recipe), "-o", str(tmp_path / "run")]) == 2
    assert "pip install 'wsiseg[train]'" in capsys.readouterr().err
