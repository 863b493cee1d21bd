"""Tiny hand-built ONNX networks that keep the graph contract, for tests that need a model but not torch.

    constant(0.7)        the same probability everywhere
    redness()            a blurred threshold on how red a pixel is: finds drawn red discs
    beacon()             redness with a classification head: whether any pixel is red
    random_conv(seed)    two small convolutions with seeded weights: every pixel matters, nothing is symmetric

Each returns the bytes of a `model.onnx` with its spec inside; batch and tile are free. `load(bytes)` makes a LoadedModel.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wsiseg.model import onnxio
from wsiseg.model.load import LoadedModel, from_graphs
from wsiseg.model.spec import ModelSpec
from wsiseg.model.split import PRESENCE


def load(*graphs: bytes, weights: tuple[float, ...] | None = None, tta: str = "none") -> LoadedModel:
    """The LoadedModel of one network or an ensemble."""
    return from_graphs(graphs, [f"member {i}" for i in range(len(graphs))], weights, tta)


def constant(p: float, classes: int = 1, **spec: Any) -> bytes:
    """Probability `p` everywhere (class c gives p / (c + 1))."""
    values = np.array([p / (c + 1) for c in range(classes)], np.float32).reshape(1, classes, 1, 1)
    nodes = [
        helper.make_node("Conv", ["planar", "zeros"], ["zero"]),
        helper.make_node("Add", ["zero", "values"], [onnxio.OUTPUT]),
    ]
    weights = {"zeros": np.zeros((classes, 3, 1, 1), np.float32), "values": values}
    return _model("constant", nodes, weights, classes, spec)


def redness(blur: int = 5, gain: float = 0.25, level: float = 40.0, **spec: Any) -> bytes:
    """Sigmoid of gain * (mean over a blur x blur window of R - (G + B) / 2, minus level)."""
    kernel = np.array([1.0, -0.5, -0.5], np.float32).reshape(1, 3, 1, 1) * np.ones(
        (1, 3, blur, blur), np.float32
    )
    weights = {"kernel": kernel * np.float32(gain / blur**2), "bias": np.array([-gain * level], np.float32)}
    nodes = [
        helper.make_node("Conv", ["planar", "kernel", "bias"], ["logit"], pads=[blur // 2] * 4),
        helper.make_node("Sigmoid", ["logit"], [onnxio.OUTPUT]),
    ]
    return _model("redness", nodes, weights, 1, spec)


def beacon(gain: float = 4.0, level: float = 40.0, **spec: Any) -> bytes:
    """Redness without blur, and its presence: the sigmoid of the reddest pixel. So steep that what is not red is 0."""
    kernel = np.array([1.0, -0.5, -0.5], np.float32).reshape(1, 3, 1, 1) * np.float32(gain)
    blur = np.ones((1, 1, 3, 3), np.float32) / 9
    weights = {"kernel": kernel, "bias": np.array([-gain * level], np.float32), "blur": blur}
    nodes = [
        helper.make_node("Conv", ["planar", "kernel", "bias"], ["red"]),
        helper.make_node("ReduceMax", ["red", "axes"], ["reddest"], keepdims=0),
        helper.make_node("Sigmoid", ["reddest"], [PRESENCE]),
        helper.make_node("Conv", ["red", "blur"], ["logit"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["logit"], [onnxio.OUTPUT]),
    ]
    data = _model("beacon", nodes, weights | {"axes": np.array([1, 2, 3], np.int64)}, 1, spec)
    model = onnx.load_model_from_string(data)
    model.graph.output.append(helper.make_tensor_value_info(PRESENCE, TensorProto.FLOAT, ["batch"]))
    onnxio.set_spec(
        model, dataclasses.replace(onnxio.spec_of(model, "beacon"), has_classifier=True, presence=0.5)
    )
    return onnxio.canonical(model)


def random_conv(seed: int = 0, classes: int = 1, channels: int = 8, **spec: Any) -> bytes:
    """Two 3 x 3 convolutions with seeded weights and a sigmoid; probabilities spread over (0, 1)."""
    rng = np.random.default_rng(seed)
    weights = {
        "offset": np.full((1, 3, 1, 1), 127.5, np.float32),
        "scale": np.full((1, 3, 1, 1), 1 / 64, np.float32),
        "w1": (rng.standard_normal((channels, 3, 3, 3)) / np.sqrt(27)).astype(np.float32),
        "b1": (rng.standard_normal(channels) * 0.1).astype(np.float32),
        "w2": (rng.standard_normal((classes, channels, 3, 3)) / np.sqrt(channels)).astype(np.float32),
        "b2": np.zeros(classes, np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["planar", "offset"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["normal"]),
        helper.make_node("Conv", ["normal", "w1", "b1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["c2"], [onnxio.OUTPUT]),
    ]
    return _model(f"random{seed}", nodes, weights, classes, spec)


def with_spec(data: bytes, **changes: Any) -> bytes:
    """The same network with other values in its spec."""
    model = onnx.load_model_from_string(data)
    onnxio.set_spec(model, dataclasses.replace(onnxio.spec_of(model, "fixture"), **changes))
    return onnxio.canonical(model)


def _model(
    name: str, nodes: list, weights: dict[str, np.ndarray], classes: int, spec: dict[str, Any]
) -> bytes:
    image = helper.make_tensor_value_info(onnxio.INPUT, TensorProto.UINT8, ["batch", "tile", "tile", 3])
    output = helper.make_tensor_value_info(
        onnxio.OUTPUT, TensorProto.FLOAT, ["batch", classes, "tile", "tile"]
    )
    head = [
        helper.make_node("Cast", [onnxio.INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planar"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        head + nodes, name, [image], [output], [numpy_helper.from_array(v, k) for k, v in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnxio.OPSET)], ir_version=10)
    values: dict[str, Any] = {"name": name, "tile": 64, "tile_multiple": 1}
    if classes > 1:
        values |= {"classes": tuple(f"class{c}" for c in range(classes)), "thresholds": (0.5,) * classes}
    onnxio.set_spec(model, ModelSpec(**(values | spec)))
    onnx.checker.check_model(model)
    return onnxio.canonical(model)
