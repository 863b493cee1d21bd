"""A checkpoint becomes an ONNX graph that keeps the contract: uint8 [B, T, T, 3] RGB in, float32 [B, C, T, T] probabilities out.

Normalisation, test-time flips, ensembles and the last sigmoid are inside; batch and tile stay free dimensions where the
network's graph needs no shape arithmetic for them; batch norm is folded; the spec travels in the metadata.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from wsiseg.errors import ModelError
from wsiseg.model.spec import METADATA_KEY, ModelSpec
from wsiseg_train.checkpoint import load_checkpoint

OPSET = 18
INPUT, OUTPUT = "image", "probability"
TTA = ("none", "flips", "d4")


class GraphModel(nn.Module):
    """The whole graph around one or several networks of logits.

    Args:
        nets: networks that share the spec; their probabilities are averaged.
        tta: "none", "flips" (4 views) or "d4" (8 views), averaged as probabilities.

    Input uint8 (or float) [B, T, T, 3] RGB; output float32 [B, C, T, T]. With `spec.has_classifier` a second output
    float32 [B]: the probability that the tile holds an object, of the unflipped view.
    """

    def __init__(self, nets: Sequence[nn.Module], spec: ModelSpec, tta: str = "none") -> None:
        super().__init__()
        if tta not in TTA:
            raise ModelError(f"tta {tta!r} is not one of {', '.join(TTA)}")
        self.nets = nn.ModuleList(nets)
        self.spec, self.tta = spec, tta
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("gain", 1.0 / torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = (image.to(self.mean.dtype).permute(0, 3, 1, 2) - self.mean) * self.gain
        views = [x]
        if self.tta != "none":
            views = [x, x.flip(3), x.flip(2), x.flip(2, 3)]
        if self.tta == "d4":
            views += [v.transpose(2, 3) for v in views]
        total: Tensor | None = None
        presence: Tensor | None = None
        for i, view in enumerate(views):
            for net in self.nets:
                logits = net(view)
                if self.spec.has_classifier:
                    logits, head = logits
                    if i == 0:
                        p = torch.sigmoid(head.float()).flatten()
                        presence = p if presence is None else presence + p
                p = self._undo(self._activate(logits.float()), i)
                total = p if total is None else total + p
        assert total is not None
        count = len(views) * len(self.nets)
        probability = total / count if count > 1 else total
        if presence is None:
            return probability
        return probability, presence / len(self.nets) if len(self.nets) > 1 else presence

    def _activate(self, logits: Tensor) -> Tensor:
        if self.spec.activation == "softmax":
            return torch.softmax(logits, 1)[:, 1:]
        return torch.sigmoid(logits)

    @staticmethod
    def _undo(p: Tensor, view: int) -> Tensor:
        if view >= 4:
            p = p.transpose(2, 3)
        return (p, p.flip(3), p.flip(2), p.flip(2, 3))[view % 4]


def export_onnx(
    source: str | os.PathLike[str] | nn.Module | Sequence[str | os.PathLike[str] | nn.Module],
    spec: ModelSpec | None = None,
    *,
    tile: int | None = None,
    tta: str = "none",
    half: bool = False,
) -> bytes:
    """ONNX bytes (opset 18) of a checkpoint, a network of logits, or several of them (an ensemble, averaged).

    Args:
        source: path of a `ckpt.pt`, a module float [B, 3, T, T] -> logits [B, C, T, T], or a sequence of these.
        spec: needed for a module; a checkpoint brings its own (the first one's counts in an ensemble).
        tile: a fixed tile edge; None keeps height and width free dimensions, and falls back to the spec's tile
            when the network cannot be exported that way.
        tta: test-time views averaged inside the graph: "none", "flips", "d4".
        half: float16 weights and arithmetic, the last sigmoid in float32 (TensorRT wants half precision in the graph).

    Raises:
        ModelError: no spec, weights that overflow float16, or a network that ONNX cannot express.
    """
    sources = [source] if isinstance(source, str | os.PathLike | nn.Module) else list(source)
    nets: list[nn.Module] = []
    for item in sources:
        if isinstance(item, nn.Module):
            nets.append(copy.deepcopy(item).float().eval())
        else:
            net, found = load_checkpoint(item)
            spec = spec or found
            nets.append(net)
    if spec is None:
        raise ModelError("a network without a checkpoint needs a model spec to be exported")
    for net in nets:
        if hasattr(net, "drop_auxiliary"):
            net.drop_auxiliary()
    graph = GraphModel(nets, spec, tta).eval()
    model = _export(graph, spec, tile)
    _fold_batch_norm(model)
    if half:
        _to_half(model)
    for entry in list(model.metadata_props):
        model.metadata_props.remove(entry)
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    for node in model.graph.node:  # the exporter leaves Python stack traces, with paths of this machine, on every node
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _export(graph: GraphModel, spec: ModelSpec, tile: int | None) -> onnx.ModelProto:
    edge = tile or spec.tile
    if tile is None:
        try:
            model = _trace(graph, edge, dynamic=True)
            if not any(node.op_type == "Shape" for node in model.graph.node):
                return model
        except ModelError:
            pass
    return _trace(graph, edge, dynamic=False)


def _trace(graph: GraphModel, tile: int, dynamic: bool) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1)
    shapes: dict[int, object] = {0: batch}
    if dynamic:
        shapes |= {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    example = torch.zeros((2, tile, tile, 3), dtype=torch.uint8)
    names = [OUTPUT, "presence"] if graph.spec.has_classifier else [OUTPUT]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph, (example,), dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=names,
                dynamic_shapes={"image": shapes}, optimize=True, verbose=False, external_data=False,
            )  # fmt: skip
    except Exception as error:
        line = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        raise ModelError(f"network {graph.spec.network.get('name')!r} cannot be exported to ONNX ({type(error).__name__}: {line})") from error
    assert program is not None
    model = program.model_proto
    _name_dimensions(model, dynamic)
    return model


def _name_dimensions(model: onnx.ModelProto, dynamic: bool) -> None:
    """Clear names for the free dimensions: the exporter's own are symbols such as s77."""

    def rename(value: onnx.ValueInfoProto, names: Sequence[str | None]) -> None:
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if name and not dim.HasField("dim_value"):
                dim.dim_param = name

    rename(model.graph.input[0], ("batch", "height", "width", None))
    rename(model.graph.output[0], ("batch", None, "height", "width"))
    for extra in model.graph.output[1:]:
        rename(extra, ("batch",))
    del model.graph.value_info[:]  # inner shapes hold the old symbols, and every runtime infers them anew


def _fold_batch_norm(model: onnx.ModelProto) -> None:
    """Fold each BatchNormalization into the convolution that feeds it and nothing else, in float64."""
    graph = model.graph
    weights = {t.name: t for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for node in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        conv = makers.get(node.input[0])
        if conv is None or conv.op_type != "Conv" or uses[node.input[0]] > 1 or uses[conv.input[1]] > 1:
            continue
        if any(name not in weights for name in [*node.input[1:5], conv.input[1]]):
            continue
        gamma, beta, mean, var = (numpy_helper.to_array(weights[n]).astype(np.float64) for n in node.input[1:5])
        eps = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        gain = gamma / np.sqrt(var + eps)
        kernel = numpy_helper.to_array(weights[conv.input[1]])
        bias = numpy_helper.to_array(weights[conv.input[2]]).astype(np.float64) if len(conv.input) > 2 else 0.0
        folded = (kernel.astype(np.float64) * gain.reshape(-1, *[1] * (kernel.ndim - 1))).astype(kernel.dtype)
        name = conv.input[1] + ".folded"
        graph.initializer.append(numpy_helper.from_array(folded, name))
        graph.initializer.append(numpy_helper.from_array((beta + (bias - mean) * gain).astype(kernel.dtype), name + ".bias"))
        del conv.input[1:]
        conv.input.extend([name, name + ".bias"])
        conv.output[0] = node.output[0]
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _to_half(model: onnx.ModelProto) -> None:
    """float16 from the first cast up to the last activation, which stays float32 with a cast before it.

    Raises:
        ModelError: a weight that does not fit float16.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    full: set[int] = set()  # nodes that stay float32: from the outputs back to each last activation
    queue = [value.name for value in graph.output]
    while queue:
        node = makers.get(queue.pop())
        if node is None or id(node) in full:
            continue
        full.add(id(node))
        if node.op_type not in ("Sigmoid", "Softmax"):
            queue += list(node.input)
    tensors = {t.name: t for t in graph.initializer}
    halves: dict[str, str] = {}
    casts: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if id(node) in full:
            for i, name in enumerate(node.input):
                if name in makers and id(makers[name]) not in full and makers[name].op_type != "Constant":
                    if name not in casts:
                        casts[name] = name + ".float"
                        nodes.append(onnx.helper.make_node("Cast", [name], [casts[name]], to=onnx.TensorProto.FLOAT))
                    node.input[i] = casts[name]
        elif node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                    attribute.i = onnx.TensorProto.FLOAT16
        else:
            for i, name in enumerate(node.input):
                tensor = tensors.get(name)
                keep = node.op_type == "Resize" and i > 0  # its scales are float32 by definition
                if tensor is None or keep or tensor.data_type != onnx.TensorProto.FLOAT:
                    continue
                if name not in halves:
                    values = numpy_helper.to_array(tensor)
                    if values.size and float(np.abs(values).max()) > 65504:
                        raise ModelError(f"weight {name!r} overflows half precision ({float(np.abs(values).max()):.3g}); use FP32")
                    halves[name] = name + ".half"
                    graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), halves[name]))
                node.input[i] = halves[name]
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
