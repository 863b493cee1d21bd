"""Flips and ensembles in the graph, against the same thing done by numpy around the plain network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests import fixtures_models as networks
from wsiseg.backends import SessionOptions, open_session
from wsiseg.errors import ModelError, UsageError
from wsiseg.model import compose, onnxio
from wsiseg.model.load import LoadedModel

TILE = 48


def run(model: LoadedModel, tiles: np.ndarray, precision: str = "fp32") -> np.ndarray:
    options = SessionOptions(tile=tiles.shape[1], batch=len(tiles), slots=1, threads=1, precision=precision)
    session = open_session(model, options)
    session.input(0)[:] = tiles
    session.start(0, len(tiles))
    result = session.wait(0).copy()
    session.close()
    return result


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, TILE, TILE, 3), dtype=np.uint8)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flips", 4), ("d4", 8)])
@pytest.mark.parametrize("classes", [1, 3])
def test_flips_equal_numpy(tiles: np.ndarray, tta: str, count: int, classes: int) -> None:
    data = networks.random_conv(3, classes=classes)
    plain = networks.load(data)
    expected = np.zeros((2, classes, TILE, TILE))
    for swap, flip_y, flip_x in compose.variants(tta):
        turned = tiles.transpose(0, 2, 1, 3) if swap else tiles
        turned = turned[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
        p = run(plain, turned)[:, :, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
        expected += p.transpose(0, 1, 3, 2) if swap else p
    flipped = networks.load(data, tta=tta)
    assert flipped.copies == count == len(set(compose.variants(tta)))
    assert np.abs(run(flipped, tiles) - expected / count).max() < 1e-6
    if count > 1:
        assert np.abs(run(flipped, tiles) - run(plain, tiles)).max() > 0.05  # or the test would prove nothing


def test_flips_keep_one_copy_of_the_weights() -> None:
    data = networks.random_conv(1, channels=64)
    assert len(networks.load(data, tta="d4").onnx_bytes) < len(data) + 8000


def test_an_ensemble_is_the_weighted_mean(tiles: np.ndarray) -> None:
    graphs = [networks.random_conv(seed) for seed in (1, 2)]
    a, b = (run(networks.load(g), tiles) for g in graphs)
    assert np.abs(run(networks.load(*graphs), tiles) - (a + b) / 2).max() < 1e-6
    assert np.abs(run(networks.load(*graphs, weights=(1, 3)), tiles) - (a + 3 * b) / 4).max() < 1e-6


def test_an_ensemble_with_flips_of_members_that_share_names(tiles: np.ndarray) -> None:
    both = networks.load(networks.random_conv(1), networks.random_conv(2), tta="flips")
    single = [run(networks.load(networks.random_conv(seed), tta="flips"), tiles) for seed in (1, 2)]
    assert np.abs(run(both, tiles) - (single[0] + single[1]) / 2).max() < 1e-6


def test_a_second_output_is_dropped(tiles: np.ndarray) -> None:
    model = onnx.load_model_from_string(networks.random_conv(1))
    model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", ["c2"], ["holds"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("holds", onnx.TensorProto.FLOAT, None))
    plain = networks.load(onnxio.canonical(model))
    assert np.array_equal(run(plain, tiles), run(networks.load(networks.random_conv(1)), tiles))
    composed = onnxio.parse(networks.load(onnxio.canonical(model), tta="flips").onnx_bytes, "composed")
    assert len(composed.graph.output) == 1
    assert all(node.op_type != "GlobalAveragePool" for node in composed.graph.node)


def test_the_spec_of_an_ensemble() -> None:
    a = networks.with_spec(
        networks.random_conv(1), tile=64, tile_multiple=4, thresholds=(0.4,), mpp=2.0, scale=4
    )
    b = networks.with_spec(
        networks.random_conv(2), tile=96, tile_multiple=6, thresholds=(0.6,), mpp=2.01, scale=4, tissue="none"
    )
    spec = networks.load(a, b, weights=(1, 3)).spec
    assert (spec.tile, spec.tile_multiple, spec.thresholds, spec.tissue) == (72, 12, (0.55,), "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"mpp": 1.0}, "mpp 2.0 against 1.0"), ({"scale": 2}, "scale 1 against 2"), ({"fill": "white"}, "fill reflect against white"), ({"classes": ("other",)}, "classes object against other")],
)  # fmt: skip
def test_members_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    a = networks.with_spec(networks.random_conv(1), mpp=2.0)
    b = networks.with_spec(networks.random_conv(2), **({"mpp": 2.0} | changes))
    with pytest.raises(ModelError, match=message):
        networks.load(a, b)


def test_weights_and_flips_are_checked() -> None:
    with pytest.raises(UsageError, match="2 weights for 1 models"):
        compose.normalise_weights(1, (1, 2))
    with pytest.raises(UsageError, match="positive"):
        compose.normalise_weights(2, (1, 0))
    with pytest.raises(UsageError, match="known: none, flips, d4"):
        networks.load(networks.random_conv(), tta="rotate")
