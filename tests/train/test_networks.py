"""Every network: forward and backward, export with the graph contract, ONNX against torch; checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("timm", reason="needs the train extra")
pytest.importorskip("segmentation_models_pytorch", reason="needs the train extra")
onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.torch

from wsiseg.errors import ModelError  # noqa: E402
from wsiseg.model.spec import METADATA_KEY, ModelSpec  # noqa: E402
from wsiseg_train.checkpoint import load_checkpoint, output_channels, read_checkpoint, save_checkpoint  # noqa: E402
from wsiseg_train.export import GraphModel, export_onnx, export_split  # noqa: E402
from wsiseg_train.networks import NETWORKS, build_network  # noqa: E402

NARROW = {"encoder": "resnet18", "decoder": [16, 16, 8, 8, 8]}
CASES = {
    "compact": ({"name": "compact-unet", "channels": [8, 8, 16, 16], "decoder": [16, 8, 8], "depth": 4}, 64),
    "compact shuffle": (
        {
            "name": "compact-unet",
            "channels": [8, 8, 16, 16],
            "decoder": [16, 8, 8],
            "depth": 4,
            "shuffle": True,
        },
        64,
    ),
    "plain": ({"name": "plain-unet", "width": 4, "depth": 3}, 64),
    "scse fpa hypercolumns": (
        {
            "name": "unet",
            **NARROW,
            "attention": "scse",
            "bottleneck": "fpa",
            "hypercolumns": True,
            "deep": True,
        },
        256,
    ),
    "cbam gates centre": (
        {"name": "unet", **NARROW, "attention": "cbam", "gates": True, "bottleneck": "centre"},
        64,
    ),
    "efficientnet": ({"name": "unet", "encoder": "tu-efficientnet_lite0", "decoder": [16, 16, 8, 8, 8]}, 64),
    "timm encoder": ({"name": "unet", "encoder": "tu-resnet10t", "depth": 4, "decoder": [16, 16, 8, 8]}, 64),
    "pranet": ({"name": "pranet", "encoder": "resnet18", "width": 8}, 64),
    "smp": ({"name": "smp", "arch": "fpn", "encoder": "resnet18"}, 64),
}


def made(network, classes=("a", "b"), tile=64, **spec):
    built = ModelSpec(
        name="m",
        classes=classes,
        thresholds=(0.5,) * len(classes),
        tile=tile,
        network=network,
        mean=(120.0,) * 3,
        std=(60.0,) * 3,
        **spec,
    )
    torch.manual_seed(0)
    return build_network(network, output_channels(built)), built


def settle(net, tile):
    """A few batches in training mode, so that batch norms hold real statistics; returns the last outputs."""
    net.train()
    for _ in range(2):
        out = net(torch.randn(2, 3, tile, tile))
    return out


def mains(out):
    while isinstance(out, tuple):
        out = out[0]
    return out


def run(data, image):
    import openvino as ov

    model = ov.Core().compile_model(ov.Core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.asarray(v) for v in model({"image": image}).values()]


@pytest.mark.parametrize("case", CASES)
def test_a_network_learns_and_its_graph_is_the_contract(case):
    network, tile = CASES[case]
    net, spec = made(network, tile=tile)
    out = settle(net, tile)
    assert mains(out).shape == (2, 2, tile, tile)
    sum(o.float().mean() for o in (out if isinstance(out, tuple) else (out,))).backward()
    missed = [n for n, p in net.named_parameters() if p.grad is None]
    assert all("conv_head" in n or "_bn1" in n or ".bn2" in n for n in missed), (
        missed
    )  # EfficientNet's own classifier
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    data = export_onnx(net, spec)
    graph = onnx.load_from_string(data).graph
    assert "BatchNormalization" not in {n.op_type for n in graph.node}
    image = np.random.default_rng(0).integers(0, 256, (3, tile, tile, 3), dtype=np.uint8)
    (found,) = run(data, image)
    with torch.no_grad():
        expected = GraphModel(net.eval(), spec)(torch.from_numpy(image)).numpy()
    assert found.shape == (3, 2, tile, tile)
    assert np.abs(found - expected).max() < 1e-4


def test_the_graph_says_what_it_is_and_keeps_no_path_of_this_machine():
    net, spec = made(CASES["plain"][0])
    model = onnx.load_from_string(export_onnx(net, spec))
    assert [(p.key, json.loads(p.value)["name"]) for p in model.metadata_props] == [(METADATA_KEY, "m")]
    assert model.opset_import[0].version == 18
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", "height", "width", 3]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert "Shape" not in {n.op_type for n in model.graph.node}
    assert b"site-packages" not in model.SerializeToString()
    fixed = onnx.load_from_string(export_onnx(net, spec, tile=128)).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in fixed][1:] == [128, 128, 3]


def test_softmax_gives_no_background_and_a_classifier_gives_presence():
    net, spec = made(CASES["plain"][0], activation="softmax")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    settle(net, 64)
    (p,) = run(export_onnx(net, spec), image)
    assert p.shape == (1, 2, 64, 64)
    assert float(p.sum(1).max()) < 1
    net, spec = made({"name": "unet", **NARROW, "classifier": True}, has_classifier=True)
    settle(net, 64)
    outputs = run(export_onnx(net, spec), image)
    assert [o.shape for o in outputs] == [(1, 2, 64, 64), (1,)]


WITH_HEAD = {
    "compact-unet": {"name": "compact-unet", "channels": [8, 8, 16, 16], "decoder": [16, 8, 8], "depth": 4},
    "plain-unet": {"name": "plain-unet", "width": 4, "depth": 3},
    "unet": {"name": "unet", **NARROW, "attention": "scse", "gates": True},
}


@pytest.mark.parametrize("name", WITH_HEAD)
def test_a_classification_head_exports_as_two_graphs_that_are_the_whole(name):
    net, spec = made(WITH_HEAD[name] | {"classifier": True}, has_classifier=True)
    settle(net, 64)
    image = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    probability, presence = run(export_onnx(net, spec), image)
    head, tail = map(onnx.load_from_string, export_split(net, spec))
    features = [v.name for v in head.graph.output[1:]]
    assert head.graph.output[0].name == "presence"
    assert [v.name for v in tail.graph.input] == features
    assert [v.name for v in tail.graph.output] == ["probability"]
    assert not {n.name for n in head.graph.node} & {n.name for n in tail.graph.node}
    assert len(features) >= 3
    for value in (*head.graph.input, *head.graph.output, *tail.graph.input, *tail.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    import openvino as ov

    core, exact = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    first, second = (
        core.compile_model(core.read_model(m.SerializeToString()), "CPU", exact) for m in (head, tail)
    )
    given = {k.get_any_name(): np.array(v) for k, v in first({"image": image}).items()}
    assert given["presence"].shape == (3,)
    assert np.abs(given.pop("presence") - presence).max() < 1e-6
    for chosen in ([0, 1, 2], [2], [1, 0]):  # any tiles of the batch may go on to the decoder
        (found,) = second({k: v[chosen] for k, v in given.items()}).values()
        assert np.abs(found - probability[chosen]).max() < 1e-6


def test_a_network_without_a_head_does_not_split():
    net, spec = made(CASES["plain"][0])
    with pytest.raises(ModelError, match="has no classification head"):
        export_split(net, spec)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    net, spec = made(CASES["plain"][0])
    settle(net, 64)
    save_checkpoint(tmp_path / "m.pt", spec, net.state_dict())
    again, found = load_checkpoint(tmp_path / "m.pt")
    x = torch.randn(1, 3, 64, 64)
    assert found == spec
    with torch.no_grad():
        assert torch.equal(again(x), net.eval()(x))
    save_checkpoint(tmp_path / "h.pt", spec, net.state_dict(), half=True)
    assert (tmp_path / "h.pt").stat().st_size < 0.7 * (tmp_path / "m.pt").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.pt", "m.pt"]


def test_encoder_weights_come_from_a_file_and_the_checkpoint_no_longer_needs_it(tmp_path):
    network = {"name": "unet", **NARROW}
    net, _ = made(network)
    torch.save(net.encoder.state_dict(), tmp_path / "encoder.pt")
    network["weights"] = str(tmp_path / "encoder.pt")
    torch.manual_seed(5)
    again = build_network(network, 2)
    assert torch.equal(again.encoder.conv1.weight, net.encoder.conv1.weight)
    assert not torch.equal(again.head.weight, net.head.weight)
    _, spec = made(network)
    save_checkpoint(tmp_path / "m.pt", spec, again.state_dict())
    (tmp_path / "encoder.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not weights of encoder"):
        build_network(network, 2)
    loaded, _ = load_checkpoint(tmp_path / "m.pt")
    assert torch.equal(loaded.head.weight, again.head.weight)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, capsys):
    net, spec = made(CASES["plain"][0])
    state = net.state_dict()
    cases = {
        "evil.pt": {"format": "wsiseg-checkpoint-1", "spec": spec.to_dict(), "state_dict": Evil()},
        "foreign.pt": {"model": state},
        "plain.pt": {"format": "wsiseg-checkpoint-1", "spec": spec.to_dict(), "state_dict": {"a": 3}},
    }
    for name, value in cases.items():
        torch.save(value, tmp_path / name)
        with pytest.raises(ModelError) as error:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)
    assert capsys.readouterr().out == ""
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "junk.pt")
    with pytest.raises(ModelError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")
    state.pop("head.bias")
    save_checkpoint(tmp_path / "less.pt", spec, state)
    with pytest.raises(ModelError, match=r"head\.bias"):
        load_checkpoint(tmp_path / "less.pt")
    with pytest.raises(ModelError, match="not finite"):
        save_checkpoint(tmp_path / "nan.pt", spec, {"w": torch.tensor([float("nan")])})
    with pytest.raises(ModelError, match="overflows"):
        save_checkpoint(tmp_path / "big.pt", spec, {"w": torch.tensor([1e6])}, half=True)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ModelError, match="compact-unet"):
        build_network({"name": "unett"}, 1)
    with pytest.raises(ModelError, match="cannot be built"):
        build_network({"name": "plain-unet", "widht": 3}, 1)
    with pytest.raises(ModelError, match="resnet19"):
        build_network({"name": "unet", "encoder": "resnet19"}, 1)
    with pytest.raises(ModelError, match="scse"):
        build_network({"name": "unet", "attention": "sce"}, 1)
    assert set(NETWORKS) == {"compact-unet", "unet", "plain-unet", "pranet", "smp"}
