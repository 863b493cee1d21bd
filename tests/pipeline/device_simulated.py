"""The CUDA path against the CPU path, on numba's simulator: the same runs. A process of its own, since numba reads
NUMBA_ENABLE_CUDASIM once (tests/pipeline/test_device_path.py starts it, and a GPU machine runs it without the variable).
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numba import cuda

from tests import fixtures_models
from wsiseg.backends.base import SessionOptions
from wsiseg.backends.openvino import OpenVinoSession
from wsiseg.errors import Interrupted, ModelError
from wsiseg.pipeline.device_processor import DeviceProcessor
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideResult, SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.resident import resident_bytes
from wsiseg_kernels import cuda as kernels
from wsiseg_kernels.cuda.launch import SIMULATED

TILE = 8


class HostModel:
    """A `DeviceModel` whose network runs on the host: what the CPU path runs, so that only the path differs."""

    def __init__(self, graph: bytes, batch: int, fail_at: int | None = None) -> None:
        self.batch, self.runs, self.fail_at = batch, 0, fail_at
        self.session = OpenVinoSession(
            fixtures_models.load(graph), SessionOptions(TILE, batch, 1, 1, precision="fp32")
        )
        self.image = cuda.device_array((batch, TILE, TILE, 3), np.uint8)
        classes = len(self.session.spec.classes)
        self.probability = cuda.device_array((batch, classes, TILE, TILE), np.float32)

    def run(self) -> None:
        self.runs += 1
        if self.runs == self.fail_at:
            raise ModelError("the device is gone")
        self.session.input(0)[:] = self.image.copy_to_host()
        self.session.start(0, self.batch)
        self.probability.copy_to_device(np.ascontiguousarray(self.session.wait(0)))


def write(path: Path, height: int, width: int, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels[: height // 3, : width // 2] = 245  # no tissue there
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(16, 16), compression="deflate")
    return path


def both(
    paths: list[Path], graph: bytes, batch: int, devices: int = 1, memory: int = 4 << 30, **options: Any
) -> None:
    """Assert that the two paths give equal outcomes for every slide."""
    session = OpenVinoSession(fixtures_models.load(graph), SessionOptions(TILE, 1, 2, 1, precision="fp32"))
    chosen = RunOptions(tile=TILE, **options)
    tasks = [SlideTask(i, p.stem, str(p)) for i, p in enumerate(paths)]
    plain = list(Processor(session, chosen, memory=memory, threads=1).process(tasks))
    models = [(0, lambda: HostModel(graph, batch)) for _ in range(devices)]
    ours = list(DeviceProcessor(session, chosen, models, memory=memory, threads=1).process(tasks))
    assert [o.task.id for o in ours] == [t.id for t in tasks]
    for a, b in zip(plain, ours, strict=True):
        assert type(a) is type(b), (a, b)
        if isinstance(a, SlideFailure):
            assert (a.error, a.kind) == (b.error, b.kind)  # type: ignore[union-attr]
            continue
        assert isinstance(b, SlideResult)
        assert [r.to_rle() for r in a.runs] == [r.to_rle() for r in b.runs]
        assert a.stats["counts"].get("empty tiles") == b.stats["counts"].get("empty tiles")
        assert a.stats["counts"]["tiles"] == b.stats["counts"]["tiles"]
    assert any(
        len(o.runs[0].starts) > 5 for o in ours if isinstance(o, SlideResult)
    )  # or nothing was compared
    session.close()


class Stopping:
    """A checkpoint in memory, due at every row of tiles, that asks for a stop after each save."""

    def __init__(self, stop: threading.Event) -> None:
        self.arrays: dict[str, Any] = {}
        self.about: dict[str, Any] | None = None
        self.saved, self.seconds, self.problem, self.stop = 0, 0.0, "", stop

    def begin(self, resumed: bool) -> None:
        assert resumed == (self.about is not None)

    def due(self, size: int) -> bool:
        return True

    def save(
        self, grown: Mapping[str, Any], state: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> None:
        for name, array in grown.items():
            self.arrays[name] = np.concatenate([self.arrays.get(name, array[:0]), array])
        self.arrays |= state
        self.about = dict(about or {})
        self.saved += 1
        self.stop.set()

    def settle(self) -> None:
        pass

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        return None if self.about is None else (dict(self.arrays), dict(self.about))


def goes_on(path: Path, graph: bytes, memory: int = 4 << 30, **options: Any) -> None:
    """A slide that is stopped again and again goes on in its midst, and gives the undisturbed runs."""
    session = OpenVinoSession(fixtures_models.load(graph), SessionOptions(TILE, 1, 2, 1, precision="fp32"))
    chosen, task = RunOptions(tile=TILE, **options), SlideTask(0, "slide", str(path))
    (plain,) = Processor(session, chosen, memory=4 << 30, threads=1).process([task])
    assert isinstance(plain, SlideResult)
    stop = threading.Event()
    kept = Stopping(stop)
    made: list[HostModel] = []

    def make() -> HostModel:
        made.append(HostModel(graph, 2))
        return made[-1]

    at: list[tuple[int, int]] = []
    result: Any = None
    while result is None:
        stop.clear()
        processor = DeviceProcessor(
            session, chosen, [(0, make)], memory=memory, threads=1, checkpoints=lambda _: kept
        )
        try:
            (result,) = processor.process([task], stop)
        except Interrupted:
            assert kept.about is not None
            at.append((kept.about["panel"], kept.about["row"]))
    assert at == sorted(set(at))
    assert len(at) > 3
    assert isinstance(result, SlideResult)
    assert [r.to_rle() for r in result.runs] == [r.to_rle() for r in plain.runs]
    # the last process ran the end of the slide, not the whole of it
    assert made[-1].runs < sum(model.runs for model in made) / 2
    session.close()


def failures(path: Path, graph: bytes) -> None:
    """A device that fails stops everything with its own error, and leaves no thread behind."""
    session = OpenVinoSession(fixtures_models.load(graph), SessionOptions(TILE, 1, 2, 1, precision="fp32"))
    tasks = [SlideTask(i, str(i), str(path)) for i in range(3)]
    processor = DeviceProcessor(
        session,
        RunOptions(tile=TILE),
        [(0, lambda: HostModel(graph, 2, fail_at=3))],
        memory=4 << 30,
        threads=1,
    )
    with pytest.raises(ModelError, match="device is gone"):
        list(processor.process(tasks))
    stop = threading.Event()
    stop.set()
    good = DeviceProcessor(
        session, RunOptions(tile=TILE), [(0, lambda: HostModel(graph, 2))], memory=4 << 30, threads=1
    )
    with pytest.raises(Interrupted):
        list(good.process(tasks, stop))
    assert [t.name for t in threading.enumerate() if t.name.startswith(("wsiseg-", "decode-"))] == []
    session.close()


def one_at_a_time() -> None:
    """The simulator keeps a kernel's position in its threads, so two kernels cannot run at once there."""
    lock = threading.Lock()

    def locked(kernel: Any) -> Any:
        def call(*arguments: Any) -> Any:
            with lock:
                return kernel(*arguments)

        return call

    for name in ("gather_tile", "accumulate", "finish"):
        setattr(kernels, name, locked(getattr(kernels, name)))


def main() -> None:
    if SIMULATED:
        one_at_a_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.tif"
        text.write_text("no slide")
        slides = [
            write(folder / f"s{i}.tif", h, w, i)
            for i, (h, w) in enumerate([(30, 41), (1, 1), (5, 60), (50, 9)])
        ]
        graph = fixtures_models.random_conv(1)
        both([*slides[:2], text, *slides[2:]], graph, batch=3, overlap=0.25)
        both(
            slides[:1],
            fixtures_models.random_conv(2, classes=2),
            batch=5,
            overlap=0.5,
            scale=2,
            threshold=0.1,
        )
        both(slides, graph, batch=2, devices=2, overlap=0.0, tissue="none")
        both(
            slides[:1],
            fixtures_models.random_conv(1, fill="white"),
            batch=4,
            overlap=0.25,
            tissue="none",
            memory=resident_bytes() + (70 << 20),
        )
        failures(slides[0], graph)
        goes_on(slides[3], graph, overlap=0.25, tissue="none")
        goes_on(slides[0], fixtures_models.random_conv(2, classes=2), overlap=0.5, threshold=0.1)
    print("equal")


if __name__ == "__main__":
    main()
    sys.exit(0)
