"""Read and write ONNX models that keep our graph contract: uint8 [B, T, T, 3] in, float32 [B, C, T, T] out.

`onnx` is imported when a function runs, so that naming this module costs nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.errors import ModelError, OutputError
from wsiseg.model.spec import METADATA_KEY, ModelSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

INPUT = "image"
OUTPUT = "probability"
OPSET = 18


def parse(data: bytes, where: str) -> ModelProto:
    """The ONNX model in `data`; `where` is what errors call it.

    Raises:
        ModelError: when it is empty, damaged, no ONNX, or keeps its weights in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise ModelError(f"{where}: the file is empty")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{where}: not an ONNX model, or a damaged one") from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(f"{where}: not an ONNX model, or a damaged one (no graph in it)")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(
                f"{where}: its weights are in another file ({tensor.name!r}); save the model as one file"
            )
    return model


def spec_of(model: ModelProto, where: str) -> ModelSpec:
    """The model spec in the metadata.

    Raises:
        ModelError: when there is none, or one that does not fit.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return ModelSpec.from_json(entry.value, where)
    raise ModelError(
        f"{where}: an ONNX model without a wsiseg model spec; wrap it with `wsiseg import-model {where} --spec SPEC.toml`"
    )


def set_spec(model: ModelProto, spec: ModelSpec) -> None:
    """Put `spec` into the metadata of `model`, in place of the one there."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    for key, value in sorted([*kept, (METADATA_KEY, spec.to_json())]):
        model.metadata_props.add(key=key, value=value)


def dims(graph_value: object) -> tuple[int | str, ...]:
    """The dimensions of a graph input or output: an int where it is fixed, else its name or "?"."""
    shape = graph_value.type.tensor_type.shape  # type: ignore[attr-defined]
    return tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in shape.dim)


def check_contract(model: ModelProto, spec: ModelSpec, where: str) -> None:
    """Refuse a graph that is not uint8 [B, T, T, 3] -> float32 [B, C, T, T] with free B and T, cast first.

    Raises:
        ModelError: naming what is wrong and what would be right.
    """
    import onnx

    hint = f"; wrap it with `wsiseg import-model {where} --spec SPEC.toml`"
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f"{where}: the graph has {len(inputs)} inputs, it must have one{hint}")
    given = dims(inputs[0])
    kind = inputs[0].type.tensor_type.elem_type
    if kind != onnx.TensorProto.UINT8 or len(given) != 4 or given[3] != 3:
        name = onnx.TensorProto.DataType.Name(kind).lower()
        raise ModelError(f"{where}: the graph takes {name} {list(given)}, not uint8 [B, T, T, 3]{hint}")
    if any(
        node.op_type not in ("Cast", "Shape")
        for node in graph.node
        for name in node.input
        if name == inputs[0].name
    ):
        raise ModelError(f"{where}: the graph must cast its uint8 input before anything else{hint}")
    if not graph.output:
        raise ModelError(f"{where}: the graph has no output")
    result = dims(graph.output[0])
    kind = graph.output[0].type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT or (result and len(result) != 4):
        name = onnx.TensorProto.DataType.Name(kind).lower()
        raise ModelError(f"{where}: the graph gives {name} {list(result)}, not float32 [B, C, T, T]{hint}")
    if result and isinstance(result[1], int) and result[1] != len(spec.classes):
        raise ModelError(
            f"{where}: the graph gives {result[1]} channels, its spec names {len(spec.classes)} classes"
        )
    if isinstance(given[1], int) and given[1] % spec.tile_multiple:
        raise ModelError(
            f"{where}: the graph's tile of {given[1]} is not a multiple of the spec's {spec.tile_multiple}"
        )


def canonical(model: ModelProto) -> bytes:
    """The model's bytes, the same for equal models."""
    return model.SerializeToString(deterministic=True)


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def input_name(graph: GraphProto) -> str:
    """The name of the graph's one input (older exporters list weights among the inputs)."""
    weights = {t.name for t in graph.initializer}
    return next(i.name for i in graph.input if i.name not in weights)


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        OutputError: naming the path and the system's reason.
    """
    target = Path(path)
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
