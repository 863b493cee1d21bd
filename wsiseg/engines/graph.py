"""Graph work before a compiler sees a model: fix the tile, compute shapes, allow known operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsiseg.errors import ModelError, unknown_name
from wsiseg.model import onnxio
from wsiseg.model.batchnorm import fold_batch_norms

__all__ = ["check_operators", "fix_shape", "fold_batch_norms", "fold_constants", "specialise"]

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Operators that every supported compiler maps to kernels without shape arithmetic at run time.
ALLOWED = frozenset(
    [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "DequantizeLinear",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Flatten",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
SHAPE_ARITHMETIC = frozenset(
    ["Shape", "Size", "ConstantOfShape", "Range", "NonZero", "Where", "Equal", "Expand", "Loop", "If", "Scan"]
)


def check_operators(model: ModelProto, where: str) -> None:
    """Refuse operators that are not on the list, with the reason for those that compute shapes.

    Raises:
        ModelError: naming the operator, the first node that has it, and how to get rid of it.
    """
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{where}: operator {node.domain}.{node.op_type} (node {node.name!r}) is not standard ONNX"
            )
        if node.op_type in SHAPE_ARITHMETIC:
            raise ModelError(
                f"{where}: operator {node.op_type} (node {node.name!r}) computes shapes inside the graph; export with opset "
                f"{onnxio.OPSET}, `scale_factor=` in interpolate, and a mean over the axes in place of AdaptiveAvgPool2d"
            )
        if node.op_type not in ALLOWED:
            raise ModelError(
                f"{where}: node {node.name!r}: " + unknown_name("operator", node.op_type, sorted(ALLOWED))
            )


def fold_constants(model: ModelProto) -> ModelProto:
    """The model with what depends on constants alone computed beforehand (shape arithmetic of fixed shapes too)."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    known = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(result, data_prop=True).graph.value_info}
    for value in graph.input:
        shapes[value.name] = value
    kept = []
    for node in graph.node:
        sizes = _known_sizes(node, shapes) if node.op_type == "Shape" else None
        if sizes is not None:
            known[node.output[0]] = np.array(sizes, np.int64)
        elif node.op_type == "Constant" or (
            node.input and all(not name or name in known for name in node.input)
        ):
            single = onnx.helper.make_model(
                onnx.helper.make_graph([node], "one", [], [onnx.helper.make_empty_tensor_value_info(o) for o in node.output],
                                       [onnx.numpy_helper.from_array(known[n], n) for n in dict.fromkeys(node.input) if n]),
                opset_imports=result.opset_import, ir_version=result.ir_version)  # fmt: skip
            for name, value in zip(node.output, ReferenceEvaluator(single).run(None, {}), strict=True):
                known[name] = np.asarray(value)
        else:
            kept.append(node)
            continue
    used = {name for node in kept for name in node.input} | {o.name for o in graph.output}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in known.items() if k in used
    )
    return result


def _known_sizes(node: NodeProto, shapes: dict[str, Any]) -> list[int] | None:
    """What a Shape node gives, when the dimensions that it asks for are fixed (the batch may stay free)."""
    dims = onnxio.dims(shapes[node.input[0]]) if node.input[0] in shapes else ()
    if not dims:
        return None
    bounds = {a.name: a.i for a in node.attribute}
    wanted = dims[bounds.get("start", 0) : bounds.get("end", len(dims))]
    sizes = [d for d in wanted if isinstance(d, int)]
    return sizes if len(sizes) == len(wanted) else None


def specialise(model: ModelProto, tile: int, where: str) -> ModelProto:
    """The model for one tile size and any batch, without shape arithmetic.

    Shapes are computed for a batch of 1 and of 2; what is the same in both does not depend on the batch.

    Raises:
        ModelError: when something does.
    """
    one, two = (_by_scales(fold_constants(fix_shape(model, batch, tile))) for batch in (1, 2))
    same = {t.name: t.SerializeToString() for t in one.graph.initializer} == {
        t.name: t.SerializeToString() for t in two.graph.initializer
    }
    if not same or [n.op_type for n in one.graph.node] != [n.op_type for n in two.graph.node]:
        raise ModelError(
            f"{where}: the graph holds shapes that depend on the batch; export it with a free batch dimension"
        )
    return fix_shape(one, "batch", tile)


def _by_scales(model: ModelProto) -> ModelProto:
    """The model with every Resize to a size (which holds the batch) turned into one by a factor."""
    import onnx
    from onnx import numpy_helper

    shapes = {
        v.name: onnxio.dims(v)
        for v in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    }
    weights = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if (
            node.op_type != "Resize"
            or len(node.input) < 4
            or node.input[3] not in weights
            or node.input[0] not in shapes
        ):
            continue
        given, wanted = shapes[node.input[0]], numpy_helper.to_array(weights[node.input[3]])
        if len(wanted) != len(given) or not all(isinstance(d, int) for d in given):
            continue
        scales = np.array([w / int(g) for w, g in zip(wanted, given, strict=True)], np.float32)
        name = f"{node.output[0]}/scales"
        model.graph.initializer.append(numpy_helper.from_array(scales, name))
        node.input[:] = [node.input[0], "", name]
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    return model


def fix_shape(model: ModelProto, batch: int | str, tile: int) -> ModelProto:
    """The model with its tile (and its batch, unless a name) fixed, and the stale inner shapes dropped."""
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.value_info[:]
    entry = onnxio.input_name(graph)
    (image,) = (i for i in graph.input if i.name == entry)
    classes = onnxio.dims(graph.output[0])[1:2]
    for value, sizes in (
        (image, (batch, tile, tile, 3)),
        (graph.output[0], (batch, *(classes or ("classes",)), tile, tile)),
    ):
        del value.type.tensor_type.shape.dim[:]
        for size in sizes:
            dim = value.type.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size
    return result
