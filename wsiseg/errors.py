"""Every error that wsiseg raises on purpose: one clear line each, with what, where, why, and what to do.

    WsisegError
     ├─ UsageError            an option or argument is wrong                     exit code 2
     ├─ BudgetError           the work cannot fit the memory budget              exit code 2
     ├─ ModelError            a model file, its spec or its network is unusable  exit code 2
     │   └─ EngineError       a compiled engine is unusable here
     ├─ SlideError            one slide cannot be processed; the others go on    exit code 1
     │   ├─ UnsupportedSlide  a format, compression or pixel type that is not read
     │   └─ BadSegment        one tile or strip of the slide is damaged
     ├─ OutputError           a result cannot be written                         exit code 2
     ├─ IncompleteError       a merge with slides missing                        exit code 3
     └─ Interrupted           stopped by a signal; resumable                     exit code 75

`str(error)` is the line that a user sees. Nothing of the package is imported here.
"""

from __future__ import annotations

import os


class WsisegError(Exception):
    """Base class. `exit_code` is what the command line returns for it."""

    exit_code = 2


class UsageError(WsisegError):
    """A wrong option, argument or configuration."""


class BudgetError(WsisegError):
    """The work does not fit the memory budget: the message says needed, budget, and what would fit."""


class ModelError(WsisegError):
    """A model file, its spec, or the network in it cannot be used."""


class EngineError(ModelError):
    """A compiled engine does not match this machine, or is damaged."""


class SlideError(WsisegError):
    """One slide cannot be processed.

    Args:
        path: the slide's file.
        reason: why, in words that follow a colon.
        hint: what to do about it, or "".
    """

    exit_code = 1

    def __init__(self, path: str | os.PathLike[str], reason: str, hint: str = "") -> None:
        self.path, self.reason, self.hint = os.fspath(path), reason, hint
        # A line feed or a byte that is no text in a name must not break the one line.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.path)
        super().__init__(f"{shown}: {reason}" + (f"; {hint}" if hint else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.reason, self.hint)


class UnsupportedSlide(SlideError):
    """A format, compression or pixel type that wsiseg does not read."""


class BadSegment(SlideError):
    """One tile or strip of a slide is damaged; `reason` names the level, its row and column, and the damage."""


class OutputError(WsisegError):
    """A result cannot be written."""


class IncompleteError(WsisegError):
    """A merge was asked for while slides are missing or failed."""

    exit_code = 3


class Interrupted(WsisegError):
    """Stopped by a signal before the end; the same command resumes."""

    exit_code = 75


def unknown_name(kind: str, name: str, known: object) -> str:
    """The one message for a name that does not exist: it lists the names that do."""
    return f"unknown {kind} {name!r}; known: {', '.join(str(k) for k in known)}"  # type: ignore[attr-defined]
