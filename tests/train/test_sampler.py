"""Stores, folds and samplers: each sampler's measured tiles against what it promises."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from wsiseg.errors import UsageError
from wsiseg_train.augment import PRESETS
from wsiseg_train.folds import Part, split_stores
from wsiseg_train.prepare import PrepareOptions, density_of, image_kind, prepare_slide
from wsiseg_train.sampler import Mixture, Sampler
from wsiseg_train.store import StoreInfo, TrainingStore, open_stores, write_store
from wsiseg_train.tiles import TileMaker


@pytest.fixture
def parts(stores):
    return [Part(s, 0, s.shape[1]) for s in open_stores([stores])]


def test_a_store_holds_the_slide_as_the_network_sees_it(stores, painted):
    store = open_stores([stores])[0]
    assert store.info.scale == 2
    assert store.info.mpp == pytest.approx(1.0, rel=1e-3)
    assert store.info.size == (520, 700)
    assert store.shape == (260, 350)
    assert len(store.info.centres) == 9
    image, target = store.whole("image"), store.whole("target")[0]
    y, x = (int(v) for v in store.info.centres[0])
    assert target[y, x] == 255
    assert abs(int(image[y, x, 1]) - 50) < 20
    assert store.whole("tissue")[y, x] == 1
    assert store.whole("tissue")[2, 2] == 0


def test_windows_are_the_same_from_memory_and_from_disk(stores):
    path = open_stores([stores])[0].path
    kept, streamed = TrainingStore(path), TrainingStore(path, memory=0)
    for name in ("image", "target", "weight"):
        assert np.array_equal(kept.window(name, -5, 40, 100, 900), streamed.window(name, -5, 40, 100, 900))


@pytest.mark.parametrize("kind", ["objects", "density", "uniform"])
def test_each_sampler_does_what_it_promises(parts, kind):
    sampler = Sampler(
        parts, Mixture(**{"objects": 0, "density": 0, "uniform": 0, kind: 1.0}, offset=0.25), 64, seed=1
    )
    places = [sampler.place(i) for i in range(1200)]
    assert {p.kind for p in places} == {kind}
    near = np.mean([min(np.hypot(p.y - y, p.x - x) for y, x in parts[p.part].centres) < 24 for p in places])
    if kind == "objects":
        assert near == 1.0
        nearest = Counter(
            (p.part, min(parts[p.part].centres, key=lambda c: np.hypot(p.y - c[0], p.x - c[1])))
            for p in places
        )
        assert len(nearest) == sampler.objects == 27
    if kind == "density":
        density = [p.store.whole("density") for p in parts]
        dense = [d > np.median(d) for d in density]
        expected = np.mean([d[m].sum() / d.sum() for d, m in zip(density, dense, strict=True)])
        inner = [
            p for p in places if 17 < p.y < 243 and 17 < p.x < 333
        ]  # places at the rim were moved inwards
        found = np.mean([dense[p.part][int(p.y) // 16, int(p.x) // 16] for p in inner])
        assert expected > 0.55
        assert found > expected
        assert len(inner) > 900


def test_a_round_shows_every_object_once(parts):
    sampler = Sampler(parts, Mixture(objects=1, density=0, uniform=0, offset=0.0), 64, seed=5)
    for turn in range(3):
        seen = {(p.part, p.y, p.x) for p in map(sampler.place, range(27 * turn, 27 * turn + 27))}
        assert len(seen) == 27


def test_the_mixture_and_the_groups_have_their_shares(parts):
    sampler = Sampler(parts, Mixture(objects=0.5, density=0.3, uniform=0.2), 64, seed=0)
    kinds = Counter(sampler.place(i).kind for i in range(4000))
    assert kinds["objects"] / 4000 == pytest.approx(0.5, abs=0.03)
    assert kinds["uniform"] / 4000 == pytest.approx(0.2, abs=0.03)
    with pytest.raises(UsageError, match="no training store of group 'x'"):
        Sampler(parts, Mixture(groups=(("x", 1.0),)), 64, seed=0)


def test_a_place_depends_on_seed_and_index_alone(parts):
    one, other = (Sampler(parts, Mixture(), 64, seed=3) for _ in range(2))
    backwards = [other.place(i) for i in reversed(range(50))]
    assert [one.place(i) for i in range(50)] == backwards[::-1]
    assert Sampler(parts, Mixture(), 64, seed=4).place(0) != one.place(0)


def test_folds_by_region_share_no_column_and_hold_out_equally_many_objects(parts):
    store = parts[0].store
    counts = []
    for fold in range(3):
        split = split_stores([store], fold, 3)
        (held,) = split.held
        counts.append(len(held.centres))
        assert all(p.x1 <= held.x0 or p.x0 >= held.x1 for p in split.train)
        assert sum(p.x1 - p.x0 for p in split.train) + held.x1 - held.x0 == store.shape[1]
    assert counts == [3, 3, 3]


def test_folds_by_slide_are_stratified_and_complete(stores):
    opened = open_stores([stores])
    held = [split_stores(opened, f, 3).held for f in range(3)]
    assert sorted(p.store.info.id for h in held for p in h) == ["a", "b", "c"]
    with pytest.raises(UsageError, match="need at least"):
        split_stores(opened, 0, 4, by="slide")
    with pytest.raises(UsageError, match="folds are 0 to 2"):
        split_stores(opened, 3, 3)


def test_a_fold_without_objects_is_refused(tmp_path):
    zeros = np.zeros((1, 64, 64), np.uint8)
    info = StoreInfo(id="e", classes=("disc",), scale=1, mpp=None, size=(64, 64))
    arrays = {
        "image": np.zeros((64, 64, 3), np.uint8),
        "target": zeros,
        "weight": zeros[0] + 255,
        "tissue": zeros[0],
        "density": np.ones((4, 4), np.float32),
    }
    write_store(tmp_path / "e.train.zarr", info, arrays)
    with pytest.raises(UsageError, match="no object on its training side"):
        split_stores(open_stores([tmp_path]), -1, 2)


def test_a_fold_that_holds_out_no_object_is_refused(parts, tmp_path):
    store = parts[0].store
    arrays = {n: store.whole(n) for n in ("image", "target", "weight", "tissue", "density")}
    write_store(tmp_path / "one.train.zarr", replace(store.info, centres=store.info.centres[:1]), arrays)
    with pytest.raises(UsageError, match="no object on its held-out side"):
        split_stores(open_stores([tmp_path]), 0, 4)


def test_pseudo_labels_are_learned_from_and_never_held_out(parts, tmp_path):
    for number, part in enumerate(parts):
        store = part.store
        arrays = {n: store.whole(n) for n in ("image", "target", "weight", "tissue", "density")}
        info = replace(store.info, confidence=0.5 if number == 2 else 1.0)
        write_store(tmp_path / f"{store.info.id}.train.zarr", info, arrays)
    opened = open_stores([tmp_path])
    held = [split_stores(opened, fold, 2).held for fold in range(2)]
    assert [[p.store.info.id for p in h] for h in held] in ([["a"], ["b"]], [["b"], ["a"]])
    for fold in range(2):
        assert "c" in [p.store.info.id for p in split_stores(opened, fold, 2).train]
    assert len(split_stores(opened, -1, 2).train) == 3


def test_tiles_weigh_nothing_outside_their_part(parts):
    part = replace(parts[0], x0=0, x1=150)
    maker = TileMaker([part], Mixture(objects=0, density=0, uniform=1), PRESETS["none"], 64, seed=0)
    for i in range(40):
        place, tile = maker.sampler.place(i), maker.make(i)
        outside = np.arange(64) + place.x - 31.5 > 151
        assert not tile.weight[:, outside].any()
        assert tile.weight.any()


def test_anatomy_sets_the_density(tmp_path):
    import json

    ring = [[0, 0], [256, 0], [256, 512], [0, 512], [0, 0]]
    feature = {
        "type": "Feature",
        "properties": {"classification": {"name": "Cortex"}},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path = tmp_path / "anatomy.json"
    path.write_text(json.dumps([feature]))
    plane = np.zeros((256, 256), np.uint8)
    density = density_of(plane, plane, plane + 255, path, 2, PrepareOptions())
    assert density.shape == (16, 16)
    assert density[8, 2] == pytest.approx(0.5)
    assert density[8, 12] == pytest.approx(0.01)


def test_an_empty_class_is_refused_and_soft_labels_are_means(painted, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "none.png"), np.zeros((520, 700), np.uint8))
    slide = painted / "slides" / "a.tif"
    with pytest.raises(UsageError, match="no object of class 'disc'"):
        prepare_slide(slide, [tmp_path / "none.png"], tmp_path, PrepareOptions(scale=2, classes=("disc",)))
    options = PrepareOptions(scale=2, classes=("disc",), label_weights=(3, 1))
    path = prepare_slide(slide, [painted / "masks" / "a.png", tmp_path / "none.png"], tmp_path, options)
    assert TrainingStore(path).whole("target").max() == 191


def test_kinds_of_images():
    assert image_kind(np.full((8, 8, 3), 20, np.uint8)) == "fluorescence"
    assert image_kind(np.full((8, 8, 3), 200, np.uint8)) == "bright"
    assert image_kind(np.full((8, 8, 3), (220, 150, 200), np.uint8)) == "colour"
