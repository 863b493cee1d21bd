"""Microns per pixel, from wherever a slide says it, and where that was."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass
from typing import Any

# Scanners make 0.1 to 2 microns per pixel; reduced slides reach 20. What lies outside is a default of some program.
PLAUSIBLE = (0.05, 20.0)
MICRONS = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
}
MICRONS |= {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
}
MICRONS |= {"inch": 25400.0, "in": 25400.0, "pm": 1e-6, "å": 1e-4}


@dataclass(frozen=True, slots=True)
class Mpp:
    """Microns per pixel (mean of both axes) and its source in words; value None when unknown."""

    value: float | None
    source: str
    warnings: tuple[str, ...] = ()


def pick_mpp(found: list[tuple[str, float, float]], given: float | None) -> Mpp:
    """The first plausible of (source, y, x), or what the user gave, which wins."""
    if given is not None:
        return Mpp(given, "--mpp")
    warnings: list[str] = []
    for source, y, x in found:
        if not all(math.isfinite(v) and PLAUSIBLE[0] <= v <= PLAUSIBLE[1] for v in (y, x)):
            warnings.append(
                f"{source}: {x:g} x {y:g} microns per pixel is not plausible ({PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g}); not used"
            )
            continue
        if max(x, y) > 1.05 * min(x, y):
            warnings.append(f"pixels are not square: {x:g} x {y:g} microns ({source}); their mean is used")
        return Mpp((x + y) / 2, source, tuple(warnings))
    return Mpp(None, "unknown", tuple(warnings))


def from_ome(xml: str) -> list[tuple[str, float, float]]:
    """PhysicalSizeX and Y of the first Pixels element, with their units (micrometres by default)."""
    match = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml[:1_000_000])
    if not match:
        return []
    attributes = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', html.unescape(match[0])))
    sizes: dict[str, float] = {}
    for axis in "XY":
        value = _number(attributes.get(f"PhysicalSize{axis}"))
        unit = MICRONS.get(attributes.get(f"PhysicalSize{axis}Unit", "µm").strip().lower())
        if value is not None and unit is not None:
            sizes[axis] = value * unit
    if not sizes:
        return []
    return [("OME PhysicalSize", sizes.get("Y", sizes.get("X", 0.0)), sizes.get("X", sizes.get("Y", 0.0)))]


def from_aperio(description: str) -> list[tuple[str, float, float]]:
    """The MPP entry of an Aperio description: "...|MPP = 0.4990|..."."""
    match = re.search(r"\|\s*MPP\s*=\s*([^|\s]+)", description[:1_000_000])
    value = _number(match[1]) if match else None
    return [("Aperio MPP", value, value)] if value is not None else []


def from_imagej(description: str, x: float | None, y: float | None) -> list[tuple[str, float, float]]:
    """ImageJ writes its unit in the description and pixels per unit in the resolution tags."""
    match = re.search(r"^unit=(.+)$", description[:100_000], re.MULTILINE)
    if not match or not x or not y:
        return []
    word = match[1].strip().lower().replace("\\u00b5", "µ")
    unit = MICRONS.get(word)
    return [("ImageJ resolution", unit / y, unit / x)] if unit else []


def from_resolution(x: float | None, y: float | None, unit: int) -> list[tuple[str, float, float]]:
    """XResolution and YResolution in pixels per inch (unit 2) or centimetre (unit 3)."""
    length = {2: 25400.0, 3: 10000.0}.get(unit)
    if length is None or not x or not y or x <= 0 or y <= 0:
        return []
    return [("resolution tags", length / y, length / x)]


def rational(value: Any) -> float | None:
    """A TIFF rational (numerator, denominator) or a number; None when it is no positive number."""
    try:
        if isinstance(value, (tuple, list)):
            return value[0] / value[1] if len(value) >= 2 and value[1] else None
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
