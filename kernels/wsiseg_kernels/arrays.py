"""The array types of the kernels' signatures; shapes stand in the docstrings. Imports numpy alone."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

U8: TypeAlias = NDArray[np.uint8]
U32: TypeAlias = NDArray[np.uint32]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
F32: TypeAlias = NDArray[np.float32]

Runs: TypeAlias = tuple[I64, I64]
"""Starts and lengths of mask runs: int64, 0-based column-major flat pixel index (x * height + y), sorted."""
