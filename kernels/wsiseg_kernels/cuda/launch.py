"""What all CUDA kernels share: compilation, launch shapes, host arrays lent to the device, unfused arithmetic.

With NUMBA_ENABLE_CUDASIM=1 set before import, numba's simulator runs the same kernels as Python threads.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba import cuda

_config: Any = getattr(
    cuda, "config", numba.config
)  # numba-cuda's own, or that of the CUDA target inside numba
SIMULATED = bool(_config.ENABLE_CUDASIM)

# A tile or a panel is small for a large GPU, and that is no mistake to warn of at each launch.
_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

# The simulator starts one Python thread per CUDA thread of a block.
LINE = 8 if SIMULATED else 256
PLANE = (2, 4) if SIMULATED else (8, 32)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for the device at hand on first use, and keep it on disc."""
    return cuda.jit(function, cache=not SIMULATED)


mul: Any
add: Any
div: Any
rint: Any
if SIMULATED:
    mul, add, div, rint = operator.mul, operator.add, operator.truediv, np.rint
else:
    from numba.cuda import libdevice

    # Written with operators, the compiler would fuse a product and a sum into one rounding, and the bytes would differ.
    mul, add, div, rint = libdevice.fmul_rn, libdevice.fadd_rn, libdevice.fdiv_rn, libdevice.rintf


def launch_line(function: Any, n: int, *arguments: Any) -> None:
    """Run a kernel with at least n threads in one dimension."""
    if n > 0:
        function[-(-n // LINE), LINE](*arguments)


def launch_plane(function: Any, h: int, w: int, *arguments: Any) -> None:
    """Run a kernel with at least h x w threads, the second dimension along memory."""
    if h > 0 and w > 0:
        # CUDA's x runs fastest: give it the columns.
        function[(-(-w // PLANE[1]), -(-h // PLANE[0])), (PLANE[1], PLANE[0])](*arguments)


@contextmanager
def lent(*arrays: Any, writes: int) -> Iterator[list[Any]]:
    """The arrays on the device. Host arrays are copied there, and the first `writes` of them copied back at the end."""
    there = [a if is_device(a) else cuda.to_device(np.ascontiguousarray(a)) for a in arrays]
    yield there
    for host, copy in zip(arrays[:writes], there[:writes], strict=True):
        if not is_device(host):
            host[...] = copy.copy_to_host()


def is_device(array: Any) -> bool:
    """Whether it lies on the device already (anything with the CUDA array interface)."""
    return not isinstance(array, np.ndarray) and hasattr(
        array, "__cuda_array_interface__" if not SIMULATED else "copy_to_host"
    )
