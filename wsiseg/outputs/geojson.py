"""GeoJSON as QuPath reads and writes it: one feature per object, exact polygons with holes; and back to runs."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.objects import find_objects
from wsiseg.outputs.files import atomic_file
from wsiseg.outputs.outlines import trace
from wsiseg.runs import Runs

COLOURS = ((255, 140, 0), (0, 150, 255), (0, 170, 80), (220, 50, 160), (150, 110, 255), (200, 190, 0))
"""Of classes, in their order: distinct for most colour-blind people on purple tissue."""

# Names of features are derived from the slide's id and the object, so the same mask gives the same bytes.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/wsiseg")


def colour(number: int) -> tuple[int, int, int]:
    """The colour of the class with this number, from 0."""
    return COLOURS[number % len(COLOURS)]


@dataclass(frozen=True)
class ObjectClass:
    """One class's mask on a slide: its name, runs, and the mean probability of each object where known (float [n])."""

    name: str
    runs: Runs
    probability: np.ndarray | None = None


def write_geojson(
    path: str | os.PathLike[str],
    slide_id: str,
    classes: Sequence[ObjectClass],
    mpp: float | None = None,
    *,
    tolerance: float = 0.0,
) -> int:
    """Writes one feature per object (8-connected component), and returns how many.

    Coordinates are pixels at full size, x before y, along the pixels' edges; a polygon's area is the number of its
    pixels. An object whose parts touch by corners only is a MultiPolygon.

    Args:
        mpp: gives areas in square microns too.
        tolerance: outlines may be this many pixels off (Douglas and Peucker); 0 keeps them exact. Simplified
            polygons have fewer points, slightly other areas, and may touch.

    Memory bound: the runs and outlines of one class; features are written one by one.

    Raises:
        OutputError: the file cannot be written.
    """
    written = 0
    with atomic_file(path) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for number, one in enumerate(classes):
            for feature in _features(slide_id, one, number, mpp, tolerance):
                file.write(b",\n" if written else b"\n")
                file.write(json.dumps(feature, separators=(",", ":"), ensure_ascii=False).encode())
                written += 1
        file.write(b"\n]}\n")
    return written


def _features(
    slide_id: str, one: ObjectClass, number: int, mpp: float | None, tolerance: float
) -> Iterator[dict[str, Any]]:
    objects = find_objects(one.runs)
    outlines = trace(objects)
    polygons = outlines.polygons(len(objects))
    perimeters = outlines.perimeters(len(objects))
    for k in range(len(objects)):
        shapes = [[_closed(ring, tolerance) for ring in polygon] for polygon in polygons[k]]
        # A simplified ring that has become a line encloses nothing; a part always keeps its outer ring.
        shapes = [[s for i, s in enumerate(shape) if i == 0 or len(s) >= 4] for shape in shapes]
        area = int(objects.area[k])
        measures: dict[str, float] = {"Area px": area}
        if mpp:
            measures["Area µm²"] = round(area * mpp * mpp, 3)
            measures["Perimeter µm"] = round(float(perimeters[k]) * mpp, 3)
        if one.probability is not None:
            measures["Mean probability"] = round(float(one.probability[k]), 5)
        single = len(shapes) == 1
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{slide_id}/{one.name}/{k + 1}")),
            "geometry": {
                "type": "Polygon" if single else "MultiPolygon",
                "coordinates": shapes[0] if single else shapes,
            },
            "properties": {
                "objectType": "annotation",
                "name": f"{one.name} {k + 1}",
                "classification": {"name": one.name, "color": list(colour(number))},
                "isLocked": False,
                "measurements": measures,
            },
        }


def _closed(ring: np.ndarray, tolerance: float) -> list[list[int]]:
    """A ring's corners as GeoJSON wants them: the first one again at the end."""
    if tolerance > 0:
        import cv2

        simple = cv2.approxPolyDP(ring.reshape(-1, 1, 2), tolerance, True).reshape(-1, 2)
        ring = simple if len(simple) >= 3 else ring
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]


def read_geojson(path: str | os.PathLike[str], size: Size) -> dict[str, Runs]:
    """The masks in a GeoJSON file, by class name: pixels whose middle lies in a polygon and in none of its holes.

    Takes a FeatureCollection, a list of features, or one feature, as QuPath and others write them. Exact for
    polygons along pixel edges. What lies outside the slide is cut off.

    Args:
        size: of the slide.

    Raises:
        UsageError: not GeoJSON, or a geometry without an area (a point, a line), by feature number.
    """
    name = os.fspath(path)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, feature in enumerate(_load_features(name), 1):
        where = f"{name}: feature {number}"
        if not isinstance(feature, dict):
            raise UsageError(f"{where}: is not an object")
        geometry = feature.get("geometry") or {}
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Polygon", "MultiPolygon"):
            raise UsageError(f"{where}: a {kind or 'missing geometry'} encloses no pixels; polygons do")
        parts = found.setdefault(_class_name(feature), [])
        polygons: Any = [coordinates] if kind == "Polygon" else coordinates or []
        for polygon in polygons:
            try:
                rings = [
                    np.array([point[:2] for point in ring], np.float64).reshape(-1, 2) for ring in polygon
                ]
            except (TypeError, ValueError, IndexError):
                raise UsageError(f"{where}: coordinates are not lists of x, y") from None
            if not all(np.isfinite(ring).all() for ring in rings):
                raise UsageError(f"{where}: a coordinate is not a finite number")
            parts.append(fill_polygon(rings, size))
    return {
        key: Runs.merged(np.concatenate([s for s, _ in parts]), np.concatenate([n for _, n in parts]), size)
        if parts
        else Runs.empty(size)
        for key, parts in found.items()
    }


def _load_features(name: str) -> list[Any]:
    try:
        data = json.loads(Path(name).read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file") from None
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not JSON: {error}") from None
    if isinstance(data, dict) and data.get("type") == "FeatureCollection":
        data = data.get("features")
    elif isinstance(data, dict) and data.get("type") == "Feature":
        data = [data]
    if not isinstance(data, list):
        raise UsageError(f"{name}: not GeoJSON: neither a FeatureCollection nor a list of features")
    return data


def _class_name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    label = classification.get("name") if isinstance(classification, dict) else None
    return label if isinstance(label, str) else ""


def fill_polygon(rings: Iterable[np.ndarray], size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The runs (starts, lengths), sorted, of the pixels whose middles lie in a polygon, by the even-odd rule.

    Args:
        rings: float64 [n, 2] each, x, y; closed or not.
    """
    columns, rows = [], []
    for ring in rings:
        if len(ring) < 3:
            continue
        ax, ay = ring.T
        bx, by = np.roll(ring, -1, axis=0).T
        # An edge crosses the middles of columns first..last-1; half-open, so that a corner counts once.
        first = np.ceil(np.minimum(ax, bx) - 0.5).clip(0, size.width).astype(np.int64)
        last = np.ceil(np.maximum(ax, bx) - 0.5).clip(0, size.width).astype(np.int64)
        count = last - first
        edge = np.repeat(np.arange(len(ring)), count)
        x = first[edge] + np.arange(len(edge)) - (np.cumsum(count) - count)[edge]
        t = (x + 0.5 - ax[edge]) / (bx[edge] - ax[edge])
        columns.append(x)
        rows.append(ay[edge] + t * (by[edge] - ay[edge]))
    if not columns:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    x, y = np.concatenate(columns), np.concatenate(rows)
    order = np.lexsort((y, x))
    x, y = x[order], np.ceil(y[order] - 0.5).clip(0, size.height).astype(np.int64)
    starts, lengths = x[::2] * size.height + y[::2], y[1::2] - y[::2]
    return starts[lengths > 0], lengths[lengths > 0]
