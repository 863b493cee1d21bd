"""`wsiseg run --save ... --instances --report` as a person meets it: every output, asked at once or later, opened by others."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from tests import fixtures_models
from wsiseg.geometry import Rect, Size
from wsiseg.outputs.kinds import KINDS
from wsiseg.runs import Runs

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
CLASSES = ("nucleus", "core")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "kernels", "train"))
    environ = {**os.environ, "PYTHONPATH": paths, "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wsiseg", *map(str, words)],
            capture_output=True,
            text=True,
            env=environ,
            cwd=tmp_path,
            timeout=300,
        )

    return call


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Softmax as far as the processor sees: two classes with a threshold each."""
    path = tmp_path_factory.mktemp("two") / "two.onnx"
    path.write_bytes(
        fixtures_models.with_spec(
            fixtures_models.random_conv(2, 2, tissue="none", tile=64),
            classes=CLASSES,
            thresholds=(0.55, 0.6),
            activation="softmax",
            scale=2,
        )
    )
    return path


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides, one with a name for HTML to trip over, and one that is damaged."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for i, name in enumerate(("a <b> ż", "second")):
        pixels = np.random.default_rng(i).integers(0, 256, (1400 + i, 600, 3), np.uint8)
        tifffile.imwrite(
            folder / f"{name}.tif", pixels, photometric="rgb", tile=(64, 64), compression="deflate"
        )
    (folder / "cut.tif").write_bytes((folder / "second.tif").read_bytes()[:-90_000])
    return folder


def test_everything_at_once(run: Run, slides: Path, two_classes: Path, tmp_path: Path) -> None:
    words = ("run", slides, "-o", "out.csv", "--model", two_classes, "--memory", "1GiB")
    done = run(*words, "--save", ",".join(KINDS), "--instances", "--report", "report.html")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr  # the damaged one
    outputs = tmp_path / "out.csv.outputs"
    assert len(list(outputs.iterdir())) == 2 * len(KINDS)  # and nothing half-written, nothing hidden
    size = Size(1401, 600)
    csv.field_size_limit(1 << 30)
    with open(tmp_path / "out.csv", newline="") as file:
        masks = {row[0]: Runs.from_rle(row[1], size) for row in csv.reader(file) if row[0].startswith("sec")}
    assert list(masks) == ["second:nucleus", "second:core"]
    # The probabilities, by tifffile and by zarr, and the masks' pixels are those above the threshold or near it.
    planes = tifffile.imread(outputs / "second.probability.ome.tif")
    assert planes.shape == (2, 701, 300)
    group = zarr.open_group(outputs / "second.probability.zarr", mode="r")
    assert np.array_equal(np.asarray(group["0"]), planes)
    for k, name in enumerate(CLASSES):
        inside = masks[f"second:{name}"].mask(Rect(0, 0, 1401, 600)) > 0
        assert planes[k].repeat(2, 0).repeat(2, 1)[:1401][inside].mean() > 255 * 0.55
    # Class names and means in the tables, the polygons, and the report.
    table = pd.read_csv(outputs / "second.objects.csv")
    assert set(table["class"]) == set(CLASSES)
    assert table["mean_probability"].between(0.4, 1).all()
    assert pd.read_parquet(outputs / "second.objects.parquet").equals(table)
    features = json.loads((outputs / "second.geojson").read_text())["features"]
    assert {f["properties"]["classification"]["name"] for f in features} == set(CLASSES)
    means = [f["properties"]["measurements"]["Mean probability"] for f in features]
    assert means == pytest.approx(table["mean_probability"].tolist())
    report = (tmp_path / "report.html").read_text()
    assert "<b>" not in report.replace("&lt;b&gt;", "")
    assert all(name in report for name in CLASSES)
    assert report.count("least certain objects") == 2
    assert re.search(r"<td data-v=\"0\.\d+\">0\.\d{3}<div class=\"detail\">lowest", report)
    # One row per nucleus: disjoint, within the mask, split by the cores; of both slides in one file.
    with open(tmp_path / "out.instances.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["ImageId"] for row in rows} == {"a <b> ż", "second"}
    parts = [Runs.from_rle(row["EncodedPixels"], size) for row in rows if row["ImageId"] == "second"]
    assert (
        sum(part.area for part in parts)
        == Runs.merged(
            np.concatenate([p.starts for p in parts]), np.concatenate([p.lengths for p in parts]), size
        ).area
    )
    assert all(part.overlap(masks["second:nucleus"]) == part.area for part in parts)
    # In little memory, and in two processes, the same.
    again = run(
        *("run", slides, "-o", "again.csv", "--model", two_classes, "--memory", "1300MB", "--workers", 2),
        *("--save", "probability,objects", "--instances", "rows.csv"),
    )
    assert again.returncode == 1, again.stderr
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "out.instances.csv").read_bytes()
    other = tmp_path / "again.csv.outputs"
    assert np.array_equal(tifffile.imread(other / "second.probability.ome.tif"), planes)
    assert (other / "second.objects.csv").read_bytes() == (outputs / "second.objects.csv").read_bytes()


def test_outputs_that_are_asked_for_later(run: Run, slides: Path, two_classes: Path, tmp_path: Path) -> None:
    (slides / "cut.tif").unlink()
    words = ("run", slides, "-o", "out.csv", "--model", two_classes, "--memory", "1GiB")
    assert run(*words).returncode == 0
    before = (tmp_path / "out.csv").read_bytes()
    # What the record can give is made from it; it has no probabilities.
    done = run(*words, "--save", "geojson", "--report", "report.html")
    assert done.returncode == 0, done.stderr
    assert "2 done before" in done.stderr
    assert "Mean probability" not in (tmp_path / "out.csv.outputs" / "second.geojson").read_text()
    assert "probabilities were not kept" in (tmp_path / "report.html").read_text()
    # What only the network can give needs it again, once.
    done = run(*words, "--save", "probability,objects")
    assert done.returncode == 0, done.stderr
    assert "2 slide(s) to do" in done.stderr
    assert (tmp_path / "out.csv.outputs" / "second.probability.ome.tif").is_file()
    done = run(*words, "--save", "probability,objects", "--report", "report.html")
    assert "2 done before" in done.stderr
    # By now the records have the means.
    assert "probabilities were not kept" not in (tmp_path / "report.html").read_text()
    assert (tmp_path / "out.csv").read_bytes() == before
    for name, line in (
        ("out.csv", "is the name of the CSV itself"),
        ("slides/second.tif", "is not a .csv; give one, or put the option last"),
    ):
        wrong = run(*words, "--instances", name)
        assert wrong.returncode == 2
        assert line in wrong.stderr


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import tests.outputs.test_probability as sample
from wsiseg.errors import OutputError
from wsiseg.geometry import Rect, Size
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.kinds import KINDS
from wsiseg.outputs.probability import object_means
from wsiseg.outputs.save import SlideOutputs, save_outputs
from wsiseg.runs import Runs
from wsiseg.slide import open_slide
from wsiseg.synth import Scene, write_slide
folder = Path(sys.argv[1])
p = sample.planes(2, Size(400, 500))
write_slide(folder / "s.tif", Scene(Size(400, 500), seed=1), "tiled-deflate")
spool = sample.filled(folder / "spool", p)
classes = []
for k, name in enumerate(("nucleus", "core")):
    runs = Runs.from_mask(p[k] > 0.5)
    classes.append(ObjectClass(name, runs, object_means(runs, spool, k, 1)))
slide = SlideOutputs("s", classes, 0.5, lambda: open_slide(folder / "s.tif"), 1, (0.5, 0.5), spool)
save_outputs(folder / "whole", KINDS, slide)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
for kind in KINDS:
    try:
        save_outputs(folder / "full", [kind], slide)
    except OutputError as error:
        print(kind, "|", error)
"""


def test_a_disk_that_fills_up_leaves_nothing_of_any_output(tmp_path: Path) -> None:
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "kernels", "train"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    assert list(lines) == list(KINDS)
    assert all("cannot be written: File too large" in line for line in lines.values()), lines
    assert list((tmp_path / "full").iterdir()) == []
    assert len(list((tmp_path / "whole").iterdir())) == len(KINDS)
