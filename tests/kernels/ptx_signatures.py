"""Compiles every CUDA kernel to PTX for given architectures without a GPU; run in a process of its own.

`python tests/kernels/ptx_signatures.py 8.0 9.0` prints {"KERNEL-ARCHITECTURE": PTX} as JSON,
or {"unavailable": REASON} where numba has no CUDA compiler library.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from numba import boolean, cuda, float32, int32, int64, types, uint8, uint32

from wsiseg_kernels.cuda import blend, columns, pixels

i, flag = int64, boolean


def array(dtype: types.Type, dimensions: int) -> types.Array:
    return types.Array(dtype, dimensions, "C")


line, plane, cube = array(float32, 1), array(float32, 2), array(float32, 3)
image, bytes_, places = array(uint8, 3), array(uint8, 1), array(int32, 1)
flat, sums = array(int64, 1), array(uint32, 3)

SIGNATURES = {
    blend._accumulate: (cube, cube, line, i, i, i),
    blend._finish: (cube, i, i, line, line, cube),
    pixels._shrink: (image, i, image),
    pixels._shrink_add: (image, i, i, i, i, i, i, i, sums),
    pixels._shrink_finish: (sums, i, i, i, i, array(uint8, 2)),
    pixels._gather: (image, i, i, i, i, i, i, i, image),
    pixels._tissue: (image, places),
    columns._columns: (plane, *[i] * 7, flag, bytes_, line, places, places, places, places, i, flag),
    columns._remember: (plane, line),
    columns._count_open: (bytes_, places, places),
    columns._close: (bytes_, i, i, places, places, places, i),
    columns._draw: (flat, flat, i, i, i, array(uint8, 2)),
    columns._toggles: (array(uint8, 2), places, places, places, places, flag),
}


def smallest(values: np.ndarray) -> None:
    """Compiles wherever numba can compile for CUDA without a device (its built-in target cannot compile `min` so)."""
    values[0] = min(values[0], 1)


def main(architectures: list[str]) -> None:
    try:
        cuda.compile_ptx(smallest, (places,), cc=(8, 0))
    except Exception as error:
        print(json.dumps({"unavailable": " ".join(str(error).split())}))
        return
    texts = {}
    for architecture in architectures:
        major, minor = map(int, architecture.split("."))
        for kernel, signature in SIGNATURES.items():
            name = kernel.py_func.__name__
            texts[f"{name}-{architecture}"] = cuda.compile_ptx(kernel.py_func, signature, cc=(major, minor))[
                0
            ]
    print(json.dumps(texts))


if __name__ == "__main__":
    main(sys.argv[1:])
