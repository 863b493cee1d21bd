"""A thumbnail with the objects' contours and a legend, as PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from wsiseg.errors import OutputError
from wsiseg.geometry import ceil_div
from wsiseg.objects import find_objects
from wsiseg.outputs.files import write_atomically
from wsiseg.outputs.geojson import COLOURS, ObjectClass
from wsiseg.outputs.outlines import Outlines, trace
from wsiseg.outputs.thumbnail import Thumbnail

_SHIFT = 4  # cv2 draws at 1/16 pixel
_BARS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


def write_overlay(
    path: str | os.PathLike[str],
    thumbnail: Thumbnail,
    classes: Sequence[ObjectClass],
    mpp: float | None = None,
    colours: Sequence[tuple[int, int, int]] = COLOURS,
) -> None:
    """Writes the thumbnail with every object's contour and, below it, classes, counts, areas, and a scale bar.

    Args:
        mpp: of the slide at full size. colours: of the classes.

    Raises:
        OutputError: the file cannot be written.
    """
    image = np.vstack([draw_contours(thumbnail, classes, colours), _legend(thumbnail, classes, mpp, colours)])
    ok, data = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))
    if not ok:
        raise OutputError(f"{os.fspath(path)}: the picture cannot be encoded as PNG")
    write_atomically(path, data.tobytes())


def contour_points(
    outlines: Outlines, scale: int, tolerance: float = 0.35, most: int | None = None
) -> list[np.ndarray]:
    """The rings in the pixels of a picture `scale` times smaller, without the points nobody sees: float32 [n, 2] each.

    With `most` only that many rings, those with the most corners. Rings that shrink to less than a third of a pixel are kept as a dot, so that no object vanishes.
    """
    rings = []
    chosen = np.arange(len(outlines))
    if most is not None and len(chosen) > most:
        chosen = np.sort(np.argsort(np.diff(outlines.bounds), kind="stable")[len(chosen) - most :])
    for r in chosen.tolist():
        points = (outlines.ring(r) / np.float32(scale)).astype(np.float32)
        simple = cv2.approxPolyDP(points.reshape(-1, 1, 2), tolerance, True).reshape(-1, 2)
        if len(simple) < 3 and not outlines.outer[r]:
            continue
        rings.append(simple if len(simple) >= 3 else points[:: max(1, len(points) // 4)])
    return rings


def draw_contours(
    thumbnail: Thumbnail, classes: Sequence[ObjectClass], colours: Sequence[tuple[int, int, int]] = COLOURS
) -> np.ndarray:
    """The thumbnail with contours over it, in the classes' colours on a thin dark line: uint8 [h, w, 3]."""
    image = np.ascontiguousarray(thumbnail.image.copy())
    for number, one in enumerate(classes):
        rings = [
            np.round(ring * (1 << _SHIFT)).astype(np.int32)
            for ring in contour_points(trace(find_objects(one.runs)), thumbnail.scale)
        ]
        for width, tint in ((4, (20, 20, 20)), (2, colours[number % len(colours)])):
            cv2.polylines(image, rings, True, tint, width, cv2.LINE_AA, _SHIFT)
    return image


def _legend(
    thumbnail: Thumbnail,
    classes: Sequence[ObjectClass],
    mpp: float | None,
    colours: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """A white strip as wide as the picture: a line per class, and a scale bar where mpp is known."""
    width = thumbnail.image.shape[1]
    line, small = 26, width < 360
    strip = np.full((line * (len(classes) + (mpp is not None)) + 10, width, 3), 255, np.uint8)
    size = 0.4 if small else 0.55

    def write(text: str, x: int, y: int) -> None:
        # OpenCV's own letters are ASCII only; the report and the tables have the names in full.
        text = text.encode("ascii", "replace").decode()
        cv2.putText(strip, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (30, 30, 30), 1, cv2.LINE_AA)

    for number, one in enumerate(classes):
        y = 5 + line * number
        cv2.rectangle(strip, (10, y + 5), (28, y + line - 5), colours[number % len(colours)], -1)
        cv2.rectangle(strip, (10, y + 5), (28, y + line - 5), (20, 20, 20), 1)
        share = 100 * one.runs.area / one.runs.size.pixels
        count = len(find_objects(one.runs))
        write(
            f"{one.name}: {count} object{'' if count == 1 else 's'}, {share:.2f} % of the slide",
            38,
            y + line - 9,
        )
    if mpp is not None:
        per_pixel = mpp * thumbnail.scale
        micron = max([bar for bar in _BARS_UM if bar / per_pixel <= width / 4], default=_BARS_UM[0])
        y, length = strip.shape[0] - 14, max(1, round(micron / per_pixel))
        cv2.line(strip, (10, y), (10 + length, y), (20, 20, 20), 3)
        write(f"{micron / 1000:g} mm" if micron >= 1000 else f"{micron} um", 20 + length, y + 5)
    return strip


def jpeg(image: np.ndarray, most_bytes: int) -> bytes:
    """The picture as JPEG of at most about `most_bytes`, by lowering quality, then size."""
    while True:
        for quality in (85, 75, 65, 50):
            _, data = cv2.imencode(
                ".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
            )
            if len(data) <= most_bytes or max(image.shape) <= 64:
                return bytes(data)
        image = cv2.resize(
            image,
            (ceil_div(image.shape[1] * 3, 4), ceil_div(image.shape[0] * 3, 4)),
            interpolation=cv2.INTER_AREA,
        )
