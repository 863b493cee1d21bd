"""On a GPU: the real CUDA calls, the torch session, TensorRT. `python -m benchmarks.gpu` runs the whole of it at once."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from wsiseg.backends import SessionOptions
from wsiseg.backends.run import run_tiles
from wsiseg.engines import cuda_driver

pytestmark = pytest.mark.gpu
DRIVER = cuda_driver.probe()


@pytest.fixture(autouse=True)
def _a_gpu() -> None:
    if not DRIVER.gpus:
        pytest.skip(f"needs an NVIDIA GPU: {DRIVER.reason}")


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")


def test_the_real_cuda_api_copies_in_order() -> None:
    need("cuda")
    from wsiseg.engines.cuda_api import CudaBindings, DeviceMemoryError

    api = CudaBindings()
    api.set_device(0)
    source, target = api.allocate_pinned((1000,), np.uint8), api.allocate_pinned((1000,), np.uint8)
    source[:] = np.arange(1000) % 251
    pointer, first, second, event = (
        api.allocate(1000),
        api.create_stream(),
        api.create_stream(),
        api.create_event(),
    )
    api.copy_in(pointer, source, first)
    api.record(event, first)
    api.wait_event(second, event)
    api.copy_out(target, pointer, second)
    api.synchronise_stream(second)
    assert np.array_equal(source, target)
    with pytest.raises(DeviceMemoryError):
        api.allocate(1 << 50)
    assert api.memory_info()[0] > 0  # the failed allocation left no error behind
    for array in (source, target):
        api.free_pinned(array)
    api.free(pointer)


@pytest.mark.torch
@pytest.mark.parametrize("graphs", [True, False])
def test_torch_equals_the_cpu(graphs: bool) -> None:
    need("torch")
    from benchmarks import gpu_network
    from wsiseg.backends.torch import TorchCpuSession, TorchCudaSession

    tiles = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    options = SessionOptions(64, 2, 3, 2)
    cpu = TorchCpuSession(gpu_network.SPEC, options, "fp32", gpu_network.build())
    gpu = TorchCudaSession(gpu_network.SPEC, options, "fp32", gpu_network.build(), 0, graphs)
    assert np.abs(run_tiles(cpu, tiles) - run_tiles(gpu, tiles)).max() < 0.02  # TF32 may round inside
    cpu.close()
    gpu.close()


def test_an_engine_is_built_run_and_equal(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    for module in ("tensorrt", "onnx", "openvino"):
        need(module)
    from tests import fixtures_models as networks
    from wsiseg.cli.main import main

    (tmp_path / "net.onnx").write_bytes(networks.redness(tile=64, tile_multiple=8))
    assert (
        main(
            [
                "build-engine",
                str(tmp_path / "net.onnx"),
                "-o",
                str(tmp_path / "net.engine"),
                "--backend",
                "tensorrt",
                "--batch",
                "4",
            ]
        )
        == 0
    )
    assert "within the limit" in capsys.readouterr().out
