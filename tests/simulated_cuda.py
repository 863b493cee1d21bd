"""A CUDA device whose copies and launches happen only at synchronisation, as late as the rules allow.

Work put into a stream runs when somebody synchronises with it, and no other stream's work runs unless an event says so.
So a copy that nobody waits for has not happened, a kernel that forgot to wait reads poison, and a buffer that is written
or freed too early shows. It proves ordering and lifetimes; it does not know TensorRT.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsiseg.engines.cuda_api import DeviceMemoryError
from wsiseg.engines.tensorrt_runtime import PlanContext

POISON = 0xEE


@dataclass
class _Stream:
    work: deque = field(
        default_factory=deque
    )  # (number, action); numbers grow, so an event is "all up to this number"
    done: int = -1


class SimulatedCuda:
    """`CudaApi`. `memory` is the device's size in bytes; `skip` names calls that do nothing, to see that tests notice."""

    def __init__(self, memory: int = 1 << 30, skip: tuple[str, ...] = ()) -> None:
        self.memory, self.skip = memory, skip
        self.buffers: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.streams: dict[int, _Stream] = {}
        self.events: dict[int, tuple[int, int] | None] = {}  # the stream and the number that it stands for
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: tuple[int, list[Callable[[], None]]] | None = None
        self.peak = 0
        self.launches = 0
        self._numbers = itertools.count(1)
        self._handles = itertools.count(1 << 20, 1 << 20)

    # memory
    def set_device(self, device: int) -> None:
        self.device = device

    def memory_info(self) -> tuple[int, int]:
        used = sum(b.nbytes for b in self.buffers.values())
        return self.memory - used, self.memory

    def allocate(self, size: int) -> int:
        if size > self.memory_info()[0]:
            raise DeviceMemoryError(f"the GPU has no more memory ({size} bytes asked)")
        pointer = next(self._handles)
        self.buffers[pointer] = np.full(size, POISON, np.uint8)
        self.peak = max(self.peak, self.memory - self.memory_info()[0])
        return pointer

    def free(self, pointer: int) -> None:
        assert not any(stream.work for stream in self.streams.values()), (
            "memory freed while work is in flight"
        )
        del self.buffers[pointer]

    def allocate_pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.zeros(shape, dtype)
        self.pinned[array.ctypes.data] = array
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        assert not any(stream.work for stream in self.streams.values()), (
            "host memory freed while work is in flight"
        )
        del self.pinned[array.ctypes.data]

    def at(self, pointer: int, size: int) -> np.ndarray:
        """`size` bytes of device memory; a pointer that was freed is a KeyError."""
        assert size <= self.buffers[pointer].nbytes, "access beyond the end of a buffer"
        return self.buffers[pointer][:size]

    # streams and events
    def create_stream(self) -> int:
        handle = next(self._handles)
        self.streams[handle] = _Stream()
        return handle

    def destroy_stream(self, stream: int) -> None:
        assert not self.streams.pop(stream).work, "a stream with work in it was destroyed"

    def create_event(self) -> int:
        handle = next(self._handles)
        self.events[handle] = None
        return handle

    def destroy_event(self, event: int) -> None:
        del self.events[event]

    def push(self, stream: int, action: Callable[[], None]) -> None:
        """Put an action into a stream, or into the graph that is being captured from it."""
        if self.capturing and self.capturing[0] == stream:
            self.capturing[1].append(action)
        else:
            self.streams[stream].work.append((next(self._numbers), action))

    def copy_in(self, pointer: int, source: np.ndarray, stream: int) -> None:
        assert source.flags.c_contiguous
        assert self._is_pinned(source), "an asynchronous copy from pageable memory"

        def action() -> None:
            self.at(pointer, source.nbytes)[:] = source.reshape(-1).view(np.uint8)

        self.push(stream, action)

    def copy_out(self, target: np.ndarray, pointer: int, stream: int) -> None:
        assert target.flags.c_contiguous
        assert self._is_pinned(target), "an asynchronous copy to pageable memory"
        target.reshape(-1).view(np.uint8)[:] = POISON  # what a reader who does not wait sees

        def action() -> None:
            target.reshape(-1).view(np.uint8)[:] = self.at(pointer, target.nbytes)

        self.push(stream, action)

    def _is_pinned(self, array: np.ndarray) -> bool:
        first = array.ctypes.data
        return any(
            start <= first and first + array.nbytes <= start + whole.nbytes
            for start, whole in self.pinned.items()
        )

    def record(self, event: int, stream: int) -> None:
        if "record" in self.skip:
            return
        self.push(stream, lambda: None)
        self.events[event] = (stream, self.streams[stream].work[-1][0])

    def wait_event(self, stream: int, event: int) -> None:
        order = list(self.streams).index(stream)
        if "wait_event" in self.skip or f"wait_event of stream {order}" in self.skip:
            return
        mark = self.events[event]
        self.push(stream, lambda: self._reach(mark))

    def synchronise_event(self, event: int) -> None:
        if "synchronise_event" not in self.skip:
            self._reach(self.events[event])

    def synchronise_stream(self, stream: int) -> None:
        work = self.streams[stream].work
        if work:
            self._reach((stream, work[-1][0]))

    def _reach(self, mark: tuple[int, int] | None) -> None:
        if mark is None:
            return
        stream = self.streams[mark[0]]
        while stream.work and stream.work[0][0] <= mark[1]:
            _, action = stream.work.popleft()
            action()

    # graphs
    def begin_capture(self, stream: int) -> None:
        assert self.capturing is None
        self.capturing = (stream, [])

    def end_capture(self, stream: int) -> int:
        assert self.capturing is not None
        handle = next(self._handles)
        self.graphs[handle] = self.capturing[1]
        self.capturing = None
        return handle

    def launch_graph(self, graph: int, stream: int) -> None:
        self.launches += 1
        for action in self.graphs[graph]:
            self.push(stream, action)

    def destroy_graph(self, graph: int) -> None:
        del self.graphs[graph]

    def nothing_left(self) -> bool:
        """Whether everything that was made has been given back."""
        return not (self.buffers or self.pinned or self.streams or self.events or self.graphs)


class SimulatedPlan:
    """A plan whose network is a function from uint8 [B, T, T, 3] to float32 [B, C, T, T]."""

    def __init__(
        self,
        api: SimulatedCuda,
        network: Callable[[np.ndarray], np.ndarray],
        tile: int,
        max_batch: int,
        classes: int = 1,
    ) -> None:
        self.api, self.network, self.tile, self.max_batch, self.classes = (
            api,
            network,
            tile,
            max_batch,
            classes,
        )
        self.closed = False

    def scratch_bytes(self, batch: int) -> int:
        return batch * self.tile * self.tile * 16

    def context(
        self, batch: int, image: int, probability: int, scratch: int, scratch_bytes: int
    ) -> PlanContext:
        assert scratch_bytes >= self.scratch_bytes(batch)
        return _SimulatedContext(self, batch, image, probability, scratch)

    def close(self) -> None:
        self.closed = True


class _SimulatedContext:
    def __init__(self, plan: SimulatedPlan, batch: int, image: int, probability: int, scratch: int) -> None:
        self.plan, self.batch, self.image, self.probability, self.scratch = (
            plan,
            batch,
            image,
            probability,
            scratch,
        )

    def enqueue(self, stream: int) -> None:
        plan, tile = self.plan, self.plan.tile

        def action() -> None:
            tiles = plan.api.at(self.image, self.batch * tile * tile * 3).reshape(self.batch, tile, tile, 3)
            plan.api.at(self.scratch, plan.scratch_bytes(self.batch))[:] = 1
            result = np.ascontiguousarray(plan.network(tiles.copy()), np.float32)
            plan.api.at(self.probability, result.nbytes)[:] = result.reshape(-1).view(np.uint8)

        plan.api.push(stream, action)
