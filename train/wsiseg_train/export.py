"""A checkpoint becomes an ONNX graph that keeps the contract: uint8 [B, T, T, 3] RGB in, float32 [B, C, T, T] probabilities out.

Normalisation and the last sigmoid are inside; batch and tile stay free dimensions where the network's graph needs no shape
arithmetic for them; batch norm is folded (by the exporter); the spec travels in the metadata. (Flips and ensembles: `wsiseg.model.compose`;
half precision: `wsiseg.engines.graph`. Both work on these bytes.)
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

from wsiseg.errors import ModelError
from wsiseg.model import onnxio
from wsiseg.model.spec import METADATA_KEY, ModelSpec
from wsiseg.model.split import PRESENCE, split_presence
from wsiseg_train.checkpoint import load_checkpoint

OPSET = 18
INPUT, OUTPUT = "image", "probability"


class GraphModel(nn.Module):
    """The whole graph around a network of logits.

    Input uint8 (or float) [B, T, T, 3] RGB; output float32 [B, C, T, T]. With `spec.has_classifier` the network gives
    (logits, head [B]) and the graph a second output float32 [B]: the probability that the tile holds an object.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("gain", 1.0 / torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = (image.to(self.mean.dtype).permute(0, 3, 1, 2) - self.mean) * self.gain
        y = self.net(x)
        if self.spec.has_classifier:
            return self.activate(y[0].float()), torch.sigmoid(y[1].float()).flatten()
        return self.activate(y.float())

    def activate(self, logits: Tensor) -> Tensor:
        """Logits [B, C, T, T] to the probabilities that the graph gives out."""
        if self.spec.activation == "softmax":
            return torch.softmax(logits, 1)[:, 1:]
        return torch.sigmoid(logits)


def export_onnx(
    source: str | os.PathLike[str] | nn.Module, spec: ModelSpec | None = None, *, tile: int | None = None
) -> bytes:
    """ONNX bytes (opset 18) of a checkpoint or of a network of logits.

    Args:
        source: path of a `ckpt.pt`, or a module float [B, 3, T, T] -> logits [B, C, T, T].
        spec: needed for a module; a checkpoint brings its own.
        tile: a fixed tile edge; None keeps height and width free dimensions, and falls back to the spec's tile
            where the network's graph would need shape arithmetic for that.

    Raises:
        ModelError: no spec, or a network that ONNX cannot express.
    """
    if isinstance(source, nn.Module):
        net = copy.deepcopy(source).float().eval()
    else:
        net, found = load_checkpoint(source)
        spec = spec or found
    if spec is None:
        raise ModelError("a network without a checkpoint needs a model spec to be exported")
    if hasattr(net, "drop_auxiliary"):
        net.drop_auxiliary()
    model = _export(GraphModel(net, spec).eval(), spec, tile)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    for node in (
        model.graph.node
    ):  # the exporter leaves Python stack traces, with paths of this machine, on every node
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def export_split(
    source: str | os.PathLike[str] | nn.Module, spec: ModelSpec | None = None, *, tile: int | None = None
) -> tuple[bytes, bytes]:
    """(head.onnx, tail.onnx) of a network with a classification head: see `wsiseg.model.split.split_presence`.

    head: uint8 [B, T, T, 3] -> presence float32 [B] and the encoder's feature maps; tail: those -> float32 [B, C, T, T].

    Raises:
        ModelError: also for a network without a classification head.
    """
    model = onnxio.parse(export_onnx(source, spec, tile=tile), "exported graph")
    head, tail = split_presence(model, spec.name if spec else os.fspath(source))  # type: ignore[arg-type]
    return onnxio.canonical(head), onnxio.canonical(tail)


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
    names = [OUTPUT, PRESENCE] if graph.spec.has_classifier else [OUTPUT]
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
        raise ModelError(
            f"network {graph.spec.network.get('name')!r} cannot be exported to ONNX ({type(error).__name__}: {line})"
        ) from error
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
