"""Units as people type and read them: bytes, sizes, durations. Imports nothing of the package."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1}
for _i, _p in enumerate("KMGT", 1):
    _UNITS[f"{_p}IB"] = _UNITS[_p] = 1024**_i
    _UNITS[f"{_p}B"] = 1000**_i


def parse_bytes(text: str) -> int:
    """Bytes of "2GiB", "700MB", "1.5g" or "1048576". GiB and G are 1024-based, GB is 1000-based.

    Raises:
        ValueError: with a message that can be shown.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is not a size in bytes; write it like 700MB, 2GiB or 1.5G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_bytes(count: float) -> str:
    """`count` bytes in 1024-based units with three digits: "1.50 GiB"."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1000 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def parse_width_height(text: str) -> tuple[int, int]:
    """(height, width) of "WIDTHxHEIGHT", the order in which people write it.

    Raises:
        ValueError: with a message that can be shown.
    """
    match = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+)\s*", text)
    if not match or int(match[1]) < 1 or int(match[2]) < 1:
        raise ValueError(f"{text!r} is not a size; write WIDTHxHEIGHT in pixels, like 30000x20000")
    return int(match[2]), int(match[1])


def format_duration(seconds: float) -> str:
    """Seconds as "0.8 s", "42 s", "3 min 05 s" or "2 h 07 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_megapixels(pixels: float) -> str:
    """A pixel count as "430 Mpx" or "1.60 Gpx"."""
    return f"{pixels / 1e9:.2f} Gpx" if pixels >= 1e9 else f"{pixels / 1e6:.3g} Mpx"
