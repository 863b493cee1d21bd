"""The steps of `benchmarks.gpu`. Each takes a Context and gives plain data; without a GPU it rehearses on stand-ins."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_rate import tiles_per_second
from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.run import run_tiles
from wsiseg.engines import cuda_driver, parity
from wsiseg.engines.tiles import procedural_tiles

ROOT = Path(__file__).resolve().parents[1]
SIMULATE = {"NUMBA_ENABLE_CUDASIM": "1"}


class Missing(Exception):
    """A step cannot be done here; the message says what it needs."""


@dataclass
class Context:
    """What the steps know: is there a GPU, how large may things be, where TensorRT 8.6 is unpacked, where files go."""

    gpu: bool
    folder: Path
    tensorrt8: Path | None = None
    tile: int = 512
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    seconds: float = 2.0
    notes: list[str] = field(default_factory=list)


def need(*modules: str) -> None:
    """Raises Missing for a module that is not installed."""
    gone = [name for name in modules if importlib.util.find_spec(name) is None]
    if gone:
        raise Missing(f"not installed: {', '.join(gone)}")


def script(path: str, *arguments: str, env: dict[str, str] | None = None, timeout: int = 200) -> str:
    """Standard output of a Python script in a process of its own (numba reads its settings once)."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "train")),
        **(env or {}),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / path), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{path} failed")
    return done.stdout


def machine(context: Context) -> dict[str, Any]:
    """The GPU, as its driver names it."""
    driver = cuda_driver.probe()
    return {
        "gpus": [vars(g) for g in driver.gpus],
        "cuda": driver.cuda_text if driver.gpus else "",
        "reason": driver.reason,
    }


def kernels(context: Context) -> dict[str, Any]:
    """Every CUDA kernel against the numpy reference: the same bytes."""
    need("numba_cuda")
    options = ("resident",) if context.gpu else ("thin",)
    report = json.loads(
        script(
            "tests/kernels/parity_matrix.py",
            "wsiseg_kernels.cuda",
            *options,
            env={} if context.gpu else SIMULATE,
        ).splitlines()[-1]
    )
    return {"cases": report["cases"], "failures": list(report["failures"])}


def ptx(context: Context) -> dict[str, Any]:
    """Every kernel compiled for sm_80 and sm_90; needs no GPU."""
    need("numba_cuda")
    texts = json.loads(script("tests/kernels/ptx_signatures.py", "8.0", "9.0").splitlines()[-1])
    if "unavailable" in texts:
        raise Missing(texts["unavailable"][:200])
    return {"kernels": len(texts), "bytes": sum(len(t) for t in texts.values())}


def device_path(context: Context) -> dict[str, Any]:
    """Slides through the CUDA path against the CPU path: the same runs."""
    need("numba_cuda", "openvino", "onnx", "tifffile", "imagecodecs", "cv2")
    out = script("tests/pipeline/device_simulated.py", env={} if context.gpu else SIMULATE)
    return {"equal": out.splitlines()[-1] == "equal"}


@contextmanager
def opened(session: Session) -> Iterator[Session]:
    try:
        yield session
    finally:
        session.close()


def torch_backend(context: Context) -> dict[str, Any]:
    """The torch session: against float32 on the CPU, then tiles per second with and without CUDA graphs."""
    need("torch")
    from benchmarks import gpu_network
    from wsiseg.backends.torch import TorchCpuSession, TorchCudaSession

    spec, small = gpu_network.SPEC, 128
    pictures = procedural_tiles(small, 4)
    with opened(
        TorchCpuSession(spec, SessionOptions(small, 2, 2, 2), "fp32", gpu_network.build())
    ) as session:
        expected = run_tiles(session, pictures)

    def open_one(options: SessionOptions, precision: str, graphs: bool = True) -> Session:
        if context.gpu:
            return TorchCudaSession(spec, options, precision, gpu_network.build(), 0, graphs)
        return TorchCpuSession(spec, options, "bf16", gpu_network.build())

    correct = {}
    for precision in ("fp32", "fp16"):
        with opened(open_one(SessionOptions(small, 2, 2, 2), precision)) as session:
            report = parity.compare(
                expected, run_tiles(session, pictures), spec.thresholds, precision, "procedural"
            )
            correct[precision] = report.to_dict()
    rows = []
    for batch in context.batches:
        for graphs in (True, False):
            with opened(open_one(SessionOptions(context.tile, batch, 3, 2), "fp16", graphs)) as session:
                rate = tiles_per_second(session, context.seconds)
                rows.append(
                    {
                        "batch": session.options.batch,
                        "graphs": graphs,
                        "tiles per second": rate,
                        "what": session.description,
                    }
                )
    return {"against fp32 on the CPU (random weights: an upper bound)": correct, "speed": rows}


def graph(context: Context) -> dict[str, Any]:
    """The network as ONNX, specialised and in half precision, as the compiler gets it; kept for the TensorRT step."""
    need("torch", "onnx", "onnxscript")
    import logging
    import warnings

    import torch

    from benchmarks import gpu_network
    from wsiseg.engines import graph as graphs
    from wsiseg.engines import half
    from wsiseg.model import onnxio

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            gpu_network.build(), (torch.zeros(2, 64, 64, 3, dtype=torch.uint8),), dynamo=True, opset_version=18, verbose=False, external_data=False,
            input_names=[onnxio.INPUT], output_names=[onnxio.OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1), 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},),
        )  # fmt: skip
    model = program.model_proto
    onnxio.set_spec(model, gpu_network.SPEC)
    (context.folder / "network.onnx").write_bytes(onnxio.canonical(model))
    special = graphs.specialise(model, context.tile, "network")
    graphs.check_operators(special, "network")
    halved, report = half.to_half(special, "network")
    (context.folder / "network.half.onnx").write_bytes(onnxio.canonical(halved))
    keep_for_tensorrt8(context, halved)
    return {
        "operators": sorted({n.op_type for n in halved.graph.node}),
        "half tensors": report.tensors,
        "float32 from": report.kept,
    }


def keep_for_tensorrt8(context: Context, model: Any) -> None:
    """The graph as opset 17, which is what TensorRT 8.6 reads, and what it should give on some tiles."""
    import torch

    from benchmarks import gpu_network
    from wsiseg.model import onnxio

    for entry in model.opset_import:
        entry.version = min(entry.version, 17)
    for node in model.graph.node:
        kept = [a for a in node.attribute if a.name not in ("antialias", "keep_aspect_ratio_policy")]
        del node.attribute[:]
        node.attribute.extend(kept)
    (context.folder / "network.trt8.onnx").write_bytes(onnxio.canonical(model))
    tiles = procedural_tiles(context.tile, 2)
    with torch.inference_mode():
        probability = gpu_network.build()(torch.from_numpy(tiles)).numpy()
    np.savez(context.folder / "reference.npz", tiles=tiles, probability=probability)


def tensorrt(context: Context) -> dict[str, Any]:
    """TensorRT: built, inspected, run against torch float32, tiles per second; 8.6 from its pack where it is given."""
    if not context.gpu:
        need("torch")  # what it compares with
        return _rehearse_tensorrt(context)
    prepared = context.folder / "network.half.onnx"
    if not prepared.exists():
        raise Missing(
            "network.half.onnx (the step `graph` makes it; or carry the folder of a dry run with --inputs)"
        )
    if context.tensorrt8 is None:
        need("tensorrt")
        return _tensorrt_here(context)
    arguments = [
        str(prepared),
        str(context.folder / "tensorrt8.json"),
        str(context.tile),
        ",".join(map(str, context.batches)),
        str(context.seconds),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [
        str(context.tensorrt8 / "run"),
        "-c",
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from tests.gpu.tensorrt8 import main; main()",
    ]
    done = subprocess.run([*run, *arguments], env=env, capture_output=True, text=True, timeout=330)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["TensorRT 8.6 died"])[-1])
    result: dict[str, Any] = json.loads((context.folder / "tensorrt8.json").read_text())
    return result


def _tensorrt_here(context: Context) -> dict[str, Any]:
    """TensorRT 10 or 11 in this interpreter, by the code that users run."""
    from benchmarks import gpu_network
    from wsiseg.backends.run import probabilities
    from wsiseg.backends.tensorrt import TensorRtSession
    from wsiseg.engines import build, tensorrt_build
    from wsiseg.engines.cuda_api import CudaBindings
    from wsiseg.engines.tensorrt_runtime import TensorRtPlan
    from wsiseg.model.load import load_models

    model = load_models([str(context.folder / "network.onnx")])
    pictures, most = procedural_tiles(context.tile, 4), max(context.batches)
    built = tensorrt_build.build(
        build.Request(model, "fp16", context.tile, most, pictures, "procedural", tell=context.notes.append)
    )
    rows = []
    for batch in context.batches:
        for graphs in (True, False):
            plan = TensorRtPlan(built.plan, context.tile, most, "benchmark")
            options = SessionOptions(context.tile, batch, 3, 1)
            with opened(
                TensorRtSession(
                    gpu_network.SPEC, options, "fp16", plan, CudaBindings(), 0, "tensorrt", graphs
                )
            ) as session:
                rows.append(
                    {
                        "batch": batch,
                        "graphs": graphs,
                        "tiles per second": tiles_per_second(session, context.seconds),
                    }
                )
                got = run_tiles(session, pictures)
    expected, _ = probabilities(model, pictures, "openvino", "fp32", 1, 2)
    report = parity.compare(expected, got, model.spec.thresholds, "fp16", "procedural")
    return {
        "version": built.runtime_version,
        "plan bytes": len(built.plan),
        "against fp32": report.to_dict(),
        "speed": rows,
    }


def _rehearse_tensorrt(context: Context) -> dict[str, Any]:
    """The session on the simulated device: ordering, padding and the loop that will measure."""
    from benchmarks import gpu_network
    from tests.simulated_cuda import SimulatedCuda, SimulatedPlan
    from wsiseg.backends.tensorrt import TensorRtSession

    rows = []
    for batch in context.batches:
        for graphs in (True, False):
            api = SimulatedCuda()
            plan = SimulatedPlan(api, lambda x: x[..., :1].transpose(0, 3, 1, 2) / 255, context.tile, batch)
            options = SessionOptions(context.tile, batch, 3, 1)
            session = TensorRtSession(gpu_network.SPEC, options, "fp16", plan, api, 0, "simulated", graphs)
            tiles_per_second(session, 0.01)
            session.close()
            rows.append({"batch": batch, "graphs": graphs, "clean": api.nothing_left()})
    return {"simulated": rows}


class Busy:
    """Samples a GPU's busy share and memory, as its driver counts them, while a block runs."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.memory: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        command = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu,memory.used",
            "--format=csv,noheader,nounits",
            "-i",
            "0",
        ]
        while not self._stop.wait(0.2):
            try:
                out = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.split(",")
                self.shares.append(float(out[0]))
                self.memory.append(float(out[1]))
            except (OSError, ValueError, IndexError, subprocess.SubprocessError):
                return

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, Any]:
        inner = self.shares[1:-1] or self.shares
        return {
            "busy share": sum(inner) / len(inner) / 100 if inner else None,
            "peak device memory MiB": max(self.memory, default=None),
        }


def end_to_end(context: Context) -> dict[str, Any]:
    """A synthetic slide through `Processor` and, on a GPU, through the CUDA path: Mpx/s, busy share, the slowest stage."""
    need("torch", "tifffile", "imagecodecs", "cv2", "numba")
    from benchmarks import gpu_network
    from wsiseg.backends.on_device import device_models
    from wsiseg.backends.torch import TorchCpuSession, TorchCudaSession
    from wsiseg.pipeline.device_processor import DeviceProcessor
    from wsiseg.pipeline.options import RunOptions, SlideResult, SlideTask
    from wsiseg.pipeline.processor import Processor

    edge = 16384 if context.gpu else 512
    path = context.folder / "slide.tif"
    write_slide(path, edge)
    cores = len(os.sched_getaffinity(0))
    task, found = [SlideTask(0, "slide", str(path))], {}
    for name in ("batches from the host", "CUDA path") if context.gpu else ("batches from the host",):
        options = SessionOptions(context.tile, 16 if context.gpu else 1, 3, cores)
        session: Session = (
            TorchCudaSession(gpu_network.SPEC, options, "fp16", gpu_network.build(), 0)
            if context.gpu
            else TorchCpuSession(gpu_network.SPEC, options, "bf16", gpu_network.build())
        )
        with opened(session):
            chosen = RunOptions(tile=context.tile, tissue="none", scale=1)
            settings: dict[str, Any] = {"memory": 16 << 30, "threads": cores}
            models = device_models(session)
            processor = (
                DeviceProcessor(session, chosen, models, **settings)
                if name == "CUDA path"
                else Processor(session, chosen, **settings)
            )
            with Busy() as busy:
                started = time.perf_counter()
                (outcome,) = processor.process(task)
                seconds = time.perf_counter() - started
        if not isinstance(outcome, SlideResult):
            raise RuntimeError(outcome.error)
        times = outcome.stats["times"]
        waits = {k: v for k, v in times.items() if k != "decode"}
        found[name] = {
            "Mpx per second": edge * edge / 1e6 / seconds, "seconds": seconds, "tiles": outcome.stats["counts"]["tiles"], **busy.summary(),
            "stages": times, "longest stage": max(waits, key=lambda k: waits[k]), "runs": len(outcome.runs[0].starts),
        }  # fmt: skip
    if len(found) == 2:
        found["same mask"] = len({v["runs"] for v in found.values()}) == 1
    return found


def write_slide(path: Path, edge: int) -> None:
    """A tiled JPEG slide of one procedural pattern, repeated: reading costs what a real one costs."""
    import tifffile

    tile = procedural_tiles(512, 1)[0]

    def tiles() -> Iterator[np.ndarray]:
        for _ in range((edge // 512) ** 2):
            yield tile

    tifffile.imwrite(
        path,
        tiles(),
        shape=(edge, edge, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        compression="jpeg",
        bigtiff=True,
    )


STEPS: dict[str, Callable[[Context], dict[str, Any]]] = {
    "machine": machine,
    "kernels": kernels,
    "ptx": ptx,
    "device path": device_path,
    "torch": torch_backend,
    "graph": graph,
    "tensorrt": tensorrt,
    "end to end": end_to_end,
}
