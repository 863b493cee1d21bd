"""Half precision in the graph: batch norms folded in float64, weights and activations in 16 bits, the tail in float32.

TensorRT 11 is strongly typed only: what precision a layer runs in is what the graph says. The last activation and
everything after it (un-flipping, averaging) stay in float32, where a probability near a threshold needs the digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import ModelError
from wsiseg.model.batchnorm import fold_batch_norms

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

HEAVY = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])  # where the network's work is
LAST = frozenset(["Sigmoid", "Softmax", "HardSigmoid"])
HALF_MAX = 65504.0
KEPT_FLOAT = {"Resize": (1, 2)}  # inputs that the ONNX specification wants as float32 whatever the data is


@dataclass(frozen=True)
class HalfReport:
    """What became half: tensors converted, the nodes kept in float32, and the weights that rounded to zero."""

    tensors: int
    kept: tuple[str, ...]
    flushed: int
    largest: float


def to_half(model: ModelProto, where: str, kind: str = "fp16") -> tuple[ModelProto, HalfReport]:
    """The model with weights and activations in `kind` ("fp16" or "bf16"), the tail from the last activation in float32.

    Raises:
        ModelError: when a weight is not finite or too large for float16.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    half = TensorProto.FLOAT16 if kind == "fp16" else TensorProto.BFLOAT16
    result = onnx.ModelProto()
    result.CopyFrom(fold_batch_norms(model))
    graph = result.graph
    del graph.value_info[:]
    tail = _tail(graph.node, {o.name for o in graph.output})
    floats = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    in_float = {
        name
        for i, node in enumerate(graph.node)
        for p, name in enumerate(node.input)
        if i in tail or p in KEPT_FLOAT.get(node.op_type, ())
    }
    in_half = {
        name
        for i, node in enumerate(graph.node)
        for p, name in enumerate(node.input)
        if i not in tail and p not in KEPT_FLOAT.get(node.op_type, ())
    }
    tensors = {t.name: t for t in graph.initializer if t.name in floats}
    converted, flushed, largest = 0, 0, 0.0
    renamed: dict[str, str] = {}
    for name in sorted(floats & in_half):
        values = numpy_helper.to_array(tensors[name])
        peak = float(np.abs(values).max(initial=0.0))
        if not np.isfinite(peak) or (kind == "fp16" and peak > HALF_MAX):
            raise ModelError(
                f"{where}: weight {name!r} reaches {peak:g}, float16 ends at {HALF_MAX:g}; build with --precision bf16 or fp32"
            )
        largest = max(largest, peak)
        small = _cast(values, half, f"{name}/half" if name in in_float else name)
        if kind == "fp16":
            flushed += int(np.count_nonzero((values != 0) & (values.astype(np.float16) == 0)))
        if name in in_float:
            renamed[name] = small.name
            graph.initializer.append(small)
        else:
            tensors[name].CopyFrom(small)
        converted += 1
    nodes: list[NodeProto] = []
    lifted: dict[str, str] = {}
    constants = {t.name for t in graph.initializer}
    made_in_tail = {name for i in tail for name in graph.node[i].output}
    for index, node in enumerate(graph.node):
        if index in tail:
            for position, name in enumerate(node.input):
                if not name or name in made_in_tail or name in constants:
                    continue
                if name not in lifted:
                    lifted[name] = f"{name}/float"
                    nodes.append(
                        helper.make_node(
                            "Cast", [name], [lifted[name]], name=f"{name}/to_float", to=TensorProto.FLOAT
                        )
                    )
                node.input[position] = lifted[name]
        else:
            kept = KEPT_FLOAT.get(node.op_type, ())
            node.input[:] = [renamed.get(n, n) if p not in kept else n for p, n in enumerate(node.input)]
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = half
                elif (
                    attribute.type == onnx.AttributeProto.TENSOR
                    and attribute.t.data_type == TensorProto.FLOAT
                ):
                    attribute.t.CopyFrom(_cast(numpy_helper.to_array(attribute.t), half, attribute.t.name))
        nodes.append(node)
    kept_names = tuple(graph.node[i].name or graph.node[i].op_type for i in sorted(tail))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    if not kept_names:  # no activation at the end: the output itself goes back to float32
        last = graph.output[0].name
        for node in graph.node:
            node.output[:] = [f"{last}/half" if n == last else n for n in node.output]
        graph.node.append(
            helper.make_node("Cast", [f"{last}/half"], [last], name="to_float", to=TensorProto.FLOAT)
        )
    return result, HalfReport(converted, kept_names, flushed, largest)


def _tail(nodes: Iterable[NodeProto], outputs: set[str]) -> set[int]:
    """Indices of the last activations and what follows them: nodes after which no heavy operator comes."""
    nodes = list(nodes)
    before_heavy: set[str] = set()  # tensors that some heavy operator depends on
    light: list[bool] = [True] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        light[index] = node.op_type not in HEAVY and not any(name in before_heavy for name in node.output)
        if not light[index]:
            before_heavy.update(node.input)
    tail: set[int] = set()
    behind: set[str] = set()
    for index, node in enumerate(nodes):
        if light[index] and (node.op_type in LAST or any(name in behind for name in node.input)):
            tail.add(index)
            behind.update(node.output)
    return tail


def _cast(values: np.ndarray, half: int, name: str):  # type: ignore[no-untyped-def]
    from onnx import TensorProto, helper, numpy_helper

    if half == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # round to nearest, ties to even
    return helper.make_tensor(name, TensorProto.BFLOAT16, values.shape, rounded.tobytes(), raw=True)
