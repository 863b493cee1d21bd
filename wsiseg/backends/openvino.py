"""OpenVINO on the CPU: the default backend, embedded in the base install.

Each slot is an infer request with its own numpy-backed tensors, so tiles are written straight into the memory that the
runtime reads. The THROUGHPUT hint with a stream per thread keeps its speed while decoders take part of the cores (a
single request over all threads does not). Precision is bf16 where the CPU computes in it, else fp32, and int8 for a
model that was quantised. The shape is fixed before compiling: no shape arithmetic at run time, and memory that is known
once every slot has run. There is no compile cache on disk: compiling takes a tenth of a second.

Memory bound: weights, and per stream the activations of one batch (times `model.copies`), all allocated by the warm-up.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.registry import Status
from wsiseg.engines.openvino_gate import gated_model
from wsiseg.engines.openvino_ir import is_quantised, read_model, reason
from wsiseg.errors import ModelError, UsageError
from wsiseg.model.load import LoadedModel
from wsiseg.model.spec import ModelSpec

HINTS = {
    "fp32": "f32",
    "bf16": "bf16",
    "fp16": "f16",
    "int8": "bf16",
}  # int8 models keep some layers in floats


def status() -> Status:
    """Whether OpenVINO is installed, and what the CPU computes in."""
    if importlib.util.find_spec("openvino") is None:
        return Status(False, reason="not installed; pip install openvino")
    import openvino as ov

    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    kinds = [name for name in ("FP32", "BF16", "FP16", "INT8") if name in capabilities]
    return Status(True, importlib.metadata.version("openvino"), (f"CPU ({', '.join(kinds).lower()})",))


def preference(model: LoadedModel, options: SessionOptions) -> int | str:
    """10 for any graph on the CPU; 20 for its own engines."""
    if importlib.util.find_spec("openvino") is None:
        return "not installed; pip install openvino"
    if not options.device.startswith(("auto", "cpu")):
        return f"runs on the CPU, not on {options.device}"
    if model.engine is not None:
        runtime = model.engine.sidecar.runtime
        return (
            20
            if runtime == "openvino"
            else f"an engine for {runtime}; give the model's .onnx or .pt file instead"
        )
    return 10


def open_session(model: LoadedModel, options: SessionOptions) -> Session:
    """A session on the CPU.

    Raises:
        ModelError, EngineError: when the graph cannot be read or compiled. UsageError: for an impossible precision.
    """
    return OpenVinoSession(model, options)


def choose_precision(asked: str, quantised: bool, capabilities: list[str], name: str) -> str:
    """What a model runs in. `capabilities` are the CPU's, in OpenVINO's words.

    Raises:
        UsageError: for a precision that this model or CPU does not have.
    """
    if asked == "auto":
        return "int8" if quantised else ("bf16" if "BF16" in capabilities else "fp32")
    if asked == "int8" and not quantised:
        raise UsageError(
            f"--precision int8: {name!r} is not quantised; make an int8 engine with "
            f"`wsiseg build-engine MODEL --backend openvino --precision int8 --slide SLIDE`"
        )
    if asked in ("bf16", "fp16") and asked.upper() not in capabilities:
        raise UsageError(f"--precision {asked}: this CPU does not compute in {asked}; use fp32 or auto")
    return asked


class OpenVinoSession:
    """See `wsiseg.backends.base.Session`."""

    def __init__(self, model: LoadedModel, options: SessionOptions) -> None:
        import openvino as ov

        self.spec: ModelSpec = model.spec
        self.options = options
        core = ov.Core()
        shape = [options.batch, options.tile, options.tile, 3]
        gated = options.presence > 0
        graph = gated_model(model, shape) if gated else read_model(model)
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        asked = options.precision
        if asked == "auto" and model.engine is not None and model.engine.sidecar.precision == "fp32":
            asked = "fp32"  # a bf16 engine, too, runs in fp32 on a CPU without bf16: "auto" does that
        self.precision = choose_precision(asked, is_quantised(graph), capabilities, model.name)
        hint = HINTS[self.precision] if self.precision != "int8" or "BF16" in capabilities else "f32"
        streams = min(options.streams or options.threads, options.threads, options.slots)
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(options.threads),
            "INFERENCE_PRECISION_HINT": hint,
            # Pinned threads of two processes on one node would sit on the same cores; decoders need theirs as well.
            "ENABLE_CPU_PINNING": "NO",
        }
        try:
            if not gated:
                graph.reshape({graph.inputs[0]: shape})
            self._compiled = core.compile_model(graph, "CPU", config)
        except RuntimeError as error:
            raise ModelError(
                f"{model.name}: OpenVINO cannot compile the model for input {shape}: {reason(error)}"
            ) from error
        result = [options.batch, len(self.spec.classes), options.tile, options.tile]
        given = list(self._compiled.outputs[0].shape)
        if given != result:
            raise ModelError(
                f"{model.name}: for input {shape} the network gives {given}, its spec says {result}"
            )
        self._inputs = [_aligned(shape, np.uint8) for _ in range(options.slots)]
        self._outputs = [_aligned(result, np.float32) for _ in range(options.slots)]
        # 0 while warming up: every stream runs its decoder and allocates what that takes.
        self._limit = np.zeros(1, np.float32) if gated else None
        self._presence = [np.zeros(options.batch, np.float32) for _ in range(options.slots if gated else 0)]
        self._counts: list[int | None] = [None] * options.slots
        self._requests = []
        for slot in range(options.slots):
            request = self._compiled.create_infer_request()
            request.set_input_tensor(0, ov.Tensor(self._inputs[slot], shared_memory=True))
            request.set_output_tensor(0, ov.Tensor(self._outputs[slot], shared_memory=True))
            if self._limit is not None:
                request.set_input_tensor(1, ov.Tensor(self._limit, shared_memory=True))
                request.set_output_tensor(1, ov.Tensor(self._presence[slot], shared_memory=True))
            self._requests.append(request)
        self.description = f"openvino {importlib.metadata.version('openvino')} CPU {self.precision}, {streams} x {options.threads // streams} threads"
        # All slots at once, so that every stream allocates its activations now and not in the middle of a plan.
        for slot in range(options.slots):
            self.start(slot, options.batch)
        for slot in range(options.slots):
            self.wait(slot)
        if self._limit is not None:
            self._limit[0] = options.presence

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        return self._inputs[slot]

    def start(self, slot: int, count: int) -> None:
        if not 1 <= count <= self.options.batch:
            raise ValueError(f"count {count} is not between 1 and {self.options.batch}")
        if self._counts[slot] is not None:
            raise RuntimeError(f"slot {slot} was started twice without a wait")
        self._counts[slot] = count
        self._requests[slot].start_async()

    def wait(self, slot: int) -> npt.NDArray[np.float32]:
        count = self._counts[slot]
        if count is None:
            raise RuntimeError(f"slot {slot} was not started")
        try:
            self._requests[slot].wait()
        except RuntimeError as error:
            raise ModelError(f"{self.spec.name}: inference failed: {reason(error)}") from error
        finally:
            self._counts[slot] = None
        result = self._outputs[slot][:count]
        if self._limit is not None and count > 1:
            result[self._presence[slot][:count] < self._limit[0]] = (
                0  # decoded for the sake of its neighbours
            )
        return result

    def absent(self, slot: int) -> npt.NDArray[np.bool_]:
        """See `wsiseg.backends.base.SkipsTiles`; nothing is absent in a session that decodes every tile."""
        if self._limit is None:
            return np.zeros(self.options.batch, np.bool_)
        return self._presence[slot] < self._limit[0]

    def close(self) -> None:
        for slot, count in enumerate(self._counts):
            if count is not None:
                self.wait(slot)
        self._requests.clear()
        self._inputs.clear()
        self._outputs.clear()
        self._counts.clear()
        self._compiled = None


def _aligned(shape: list[int], dtype: Any) -> npt.NDArray[Any]:
    """Zeros on a 64-byte border, so that the runtime can use them in place with its widest loads."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
