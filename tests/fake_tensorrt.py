"""A stand-in for the `tensorrt` module with the names that our code uses, on the simulated CUDA device.

A "plan" is the ONNX graph that was parsed, with its sizes; contexts run it through OpenVINO when the simulated stream
reaches them. So `build-engine`, the sidecar, the refusals and the session run as they will, all but TensorRT itself.
"""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.simulated_cuda import SimulatedCuda


def make(
    api: SimulatedCuda, version: str = "10.16.1", layer_format: str = "Half", fail: str = ""
) -> ModuleType:
    """The module. `layer_format` is what its inspector claims of layers; `fail` names a step that goes wrong."""
    trt: Any = ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.__version__ = version

    class ILogger:
        Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", WARNING="warning")

        def __init__(self) -> None: ...

    class Profile:
        def set_shape(self, name: str, low: tuple, best: tuple, high: tuple) -> None:
            assert low[0] == 1
            assert best[1:] == high[1:] == low[1:]
            self.name, self.high = name, high

    class TimingCache:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self) -> bytes:
            return self.data + b"t"

    class Config:
        def __init__(self) -> None:
            self.flags: set[str] = set()
            self.profile: Profile | None = None

        def set_flag(self, flag: str) -> None:
            self.flags.add(flag)

        def clear_flag(self, flag: str) -> None:
            self.flags.discard(flag)

        def set_memory_pool_limit(self, pool: str, size: int) -> None:
            self.workspace = size

        def add_optimization_profile(self, profile: Profile) -> int:
            self.profile = profile
            return 0

        def create_timing_cache(self, data: bytes) -> TimingCache:
            return TimingCache(data)

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            self.cache = cache
            return cache.data != b"of another GPU"

        def get_timing_cache(self) -> TimingCache:
            return self.cache

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self.logger: Any = logger

        def create_network(self, flags: int) -> Any:
            assert flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return SimpleNamespace(onnx=b"")

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
            if fail == "build":
                self.logger.log("error", "no tactic fits\nmore lines")
                return None
            assert config.profile is not None
            head = json.dumps({"shape": config.profile.high, "flags": sorted(config.flags)}).encode()
            return len(head).to_bytes(4, "little") + head + network.onnx

    class OnnxParser:
        def __init__(self, network: Any, logger: ILogger) -> None:
            self.network = network

        num_errors = 1

        def parse(self, data: bytes) -> bool:
            self.network.onnx = data
            return fail != "parse"

        def get_error(self, index: int) -> Any:
            return SimpleNamespace(desc=lambda: "unsupported node")

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine, self.addresses = engine, {}

        def set_input_shape(self, name: str, shape: tuple) -> bool:
            self.shape = shape
            return shape[0] <= self.engine.shape[0] and tuple(shape[1:]) == tuple(self.engine.shape[1:])

        def update_device_memory_size_for_shapes(self) -> int:
            return int(np.prod(self.shape))

        def set_device_memory(self, pointer: int, size: int) -> None:
            api.at(pointer, size)

        def set_tensor_address(self, name: str, pointer: int) -> bool:
            self.addresses[name] = pointer
            return True

        def execute_async_v3(self, stream: int) -> bool:
            shape = tuple(self.shape)

            def action() -> None:
                tiles = api.at(self.addresses["image"], int(np.prod(shape))).reshape(shape)
                result = self.engine.infer(tiles)
                api.at(self.addresses["probability"], result.nbytes)[:] = result.reshape(-1).view(np.uint8)

            api.push(stream, action)
            return fail != "enqueue"

    class Engine:
        num_io_tensors = 2

        def __init__(self, plan: bytes) -> None:
            size = int.from_bytes(plan[:4], "little")
            self.shape = json.loads(plan[4 : 4 + size])["shape"]
            self.onnx = plan[4 + size :]

        def get_tensor_name(self, index: int) -> str:
            return ("image", "probability")[index]

        def get_tensor_mode(self, name: str) -> str:
            return trt.TensorIOMode.INPUT if name == "image" else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> str:
            return trt.DataType.UINT8 if name == "image" else trt.DataType.FLOAT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (-1, 1, self.shape[1], self.shape[2])

        def create_execution_context(self, strategy: str) -> Context:
            assert strategy == "user managed"
            return Context(self)

        def create_engine_inspector(self) -> Any:
            tensor = {"Name": "t", "Format/Datatype": layer_format}
            layers = {
                "Layers": [
                    {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor]}
                ]
            }
            return SimpleNamespace(get_engine_information=lambda kind: json.dumps(layers))

        def infer(self, tiles: np.ndarray) -> np.ndarray:
            import openvino as ov

            graph = ov.Core().read_model(self.onnx)
            graph.reshape({graph.inputs[0]: list(tiles.shape)})
            compiled = ov.Core().compile_model(
                graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            )
            return np.array(compiled(tiles)[0])

    class Runtime:
        def __init__(self, logger: ILogger) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            return None if fail == "load" else Engine(plan)

    trt.ILogger, trt.Builder, trt.OnnxParser, trt.Runtime = ILogger, Builder, OnnxParser, Runtime
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    trt.BuilderFlag = SimpleNamespace(TF32="tf32", REFIT="refit")
    trt.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    trt.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    trt.LayerInformationFormat = SimpleNamespace(JSON="json")
    trt.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    trt.DataType = SimpleNamespace(UINT8="uint8", FLOAT="float")
    trt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    return trt
