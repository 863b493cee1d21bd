"""TensorRT 8.6 on a GPU machine, through its pack (CPython 3.10): the vehicle that proves our session on real hardware.

8.6 is for this test path only. It differs in four things: half precision is a flag besides being in the graph, batches
must be said to be explicit, contexts take their memory through an attribute, and its size is known for the largest
batch only. Everything else is the code that users run. Started by `benchmarks.gpu`; arguments: the graph (opset 17),
the JSON to write, the tile, batches, seconds per measurement.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from wsiseg.backends.base import SessionOptions
from wsiseg.backends.run import run_tiles
from wsiseg.backends.tensorrt import TensorRtSession
from wsiseg.engines.cuda_api import CudaBindings
from wsiseg.engines.inspect import inspect_layers
from wsiseg.engines.tensorrt_runtime import PlanContext, TensorRtPlan, _Context, make_logger
from wsiseg.model.spec import ModelSpec

INPUT = "image"


class TensorRt8Plan(TensorRtPlan):
    """`TensorRtPlan` with 8.6's names."""

    def _shaped(self, batch: int) -> Any:
        context = self._engine.create_execution_context_without_device_memory()
        if not context.set_input_shape(self._image, (batch, self.tile, self.tile, 3)):
            raise RuntimeError(f"TensorRT 8.6 takes no batch of {batch}: {self._logger.last}")
        return context

    def scratch_bytes(self, batch: int) -> int:
        return int(self._engine.device_memory_size)

    def context(
        self, batch: int, image: int, probability: int, scratch: int, scratch_bytes: int
    ) -> PlanContext:
        context = self._shaped(batch)
        context.device_memory = scratch
        context.set_tensor_address(self._image, image)
        context.set_tensor_address(self._probability, probability)
        return _Context(context, self._logger)


def build(onnx_bytes: bytes, tile: int, batch: int) -> tuple[bytes, str]:
    """(plan, layer information) by TensorRT 8.6, with tactics that need neither cuBLAS nor cuDNN."""
    import tensorrt as trt

    logger = make_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_bytes):
        raise RuntimeError(f"TensorRT 8.6 cannot read the graph: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_tactic_sources(
        1 << int(trt.TacticSource.EDGE_MASK_CONVOLUTIONS) | 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)
    )
    config.builder_optimization_level = 2
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, tile, tile, 3), (min(16, batch), tile, tile, 3), (batch, tile, tile, 3))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"TensorRT 8.6 could not build: {logger.last}")
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    return bytes(plan), engine.create_engine_inspector().get_engine_information(
        trt.LayerInformationFormat.JSON
    )


def main() -> None:
    import tensorrt as trt

    from benchmarks.gpu_rate import tiles_per_second

    path, target, tile_text, batches_text, seconds = sys.argv[1:6]
    tile, batches = int(tile_text), [int(b) for b in batches_text.split(",")]
    with open(path, "rb") as file:
        data = file.read()
    started = time.perf_counter()
    plan_bytes, layers = build(data, tile, max(batches))
    result: dict[str, Any] = {
        "version": trt.__version__,
        "build seconds": time.perf_counter() - started,
        "plan bytes": len(plan_bytes),
    }
    found = inspect_layers(layers, "fp16")
    result["layers"] = {"half": len(found.right), "others that work": list(found.wrong), "rest": found.others}
    spec = ModelSpec("unet-resnet34", tile=tile, tile_multiple=32)
    references = np.load(path.replace("network.trt8.onnx", "reference.npz"))
    rows = []
    for batch in batches:
        for graphs in (True, False):
            plan = TensorRt8Plan(plan_bytes, tile, max(batches), "tensorrt8")
            session = TensorRtSession(
                spec, SessionOptions(tile, batch, 3, 1), "fp16", plan, CudaBindings(), 0, "tensorrt", graphs
            )
            rows.append(
                {
                    "batch": batch,
                    "graphs": graphs,
                    "tiles per second": tiles_per_second(session, float(seconds)),
                }
            )
            got = run_tiles(session, references["tiles"])
            session.close()
    expected = references["probability"]
    result["against fp32 (random weights: an upper bound)"] = {
        "mask disagreement": float(((got > 0.5) != (expected > 0.5)).mean()),
        "largest difference": float(np.abs(got - expected).max()),
        "mean difference": float(np.abs(got - expected).mean()),
    }
    with open(target, "w") as file:
        json.dump({**result, "speed": rows}, file)
