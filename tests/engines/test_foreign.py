"""Foreign networks: wrapped by their description, checked on a tile, and refused with the field to change."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wsiseg.backends.run import probabilities
from wsiseg.cli import import_model as command
from wsiseg.engines import foreign
from wsiseg.errors import ModelError, UsageError
from wsiseg.model import onnxio
from wsiseg.model.load import load_models

T = 16


def network(
    path: Path,
    layout: str = "NCHW",
    classes: int = 1,
    kind: int = TensorProto.FLOAT,
    stride: int = 1,
    opset: int = 18,
    size: object = "n",
    batch: object = "b",
) -> Path:
    """A 1 x 1 convolution: channel c gives (c + 1) R + 2 G - 3 B."""
    weights = np.array([[c + 1.0, 2.0, -3.0] for c in range(classes)], np.float32).reshape(classes, 3, 1, 1)
    dims = [batch, 3, size, size] if layout == "NCHW" else [batch, size, size, 3]
    nodes, value = [], "x"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["x"], ["xt"], perm=[0, 3, 1, 2]))
        value = "xt"
    nodes.append(helper.make_node("Conv", [value, "w"], ["c"], strides=[stride, stride]))
    nodes.append(
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])
        if layout == "NHWC"
        else helper.make_node("Identity", ["c"], ["y"])
    )
    graph = helper.make_graph(
        nodes, "foreign", [helper.make_tensor_value_info("x", kind, dims)], [helper.make_tensor_value_info("y", kind, [batch, None, None, None])],
        [numpy_helper.from_array(weights.astype(np.float16) if kind == TensorProto.FLOAT16 else weights, "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def spec(tmp_path: Path, text: str = "", top: str = "") -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(f'name = "lab-net"\ntile = {T}\ntile_multiple = 1\n{top}\n{text}')
    return path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(w) for w in words]))


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, T, T, 3), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_the_description_is_followed(
    tmp_path: Path, tiles: np.ndarray, layout: str, channels: str, kind: int
) -> None:
    source = network(tmp_path / "f.onnx", layout, kind=kind)
    text = f'[input]\nlayout = "{layout}"\nchannels = "{channels}"\nmean = [10, 20, 30]\nstd = [255, 128, 64]\n[output]\nlayout = "{layout}"\n'
    assert run(source, "--spec", spec(tmp_path, text), "-o", tmp_path / "m.onnx") == 0
    x = tiles.astype(np.float64)[..., :: -1 if channels == "BGR" else 1]
    x = (x - [10, 20, 30]) / [255, 128, 64]
    expected = 1 / (1 + np.exp(-(x @ [1.0, 2.0, -3.0])))
    model = load_models([str(tmp_path / "m.onnx")])
    assert model.name == "lab-net"
    assert np.abs(probabilities(model, tiles, "openvino", "fp32")[0][:, 0] - expected).max() < (
        1e-5 if kind == TensorProto.FLOAT else 0.01
    )


def test_softmax_drops_the_background(tmp_path: Path, tiles: np.ndarray) -> None:
    source = network(tmp_path / "f.onnx", classes=3)
    path = spec(tmp_path, top='classes = ["a", "b"]\nactivation = "softmax"')
    run(source, "--spec", path, "-o", tmp_path / "m.onnx")
    x = tiles / 255.0
    logits = np.stack([x @ [c + 1.0, 2.0, -3.0] for c in range(3)], 1)
    expected = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[:, 1:]
    assert (
        np.abs(
            probabilities(load_models([str(tmp_path / "m.onnx")]), tiles, "openvino", "fp32")[0] - expected
        ).max()
        < 1e-5
    )


def test_a_coarser_output_is_enlarged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(network(tmp_path / "f.onnx", stride=4), "--spec", spec(tmp_path), "-o", tmp_path / "m.onnx")
    told = capsys.readouterr().out
    assert "4 times smaller than its input; it is enlarged bilinearly" in told
    assert "TensorRT engines: its operators are all supported" in told


def test_an_old_opset_and_a_fixed_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(network(tmp_path / "f.onnx", opset=13, size=24), "--spec", spec(tmp_path), "-o", tmp_path / "m.onnx")
    assert "fixed to tiles of 24" in capsys.readouterr().out
    model = load_models([str(tmp_path / "m.onnx")])
    assert (model.spec.tile, model.spec.tile_multiple) == (24, 24)
    assert onnxio.parse(model.onnx_bytes, "m").opset_import[0].version == 18


def test_probabilities_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='are no probabilities; set gives = "logits"'):
        run(
            network(tmp_path / "f.onnx"),
            "--spec",
            spec(tmp_path, '[output]\ngives = "probabilities"'),
            "-o",
            tmp_path / "m.onnx",
        )
    assert not (tmp_path / "m.onnx").exists()


def test_a_doubled_sigmoid_is_noticed() -> None:
    described = foreign.Foreign(foreign.ModelSpec("a"))
    assert any(
        "applied twice" in line
        for line in foreign.judge(np.linspace(0.5, 0.73, 100, dtype=np.float32), described, "f")
    )
    assert any(
        "nearly the same" in line for line in foreign.judge(np.full(100, 0.2, np.float32), described, "f")
    )
    with pytest.raises(ModelError, match="not finite"):
        foreign.judge(np.array([np.nan], np.float32), described, "f")


@pytest.mark.parametrize(
    ("text", "top", "message"),
    [
        ('[input]\nlayout = "CHW"', "", r"unknown \[input\] layout 'CHW'; known: NCHW, NHWC"),
        ("[input]\nsize = 3", "", r"unknown \[input\] field 'size'; known: layout, channels, mean, std"),
        ("[input]\nstd = [1, 0, 1]", "", "std must be three numbers other than 0"),
        ("[output]\nname = 'z'", "", "unknown output 'z'; known: y"),
        ("", "colour = 3", "unknown model spec field 'colour'"),
        ("", 'classes = ["a", "b"]', "gives 1 channels, the spec names 2 classes"),
        ("", "= 3", "not TOML"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, text: str, top: str, message: str) -> None:
    source = network(tmp_path / "f.onnx")
    with pytest.raises(ModelError, match=message):
        run(source, "--spec", spec(tmp_path, text, top), "-o", tmp_path / "m.onnx")


def test_networks_that_cannot_be_wrapped(tmp_path: Path) -> None:
    path = spec(tmp_path)
    with pytest.raises(ModelError, match="free batch"):
        model = onnx.load(network(tmp_path / "f.onnx", batch=1, size=T))
        model.graph.node.insert(0, helper.make_node("Reshape", ["x", "fixed"], ["r"]))
        model.graph.node[1].input[0] = "r"
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, T, T], np.int64), "fixed"))
        onnx.save(model, tmp_path / "f.onnx")
        run(tmp_path / "f.onnx", "--spec", path, "-o", tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        run(tmp_path / "none.onnx", "--spec", path)
    with pytest.raises(ModelError, match="takes int64"):
        run(network(tmp_path / "f.onnx", kind=TensorProto.INT64), "--spec", path)
    with pytest.raises(UsageError, match="--example"):
        run(tmp_path / "f.onnx")


def test_the_example_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--example")
    path = tmp_path / "e.toml"
    path.write_text(capsys.readouterr().out)
    described = foreign.read_spec(path)
    assert (described.spec.name, described.layout, described.spec.mean[0]) == ("my-model", "NCHW", 123.675)
