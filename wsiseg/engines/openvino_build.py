"""CPU engines: OpenVINO's intermediate representation, optionally quantised to int8 by NNCF.

The representation is kept, not a compiled blob: it runs on every CPU and takes any tile and batch, and compiling it
takes a tenth of a second. Weights stay float32 in the file, so that a bf16 engine gives exactly what the model itself
gives in bf16.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import logging
from typing import Any

import numpy as np

from wsiseg.engines import openvino_ir
from wsiseg.engines.build import Built, Request
from wsiseg.errors import EngineError, UsageError
from wsiseg.model import onnxio

SCHEMA = 1
MINIMUM_TILES = 8  # fewer say little about the range of activations


def missing() -> str:
    """What this machine lacks, or ""."""
    return "" if importlib.util.find_spec("openvino") else "openvino is not installed; pip install openvino"


def key(request: Request) -> dict[str, Any]:
    """The key of the engine: the representation depends on the graph, the precision and, for int8, on the tiles."""
    parts: dict[str, Any] = {
        "schema": SCHEMA,
        "model": request.model.digest,
        "runtime_version": importlib.metadata.version("openvino"),
        "precision": request.precision,
    }
    if request.precision == "int8":
        parts |= {
            "tile": request.tile,
            "tiles": onnxio.digest(request.tiles.tobytes()),
            "nncf": importlib.metadata.version("nncf") if importlib.util.find_spec("nncf") else "",
        }
    return {**parts, "key": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}


def build(request: Request) -> Built:
    """The representation of the model, quantised when int8 is asked for.

    Raises:
        UsageError: for int8 without real tiles. EngineError: without NNCF.
    """
    graph = openvino_ir.read_model(request.model)
    if request.precision == "int8":
        graph = _quantise(graph, request)
        if not openvino_ir.is_quantised(graph):
            raise EngineError(
                f"{request.model.name}: NNCF left the network in floats; nothing in it can be quantised"
            )
    graph.reshape({graph.inputs[0]: [-1, -1, -1, 3]})
    return Built(openvino_ir.serialise(graph), importlib.metadata.version("openvino"), 0, 0, key(request))


def _quantise(graph: Any, request: Request) -> Any:
    if request.tiles_from != "slide" or len(request.tiles) < MINIMUM_TILES:
        raise UsageError(
            f"int8 is calibrated on your own slides: {len(request.tiles) if request.tiles_from == 'slide' else 0} tiles with "
            f"tissue given, at least {MINIMUM_TILES} needed; add --slide SLIDE.tif"
        )
    if importlib.util.find_spec("nncf") is None:
        raise EngineError("int8 needs NNCF, which is not installed; pip install nncf (Apache-2.0)")
    tiles = [np.ascontiguousarray(t[None]) for t in request.tiles]
    request.tell(f"calibrating int8 on {len(tiles)} tiles")
    # NNCF draws its own progress; it imports torch where that is installed, which then tells of missing GPUs.
    quiet, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(quiet):
            import nncf

            graph.reshape({graph.inputs[0]: [1, request.tile, request.tile, 3]})
            return nncf.quantize(
                graph, nncf.Dataset(tiles), preset=nncf.QuantizationPreset.MIXED, subset_size=len(tiles)
            )
    finally:
        logging.disable(before)
