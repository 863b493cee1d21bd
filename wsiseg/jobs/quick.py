"""A quicker start of a worker process: libraries are loaded without the parts that it never uses.

numba imports scipy's linear algebra, where it is installed, to offer it to kernels; OpenVINO imports its converter of
other frameworks' models. Both are optional to their owners, who catch the ImportError, and take a seventh of the
start together. Only for a process of our own: a program that imports wsiseg may want them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator

# What is loaded -> the optional part that it is loaded without.
NUMBA = {"numba.np.arraymath": "scipy"}
OPENVINO = {"openvino": "openvino.tools.ovc"}


def load_quickly(backend: str) -> None:
    """Load what a process that runs `backend` ("auto" may be OpenVINO) needs, before anything else does."""
    wanted = NUMBA | (OPENVINO if backend in ("auto", "openvino") else {})
    for name, part in wanted.items():
        if name not in sys.modules:
            with hidden(part), contextlib.suppress(ImportError):
                importlib.import_module(name)


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Importing the module `name` fails as if it were not installed, unless it is loaded already."""
    if name in sys.modules:
        yield
        return
    # Documented: an import of a name that stands for None raises ModuleNotFoundError.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
