"""wsiseg: streams whole-slide images through a trained network and writes run-length encoded masks."""

from wsiseg._version import __version__

__all__ = ["__version__"]
