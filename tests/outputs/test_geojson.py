"""GeoJSON: QuPath's keys, areas of the mask's pixels, the same runs back, and foreign files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.objects import find_objects
from wsiseg.outputs.geojson import ObjectClass, fill_polygon, read_geojson, write_geojson
from wsiseg.outputs.submission import read_row
from wsiseg.runs import Runs

SIZE = Size(300, 400)


def blobs(seed: int, share: float = 0.3) -> Runs:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((SIZE.height, SIZE.width)), (0, 0), 4)
    return Runs.from_mask(noise > np.quantile(noise, 1 - share))


def test_qupath_reads_these_keys(tmp_path: Path) -> None:
    runs, path = blobs(0), tmp_path / "a.geojson"
    count = len(find_objects(runs))
    chance = np.linspace(0.5, 1, count)
    assert write_geojson(path, "a", [ObjectClass("glomerulus", runs, chance)], mpp=0.5) == count
    data = json.loads(path.read_text())
    assert data["type"] == "FeatureCollection"
    areas = find_objects(runs).area
    for k, feature in enumerate(data["features"]):
        assert feature["type"] == "Feature"
        assert len(feature["id"]) == 36
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["classification"] == {"name": "glomerulus", "color": [255, 140, 0]}
        measures = properties["measurements"]
        assert measures["Area px"] == areas[k]
        assert measures["Area µm²"] == areas[k] / 4
        assert measures["Mean probability"] == pytest.approx(chance[k], abs=1e-5)
    assert len({feature["id"] for feature in data["features"]}) == count


def test_shapely_agrees_on_validity_and_area(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    runs = blobs(1, 0.55)
    write_geojson(tmp_path / "a.geojson", "a", [ObjectClass("x", runs)])
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    shapes = [shapely.geometry.shape(f["geometry"]) for f in features]
    assert all(shape.is_valid for shape in shapes)
    assert [int(shape.area) for shape in shapes] == find_objects(runs).area.tolist()
    assert any(shape.interiors for shape in shapes if shape.geom_type == "Polygon")
    write_geojson(tmp_path / "s.geojson", "a", [ObjectClass("x", runs)], tolerance=1.0)
    simple = json.loads((tmp_path / "s.geojson").read_text())["features"]
    assert len(simple) == len(features)
    assert (tmp_path / "s.geojson").stat().st_size < 0.6 * (tmp_path / "a.geojson").stat().st_size
    total = sum(shapely.geometry.shape(f["geometry"]).area for f in simple)
    assert total == pytest.approx(runs.area, rel=0.02)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_runs_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    runs = Runs.from_mask(rng.random((height, width)) < rng.random())
    path = tmp_path_factory.getbasetemp() / "back.geojson"
    write_geojson(path, "a", [ObjectClass("c", runs)])
    assert read_geojson(path, runs.size) == ({"c": runs} if runs else {})


def test_several_classes_come_back(tmp_path: Path) -> None:
    a, b = blobs(2), blobs(3)
    write_geojson(tmp_path / "a.geojson", "a", [ObjectClass("a", a), ObjectClass('ż "b"', b)])
    assert read_geojson(tmp_path / "a.geojson", SIZE) == {"a": a, 'ż "b"': b}


@pytest.mark.parametrize("seed", range(5))
def test_any_polygon_is_filled_as_its_middles_lie(seed: int) -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(12)) * 2 * np.pi
    outer = np.stack([25 + 30 * rng.random(12) * np.cos(angle), 18 + 25 * rng.random(12) * np.sin(angle)], 1)
    hole = np.array([[24.2, 17.1], [26.9, 17.7], [25.1, 19.3]])
    size = Size(30, 40)
    starts, lengths = fill_polygon([outer, hole], size)
    got = Runs.merged(starts, lengths, size).mask(Rect(0, 0, 30, 40))
    shape = shapely.Polygon(outer)
    inner = shapely.Polygon(hole)
    y, x = np.mgrid[:30, :40] + 0.5
    want = shapely.contains_xy(shape, x, y) ^ shapely.contains_xy(inner, x, y)
    assert np.array_equal(got > 0, want)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[1]", "feature 1: is not an object"),
        ('{"type": "Topology"}', "not GeoJSON"),
        ('{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]}}', "a Point encloses no pixels"),
        ('{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[1,"a"]]]}}', "not lists of x, y"),
        ('{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[1,1e999]]]}}', "finite"),
        ('{"type":"Feature","geometry":{"type":"Polygon","coordinates":7}}', "not lists"),
        ('{"type":"Feature"}', "missing geometry"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_geojson(tmp_path / "a.geojson", SIZE)


@pytest.mark.data
def test_hubmaps_own_polygons_are_its_own_mask(shared_data: Path) -> None:
    folder = shared_data / "glomeruli"
    data = json.loads((folder / "26dc41664_glomeruli.json").read_text())
    features = data["features"] if isinstance(data, dict) else data
    size, shrink = Size(19200, 22400), np.array([22400 / 42360, 19200 / 38160])
    parts = []
    for feature in features:
        geometry = feature["geometry"]
        polygons = (
            geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        )
        parts += [
            fill_polygon([np.array(ring, float) * shrink for ring in rings], size) for rings in polygons
        ]
    mine = Runs.merged(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), size)
    mask = cv2.imread(str(folder / "26dc41664_mask.png"), cv2.IMREAD_GRAYSCALE)
    assert mine.dice(Runs.from_mask(mask)) > 0.99


@pytest.mark.data
def test_a_competition_mask_there_and_back(shared_data: Path, tmp_path: Path) -> None:
    row = read_row(shared_data / "kaggle" / "aaa6a05cc_train.csv", "aaa6a05cc")
    runs = Runs.from_rle(row.rle, Size(18484, 13013))
    assert write_geojson(tmp_path / "a.geojson", row.id, [ObjectClass("glomerulus", runs)], 0.5) >= 90
    assert read_geojson(tmp_path / "a.geojson", runs.size)["glomerulus"].to_rle() == row.rle
