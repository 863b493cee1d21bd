"""Fold batch norms into the convolutions before them, in float64: fewer layers, and half precision that keeps its digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def fold_batch_norms(model: ModelProto) -> ModelProto:
    """The model with every BatchNormalization that follows a Conv folded into it, computed in float64."""
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    readers: dict[str, int] = {}
    for name in [n for node in graph.node for n in node.input] + [o.name for o in graph.output]:
        readers[name] = readers.get(name, 0) + 1
    makers = {name: node for node in graph.node for name in node.output}
    dropped: list[NodeProto] = []
    for norm in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        if (
            conv is None
            or conv.op_type != "Conv"
            or readers[norm.input[0]] != 1
            or any(n not in weights for n in norm.input[1:])
        ):
            continue
        if conv.input[1] not in weights or (
            len(conv.input) > 2 and conv.input[2] and conv.input[2] not in weights
        ):
            continue
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        gain, shift, mean, variance = (weights[n].astype(np.float64) for n in norm.input[1:5])
        factor = gain / np.sqrt(variance + epsilon)
        kernel = weights[conv.input[1]].astype(np.float64) * factor.reshape(
            -1, *[1] * (weights[conv.input[1]].ndim - 1)
        )
        bias = (
            weights[conv.input[2]].astype(np.float64)
            if len(conv.input) > 2 and conv.input[2]
            else np.zeros_like(mean)
        )
        names = [f"{norm.output[0]}/folded_weight", f"{norm.output[0]}/folded_bias"]
        for name, value in zip(names, (kernel, (bias - mean) * factor + shift), strict=True):
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        conv.input[:] = [conv.input[0], *names]
        conv.output[0] = norm.output[0]
        dropped.append(norm)
    for norm in dropped:
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    return result
