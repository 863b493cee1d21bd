"""PyTorch, where it is installed: checkpoints on the CPU, and on NVIDIA GPUs in half precision with CUDA graphs.

It runs `ckpt.pt` only: the network is built again from its spec, flips and members are wrapped around it. On a GPU the
slots work as in the TensorRT session: pinned buffers, three streams joined by events, a captured graph per slot. On the
CPU one worker thread runs the batches in turn; OpenVINO is several times faster there.

Memory bound: the caching allocator is held to `--gpu-memory`; when the batch does not fit, it is halved once.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.devices import device_numbers, over_devices
from wsiseg.backends.on_device import ResidentModel, resident_model
from wsiseg.backends.registry import Status
from wsiseg.backends.torch_gate import gated, stack, unstack
from wsiseg.engines import cuda_driver
from wsiseg.errors import EngineError, ModelError, UsageError
from wsiseg.model.compose import variants
from wsiseg.model.load import LoadedModel
from wsiseg.model.spec import ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

WARM_UP = 3  # runs before a graph is captured: libraries choose and allocate at the first ones
MISSING = "not installed; pip install 'wsiseg[train]'"


def status() -> Status:
    """Whether torch is installed, and whether it sees a GPU."""
    if importlib.util.find_spec("torch") is None:
        return Status(False, reason=MISSING)
    version = importlib.metadata.version("torch")
    gpus = cuda_driver.probe().gpus
    return Status(True, version, ("CPU", *(f"cuda:{gpu.index} {gpu.name}" for gpu in gpus)))


def preference(model: LoadedModel, options: SessionOptions) -> int | str:
    """20 for checkpoints on a GPU, 5 on a CPU: OpenVINO is faster there."""
    if importlib.util.find_spec("torch") is None:
        return MISSING
    if not model.checkpoints:
        return "it runs .pt checkpoints only, not .onnx or .engine files"
    if options.device.startswith("cuda") or (options.device == "auto" and cuda_driver.probe().gpus):
        return 20 if cuda_driver.probe().gpus else cuda_driver.probe().reason
    return 5


def open_session(model: LoadedModel, options: SessionOptions) -> Session:
    """A session on the CPU, on a GPU, or on several that take batches in turn.

    Raises:
        ModelError: when a checkpoint does not build. UsageError: for an impossible precision or device.
    """
    on_gpu = options.device.startswith("cuda") or (
        options.device == "auto" and bool(cuda_driver.probe().gpus)
    )
    precision = choose_precision(options.precision, on_gpu)
    if not on_gpu:
        # 0 while the session warms up: the decoder allocates what it needs then.
        limit = [0.0] if options.presence else None
        return TorchCpuSession(model.spec, options, precision, build_module(model, limit), limit)
    numbers = device_numbers(options.device, len(cuda_driver.probe().gpus))
    return over_devices(
        [TorchCudaSession(model.spec, options, precision, build_module(model), n) for n in numbers]
    )


def choose_precision(asked: str, on_gpu: bool) -> str:
    """ "auto" is fp16 on a GPU; on a CPU bf16 where it computes in it, else fp32.

    Raises:
        UsageError: for one that torch does not run here.
    """
    if asked == "auto":
        return "fp16" if on_gpu else ("bf16" if cpu_has_bf16() else "fp32")
    known = ("fp32", "bf16", "fp16") if on_gpu else ("fp32", "bf16")
    if asked not in known:
        raise UsageError(
            f"--precision {asked}: the torch backend runs {', '.join(known)} on a {'GPU' if on_gpu else 'CPU'}"
        )
    return asked


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies in bf16 (AVX-512 BF16 or AMX)."""
    try:
        words = cpuinfo.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in words or "amx_bf16" in words


def build_module(model: LoadedModel, limit: list[float] | None = None) -> nn.Module:
    """The network, or the ensemble, with flips around it: uint8 [B, T, T, 3] -> float32 [B, C, T, T], in float32.

    With a `limit` it decodes only where needed and gives the presence too: see `wsiseg.backends.torch_gate.gated`.

    Raises:
        ModelError: when a checkpoint is damaged or does not fit its network.
    """
    from torch import nn

    checkpoint, export = (
        importlib.import_module("wsiseg_train.checkpoint"),
        importlib.import_module("wsiseg_train.export"),
    )
    members = []
    for path in model.checkpoints:
        net, spec = checkpoint.load_checkpoint(path)
        members.append(export.GraphModel(_fused(net), spec))
    symmetries, shares = variants(model.tta), model.weights
    if limit is not None:
        return gated(members, shares, symmetries, limit)

    class Composed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList(members)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            stacked = stack(image, symmetries)
            total: torch.Tensor | None = None
            for member, share in zip(self.members, shares, strict=True):
                given = member(stacked)
                value = (given[0] if isinstance(given, tuple) else given).float()
                mean = unstack(value, symmetries, share)
                total = mean if total is None else total + mean
            assert total is not None
            return total

    return Composed().eval()


def _fused(net: nn.Module) -> nn.Module:
    """`net` with batch norms folded into convolutions in float32, where it can be traced; itself where not."""
    from torch.fx.experimental import optimization

    try:
        return optimization.fuse(net)
    except (
        Exception
    ):  # tracing fails in many ways on networks with control flow; folding is an optimisation only
        return net


def _convert(module: nn.Module, precision: str, device: str) -> nn.Module:
    import torch

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return module.to(device=device, dtype=kinds[precision]).to(memory_format=torch.channels_last)


def _check_shape(result: torch.Tensor, spec: ModelSpec, options: SessionOptions) -> None:
    wanted = (options.batch, len(spec.classes), options.tile, options.tile)
    if tuple(result.shape) != wanted:
        raise ModelError(f"{spec.name}: the network gives {list(result.shape)}, its spec says {list(wanted)}")


class TorchCpuSession:
    """See `wsiseg.backends.base.Session`. One worker thread; torch spreads each batch over `threads`."""

    def __init__(
        self,
        spec: ModelSpec,
        options: SessionOptions,
        precision: str,
        module: nn.Module,
        limit: list[float] | None = None,
    ) -> None:
        import torch

        self.spec, self.options, self.precision = spec, options, precision
        self._gated = limit is not None
        self._absent = [np.zeros(options.batch, np.bool_)] * options.slots
        self._module = _convert(module, precision, "cpu")
        shape = (options.batch, options.tile, options.tile, 3)
        self._images = [np.zeros(shape, np.uint8) for _ in range(options.slots)]
        self._results: list[Future[npt.NDArray[np.float32]] | None] = [None] * options.slots
        self._worker = ThreadPoolExecutor(
            1, "torch", initializer=torch.set_num_threads, initargs=(options.threads,)
        )
        self.description = f"torch {torch.__version__} CPU {precision}, {options.threads} threads"
        with torch.inference_mode():
            first = self._module(torch.from_numpy(self._images[0]))
            _check_shape(first[0] if self._gated else first, spec, options)
        if limit is not None:
            limit[0] = options.presence

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        return self._images[slot]

    def start(self, slot: int, count: int) -> None:
        if not 1 <= count <= self.options.batch:
            raise ValueError(f"count {count} is not between 1 and {self.options.batch}")
        if self._results[slot] is not None:
            raise RuntimeError(f"slot {slot} was started twice without a wait")
        self._results[slot] = self._worker.submit(self._run, slot, count)

    def _run(self, slot: int, count: int) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            # The whole batch, whatever the count: kernels are chosen by shape, and another one rounds otherwise.
            given = self._module(torch.from_numpy(self._images[slot]))
            if self._gated:
                given, presence = given
                self._absent[slot] = (presence < self.options.presence).numpy()[:count]
            result: npt.NDArray[np.float32] = given[:count].contiguous().numpy()
        return result

    def absent(self, slot: int) -> npt.NDArray[np.bool_]:
        """See `wsiseg.backends.base.SkipsTiles`; nothing is absent in a session that decodes every tile."""
        return self._absent[slot]

    def wait(self, slot: int) -> npt.NDArray[np.float32]:
        future = self._results[slot]
        if future is None:
            raise RuntimeError(f"slot {slot} was not started")
        self._results[slot] = None
        return future.result()

    def close(self) -> None:
        self._worker.shutdown(wait=True)


@dataclass
class _Slot:
    image: torch.Tensor
    probability: torch.Tensor
    device_image: torch.Tensor
    device_probability: torch.Tensor
    graph: Any
    copied_in: Any
    computed: Any
    copied_out: Any
    count: int | None = None


class TorchCudaSession:
    """See `wsiseg.backends.base.Session`."""

    def __init__(
        self,
        spec: ModelSpec,
        options: SessionOptions,
        precision: str,
        module: nn.Module,
        device: int,
        graphs: bool = True,
    ) -> None:
        import torch

        self.spec, self.precision, self.notes = spec, precision, tuple[str, ...]()
        self._device = torch.device("cuda", device)
        if options.device_memory is not None:
            total = torch.cuda.get_device_properties(self._device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, options.device_memory / total), self._device)
        self._module = _convert(module, precision, f"cuda:{device}")
        try:
            self._open(options, graphs)
        except torch.cuda.OutOfMemoryError as error:
            self._slots: list[_Slot] = []
            torch.cuda.empty_cache()
            if options.batch == 1:
                raise EngineError(
                    f"{spec.name}: a batch of 1 does not fit the GPU's memory; use a smaller --tile"
                ) from error
            smaller = dataclasses.replace(options, batch=options.batch // 2)
            self.notes = (
                f"batch {options.batch} does not fit the GPU's memory; running with {smaller.batch}",
            )
            try:
                self._open(smaller, graphs)
            except torch.cuda.OutOfMemoryError as again:
                raise EngineError(
                    f"{spec.name}: batch {smaller.batch} does not fit the GPU's memory either; run with --batch 1"
                ) from again
        self.description = f"torch {torch.__version__} cuda:{device} {precision}, batch {self.options.batch}"

    def _open(self, options: SessionOptions, graphs: bool) -> None:
        import torch

        self.options, self._slots = options, []
        self._copy_in, self._compute, self._copy_out = (torch.cuda.Stream(self._device) for _ in range(3))
        pool = torch.cuda.graph_pool_handle() if graphs else None
        shape = (options.batch, options.tile, options.tile, 3)
        with torch.inference_mode(), torch.cuda.device(self._device):
            for _ in range(options.slots):
                device_image = torch.zeros(shape, dtype=torch.uint8, device=self._device)
                self._compute.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._compute):
                    for _ in range(WARM_UP):
                        result = self._module(device_image).contiguous()
                self._compute.synchronize()
                _check_shape(result, self.spec, options)
                graph = None
                if graphs:
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph, pool=pool, stream=self._compute):
                        result = self._module(device_image).contiguous()
                image = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
                probability = torch.zeros(tuple(result.shape), dtype=torch.float32, pin_memory=True)
                in_, done, out = torch.cuda.Event(), torch.cuda.Event(), torch.cuda.Event()
                self._slots.append(_Slot(image, probability, device_image, result, graph, in_, done, out))

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        array: npt.NDArray[np.uint8] = self._slots[slot].image.numpy()
        return array

    def start(self, slot: int, count: int) -> None:
        import torch

        one = self._slots[slot]
        if not 1 <= count <= self.options.batch:
            raise ValueError(f"count {count} is not between 1 and {self.options.batch}")
        if one.count is not None:
            raise RuntimeError(f"slot {slot} was started twice without a wait")
        one.image[count:] = 0
        with torch.inference_mode(), torch.cuda.device(self._device):
            with torch.cuda.stream(self._copy_in):
                one.device_image.copy_(one.image, non_blocking=True)
                one.copied_in.record()
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(one.copied_in)
                if one.graph is None:
                    one.device_probability.copy_(self._module(one.device_image))
                else:
                    one.graph.replay()
                one.computed.record()
            with torch.cuda.stream(self._copy_out):
                self._copy_out.wait_event(one.computed)
                one.probability[:count].copy_(one.device_probability[:count], non_blocking=True)
                one.copied_out.record()
        one.count = count

    def wait(self, slot: int) -> npt.NDArray[np.float32]:
        one = self._slots[slot]
        if one.count is None:
            raise RuntimeError(f"slot {slot} was not started")
        count, one.count = one.count, None
        one.copied_out.synchronize()
        array: npt.NDArray[np.float32] = one.probability.numpy()[:count]
        return array

    def device_models(self) -> list[tuple[int, Callable[[], ResidentModel]]]:
        """The network on the device's own buffers (the first slot's), for rows and bands that stay there."""
        import torch

        one = self._slots[0]

        def run() -> None:
            with torch.inference_mode(), torch.cuda.device(self._device):
                if one.graph is None:
                    one.device_probability.copy_(self._module(one.device_image))
                else:
                    one.graph.replay()

        return [
            (
                self._device.index,
                lambda: resident_model(self.options.batch, one.device_image, one.device_probability, run),
            )
        ]

    def close(self) -> None:
        import torch

        torch.cuda.synchronize(self._device)
        self._slots.clear()
        self._module = None  # type: ignore[assignment]
        torch.cuda.empty_cache()
