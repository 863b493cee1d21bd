"""Ensembles and test-time flips, written into the ONNX graph so that every runtime gets them for free.

Flips are applied by the batch trick: the flipped copies of a batch are joined along its first axis, go through the
network in one run, and are split, flipped back and averaged. So the weights of a network are in the graph once,
whatever the number of flips, and runtimes see one ordinary network with a larger batch.

An ensemble is a weighted mean of its members' probabilities, each member with its own (prefixed) nodes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsiseg.errors import ModelError, UsageError, unknown_name
from wsiseg.model import onnxio
from wsiseg.model.spec import ModelSpec
from wsiseg.model.split import PRESENCE

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

# Each variant is (swap y and x, then flip y, then flip x), applied in this order to a tile.
_FLIPS = ((False, False, False), (False, True, False), (False, False, True), (False, True, True))
TTA: dict[str, tuple[tuple[bool, bool, bool], ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "d4": _FLIPS + tuple((True, y, x) for _, y, x in _FLIPS),
}
MPP_TOLERANCE = 0.02  # two specs whose mpp differ by less look at the same picture


def variants(tta: str) -> tuple[tuple[bool, bool, bool], ...]:
    """The tile symmetries that `tta` averages over.

    Raises:
        UsageError: for a name that does not exist.
    """
    if tta not in TTA:
        raise UsageError(unknown_name("--tta", tta, TTA))
    return TTA[tta]


def normalise_weights(count: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """One weight per member, positive, with sum 1; equal ones for None.

    Raises:
        UsageError: for a wrong number of weights or one that is not positive.
    """
    if weights is None:
        return (1.0 / count,) * count
    if len(weights) != count:
        raise UsageError(
            f"{len(weights)} weights for {count} models; give one for each, in the models' order"
        )
    if not all(math.isfinite(w) and w > 0 for w in weights):
        raise UsageError(
            f"weights must be positive numbers, not {', '.join(format(w, 'g') for w in weights)}"
        )
    total = math.fsum(weights)
    return tuple(w / total for w in weights)


def _same_mpp(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a / b - 1) <= MPP_TOLERANCE


def merge_specs(specs: Sequence[ModelSpec], weights: Sequence[float]) -> ModelSpec:
    """The spec of an ensemble: the first member's, with the members' common tile multiple and mean thresholds.

    Raises:
        ModelError: when two members do not look at, or speak of, the same thing.
    """
    first = specs[0]
    if len(specs) == 1:
        return first
    for other in specs[1:]:
        for what, a, b in (
            ("classes", ", ".join(first.classes), ", ".join(other.classes)),
            ("fill", first.fill, other.fill),
            ("scale", first.scale, other.scale),
        ):
            if a != b:
                raise ModelError(
                    f"models {first.name!r} and {other.name!r} cannot form an ensemble: {what} {a} against {b}"
                )
        if not _same_mpp(first.mpp, other.mpp):
            raise ModelError(
                f"models {first.name!r} and {other.name!r} cannot form an ensemble: mpp {first.mpp} against {other.mpp}"
            )
    multiple = math.lcm(*(spec.tile_multiple for spec in specs))
    tile = first.tile if first.tile % multiple == 0 else math.ceil(first.tile / multiple) * multiple
    thresholds = tuple(
        round(math.fsum(w * spec.thresholds[c] for w, spec in zip(weights, specs, strict=True)), 6)
        for c in range(len(first.classes))
    )
    return dataclasses.replace(
        first, name="_and_".join(spec.name for spec in specs), tile=tile, tile_multiple=multiple,
        thresholds=thresholds, overlap=max(spec.overlap for spec in specs),
        tissue="none" if any(spec.tissue == "none" for spec in specs) else first.tissue,
        has_classifier=all(spec.has_classifier for spec in specs), presence=min(spec.presence for spec in specs),
        network={}, scores={},
    )  # fmt: skip


def compose(
    models: Sequence[ModelProto],
    specs: Sequence[ModelSpec],
    weights: Sequence[float] | None = None,
    tta: str = "none",
) -> ModelProto:
    """One model whose probabilities are the weighted mean over `models` and over the flips of `tta`.

    Its spec is in its metadata. When all members have a classification head, there is a second output float32 [B]: the
    largest presence over members and flips, so that a tile counts as empty only when none of them sees an object.

    Raises:
        ModelError, UsageError: see `merge_specs`, `normalise_weights`, `variants`.
    """
    import onnx
    from onnx import TensorProto, helper

    shares = normalise_weights(len(models), weights)
    symmetries = variants(tta)
    spec = merge_specs(specs, shares)
    opsets = {
        entry.version for model in models for entry in model.opset_import if entry.domain in ("", "ai.onnx")
    }
    if len(opsets) != 1:
        raise ModelError(
            f"models of different ONNX opsets {sorted(opsets)} cannot form an ensemble; export them again with opset {onnxio.OPSET}"
        )
    build = _Builder()
    image = helper.make_tensor_value_info(onnxio.INPUT, TensorProto.UINT8, ["batch", "tile", "tile", 3])
    output = helper.make_tensor_value_info(
        onnxio.OUTPUT, TensorProto.FLOAT, ["batch", len(spec.classes), "tile", "tile"]
    )
    # uint8 may only be at the edge of a TensorRT network, so it is cast before it is flipped.
    pixels = build.node("Cast", [onnxio.INPUT], to=TensorProto.FLOAT)
    stacked = _flip_and_stack(build, pixels, symmetries)
    means, presences = [], []
    for index, (model, share) in enumerate(zip(models, shares, strict=True)):
        wanted = [value.name for value in model.graph.output[: 1 + spec.has_classifier]]
        probability, *head = _inline(build, model.graph, stacked, f"m{index}/", wanted)
        presences += [part for value in head for part in _presence(build, value, len(symmetries))]
        mean = _split_and_unflip(build, probability, symmetries)
        factor = share / len(symmetries)
        means.append(mean if factor == 1 else build.node("Mul", [mean, build.scalar(factor)]))
    build.node("Sum" if len(means) > 1 else "Identity", means, output=onnxio.OUTPUT)
    outputs = [output]
    if presences:
        build.node("Max", presences, output=PRESENCE)
        outputs.append(helper.make_tensor_value_info(PRESENCE, TensorProto.FLOAT, ["batch"]))
    graph = helper.make_graph(build.nodes, "composed", [image], outputs, build.weights)
    result = helper.make_model(
        graph, producer_name="wsiseg", ir_version=max(model.ir_version for model in models)
    )
    del result.opset_import[:]
    seen: set[str] = set()
    for model in models:
        for entry in model.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if domain not in seen:
                seen.add(domain)
                result.opset_import.append(helper.make_opsetid(domain, entry.version))
        if model.functions:
            raise ModelError(
                f"model {model.graph.name!r} has local functions, which cannot be composed; inline them with onnx.inliner first"
            )
    onnxio.set_spec(result, spec)
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the models cannot be composed: {str(error).splitlines()[0]}") from error
    return result


class _Builder:
    """Nodes and constants of the graph being written, with fresh names."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []
        self._constants: dict[tuple, str] = {}
        self._count = 0

    def node(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        return self.split(op, inputs, 1, [output] if output else None, **attributes)[0]

    def split(
        self,
        op: str,
        inputs: Sequence[str],
        count: int,
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        from onnx import helper

        self._count += 1
        names = list(outputs) if outputs else [f"tta/{self._count}_{op}_{i}" for i in range(count)]
        self.nodes.append(
            helper.make_node(op, list(inputs), names, name=f"tta/{self._count}_{op}", **attributes)
        )
        return names

    def constant(self, values: Sequence[int]) -> str:
        from onnx import TensorProto, helper

        return self._constant(
            ("i", *values), lambda name: helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        )

    def scalar(self, value: float) -> str:
        from onnx import TensorProto, helper

        return self._constant(
            ("f", value), lambda name: helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        )

    def _constant(self, key: tuple, make) -> str:  # type: ignore[no-untyped-def]
        if key not in self._constants:
            self._constants[key] = f"tta/constant_{len(self._constants)}"
            self.weights.append(make(self._constants[key]))
        return self._constants[key]

    def flip(self, value: str, axes: Sequence[int]) -> str:
        if not axes:
            return value
        count = len(axes)
        starts, ends, steps = [-1] * count, [-(2**31)] * count, [-1] * count
        return self.node("Slice", [value, *(self.constant(v) for v in (starts, ends, axes, steps))])


def _flip_and_stack(build: _Builder, pixels: str, symmetries: Sequence[tuple[bool, bool, bool]]) -> str:
    """The variants of float [B, T, T, 3] along the batch axis: [k B, T, T, 3]."""
    if len(symmetries) == 1:
        return pixels
    copies = []
    for swap, flip_y, flip_x in symmetries:
        value = build.node("Transpose", [pixels], perm=[0, 2, 1, 3]) if swap else pixels
        copies.append(build.flip(value, [axis for axis, on in ((1, flip_y), (2, flip_x)) if on]))
    return build.node("Concat", copies, axis=0)


def _split_and_unflip(
    build: _Builder, probability: str, symmetries: Sequence[tuple[bool, bool, bool]]
) -> str:
    """The sum over the variants of [k B, C, T, T], each turned back: [B, C, T, T]."""
    if len(symmetries) == 1:
        return probability
    parts = build.split("Split", [probability], len(symmetries), axis=0, num_outputs=len(symmetries))
    turned = []
    for part, (swap, flip_y, flip_x) in zip(parts, symmetries, strict=True):
        value = build.flip(part, [axis for axis, on in ((2, flip_y), (3, flip_x)) if on])
        turned.append(build.node("Transpose", [value], perm=[0, 1, 3, 2]) if swap else value)
    return build.node("Sum", turned)


def _presence(build: _Builder, value: str, copies: int) -> list[str]:
    """A head's [k B] or [k B, C] for the k flipped copies of a batch, as k values [B]: any class counts."""
    flat = build.node("Flatten", [value], axis=1)
    largest = build.node("ReduceMax", [flat, build.constant([1])], keepdims=0)
    if copies == 1:
        return [largest]
    return build.split("Split", [largest], copies, axis=0, num_outputs=copies)


def _inline(
    build: _Builder, graph: GraphProto, source: str, prefix: str, outputs: Sequence[str]
) -> list[str]:
    """Add the nodes of `graph` that `outputs` need, reading `source`; the new names of these outputs."""
    import onnx

    entry = onnxio.input_name(graph)
    made = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needed: set[int] = set()
    wanted: set[str] = set()
    stack = list(outputs)
    while stack:
        name = stack.pop()
        if name in wanted:
            continue
        wanted.add(name)
        if name in made and made[name] not in needed:
            needed.add(made[name])
            stack.extend(graph.node[made[name]].input)

    def rename(name: str) -> str:
        return "" if not name else (source if name == entry else prefix + name)

    for index, node in enumerate(graph.node):
        if index not in needed:
            continue
        if any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for attribute in node.attribute
        ):
            raise ModelError(
                f"model {graph.name!r} has control flow ({node.op_type}), which cannot be composed"
            )
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = prefix + (node.name or str(index))
        copy.input[:] = [rename(name) for name in node.input]
        copy.output[:] = [rename(name) for name in node.output]
        build.nodes.append(copy)
    for tensor in graph.initializer:
        if tensor.name in wanted:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = prefix + tensor.name
            build.weights.append(copy)
    return [rename(name) for name in outputs]
