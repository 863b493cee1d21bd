"""Graphs for compilers: shapes computed beforehand, operators allowed by list, half precision with a float32 tail."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import fixtures_models as networks
from wsiseg.backends.run import probabilities
from wsiseg.engines import graph, half
from wsiseg.errors import ModelError
from wsiseg.model import onnxio

TILE = 32


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, TILE, TILE, 3), dtype=np.uint8)


def run(model: onnx.ModelProto, tiles: np.ndarray) -> np.ndarray:
    return probabilities(networks.load(onnxio.canonical(model)), tiles, "openvino", "fp32", batch=len(tiles))[
        0
    ]


def parsed(data: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(data)


def with_upsampling() -> onnx.ModelProto:
    """The random network at half resolution, enlarged to a size that is computed from the input's shape."""
    model = parsed(networks.random_conv(1))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.output[0] == "planar":
            model.graph.node.append(helper.make_node("Transpose", ["pixels"], ["full"], perm=[0, 3, 1, 2]))
            model.graph.node.append(
                helper.make_node("AveragePool", ["full"], ["planar"], kernel_shape=[2, 2], strides=[2, 2])
            )
        elif node.op_type == "Sigmoid":
            model.graph.node.append(helper.make_node("Shape", ["full"], ["size"], start=2, end=4))
            model.graph.node.append(helper.make_node("Shape", ["c2"], ["batch"], start=0, end=2))
            model.graph.node.append(helper.make_node("Concat", ["batch", "size"], ["sizes"], axis=0))
            model.graph.node.append(
                helper.make_node("Resize", ["c2", "", "", "sizes"], ["large"], mode="linear")
            )
            model.graph.node.append(helper.make_node("Sigmoid", ["large"], [onnxio.OUTPUT]))
        else:
            model.graph.node.append(node)
    return model


def with_batch_norm() -> onnx.ModelProto:
    model = parsed(networks.random_conv(1))
    rng = np.random.default_rng(5)
    for name, values in {
        "gain": rng.uniform(0.5, 2, 8),
        "shift": rng.normal(size=8),
        "mean": rng.normal(size=8),
        "variance": rng.uniform(0.5, 2, 8),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    norm = helper.make_node("BatchNormalization", ["c1", "gain", "shift", "mean", "variance"], ["n1"])
    index = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Relu")
    model.graph.node[index].input[0] = "n1"
    model.graph.node.insert(index, norm)
    return model


def test_shape_arithmetic_is_computed_beforehand(tiles: np.ndarray) -> None:
    model = with_upsampling()
    with pytest.raises(ModelError, match=r"Shape .* computes shapes inside the graph"):
        graph.check_operators(model, "net")
    fixed = graph.specialise(model, TILE, "net")
    graph.check_operators(fixed, "net")
    onnx.checker.check_model(fixed, full_check=True)
    assert {n.op_type for n in fixed.graph.node} == {
        "Cast",
        "Transpose",
        "AveragePool",
        "Sub",
        "Mul",
        "Conv",
        "Relu",
        "Resize",
        "Sigmoid",
    }
    assert onnxio.dims(fixed.graph.input[0]) == ("batch", TILE, TILE, 3)
    assert np.abs(run(fixed, tiles) - run(model, tiles)).max() < 1e-6


def test_a_shape_with_the_batch_in_it_is_refused() -> None:
    model = parsed(networks.random_conv(1))
    sigmoid = model.graph.node[-1]
    sigmoid.input[0] = "again"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Shape", ["c2"], ["all"]))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Reshape", ["c2", "all"], ["again"]))
    with pytest.raises(ModelError, match="depend on the batch"):
        graph.specialise(model, TILE, "net")


def test_unknown_operators_are_named() -> None:
    model = parsed(networks.random_conv(1))
    model.graph.node[-1].op_type = "Cos"
    with pytest.raises(ModelError, match="unknown operator 'Cos'; known: Add, "):
        graph.check_operators(model, "net")
    model.graph.node[-1].domain = "com.microsoft"
    with pytest.raises(ModelError, match=r"com.microsoft.Cos .* is not standard ONNX"):
        graph.check_operators(model, "net")


def test_batch_norms_are_folded(tiles: np.ndarray) -> None:
    model = with_batch_norm()
    folded = graph.fold_batch_norms(model)
    assert "BatchNormalization" not in {n.op_type for n in folded.graph.node}
    assert not {"gain", "mean", "w1"} & {t.name for t in folded.graph.initializer}
    assert np.abs(run(folded, tiles) - run(model, tiles)).max() < 1e-5


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_half_keeps_the_tail_in_float32(tiles: np.ndarray, kind: str, tta: str) -> None:
    data = networks.load(networks.random_conv(1), tta=tta).onnx_bytes
    model, report = half.to_half(graph.specialise(parsed(data), TILE, "net"), "net", kind)
    wanted = TensorProto.FLOAT16 if kind == "fp16" else TensorProto.BFLOAT16
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    assert [kinds[n.input[1]] for n in model.graph.node if n.op_type == "Conv"] == [wanted] * 2
    types: dict[str, int] = {}
    if (
        kind == "fp16"
    ):  # ONNX itself knows convolutions in bfloat16 from opset 22 only; TensorRT takes them in any
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
        types = {v.name: v.type.tensor_type.elem_type for v in inferred}
        assert [types[n.output[0]] for n in model.graph.node if n.op_type == "Conv"] == [wanted] * 2
    tail = [n for n in model.graph.node if n.op_type in ("Sigmoid", "Sum")]
    assert all(
        types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT
        for n in tail
        for name in (*n.input, *n.output)
    )
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert report.tensors == 6
    if kind == "fp16":
        assert np.abs(run(model, tiles) - run(parsed(data), tiles)).max() < 0.01


def test_a_weight_used_by_both_parts_is_kept_twice(tiles: np.ndarray) -> None:
    model = parsed(networks.random_conv(1))
    model.graph.node[-1].output[0] = "p"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "factor"))
    model.graph.node.insert(2, helper.make_node("Mul", ["planar", "factor"], ["dimmed"]))
    model.graph.node[3].input[0] = "dimmed"
    model.graph.node.append(helper.make_node("Mul", ["p", "factor"], [onnxio.OUTPUT]))
    converted, _ = half.to_half(model, "net")
    onnx.checker.check_model(converted, full_check=True)
    kinds = {t.name: t.data_type for t in converted.graph.initializer if t.name.startswith("factor")}
    assert kinds == {"factor": TensorProto.FLOAT, "factor/half": TensorProto.FLOAT16}
    assert np.abs(run(converted, tiles) - run(model, tiles)).max() < 0.01


def test_overflow_is_refused() -> None:
    model = parsed(networks.random_conv(1))
    weights = next(t for t in model.graph.initializer if t.name == "w2")
    values = numpy_helper.to_array(weights).copy()
    values.flat[3] = 70000
    weights.CopyFrom(numpy_helper.from_array(values, "w2"))
    with pytest.raises(
        ModelError, match="weight 'w2' reaches 70000, float16 ends at 65504; build with --precision bf16"
    ):
        half.to_half(model, "net")
    assert half.to_half(model, "net", "bf16")[1].largest == 70000
    values.flat[3] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, "w2"))
    with pytest.raises(ModelError, match="reaches nan"):
        half.to_half(model, "net", "bf16")


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array(
        [1.0, 1.00390625, 1.01171875, -3.0000001, 65504], np.float32
    )  # ties: down to even, up to even
    stored = half._cast(values, TensorProto.BFLOAT16, "x")
    assert numpy_helper.to_array(stored).astype(np.float32).tolist() == [1.0, 1.0, 1.015625, -3.0, 65536.0]
