"""A graph with a classification head, cut in two: whether a tile holds an object, and the mask of the tiles that do.

The cut follows the graph itself, not the network's name: the head is everything that the presence needs (the encoder), the
tail is everything else that the probabilities need (the decoder), and the values that cross are the encoder's feature maps.
So head and tail together do exactly the arithmetic of the whole graph, and any model whose spec says `has_classifier` splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wsiseg.errors import ModelError
from wsiseg.model import onnxio

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

PRESENCE = "presence"


def split_presence(model: ModelProto, where: str = "model") -> tuple[ModelProto, ModelProto]:
    """(head, tail) of a model with outputs probability [B, C, T, T] and presence [B].

    head: uint8 [B, T, T, 3] -> presence float32 [B], then the feature maps that the tail reads.
    tail: those feature maps, by the same names and in the same order -> probability float32 [B, C, T, T]. (A decoder that
    reads the pixels themselves has them as its last input, by the head's input's name.)
    The batch stays free in both, and both carry the model's spec.

    Raises:
        ModelError: a graph without a classification head, or whose probabilities need nothing beyond it.
    """
    import onnx

    spec = onnxio.spec_of(model, where)
    graph = model.graph
    if not spec.has_classifier or len(graph.output) < 2:
        raise ModelError(
            f"{where}: model {spec.name!r} has no classification head; train it with has_classifier = true"
        )
    mask, presence = graph.output[0].name, graph.output[1].name
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    head = _ancestors(graph, [presence], made)
    rest = _ancestors(graph, [mask], made) - head
    if not rest:
        raise ModelError(f"{where}: the probabilities of {spec.name!r} need nothing but what its head needs")
    known = _values(onnx.shape_inference.infer_shapes(model).graph)
    entry = onnxio.input_name(graph)
    wanted = [name for index in sorted(rest) for name in graph.node[index].input]
    crossing = [n for n in dict.fromkeys(wanted) if made.get(n) in head]
    missing = [n for n in crossing if n not in known]
    if missing:
        raise ModelError(f"{where}: the type of {missing[0]!r} in its graph cannot be inferred")
    features = [known[n] for n in crossing]
    sources = [known[entry]] if entry in wanted else []
    first = _part(model, "head", head, [known[entry]], [graph.output[1], *features])
    second = _part(model, "tail", rest, [*features, *sources], [graph.output[0]])
    for part in (first, second):
        onnxio.set_spec(part, spec)
        onnx.checker.check_model(part)
    return first, second


def _ancestors(graph: GraphProto, outputs: Sequence[str], made: dict[str, int]) -> set[int]:
    """Indices of the nodes that `outputs` need."""
    found: set[int] = set()
    stack = [made[name] for name in outputs if name in made]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack += [made[name] for name in graph.node[index].input if name in made]
    return found


def _values(graph: GraphProto) -> dict[str, ValueInfoProto]:
    """Type and shape of every value, with the batch named where a shape does not say it."""
    found = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        shape = value.type.tensor_type.shape
        if shape.dim and not shape.dim[0].HasField("dim_value"):
            shape.dim[0].dim_param = "batch"
        found[value.name] = value
    return found


def _part(
    model: ModelProto,
    name: str,
    nodes: set[int],
    inputs: Iterable[ValueInfoProto],
    outputs: Iterable[ValueInfoProto],
) -> ModelProto:
    """The model of some of a graph's nodes, in their order, with the weights that they use."""
    from onnx import helper

    chosen = [model.graph.node[i] for i in sorted(nodes)]
    used = {value for node in chosen for value in node.input}
    weights = [t for t in model.graph.initializer if t.name in used]
    graph = helper.make_graph(chosen, name, list(inputs), list(outputs), weights)
    return helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name="wsiseg"
    )
