"""Runtimes that run a model, behind one session protocol, one file each; `open_session` is the way in."""

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.registry import Status, available, choose, names, open_session

__all__ = ["Session", "SessionOptions", "Status", "available", "choose", "names", "open_session"]
