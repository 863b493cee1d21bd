"""`wsiseg build-engine --backend tensorrt` and its engine's session, on stand-ins for TensorRT and the device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests import fake_tensorrt
from tests import fixtures_models as networks
from tests.simulated_cuda import SimulatedCuda
from wsiseg.backends import SessionOptions, choose, open_session
from wsiseg.backends import tensorrt as backend
from wsiseg.backends.run import probabilities
from wsiseg.cli import build_engine as command
from wsiseg.engines import cuda_driver
from wsiseg.engines.cuda_driver import Driver, Gpu
from wsiseg.engines.tiles import procedural_tiles
from wsiseg.errors import EngineError, ModelError, UsageError
from wsiseg.model.enginefile import EngineFile
from wsiseg.model.load import load_models

GPUS = (Gpu(0, "NVIDIA H200", "9.0", 140 << 30), Gpu(1, "NVIDIA H200", "9.0", 140 << 30))
TILE = 32
Machine = Callable[..., SimulatedCuda]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """(gpus, cuda, memory, fake's options) -> the simulated device of a machine that has TensorRT."""
    monkeypatch.setenv("WSISEG_CACHE", str(tmp_path / "cache"))
    for name in ("cuda", "cuda.bindings"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)

    def make(
        gpus: tuple[Gpu, ...] = GPUS, cuda: int = 13000, memory: int = 1 << 30, **options: str
    ) -> SimulatedCuda:
        api = SimulatedCuda(memory)
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(api, **options))
        monkeypatch.setattr(cuda_driver, "probe", lambda: Driver(gpus, cuda))
        monkeypatch.setattr(backend, "CudaBindings", lambda: api)
        return api

    return make


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(networks.random_conv(1, tile=TILE, tile_multiple=8))
    return path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(w) for w in words]))


def options(**changes: object) -> SessionOptions:
    return SessionOptions(**({"tile": TILE, "batch": 2, "slots": 2, "threads": 1} | changes))  # type: ignore[arg-type]


@pytest.fixture
def engine_file(machine: Machine, model_file: Path, tmp_path: Path) -> Path:
    machine()
    run(model_file, "-o", tmp_path / "net.engine", "--batch", 4, "--tta", "flips", "--threads", 1)
    return tmp_path / "net.engine"


def test_built_reported_and_run(
    machine: Machine, engine_file: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model_file, "-o", engine_file, "--batch", 4, "--tta", "flips", "--threads", 1, "--force")
    told = capsys.readouterr().out
    assert "1 working layers, all in fp16" in told
    assert "fp16 against fp32 on 8 procedural tiles" in told
    assert "tile 32, batch up to 4" in told
    sidecar = EngineFile.open(engine_file).sidecar
    assert (sidecar.precision, sidecar.tile, sidecar.batch, sidecar.tta) == ("fp16", TILE, 4, "flips")
    assert sidecar.key["gpu"] == "NVIDIA H200"
    engine = load_models([str(engine_file)])
    assert choose(engine, options()) == "tensorrt"
    pictures = procedural_tiles(TILE, 5)
    got, precision = probabilities(engine, pictures, "auto", batch=3)
    expected, _ = probabilities(load_models([str(model_file)], tta="flips"), pictures, "openvino", "fp32")
    assert precision == "fp16"
    assert 0 < np.abs(got - expected).max() < 0.01  # half precision, and no more than that


def test_batches_beyond_the_plan_s_and_two_devices(machine: Machine, engine_file: Path) -> None:
    api = machine()
    engine = load_models([str(engine_file)])
    session = open_session(engine, options(batch=16))
    assert session.options.batch == 4
    session.close()
    both = open_session(engine, options(device="cuda:0,1"))
    assert both.options.slots == 4
    both.close()
    assert api.nothing_left()
    with pytest.raises(UsageError, match="this machine has 2 GPUs"):
        open_session(engine, options(device="cuda:2"))
    small = open_session(
        engine, options(batch=4, device_memory=4 * TILE * TILE * 3 + 2 * 4 * TILE * TILE * 7 - 1)
    )
    assert small.options.batch == 2
    small.close()


@pytest.mark.parametrize(
    ("gpus", "cuda", "version", "message"),
    [
        (
            (Gpu(0, "NVIDIA A100", "8.0", 1),),
            13000,
            "10.16.1",
            "built for compute capability 9.0, this machine has 8.0",
        ),
        (
            (Gpu(0, "NVIDIA H100", "9.0", 1),),
            13000,
            "10.16.1",
            "built for GPU NVIDIA H200, this machine has NVIDIA H100",
        ),
        (GPUS, 12080, "10.16.1", "built for driver generation CUDA 13, this machine has CUDA 12"),
        (GPUS, 13000, "11.4.0", "built for TensorRT version 10.16.1, this machine has 11.4.0"),
    ],
)
def test_a_plan_of_another_machine_is_never_run(
    machine: Machine, engine_file: Path, gpus: tuple[Gpu, ...], cuda: int, version: str, message: str
) -> None:
    machine(gpus, cuda, version=version, fail="load")  # were it run, it would fail in another way
    with pytest.raises(EngineError, match=message) as caught:
        open_session(load_models([str(engine_file)]), options())
    assert "`wsiseg build-engine " in str(caught.value)


def test_another_tile_a_tampered_plan_no_driver_and_an_old_one(
    machine: Machine, engine_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    engine = load_models([str(engine_file)])
    with pytest.raises(EngineError, match="built for tile 32, asked for 64; run with --tile 32"):
        open_session(engine, options(tile=64))
    monkeypatch.setattr(cuda_driver, "probe", lambda: Driver(reason="no NVIDIA driver"))
    with pytest.raises(EngineError, match=r"no backend can run .* tensorrt: no NVIDIA driver"):
        open_session(engine, options())
    machine(version="9.3.0")
    with pytest.raises(EngineError, match=r"TensorRT 9\.3\.0 is too old; pip install"):
        open_session(engine, options())
    machine()
    engine_file.write_bytes(engine_file.read_bytes()[:-1] + b"x")
    with pytest.raises(EngineError, match="its hash is not the one in its sidecar"):
        open_session(engine, options())


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        ({"fail": "parse"}, "TensorRT cannot read the graph: unsupported node"),
        ({"fail": "build"}, "could not build the engine: no tactic fits; try a smaller --batch"),
        ({"fail": "load"}, "cannot load the engine it has just built"),
        ({"layer_format": "Float"}, "the engine is not fp16: 1 of 1 working layers"),
    ],
)
def test_a_build_that_fails_leaves_nothing(
    machine: Machine, model_file: Path, tmp_path: Path, fake: dict[str, str], message: str
) -> None:
    machine(**fake)
    with pytest.raises(EngineError, match=message):
        run(model_file, "-o", tmp_path / "x.engine", "--backend", "tensorrt")
    assert not (tmp_path / "x.engine").exists()
    assert not (tmp_path / "x.engine.json").exists()


def test_kernel_times_are_kept_and_another_gpu_s_are_not_used(
    machine: Machine, model_file: Path, tmp_path: Path
) -> None:
    machine()
    run(model_file, "-o", tmp_path / "a.engine", "--timing-cache", tmp_path / "times.bin", "--threads", 1)
    assert (tmp_path / "times.bin").read_bytes() == b"t"
    run(model_file, "-o", tmp_path / "b.engine", "--timing-cache", tmp_path / "times.bin", "--threads", 1)
    assert (tmp_path / "times.bin").read_bytes() == b"tt"
    (tmp_path / "times.bin").write_bytes(b"of another GPU")
    run(model_file, "-o", tmp_path / "c.engine", "--timing-cache", tmp_path / "times.bin", "--threads", 1)
    assert (tmp_path / "times.bin").read_bytes() == b"t"
    run(model_file, "-o", tmp_path / "d.engine", "--threads", 1)
    assert [p.name.split("-")[0] for p in (tmp_path / "cache").iterdir()] == ["timing"]


def test_up_to_date_until_an_option_or_the_machine_changes(
    machine: Machine, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine()
    words = (model_file, "-o", tmp_path / "a.engine", "--threads", 1)

    def kept(*more: object) -> bool:
        capsys.readouterr()
        run(*words, *more)
        return "up to date" in capsys.readouterr().out

    assert not kept()
    assert kept()
    assert not kept("--refit")
    assert not kept("--optimization-level", 5)
    machine((Gpu(0, "NVIDIA A100", "8.0", 1),))
    assert not kept()


def test_it_runs_engines_only(machine: Machine, model_file: Path) -> None:
    machine()
    with pytest.raises(ModelError, match="it runs engines only; build one with"):
        open_session(load_models([str(model_file)]), options(), "tensorrt")
