"""What opening a file of any format gives."""

from __future__ import annotations

from dataclasses import dataclass

from wsiseg.slide.level import Level
from wsiseg.slide.mpp import Mpp


@dataclass(frozen=True)
class Opened:
    """Levels (the full one first) and what the file says of itself, in words."""

    levels: tuple[Level, ...]
    layout: str
    compression: str
    mpp: Mpp
    warnings: tuple[str, ...] = ()
    format: str = ""
