"""OpenVINO models in and out of bytes: ONNX graphs, and engines that are one file of the representation's two."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.errors import EngineError, ModelError
from wsiseg.model.load import LoadedModel

QUANTISED = ("FakeQuantize", "QuantizeLinear", "DequantizeLinear")
ENGINE_XML, ENGINE_BIN = "model.xml", "model.bin"


def read_model(model: LoadedModel) -> Any:
    """The `openvino.Model` of an ONNX graph or of an engine, with its first output only."""
    import openvino as ov

    core = ov.Core()
    try:
        if model.engine is None:
            graph = core.read_model(model.onnx_bytes)
        else:
            xml, weights = unpack_engine(model.engine.read_plan(), str(model.engine.path))
            graph = core.read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))
    except RuntimeError as error:
        raise ModelError(f"{model.name}: OpenVINO cannot read the model: {reason(error)}") from error
    if len(graph.outputs) > 1:
        graph = ov.Model([graph.outputs[0]], graph.get_parameters(), graph.get_friendly_name())
    return graph


def output_shape(onnx_bytes: bytes, shape: list[int], where: str) -> list[int]:
    """The shape that an ONNX graph's first output has for an input of `shape`, without running it.

    Raises:
        ModelError: when it cannot be read or does not take that shape.
    """
    import openvino as ov

    try:
        graph = ov.Core().read_model(onnx_bytes)
        graph.reshape({graph.inputs[0]: shape})
        return [int(d) for d in graph.outputs[0].get_partial_shape().get_shape()]
    except RuntimeError as error:
        raise ModelError(
            f"{where}: the network does not take a batch of {shape[0]} tiles of {shape[1]}: {reason(error)}; export it with a free batch"
        ) from error


def pack_engine(xml: bytes, weights: bytes) -> bytes:
    """One file of an intermediate representation's two: a stored zip with fixed times, the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((ENGINE_XML, xml), (ENGINE_BIN, weights)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def unpack_engine(plan: bytes, where: str) -> tuple[bytes, bytes]:
    """(xml, weights) of `pack_engine`.

    Raises:
        EngineError: for other bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(plan)) as archive:
            return archive.read(ENGINE_XML), archive.read(ENGINE_BIN)
    except (zipfile.BadZipFile, KeyError) as error:
        raise EngineError(
            f"{where}: not an OpenVINO engine; build it again with `wsiseg build-engine`"
        ) from error


def is_quantised(graph: Any) -> bool:
    """Whether an `openvino.Model` carries int8 quantisation."""
    return any(op.get_type_name() in QUANTISED for op in graph.get_ops())


def serialise(graph: Any) -> bytes:
    """The engine bytes of an `openvino.Model`."""
    import openvino as ov

    with tempfile.TemporaryDirectory(prefix="wsiseg-") as folder:
        xml, weights = Path(folder, ENGINE_XML), Path(folder, ENGINE_BIN)
        ov.serialize(graph, str(xml), str(weights))
        return pack_engine(xml.read_bytes(), weights.read_bytes())


def reason(error: Exception) -> str:
    """The line of an OpenVINO error that says why, without its own source's file names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not re.match(r"(Exception|Check) ", line)] or lines or ["unknown error"]
    return told[-1][:300]
