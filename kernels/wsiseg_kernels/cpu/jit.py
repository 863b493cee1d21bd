"""How every CPU kernel is compiled: kept on disc, without the GIL, IEEE arithmetic (no fast-math)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any], signature: str | None = None) -> Any:
    """Compile with numba: on first use for the types of each call, or at once for `signature` and for nothing else.

    A signature keeps one form for arrays that lie whole and for windows, which would else be compiled and loaded one by
    one. Division by zero gives what the processor gives: the check would stop vectorisation.
    """
    try:
        return numba.njit(signature, nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written: compile anew in each process.
        return numba.njit(signature, nogil=True, error_model="numpy")(function)


def kernel_for(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """`kernel` with a signature, as a decorator."""
    return lambda function: kernel(function, signature)
