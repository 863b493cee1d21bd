"""How every CPU kernel is compiled: on first use, kept on disc, without the GIL, IEEE arithmetic (no fast-math)."""

from __future__ import annotations

import threading
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


class FixedKernel:
    """A kernel with one form for all its callers' arrays, compiled when it is first called. Safe from several threads.

    Without a signature, arrays that lie whole, windows of them and read-only ones would each be compiled and loaded.

    Attributes:
        inner: what other kernels call, with just the types of the signature: a second form would leave numba in doubt
            which one to take for a third.
    """

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        self.inner, self._signature = kernel(function), signature
        self._ready, self._lock = False, threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        if not self._ready:
            self._compile()
        return self.inner(*arguments)

    def _compile(self) -> None:
        with self._lock:
            if not self._ready:
                self.inner.compile(self._signature)
                self.inner.disable_compile()
                self._ready = True


def kernel_for(signature: str) -> Callable[[Callable[..., Any]], FixedKernel]:
    """A `FixedKernel` with numba's signature, as a decorator."""
    return lambda function: FixedKernel(function, signature)
