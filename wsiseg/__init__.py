"""wsiseg: streams whole-slide images through a trained network and writes run-length encoded masks.

    import wsiseg
    result = wsiseg.segment("slide.tif", model="glomeruli")
    result.rle(), result.mask((0, 0, 1000, 1000)), result.mpp

Names are loaded when they are first used: `import wsiseg` loads neither a runtime nor numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsiseg._version import __version__
from wsiseg.errors import BudgetError, ModelError, SlideError, UsageError, WsisegError

if TYPE_CHECKING:
    from wsiseg.api import Segmentation, segment
    from wsiseg.model.spec import ModelSpec
    from wsiseg.pipeline.options import RunOptions
    from wsiseg.runs import Runs

_HOMES = {
    "segment": "wsiseg.api",
    "Segmentation": "wsiseg.api",
    "ModelSpec": "wsiseg.model.spec",
    "RunOptions": "wsiseg.pipeline.options",
    "Runs": "wsiseg.runs",
}

__all__ = [
    "BudgetError",
    "ModelError",
    "ModelSpec",
    "RunOptions",
    "Runs",
    "Segmentation",
    "SlideError",
    "UsageError",
    "WsisegError",
    "__version__",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
