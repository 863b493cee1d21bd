"""TensorRT on NVIDIA GPUs: engines built by `wsiseg build-engine`. No torch, and nothing imported without a driver.

Each of K slots has pinned host buffers, device buffers, an execution context and a captured CUDA graph. Three streams
(copy in, compute, copy out) are joined by events, so that the copies of one slot run under the computing of another:

    copy in:   H2D(a) | H2D(b) | ...
    compute:   wait in(a) . graph(a) | wait in(b) . graph(b)
    copy out:  wait done(a) . D2H(a) | ...

Memory bound: one scratch buffer for all contexts (they run one after the other on the compute stream), K x (input +
output), and the plan's weights. When that does not fit, the batch is halved once, and the session says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.devices import device_numbers, over_devices
from wsiseg.backends.on_device import DeviceMemory, ResidentModel, resident_model
from wsiseg.backends.registry import Status
from wsiseg.engines import cuda_driver, key, tensorrt_build
from wsiseg.engines.cuda_api import CudaApi, CudaBindings, DeviceMemoryError
from wsiseg.engines.tensorrt_runtime import Plan, PlanContext, TensorRtPlan, this_machine
from wsiseg.errors import EngineError
from wsiseg.model.load import LoadedModel
from wsiseg.model.spec import ModelSpec
from wsiseg.units import format_bytes

DEFAULT_STREAM = 0


def status() -> Status:
    """Whether there is a driver, a device and TensorRT."""
    driver = cuda_driver.probe()
    lacking = tensorrt_build.missing()
    if lacking:
        return Status(False, reason=lacking)
    import tensorrt as trt

    return Status(
        True,
        trt.__version__,
        tuple(f"cuda:{gpu.index} {gpu.name} (sm {gpu.compute_capability})" for gpu in driver.gpus),
    )


def preference(model: LoadedModel, options: SessionOptions) -> int | str:
    """30 for its own engines; it runs nothing else."""
    if model.engine is None:
        return "it runs engines only; build one with `wsiseg build-engine`"
    if model.engine.sidecar.runtime != "tensorrt":
        return f"an engine for {model.engine.sidecar.runtime}"
    if options.device.startswith("cpu"):
        return "runs on a GPU, not on cpu"
    return tensorrt_build.missing() or 30


def open_session(model: LoadedModel, options: SessionOptions) -> Session:
    """A session on one device, or on several that take batches in turn.

    Raises:
        EngineError: when the plan is not whole, not of this machine, not for this tile, or does not fit the device.
    """
    assert model.engine is not None  # preference() has refused anything else
    engine, sidecar = model.engine, model.engine.sidecar
    fix = sidecar.command or "wsiseg build-engine"
    key.check_sizes(sidecar.tile, 0, options.tile, options.batch, str(engine.path), fix)
    numbers = device_numbers(options.device, len(cuda_driver.probe().gpus))
    for number in numbers:
        key.check_machine(sidecar.key, this_machine(number), str(engine.path), fix)
    plan_bytes = engine.read_plan()
    options = dataclasses.replace(options, batch=min(options.batch, sidecar.batch))

    def one(number: int) -> Session:
        api = CudaBindings()
        api.set_device(number)
        plan = TensorRtPlan(plan_bytes, options.tile, sidecar.batch, str(engine.path))
        return TensorRtSession(
            model.spec,
            options,
            sidecar.precision,
            plan,
            api,
            number,
            f"tensorrt {sidecar.runtime_version} cuda:{number}",
        )

    return over_devices([one(number) for number in numbers])


@dataclass
class _Slot:
    """The buffers, events and graph of one batch in flight."""

    image: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    device_image: int
    device_probability: int
    copied_in: int
    computed: int
    copied_out: int
    context: PlanContext
    graph: int | None = None
    count: int | None = None


class TensorRtSession:
    """See `wsiseg.backends.base.Session`. `options.batch` is what fitted; `notes` says when that is less than asked."""

    def __init__(
        self,
        spec: ModelSpec,
        options: SessionOptions,
        precision: str,
        plan: Plan,
        api: CudaApi,
        device: int,
        name: str,
        graphs: bool = True,
    ) -> None:
        self.spec, self.precision = spec, precision
        self._plan, self._api, self._device = plan, api, device
        self._allocated: list[int] = []
        self._pinned: list[npt.NDArray[Any]] = []
        self._streams: list[int] = []
        self._slots: list[_Slot] = []
        self._events: list[int] = []
        self.notes: tuple[str, ...] = ()
        if plan.classes != len(spec.classes):
            raise EngineError(
                f"{spec.name}: the engine gives {plan.classes} channels, its spec names {len(spec.classes)} classes"
            )
        api.set_device(device)
        try:
            self.options = self._fit(options)
            self._capture(graphs)
        except BaseException:
            self._release()
            raise
        self.description = f"{name} {precision}, batch {self.options.batch}"

    def _fit(self, options: SessionOptions) -> SessionOptions:
        """Allocate for the batch that was asked for, else for half of it."""
        try:
            self._allocate(options)
        except DeviceMemoryError as error:
            self._release()
            if options.batch == 1:
                raise DeviceMemoryError(
                    f"{error}; build an engine with a smaller --tile, or use a GPU with more memory"
                ) from error
            smaller = dataclasses.replace(options, batch=options.batch // 2)
            try:
                self._allocate(smaller)
            except DeviceMemoryError as again:
                raise DeviceMemoryError(
                    f"{again}, even with batch {smaller.batch}; run with --batch {max(1, smaller.batch // 4)}"
                ) from again
            self.notes = (
                f"batch {options.batch} does not fit the GPU's memory; running with {smaller.batch}",
            )
            return smaller
        return options

    def _allocate(self, options: SessionOptions) -> None:
        api, batch, tile = self._api, options.batch, options.tile
        image_shape, result_shape = (batch, tile, tile, 3), (batch, len(self.spec.classes), tile, tile)
        image_bytes, result_bytes = int(np.prod(image_shape)), int(np.prod(result_shape)) * 4
        scratch_bytes = self._plan.scratch_bytes(batch)
        needed = scratch_bytes + options.slots * (image_bytes + result_bytes)
        if options.device_memory is not None and needed > options.device_memory:
            raise DeviceMemoryError(
                f"{self.spec.name}: batch {batch} needs {format_bytes(needed)} of GPU memory, --gpu-memory allows {format_bytes(options.device_memory)}"
            )
        scratch = self._device_memory(scratch_bytes)
        self._streams = [api.create_stream() for _ in range(3)]
        for _ in range(options.slots):
            image, probability = (
                api.allocate_pinned(image_shape, np.uint8),
                api.allocate_pinned(result_shape, np.float32),
            )
            self._pinned += [image, probability]
            device_image, device_probability = (
                self._device_memory(image_bytes),
                self._device_memory(result_bytes),
            )
            copied_in, computed, copied_out = (self._event() for _ in range(3))
            context = self._plan.context(batch, device_image, device_probability, scratch, scratch_bytes)
            slot = _Slot(
                image, probability, device_image, device_probability, copied_in, computed, copied_out, context
            )
            self._slots.append(slot)

    def _event(self) -> int:
        self._events.append(self._api.create_event())
        return self._events[-1]

    def _device_memory(self, size: int) -> int:
        pointer = self._api.allocate(max(size, 1))
        self._allocated.append(pointer)
        return pointer

    def _capture(self, graphs: bool) -> None:
        """Run every slot once, then record its launch: TensorRT allocates lazily at the first, which no graph may hold."""
        for slot in range(len(self._slots)):
            self.start(slot, self.options.batch)
            self.wait(slot)
        if graphs:
            compute = self._streams[1]
            for one in self._slots:
                self._api.begin_capture(compute)
                one.context.enqueue(compute)
                one.graph = self._api.end_capture(compute)

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        return self._slots[slot].image

    def start(self, slot: int, count: int) -> None:
        one, api = self._slots[slot], self._api
        if not 1 <= count <= self.options.batch:
            raise ValueError(f"count {count} is not between 1 and {self.options.batch}")
        if one.count is not None:
            raise RuntimeError(f"slot {slot} was started twice without a wait")
        api.set_device(self._device)  # the current device belongs to the calling thread
        copy_in, compute, copy_out = self._streams
        # The whole batch is computed; tiles beyond `count` are set to black so that a batch never depends on older ones.
        one.image[count:] = 0
        api.copy_in(one.device_image, one.image, copy_in)
        api.record(one.copied_in, copy_in)
        api.wait_event(compute, one.copied_in)
        if one.graph is None:
            one.context.enqueue(compute)
        else:
            api.launch_graph(one.graph, compute)
        api.record(one.computed, compute)
        api.wait_event(copy_out, one.computed)
        api.copy_out(one.probability[:count], one.device_probability, copy_out)
        api.record(one.copied_out, copy_out)
        one.count = count

    def wait(self, slot: int) -> npt.NDArray[np.float32]:
        one = self._slots[slot]
        if one.count is None:
            raise RuntimeError(f"slot {slot} was not started")
        count, one.count = one.count, None
        self._api.synchronise_event(one.copied_out)
        return one.probability[:count]

    def device_models(self) -> list[tuple[int, Callable[[], ResidentModel]]]:
        """The network on the device's own buffers (the first slot's), for rows and bands that stay there."""
        one, options = self._slots[0], self.options

        def run() -> None:
            if one.graph is None:
                one.context.enqueue(DEFAULT_STREAM)
            else:
                self._api.launch_graph(one.graph, DEFAULT_STREAM)

        def make() -> ResidentModel:
            tile = options.tile
            image = DeviceMemory(one.device_image, (options.batch, tile, tile, 3), "|u1")
            probability = DeviceMemory(
                one.device_probability, (options.batch, len(self.spec.classes), tile, tile), "<f4"
            )
            self._api.set_device(self._device)
            return resident_model(options.batch, image, probability, run)

        return [(self._device, make)]

    def close(self) -> None:
        """Wait for what is in flight and release everything; a second call does nothing."""
        for slot, one in enumerate(self._slots):
            if one.count is not None:
                self.wait(slot)
        self._release()
        self._plan.close()

    def _release(self) -> None:
        api = self._api
        for stream in self._streams:
            api.synchronise_stream(stream)
        for one in self._slots:
            if one.graph is not None:
                api.destroy_graph(one.graph)
        self._slots.clear()  # contexts go before the memory they point into
        for event in self._events:
            api.destroy_event(event)
        for stream in self._streams:
            api.destroy_stream(stream)
        for pointer in self._allocated:
            api.free(pointer)
        for array in self._pinned:
            api.free_pinned(array)
        self._events, self._streams, self._allocated, self._pinned = [], [], [], []
