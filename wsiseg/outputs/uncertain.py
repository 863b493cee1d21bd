"""Crops of the objects that the model is least certain of, on one sheet: what a person should look at first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsiseg.errors import OutputError
from wsiseg.geometry import Rect, ceil_div
from wsiseg.objects import find_objects
from wsiseg.outputs.files import write_atomically
from wsiseg.outputs.geojson import ObjectClass, colour
from wsiseg.outputs.outlines import trace
from wsiseg.outputs.overlay import contour_points
from wsiseg.runs import Runs
from wsiseg.slide import DecodePool, NetworkReader, Slide

COUNT, SIDE, COLUMNS = 12, 240, 4
_CAPTION = 24
_MARGIN = 0.35  # of the longer side of an object's box, on each side


@dataclass(frozen=True)
class Doubtful:
    """One object: the number of its class, its own number from 0, its mean probability, and its place on the slide."""

    label: int
    number: int
    probability: float
    box: Rect
    runs: Runs


def least_certain(classes: Sequence[ObjectClass], count: int = COUNT) -> list[Doubtful]:
    """The objects whose mean probability is nearest to one half, the nearest first; classes without one are left out."""
    found: list[tuple[float, int, int]] = []
    for label, one in enumerate(classes):
        if one.probability is not None:
            margin = np.abs(one.probability - 0.5)
            near = np.argsort(margin, kind="stable")[:count]
            found += [(float(margin[k]), label, int(k)) for k in near]
    chosen = sorted(found)[:count]
    doubtful: dict[tuple[int, int], Doubtful] = {}
    for label in sorted({label for _, label, _ in chosen}):
        one = classes[label]
        assert one.probability is not None
        objects = find_objects(one.runs)
        for k in [k for _, other, k in chosen if other == label]:
            mine = objects.labels == k
            runs = Runs.merged(objects.starts[mine], objects.lengths[mine], one.runs.size)
            doubtful[label, k] = Doubtful(
                label, k, float(one.probability[k]), Rect(*objects.boxes[k].tolist()), runs
            )
    return [doubtful[label, k] for _, label, k in chosen]


def crop(slide: Slide, one: Doubtful, pool: DecodePool, side: int = SIDE) -> np.ndarray:
    """The object on its surroundings with its contour: uint8 [side, side, 3] RGB, white beyond the slide.

    Memory bound: `wsiseg.slide.ring_bytes` of the window's columns.
    """
    box, size = one.box, slide.size
    reach = max(box.size.height, box.size.width) * (1 + 2 * _MARGIN)
    scale = max(1, ceil_div(int(reach), side))
    plan = slide.plan(scale)
    y0 = (box.y0 + box.y1) // 2 // scale - side // 2
    x0 = (box.x0 + box.x1) // 2 // scale - side // 2
    grid = size.over(scale)
    seen = Rect(max(y0, 0), max(x0, 0), min(y0 + side, grid.height), min(x0 + side, grid.width))
    out = np.full((side, side, 3), 255, np.uint8)
    with NetworkReader(
        slide,
        plan,
        columns=(seen.x0, seen.x1),
        rows=plan.ring_rows(plan.unit),
        pool=pool,
        on_bad_tile="white",
        first_row=seen.y0,
    ) as reader:
        reader.release(seen.y0)
        for y in range(seen.y0, seen.y1):
            reader.wait(y + 1)
            out[y - y0, seen.x0 - x0 : seen.x1 - x0] = reader.ring[y % len(reader.ring)]
            reader.release(y + 1)
    rings = [
        np.round((ring - (x0, y0)) * 16).astype(np.int32)
        for ring in contour_points(trace(find_objects(one.runs)), scale)
    ]
    for width, tint in ((3, (20, 20, 20)), (1, colour(one.label))):
        cv2.polylines(out, rings, True, tint, width, cv2.LINE_AA, 4)
    return out


def doubtful_crops(
    slide: Slide, classes: Sequence[ObjectClass], count: int, side: int
) -> list[tuple[np.ndarray, str]]:
    """The least certain objects as crops [side, side, 3] with class, number and mean probability of each."""
    pool = DecodePool(2)
    try:
        return [
            (
                crop(slide, one, pool, side),
                f"{classes[one.label].name} {one.number + 1}: {one.probability:.2f}",
            )
            for one in least_certain(classes, count)
        ]
    finally:
        pool.close()


def uncertain_sheet(
    slide: Slide,
    classes: Sequence[ObjectClass],
    count: int = COUNT,
    side: int = SIDE,
    columns: int = COLUMNS,
) -> np.ndarray:
    """The crops, left to right, with class, number and mean probability under each: uint8 [h, w, 3]."""
    shown = doubtful_crops(slide, classes, count, side)
    columns = max(1, min(columns, len(shown)))
    sheet = np.full(
        (max(1, ceil_div(len(shown), columns)) * (side + _CAPTION), columns * side, 3), 255, np.uint8
    )
    for k, (image, caption) in enumerate(shown):
        y, x = k // columns * (side + _CAPTION), k % columns * side
        sheet[y : y + side, x : x + side] = image
        sheet[y : y + side, x + side - 1] = 255
        # OpenCV's own letters are ASCII only; the report and the tables have the names in full.
        text = caption.encode("ascii", "replace").decode()
        cv2.putText(
            sheet, text, (x + 4, y + side + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA
        )
    if not shown:
        cv2.putText(sheet, "no object", (4, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    return sheet


def write_uncertain(path: str | os.PathLike[str], slide: Slide, classes: Sequence[ObjectClass]) -> None:
    """Writes the sheet of the least certain objects as PNG.

    Raises:
        OutputError: the file cannot be written. SlideError: the slide cannot be read.
    """
    image = uncertain_sheet(slide, classes)
    ok, data = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))
    if not ok:
        raise OutputError(f"{os.fspath(path)}: the picture cannot be encoded as PNG")
    write_atomically(path, data.tobytes())
