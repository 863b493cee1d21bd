"""Which runtimes there are, which of them can run a model here, and opening a session on one.

A backend is a module with three functions, imported when it is asked for:

    status() -> Status                          is the runtime here, which version, what does it run on; else why not
    preference(model, options) -> int | str     how much `auto` wants it for this model (more is better), or why it cannot
    open_session(model, options) -> Session

To add one, write the module and give it a line in `BACKENDS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.errors import EngineError, ModelError, UsageError, unknown_name
from wsiseg.model.load import LoadedModel

BACKENDS = {
    "openvino": "wsiseg.backends.openvino",
    "torch": "wsiseg.backends.torch",
    "tensorrt": "wsiseg.backends.tensorrt",
}
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Status:
    """What `doctor` says of a backend: usable or not, its version, its devices, and why not."""

    usable: bool
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""


class Backend(Protocol):
    """The functions of a backend module."""

    def status(self) -> Status: ...
    def preference(self, model: LoadedModel, options: SessionOptions) -> int | str: ...
    def open_session(self, model: LoadedModel, options: SessionOptions) -> Session: ...


def names() -> tuple[str, ...]:
    """The backends that exist, installed or not."""
    return tuple(BACKENDS)


def backend(name: str) -> Backend:
    """The backend module called `name`.

    Raises:
        UsageError: for a name that does not exist.
    """
    if name not in BACKENDS:
        raise UsageError(unknown_name("backend", name, ("auto", *BACKENDS)))
    return cast(Backend, importlib.import_module(BACKENDS[name]))


def available() -> dict[str, Status]:
    """Every backend with its status. Never raises: what is broken says so."""
    found = {}
    for name in BACKENDS:
        try:
            found[name] = backend(name).status()
        except Exception as error:  # a runtime may fail in any way while loading; that is its status
            found[name] = Status(False, reason=f"{type(error).__name__}: {error}".splitlines()[0])
    return found


def check_options(model: LoadedModel, options: SessionOptions) -> None:
    """Refuse sizes that no backend could serve.

    Raises:
        UsageError: naming the value and the values that fit.
    """
    multiple = model.spec.tile_multiple
    if options.tile < 1 or options.tile % multiple:
        near = max(multiple, round(options.tile / multiple) * multiple)
        raise UsageError(
            f"--tile {options.tile}: model {model.name!r} needs a multiple of {multiple}, like {near}"
        )
    for option, value in (("batch", options.batch), ("slots", options.slots), ("threads", options.threads)):
        if value < 1:
            raise UsageError(f"--{option} {value}: must be at least 1")
    if options.precision not in PRECISIONS:
        raise UsageError(unknown_name("precision", options.precision, PRECISIONS))


def choose(model: LoadedModel, options: SessionOptions) -> str:
    """The backend that `auto` means for this model on this machine.

    Raises:
        ModelError: when none can run it, with every backend's reason.
    """
    ranked, reasons = [], []
    for name in BACKENDS:
        wanted = backend(name).preference(model, options)
        if isinstance(wanted, int):
            ranked.append((-wanted, name))
        else:
            reasons.append(f"{name}: {wanted}")
    if not ranked:
        kind = EngineError if model.engine else ModelError
        raise kind(f"no backend can run {model.name!r} here; " + "; ".join(reasons))
    return min(ranked)[1]


def open_session(model: LoadedModel, options: SessionOptions, backend_name: str = "auto") -> Session:
    """A session for `model`: loaded, warmed up, with all its slots.

    Raises:
        UsageError: for an option that does not fit. ModelError, EngineError: when the model cannot run here.
    """
    check_options(model, options)
    name = choose(model, options) if backend_name == "auto" else backend_name
    chosen = backend(name)
    wanted = chosen.preference(model, options)
    if isinstance(wanted, str):
        kind = EngineError if model.engine else ModelError
        raise kind(f"backend {name} cannot run {model.name!r}: {wanted}")
    return chosen.open_session(model, options)
