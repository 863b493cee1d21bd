"""One OpenVINO model that leaves the decoder out where the classification head sees no object.

    image, limit -> encoder -> presence -> If(presence >= limit): decoder(feature maps), else: zeros

The limit is an input, so that a warm-up with 0 runs the decoder of any tile and allocates what it needs. Feature maps
cross the If with the channels last: that is how the CPU plugin holds them, and any other layout costs a copy of each
that takes as long as the decoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsiseg.engines.openvino_ir import reason
from wsiseg.errors import ModelError
from wsiseg.model import onnxio
from wsiseg.model.load import LoadedModel
from wsiseg.model.split import split_presence

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def gated_model(model: LoadedModel, shape: list[int]) -> Any:
    """The `openvino.Model` for tiles of `shape`, [B, T, T, 3] uint8.

    Its inputs are the image and the limit float32 [1]; its outputs the probabilities float32 [B, C, T, T] and the
    presence float32 [B]. With several tiles in a batch the decoder runs when one of them needs it.

    Raises:
        ModelError: when the graph does not split, or OpenVINO cannot read its parts.
    """
    import openvino as ov

    whole = onnxio.parse(model.onnx_bytes, model.name)
    parts = [onnxio.canonical(part) for part in split_presence(whole, model.name)]
    core = ov.Core()
    try:
        head, tail = (core.read_model(part) for part in parts)
        head.reshape({head.inputs[0]: shape})
        return _joined(head, tail, shape[0])
    except RuntimeError as error:
        raise ModelError(f"{model.name}: OpenVINO cannot read the model: {reason(error)}") from error


def _joined(head: Any, tail: Any, batch: int) -> Any:
    import openvino as ov
    import openvino.opset13 as ops

    made = {name: output for output in head.outputs for name in output.get_names()}
    image = head.get_parameters()[0]
    presence = ops.reduce_max(
        ops.reshape(_source(head.outputs[0]), ops.constant(np.array([batch, -1])), special_zero=False),
        ops.constant(np.array([1])),
    )
    limit = ops.parameter([1], ov.Type.f32, name="limit")
    needed = ops.reduce_logical_or(ops.greater_equal(presence, limit), ops.constant(np.array([0])))
    gate = ops.if_op(needed.output(0))
    sources = [
        (parameter, _source(found[0]) if found else image.output(0))
        for parameter in list(tail.get_parameters())
        for found in [[made[n] for n in parameter.output(0).get_names() if n in made]]
    ]
    tail.reshape({p.output(0): source.get_partial_shape() for p, source in sources})
    crossing = []
    for parameter, source in sources:
        dims = list(source.get_shape())
        if len(dims) == 4 and source.get_element_type() == ov.Type.f32:
            last = ops.parameter([dims[axis] for axis in TO_LAST], ov.Type.f32)
            back = ops.transpose(last, ops.constant(np.array(TO_FIRST)))
            for reader in parameter.output(0).get_target_inputs():
                reader.replace_source_output(back.output(0))
            tail.add_parameters([last])
            tail.remove_parameter(parameter)
            crossing.append((ops.transpose(source, ops.constant(np.array(TO_LAST))).output(0), last))
        else:
            crossing.append((source, parameter))
    tail.validate_nodes_and_infer_types()
    result = ops.constant(np.array(list(tail.outputs[0].get_shape()), np.int64))
    zeros = ov.Model([ops.result(ops.broadcast(ops.constant(np.float32(0)), result))], [], "zeros")
    gate.set_then_body(tail)
    gate.set_else_body(zeros)
    for source, parameter in crossing:
        gate.set_input(source, parameter, None)
    probability = gate.set_output(tail.get_results()[0], zeros.get_results()[0])
    return ov.Model([ops.result(probability), ops.result(presence)], [image, limit], "gated")


def _source(output: Any) -> Any:
    """What a model's output is made from: the value that its Result node reads."""
    return output.get_node().input_value(0)
