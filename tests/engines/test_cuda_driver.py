"""The guard in front of TensorRT and CUDA: no library, no device, an old driver; nothing is loaded before it passes."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsiseg.engines import cuda_driver


class FakeCuda:
    def __init__(self, init: int = 0, version: int = 13000, count: int = 1) -> None:
        self.init, self.version, self.count = init, version, count

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = self.count
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:
        out._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"Fake GPU"
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: Any) -> int:
        out._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, device: Any) -> int:
        out._obj.value = 80 << 30
        return 0


def test_a_working_driver() -> None:
    driver = cuda_driver.probe(lambda name: FakeCuda(count=2))
    assert driver.gpus == tuple(cuda_driver.Gpu(i, "Fake GPU", "9.0", 80 << 30) for i in range(2))
    assert (driver.cuda_text, driver.reason) == ("13.0", "")


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (FakeCuda(init=100), "no CUDA device"),
        (FakeCuda(init=803), "different driver versions"),
        (FakeCuda(init=999), "cuInit error 999"),
        (FakeCuda(count=0), "no CUDA device"),
        (FakeCuda(version=11080), "too old: it runs CUDA 11, needed is 12"),
    ],
)
def test_a_driver_that_does_not_work_says_why(fake: FakeCuda, reason: str) -> None:
    driver = cuda_driver.probe(lambda name: fake)
    assert driver.gpus == ()
    assert reason in driver.reason


def test_no_driver() -> None:
    def fail(name: str) -> ctypes.CDLL:
        raise OSError(name)

    assert "libcuda.so.1 is not on this machine" in cuda_driver.probe(fail).reason


def test_nothing_of_cuda_is_loaded_without_a_driver() -> None:
    if cuda_driver.probe().gpus:
        pytest.skip("this machine has a GPU")
    code = (
        "import sys; from wsiseg.backends import registry; from wsiseg.engines import tensorrt_build;"
        "print(registry.available()['tensorrt'].usable, tensorrt_build.missing()[:16],"
        "[m for m in sys.modules if m.split('.')[0] in ('tensorrt', 'cuda')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "False no NVIDIA driver []"
