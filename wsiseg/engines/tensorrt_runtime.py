"""Load a TensorRT plan and give execution contexts on memory that the caller owns. TensorRT 10 and 11.

Contexts use memory handed to them: all slots of a session run one after the other on one compute stream, so one scratch
buffer serves every context, and its size is known for the batch that is really used.
"""

from __future__ import annotations

from typing import Any, Protocol

from wsiseg.engines import cuda_driver
from wsiseg.engines.key import Machine
from wsiseg.errors import EngineError


class PlanContext(Protocol):
    """One execution context with its addresses set."""

    def enqueue(self, stream: int) -> None:
        """Put one inference into `stream`."""
        ...


class Plan(Protocol):
    """A loaded plan for one tile size."""

    max_batch: int
    classes: int

    def scratch_bytes(self, batch: int) -> int:
        """Device memory that one context needs for `batch`."""
        ...

    def context(
        self, batch: int, image: int, probability: int, scratch: int, scratch_bytes: int
    ) -> PlanContext: ...
    def close(self) -> None: ...


def this_machine(device: int) -> Machine:
    """What plans are tied to, of device number `device`.

    Raises:
        EngineError: when there is no such device.
    """
    import tensorrt as trt

    driver = cuda_driver.probe()
    if device >= len(driver.gpus):
        names = ", ".join(f"cuda:{gpu.index}" for gpu in driver.gpus)
        raise EngineError(f"no device cuda:{device}; this machine has {names or driver.reason}")
    gpu = driver.gpus[device]
    return Machine(trt.__version__, gpu.name, gpu.compute_capability, f"CUDA {driver.cuda // 1000}")


def make_logger() -> Any:
    """A TensorRT logger that keeps the last error for our own message and prints nothing."""
    import tensorrt as trt

    class Quiet(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason given"

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = msg.splitlines()[0] if msg else self.last

    return Quiet()


class TensorRtPlan:
    """`Plan` through TensorRT 10 or 11."""

    def __init__(self, plan: bytes, tile: int, max_batch: int, where: str) -> None:
        import tensorrt as trt

        self._logger = make_logger()
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"{where}: TensorRT cannot load the engine: {self._logger.last}; build it again with `wsiseg build-engine`"
            )
        self._engine = engine
        names = {
            engine.get_tensor_mode(engine.get_tensor_name(i)): engine.get_tensor_name(i)
            for i in range(engine.num_io_tensors)
        }
        if engine.num_io_tensors != 2 or len(names) != 2:
            raise EngineError(
                f"{where}: the engine has {engine.num_io_tensors} inputs and outputs, not one of each"
            )
        self._image, self._probability = names[trt.TensorIOMode.INPUT], names[trt.TensorIOMode.OUTPUT]
        if (
            engine.get_tensor_dtype(self._image) != trt.DataType.UINT8
            or engine.get_tensor_dtype(self._probability) != trt.DataType.FLOAT
        ):
            raise EngineError(
                f"{where}: the engine's input is not uint8 or its output not float32; build it again with `wsiseg build-engine`"
            )
        self.tile, self.max_batch = tile, max_batch
        self.classes = int(engine.get_tensor_shape(self._probability)[1])

    def _shaped(self, batch: int) -> Any:
        import tensorrt as trt

        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None or not context.set_input_shape(self._image, (batch, self.tile, self.tile, 3)):
            raise EngineError(
                f"TensorRT gives no context for batch {batch} and tile {self.tile}: {self._logger.last}"
            )
        return context

    def scratch_bytes(self, batch: int) -> int:
        context = self._shaped(batch)
        return int(context.update_device_memory_size_for_shapes())

    def context(
        self, batch: int, image: int, probability: int, scratch: int, scratch_bytes: int
    ) -> PlanContext:
        context = self._shaped(batch)
        context.update_device_memory_size_for_shapes()
        context.set_device_memory(scratch, scratch_bytes)
        context.set_tensor_address(self._image, image)
        context.set_tensor_address(self._probability, probability)
        return _Context(context, self._logger)

    def close(self) -> None:
        self._engine = self._runtime = None


class _Context:
    def __init__(self, context: Any, logger: Any) -> None:
        self._context, self._logger = context, logger

    def enqueue(self, stream: int) -> None:
        context = self._context
        if not context.execute_async_v3(stream):
            raise EngineError(f"TensorRT could not start an inference: {self._logger.last}")
