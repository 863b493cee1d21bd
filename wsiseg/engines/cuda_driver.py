"""Whether this machine has a working NVIDIA driver, asked of the driver itself, with nothing installed.

TensorRT's runtime dies of SIGSEGV on a machine without a driver, and CUDA bindings fail in unclear ways. So nothing of
them is imported before `libcuda.so.1` has loaded, `cuInit` has succeeded and there is a device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OLDEST_DRIVER = 12000  # CUDA 12: what the oldest supported TensorRT 10 wheels want
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_ERRORS = {
    100: "no CUDA device (is the GPU granted to this job, and CUDA_VISIBLE_DEVICES not empty?)",
    3: "the driver is not initialised",
    35: "the driver is older than its library",
    802: "the GPU is not ready (is the fabric manager running?)",
    803: "the kernel module and libcuda.so.1 are of different driver versions; reboot or reinstall the driver",
    804: "this GPU does not support the forward compatibility libraries",
}


@dataclass(frozen=True)
class Gpu:
    """One device: its index, name, compute capability ("9.0") and memory in bytes."""

    index: int
    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True)
class Driver:
    """What the driver says: `gpus` is empty exactly when `reason` says why. `cuda` is the newest CUDA it runs, as 13000."""

    gpus: tuple[Gpu, ...] = ()
    cuda: int = 0
    reason: str = ""

    @property
    def cuda_text(self) -> str:
        return f"{self.cuda // 1000}.{self.cuda % 1000 // 10}"


def probe(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Ask the driver. Never raises; `load` opens a shared library, and is exchanged in tests."""
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return Driver(
            reason="no NVIDIA driver (libcuda.so.1 is not on this machine); install the driver, or start the container with --gpus all"
        )
    status = cuda.cuInit(0)
    if status:
        return Driver(
            reason=f"the NVIDIA driver does not start: {_ERRORS.get(status, f'cuInit error {status}')}"
        )
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    version = number.value
    if cuda.cuDeviceGetCount(ctypes.byref(number)) or number.value < 1:
        return Driver(cuda=version, reason=_ERRORS[100])
    if version < OLDEST_DRIVER:
        return Driver(
            cuda=version,
            reason=f"the NVIDIA driver is too old: it runs CUDA {version // 1000}, needed is 12 or newer (driver 535 or newer)",
        )
    return Driver(tuple(_gpu(cuda, index) for index in range(number.value)), version)


def _gpu(cuda: Any, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)
