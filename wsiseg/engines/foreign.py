"""Wrap a foreign ONNX network into our graph contract: uint8 [B, T, T, 3] RGB in, float32 probabilities [B, C, T, T] out.

What a foreign network expects (layout, channel order, normalisation) and gives (logits or probabilities, layout, lower
resolution) is said by a short TOML file and becomes nodes around its graph. Then it is run on a tile, and what was found
is told: a wrong word in the file shows there, not in a submission.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsiseg.engines import graph, openvino_ir
from wsiseg.errors import ModelError, unknown_name
from wsiseg.model import onnxio
from wsiseg.model.spec import ModelSpec

if TYPE_CHECKING:
    from onnx import ModelProto

LAYOUTS = ("NCHW", "NHWC")
ORDERS = ("RGB", "BGR")
GIVES = ("logits", "probabilities")
EXAMPLE = """\
name = "my-model"            # [model] fields of the model spec are at the top level
classes = ["glomerulus"]
tile = 512
tile_multiple = 32
mpp = 2.0                    # microns per network pixel
scale = 4                    # slide pixels per network pixel where a slide has no mpp
activation = "sigmoid"       # or "softmax": then channel 0 is the background

[input]
layout = "NCHW"              # or "NHWC"
channels = "RGB"             # or "BGR"
mean = [123.675, 116.28, 103.53]   # subtracted, in 0..255
std = [58.395, 57.12, 57.375]      # divided by, in 0..255

[output]
gives = "logits"             # or "probabilities"
layout = "NCHW"
name = ""                    # which output; "" is the first
"""


@dataclass(frozen=True)
class Foreign:
    """What a foreign network expects and gives.

    Attributes:
        spec: the model spec it will carry.
        layout, channels: of its input. gives: "logits" or "probabilities". output_layout, output: of its output.
    """

    spec: ModelSpec
    layout: str = "NCHW"
    channels: str = "RGB"
    gives: str = "logits"
    output_layout: str = "NCHW"
    output: str = ""


def read_spec(path: Path) -> Foreign:
    """The description in a TOML file; see `EXAMPLE`.

    Raises:
        ModelError: naming the file and the field.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not TOML ({error})") from error
    given, result = _table(data, "input", path), _table(data, "output", path)
    for table, name, known in (
        (given, "input", ("layout", "channels", "mean", "std")),
        (result, "output", ("gives", "layout", "name")),
    ):
        for key in table:
            if key not in known:
                raise ModelError(f"{path}: " + unknown_name(f"[{name}] field", key, known))
    for value, what, words in (
        (given.get("layout", "NCHW"), "[input] layout", LAYOUTS),
        (given.get("channels", "RGB"), "[input] channels", ORDERS),
        (result.get("gives", "logits"), "[output] gives", GIVES),
        (result.get("layout", "NCHW"), "[output] layout", LAYOUTS),
    ):
        if value not in words:
            raise ModelError(f"{path}: " + unknown_name(what, value, words))
    classes = data.get("classes", ["object"])
    fields = {
        "mean": (0.0, 0.0, 0.0),
        "std": (255.0, 255.0, 255.0),
        "thresholds": [0.5] * len(classes),
        **data,
    }
    fields |= {key: given[key] for key in ("mean", "std") if key in given}
    for key in ("mean", "std"):
        values = fields[key]
        if (
            len(values) != 3
            or not all(isinstance(v, int | float) for v in values)
            or (key == "std" and 0 in values)
        ):
            raise ModelError(
                f"{path}: [input] {key} must be three numbers{' other than 0' * (key == 'std')}, in 0..255 units"
            )
    spec = ModelSpec.from_dict({"format": 1, **fields}, str(path))
    return Foreign(
        spec,
        given.get("layout", "NCHW"),
        given.get("channels", "RGB"),
        result.get("gives", "logits"),
        result.get("layout", "NCHW"),
        result.get("name", ""),
    )


def _table(data: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = data.pop(name, {})
    if not isinstance(table, dict):
        raise ModelError(f"{path}: [{name}] must be a table")
    return table


def import_onnx(path: Path, foreign: Foreign, tell: Callable[[str], None]) -> tuple[bytes, ModelSpec]:
    """The wrapped model in a foreign ONNX file, and the spec it carries; `tell` receives what was found.

    Raises:
        ModelError: for a file that cannot be read, or a network that does not fit its description.
    """
    where = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    spec = foreign.spec
    fixed = fixed_tile(data, foreign.layout, where)
    if fixed and (spec.tile != fixed or spec.tile_multiple != fixed):
        tell(f"the network is fixed to tiles of {fixed}")
        spec = dataclasses.replace(spec, tile=fixed, tile_multiple=fixed)
        foreign = dataclasses.replace(foreign, spec=spec)
    shape = openvino_ir.output_shape(
        onnxio.canonical(wrap(data, foreign, where)), [2, spec.tile, spec.tile, 3], where
    )
    channels = len(spec.classes)
    if len(shape) != 4 or shape[1] != channels:
        found = shape[1] if len(shape) == 4 else shape
        background = (
            " (softmax: the background comes first and is not a class)"
            if spec.activation == "softmax"
            else ""
        )
        raise ModelError(
            f"{path}: the network gives {found} channels, the spec names {channels} classes{background}; check [output] layout and classes"
        )
    enlarge = shrinkage(shape, spec.tile, where)
    if enlarge > 1:
        tell(f"the network's output is {enlarge} times smaller than its input; it is enlarged bilinearly")
    return onnxio.canonical(wrap(data, foreign, where, enlarge)), spec


def wrap(data: bytes, foreign: Foreign, where: str, enlarge: int = 1) -> ModelProto:
    """The network with nodes around it that keep our contract, its spec in the metadata.

    Args:
        data: the foreign ONNX bytes. enlarge: the network's output is this many times smaller than its input.

    Raises:
        ModelError: for a graph with other inputs, other opsets, or no such output.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    source = _at_opset(onnxio.parse(data, where), where)
    inner = source.graph
    weights = {t.name for t in inner.initializer}
    inputs = [i for i in inner.input if i.name not in weights]
    outputs = [o.name for o in inner.output]
    if len(inputs) != 1:
        raise ModelError(
            f"{where}: the network has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), wsiseg gives one picture"
        )
    if foreign.output and foreign.output not in outputs:
        raise ModelError(f"{where}: " + unknown_name("output", foreign.output, outputs))
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8):
        raise ModelError(
            f"{where}: the network takes {TensorProto.DataType.Name(kind).lower()}, not float or uint8 pixels"
        )
    nodes: list[onnx.NodeProto] = []
    extra: list[onnx.TensorProto] = []

    def add(op: str, value: str, *more: str, **attributes: Any) -> str:
        name = f"wsiseg/{len(nodes)}_{op}"
        nodes.append(helper.make_node(op, [value, *more], [name], name=name, **attributes))
        return name

    def constant(values: Any, dtype: Any) -> str:
        name = f"wsiseg/constant_{len(extra)}"
        extra.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    spec = foreign.spec
    value = add("Cast", onnxio.INPUT, to=TensorProto.FLOAT)
    if foreign.channels == "BGR":
        value = add(
            "Slice",
            value,
            constant([-1], np.int64),
            constant([-4], np.int64),
            constant([3], np.int64),
            constant([-1], np.int64),
        )
    # mean and std are told in RGB for the record, and meant in the network's own channel order.
    if any(spec.mean):
        value = add("Sub", value, constant(spec.mean, np.float32))
    if any(s != 1 for s in spec.std):
        value = add("Div", value, constant(spec.std, np.float32))
    if foreign.layout == "NCHW":
        value = add("Transpose", value, perm=[0, 3, 1, 2])
    if kind != TensorProto.FLOAT:
        value = add("Cast", value, to=kind)
    names = {inputs[0].name: value}
    for node in inner.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(n, f"net/{n}" if n else "") for n in node.input]
        copy.output[:] = [f"net/{n}" if n else "" for n in node.output]
        copy.name = f"net/{node.name}"
        nodes.append(copy)
    for tensor in inner.initializer:
        copy_ = onnx.TensorProto()
        copy_.CopyFrom(tensor)
        copy_.name = f"net/{tensor.name}"
        extra.append(copy_)
    value = f"net/{foreign.output or outputs[0]}"
    value = add("Cast", value, to=TensorProto.FLOAT)
    if foreign.output_layout == "NHWC":
        value = add("Transpose", value, perm=[0, 3, 1, 2])
    if enlarge > 1:
        value = add(
            "Resize",
            value,
            "",
            constant([1, 1, enlarge, enlarge], np.float32),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    if foreign.gives == "logits":
        value = add("Sigmoid", value) if spec.activation == "sigmoid" else add("Softmax", value, axis=1)
    if spec.activation == "softmax":
        value = add(
            "Slice", value, constant([1], np.int64), constant([2**31 - 1], np.int64), constant([1], np.int64)
        )
    nodes.append(helper.make_node("Identity", [value], [onnxio.OUTPUT], name="wsiseg/out"))
    image = helper.make_tensor_value_info(onnxio.INPUT, TensorProto.UINT8, ["batch", "tile", "tile", 3])
    result = helper.make_tensor_value_info(
        onnxio.OUTPUT, TensorProto.FLOAT, ["batch", len(spec.classes), "tile", "tile"]
    )
    model = helper.make_model(
        helper.make_graph(nodes, "wrapped", [image], [result], extra),
        producer_name="wsiseg",
        ir_version=source.ir_version,
        opset_imports=source.opset_import,
    )
    onnxio.set_spec(model, spec)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{where}: the network cannot be wrapped: {str(error).splitlines()[0]}") from error
    return model


def fixed_tile(data: bytes, layout: str, where: str) -> int | None:
    """The tile that a foreign graph is fixed to, or None when its height and width are free.

    Raises:
        ModelError: for a fixed size that is not square.
    """
    model = onnxio.parse(data, where)
    name = onnxio.input_name(model.graph)
    dims = onnxio.dims(next(i for i in model.graph.input if i.name == name))
    if len(dims) != 4:
        raise ModelError(
            f"{where}: the network takes {len(dims)} dimensions {list(dims)}, not a batch of pictures"
        )
    height, width = (dims[2], dims[3]) if layout == "NCHW" else (dims[1], dims[2])
    if isinstance(height, int) and isinstance(width, int):
        if height != width:
            raise ModelError(
                f"{where}: the network is fixed to {width} x {height}; wsiseg's tiles are square, export it with free height and width"
            )
        return height
    return None


def _at_opset(model: ModelProto, where: str) -> ModelProto:
    import onnx

    found = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=0)
    if found >= onnxio.OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, onnxio.OPSET)
    except Exception as error:  # the converter raises bare RuntimeErrors of many kinds
        raise ModelError(
            f"{where}: opset {found} cannot be converted to {onnxio.OPSET} ({str(error).splitlines()[0][:120]}); export it again"
        ) from error


def judge(probability: npt.NDArray[np.float32], foreign: Foreign, where: str) -> list[str]:
    """What the output on a tile says about the description; lines for people.

    Raises:
        ModelError: when it cannot be probabilities.
    """
    low, high, mean = float(probability.min()), float(probability.max()), float(probability.mean())
    if not np.isfinite(probability).all():
        raise ModelError(f"{where}: the network gives values that are not finite; check mean and std")
    if low < -1e-3 or high > 1 + 1e-3:
        raise ModelError(
            f'{where}: the network gives {low:.3g} to {high:.3g}, which are no probabilities; set gives = "logits" in [output]'
        )
    lines = [f"probabilities from {low:.4f} to {high:.4f}, mean {mean:.4f}"]
    if (
        foreign.gives == "logits"
        and foreign.spec.activation == "sigmoid"
        and low >= 0.4999
        and high <= 0.7312
    ):
        lines.append(
            'all between 0.5 and 0.731, as if a sigmoid was applied twice: is it gives = "probabilities"?'
        )
    elif high - low < 1e-4:
        lines.append(
            "nearly the same everywhere: check the normalisation, and look at a tile with objects (--slide)"
        )
    return lines


def operators(model: ModelProto, tile: int, where: str) -> str:
    """What a GPU compiler would say of the graph: "" or the reason why no TensorRT engine can be built of it."""
    try:
        graph.check_operators(graph.specialise(model, tile, where), where)
    except ModelError as error:
        return str(error)
    return ""


def shrinkage(shape: Sequence[int], tile: int, where: str) -> int:
    """How many times smaller than the tile an output [B, C, h, w] is.

    Raises:
        ModelError: when it is no whole number.
    """
    height, width = shape[2], shape[3]
    if height < 1 or tile % height or height != width:
        raise ModelError(
            f"{where}: for tiles of {tile} the network gives {width} x {height}, which is no whole share; check [output] layout"
        )
    return tile // height
