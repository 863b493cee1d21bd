"""The few calls of the CUDA runtime that the engines use, with numbers for handles and exceptions for errors.

It is a seam: `cuda.bindings` stands behind it on a real machine, and in tests a simulated device whose copies and
launches run only at synchronisation. Nothing above it imports `cuda`.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wsiseg.errors import EngineError


class DeviceMemoryError(EngineError):
    """The device has no more memory."""


class CudaApi(Protocol):
    """Handles are plain integers. Every call raises EngineError on failure, DeviceMemoryError when memory is out."""

    def set_device(self, device: int) -> None: ...
    def memory_info(self) -> tuple[int, int]:
        """(free, total) bytes of the current device."""
        ...

    def allocate(self, size: int) -> int: ...
    def free(self, pointer: int) -> None: ...
    def allocate_pinned(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """A page-locked host array; free it with `free_pinned`."""
        ...

    def free_pinned(self, array: npt.NDArray[Any]) -> None: ...
    def create_stream(self) -> int: ...
    def destroy_stream(self, stream: int) -> None: ...
    def create_event(self) -> int: ...
    def destroy_event(self, event: int) -> None: ...
    def copy_in(self, pointer: int, source: npt.NDArray[Any], stream: int) -> None:
        """Begin copying the contiguous host array `source` to the device."""
        ...

    def copy_out(self, target: npt.NDArray[Any], pointer: int, stream: int) -> None:
        """Begin copying from the device into the contiguous host array `target`."""
        ...

    def record(self, event: int, stream: int) -> None: ...
    def wait_event(self, stream: int, event: int) -> None:
        """What is put into `stream` from now on runs after `event`."""
        ...

    def synchronise_event(self, event: int) -> None: ...
    def synchronise_stream(self, stream: int) -> None: ...
    def begin_capture(self, stream: int) -> None: ...
    def end_capture(self, stream: int) -> int:
        """An executable graph of what was put into `stream` since `begin_capture`."""
        ...

    def launch_graph(self, graph: int, stream: int) -> None: ...
    def destroy_graph(self, graph: int) -> None: ...


class CudaBindings:
    """`CudaApi` on the real device, through `cuda.bindings.runtime`."""

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._cuda = runtime
        self._memory = (runtime.cudaError_t.cudaErrorMemoryAllocation,)
        self._pinned: dict[int, int] = {}

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            # A failed allocation also stays as the "last error" and would be reported by the next call.
            self._cuda.cudaGetLastError()
            if error in self._memory:
                raise DeviceMemoryError(f"{name}: the GPU has no more memory")
            raise EngineError(f"{name} failed: {error.name}")
        return values[0] if len(values) == 1 else tuple(values)

    def set_device(self, device: int) -> None:
        self._call("cudaSetDevice", device)

    def memory_info(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, pointer: int) -> None:
        self._call("cudaFree", pointer)

    def allocate_pinned(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = int(self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault))
        array = np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype).reshape(shape)
        array[...] = 0
        self._pinned[array.ctypes.data] = pointer
        return array

    def free_pinned(self, array: npt.NDArray[Any]) -> None:
        self._call("cudaFreeHost", self._pinned.pop(array.ctypes.data))

    def create_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        flags = self._cuda.cudaEventDisableTiming | self._cuda.cudaEventBlockingSync
        return int(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def copy_in(self, pointer: int, source: npt.NDArray[Any], stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", pointer, source.ctypes.data, source.nbytes, kind, stream)

    def copy_out(self, target: npt.NDArray[Any], pointer: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, pointer, target.nbytes, kind, stream)

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, stream: int, event: int) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronise_event(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def synchronise_stream(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        # Thread-local, so that other threads' CUDA calls (another session's) do not break the capture.
        self._call(
            "cudaStreamBeginCapture",
            stream,
            self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )

    def end_capture(self, stream: int) -> int:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", graph)
