"""Every shipped recipe from end to end on synthetic slides, in a tiny form: prepare, train, run, evaluate.

Tiny: a few steps of small tiles, an encoder of under a million weights, nothing downloaded. What a recipe is (its network's
parts, losses, schedule, sampling, labels) stays as shipped.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsiseg.cli.main import main

pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("lightning", reason="needs the train extra")
pytestmark = pytest.mark.torch

RECIPES = Path(__file__).resolve().parents[2] / "train" / "recipes"
SMALL = "tu-test_efficientnet"  # timm's test network: 80,000 weights, maps at 1/2 to 1/32
UNET = {"network.encoder": f'"{SMALL}"', "network.depth": "3", "network.decoder": "[8, 8, 8]"}
COMPACT = {"network.channels": "[8, 8, 8, 8]", "network.depth": "3", "network.decoder": "[8, 8]"}
CHANGES: dict[str, dict[str, str]] = {
    "anatomy_pseudo": UNET,
    "efficientnet_b4": UNET,
    "glomeruli": COMPACT,
    "lovasz_two_stage": {**UNET, "loss.1.start": "1"},  # the second stage holds from the second step
    "nuclei": {**COMPACT, "sampling.groups": "{ colour = 1.0 }"},
    "plain_tversky": {"network.width": "4", "network.depth": "3"},
    "pranet": {"network.encoder": f'"{SMALL}"', "network.width": "8"},
    "scse_fpa_hypercolumns": {**UNET, "model.tile_multiple": "64"},
}


def command(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module", autouse=True)
def quick_export(tmp_path_factory):
    """Graphs of one tile size, which torch traces in half the time (test_networks has the free ones), in a cache of their own."""
    from wsiseg_train import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSISEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(export, "_export", lambda graph, spec, tile: export._trace(graph, spec.tile, False))
        yield


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """Synthetic kidney slides a, b and c at 2 microns per pixel, their true masks as one CSV, and anatomy."""
    root = tmp_path_factory.mktemp("section")
    rows = []
    for seed, name in enumerate("abc", 1):
        (root / "slides").mkdir(exist_ok=True)
        slide = root / "slides" / f"{name}.tif"
        command("synth", slide, "--size", "960x720", "--mpp", 2, "--seed", seed, "--truth", root / f"{name}.csv", "--quiet")  # fmt: skip
        rows += list(csv.reader((root / f"{name}.csv").read_text().splitlines()))[1:]
    with open(root / "train.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "encoding"), *rows])
    (root / "anatomy").mkdir()
    for name in "ab":
        ring = [[0, 0], [960, 0], [960, 400], [0, 400], [0, 0]]
        cortex = {"type": "Feature", "properties": {"classification": {"name": "Cortex"}},
                  "geometry": {"type": "Polygon", "coordinates": [ring]}}  # fmt: skip
        (root / "anatomy" / f"{name}.json").write_text(json.dumps([cortex]))
    return root


@pytest.fixture(scope="module")
def prepared(section):
    """Stores by what recipes ask for: "hubmap" at 2 and "coarse" at 4 microns per network pixel."""
    for name, mpp in (("hubmap", 2), ("coarse", 4)):
        command("prepare", section / "slides", "--labels", section / "train.csv", "--mpp", mpp,
                "--classes", "glomerulus", "-o", section / name)  # fmt: skip
    return section


def run_recipe(name: str, stores: Path, slide: Path, out: Path) -> list[list[str]]:
    """Train a recipe in its tiny form and run its checkpoint on a slide: the rows of the submission."""
    changes = {
        "data.stores": json.dumps([str(stores)]), "data.tile": "64", "model.tile": "64", "data.folds": "2", "data.workers": "0",
        "train.steps": "2", "train.epoch": "1", "train.batch": "2", "train.threads": "1", **CHANGES[name],
    }  # fmt: skip
    options = [text for key, value in changes.items() for text in ("--set", f"{key}={value}")]
    command("train", RECIPES / f"{name}.toml", "-o", out, *options)
    steps = [int(r["step"]) for r in csv.DictReader((out / "curves.csv").read_text().splitlines())]
    assert steps == list(range(1, int(changes["train.steps"]) + 1))
    command("run", slide, "-o", out / "out.csv", "--model", out / "best.pt", "--threads", 1)
    csv.field_size_limit(2**31 - 1)
    rows = list(csv.reader((out / "out.csv").read_text().splitlines()))
    assert rows[0] == ["id", "predicted"]
    return rows[1:]


def test_every_recipe_has_a_tiny_form():
    assert sorted(CHANGES) == sorted(p.stem for p in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"anatomy_pseudo", "nuclei"}))
def test_a_recipe_goes_from_slides_to_a_submission(name, prepared, tmp_path):
    stores = prepared / ("coarse" if name in ("glomeruli", "plain_tversky") else "hubmap")
    rows = run_recipe(name, stores, prepared / "slides" / "a.tif", tmp_path)
    assert [r[0] for r in rows] == ["a"]
    command("rle", "check", tmp_path / "out.csv", prepared / "slides" / "a.tif")
    command(
        "evaluate", tmp_path / "out.csv", prepared / "train.csv", "--slide", prepared / "slides" / "a.tif"
    )


def test_the_pseudo_label_recipe_learns_from_a_submission_at_half_confidence(section, tmp_path):
    from wsiseg_train.store import open_stores

    labelled, unlabelled, stores = tmp_path / "labelled", tmp_path / "unlabelled", tmp_path / "stores"
    for folder, names in ((labelled, "ab"), (unlabelled, "c")):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.tif").symlink_to(section / "slides" / f"{name}.tif")
    command("prepare", labelled, "--labels", section / "train.csv", "--anatomy", section / "anatomy", "--mpp", 2,
            "--classes", "glomerulus", "-o", stores)  # fmt: skip
    command("run", unlabelled, "-o", tmp_path / "pseudo.csv", "--threads", 1)  # the bundled model labels them
    command("prepare", unlabelled, "--labels", tmp_path / "pseudo.csv", "--confidence", 0.5, "--mpp", 2,
            "--classes", "glomerulus", "-o", stores)  # fmt: skip
    opened = {s.info.id: s for s in open_stores([stores])}
    assert {name: int(s.whole("weight").max()) for name, s in opened.items()} == {
        "a": 255,
        "b": 255,
        "c": 128,
    }
    assert opened["c"].info.source == {"slide": "c.tif", "labels": ["pseudo.csv"]}
    assert opened["c"].info.centres
    density = opened["a"].whole("density")
    assert density[5, 30] == pytest.approx(0.5)
    assert density[40, 30] == pytest.approx(0.01)
    assert len(run_recipe("anatomy_pseudo", stores, unlabelled / "c.tif", tmp_path / "run")) == 1


def test_the_nuclei_recipe_gives_nuclei_and_cores(painted, tmp_path):
    command("prepare", painted / "slides", "--labels", painted / "instances", "--instances", "--group-by", "colour", "-o", tmp_path / "stores")  # fmt: skip
    rows = run_recipe("nuclei", tmp_path / "stores", painted / "slides" / "a.tif", tmp_path / "run")
    assert [r[0] for r in rows] == ["a:nucleus", "a:core"]
    image = cv2.imread(str(painted / "instances" / "a.png"), cv2.IMREAD_UNCHANGED)
    (tmp_path / "truth").mkdir()
    cv2.imwrite(str(tmp_path / "truth" / "a.png"), np.where(image > 0, 255, 0).astype(np.uint8))
    command("evaluate", tmp_path / "run" / "out.csv", tmp_path / "truth", "--class", "nucleus")
