"""How every CPU kernel is compiled: on first use, kept on disc, without the GIL, IEEE arithmetic (no fast-math)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile with numba. Division by zero gives what the processor gives: the check would stop vectorisation."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written: compile anew in each process.
        return numba.njit(nogil=True, error_model="numpy")(function)
