"""Labels of any kind become one plane on the network grid: the share of each network pixel that is inside, 0 to 255.

Kinds: a Kaggle RLE CSV (a training file or a submission: pseudo-labels are just labels), QuPath GeoJSON polygons, a mask
image, and an image of instance numbers. Nothing here makes a full-size array, except that an image file is read whole.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.runs import Runs

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".bmp")
KINDS = ".csv (RLE), .geojson or .json (polygons), " + ", ".join(IMAGE_SUFFIXES)
SUPERSAMPLE = 4  # polygons are drawn this many times finer than the network grid, in every direction


def read_share(path: str | os.PathLike[str], size: Size, scale: int, slide_id: str, label_scale: tuple[float, float] = (1.0, 1.0), mend: bool = False) -> np.ndarray:  # fmt: skip
    """The labels of one slide as uint8 [h, w] on its network grid: 255 times the share that is inside.

    Args:
        size: the slide's, in slide pixels.
        scale: slide pixels per network pixel.
        slide_id: the row of a CSV.
        label_scale: factors (x, y) from polygon coordinates to slide pixels.
        mend: fill self-intersecting polygons by the even-odd rule instead of refusing them.

    Raises:
        UsageError: one line naming the file and what does not fit: another size, runs outside the slide or overlapping,
            a polygon that crosses itself, a slide without a row.
    """
    suffix = Path(path).suffix.lower()
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such label file")
    if suffix == ".csv":
        return share_of_runs(Runs.from_rle(_csv_row(path, slide_id), size), scale)
    if suffix in (".geojson", ".json"):
        return share_of_polygons(read_polygons(path, label_scale, mend), size, scale)
    if suffix in IMAGE_SUFFIXES:
        return share_of_mask(read_image_labels(path, size) > 0, scale)
    raise UsageError(f"{path}: labels must be one of {KINDS}")


def share_of_mask(mask: np.ndarray, scale: int) -> np.ndarray:
    """Mean of each scale x scale block of a bool or 0/1 mask [H, W], as uint8 0..255 [h, w]; ragged edges repeat."""
    plane = mask.astype(np.uint8) * np.uint8(255)
    if scale == 1:
        return plane
    h, w = plane.shape
    down, right = -h % scale, -w % scale
    if down or right:
        plane = cv2.copyMakeBorder(plane, 0, down, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(
        cv2.resize(plane, (plane.shape[1] // scale, plane.shape[0] // scale), interpolation=cv2.INTER_AREA)
    )


def share_of_runs(runs: Runs, scale: int, strip: int = 256) -> np.ndarray:
    """The same from runs, `strip` network columns at a time: runs are stored by column."""
    grid = runs.size.over(scale)
    out = np.zeros((grid.height, grid.width), np.uint8)
    for x in range(0, grid.width, strip):
        right = min(runs.size.width, (x + strip) * scale)
        part = runs.mask(Rect(0, x * scale, runs.size.height, right))
        out[:, x : x + strip] = share_of_mask(part, scale)
    return out


def _csv_row(path: str | os.PathLike[str], slide_id: str) -> str:
    csv.field_size_limit(2**31 - 1)
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if len(header) < 2 or header[0] != "id" or header[1] not in ("predicted", "encoding", "rle"):
            raise UsageError(
                f"{path}: the header must be id,encoding or id,predicted, not {','.join(header)[:60]!r}"
            )
        for row in rows:
            if row and row[0] == slide_id:
                return row[1] if len(row) > 1 else ""
    raise UsageError(f"{path}: no row for slide {slide_id!r}")


def read_polygons(
    path: str | os.PathLike[str], label_scale: tuple[float, float] = (1.0, 1.0), mend: bool = False
) -> list[list[np.ndarray]]:
    """Polygons of a GeoJSON file: one list of rings per object, each float64 [n, 2] (x, y) in slide pixels.

    Raises:
        UsageError: naming the feature that is no polygon or crosses itself.
    """
    return [rings for _, rings in read_named_polygons(path, label_scale, mend)]


def read_named_polygons(path: str | os.PathLike[str], label_scale: tuple[float, float] = (1.0, 1.0), mend: bool = False) -> list[tuple[str, list[np.ndarray]]]:  # fmt: skip
    """`read_polygons` with the class name of each object ("" when it has none)."""
    try:
        data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not GeoJSON ({error})") from error
    features = data.get("features", [data]) if isinstance(data, dict) else data
    found: list[tuple[str, list[np.ndarray]]] = []
    for number, feature in enumerate(features):
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind not in ("Polygon", "MultiPolygon"):
            raise UsageError(f"{path}: feature {number} is {kind!r}, not a Polygon or MultiPolygon")
        assert isinstance(geometry, dict)
        parts = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
        name = _class_name(feature)
        for part in parts:
            rings = [np.asarray(ring, np.float64)[:, :2] * label_scale for ring in part if len(ring) >= 3]
            if not mend and any(crosses_itself(ring) for ring in rings):
                raise UsageError(
                    f"{path}: the polygon of feature {number} crosses itself; repair it, or give --mend-polygons"
                )
            if rings:
                found.append((name, rings))
    return found


def _class_name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties") or {}
    named = properties.get("classification") or {}
    return str(
        named.get("name") if isinstance(named, dict) and "name" in named else properties.get("name", "")
    )


def crosses_itself(ring: np.ndarray) -> bool:
    """Whether two sides of a closed polygon [n, 2] that are not neighbours properly cross."""
    points = ring[:-1] if len(ring) > 1 and np.array_equal(ring[0], ring[-1]) else ring
    n = len(points)
    if n < 4:
        return False
    a, b = points, np.roll(points, -1, axis=0)

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return np.sign(
            (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1])
            - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        )

    for i in range(n - 2):
        js = np.arange(i + 2, n if i else n - 1)
        if not len(js):
            continue
        first = side(a[i], b[i], a[js]) * side(a[i], b[i], b[js])
        second = side(a[js], b[js], a[i]) * side(a[js], b[js], b[i])
        if bool(((first < 0) & (second < 0)).any()):
            return True
    return False


def share_of_polygons(polygons: list[list[np.ndarray]], size: Size, scale: int) -> np.ndarray:
    """uint8 [h, w]: 255 times the share of each network pixel inside any polygon, object by object at 4 x the grid."""
    grid = size.over(scale)
    out = np.zeros((grid.height, grid.width), np.uint8)
    for rings in polygons:
        net = [ring / scale for ring in rings]
        low = np.floor(np.min([r.min(0) for r in net], axis=0)).astype(int) - 1
        high = np.ceil(np.max([r.max(0) for r in net], axis=0)).astype(int) + 1
        x0, y0 = max(0, low[0]), max(0, low[1])
        x1, y1 = min(grid.width, high[0]), min(grid.height, high[1])
        if x1 <= x0 or y1 <= y0:
            continue
        fine = np.zeros(((y1 - y0) * SUPERSAMPLE, (x1 - x0) * SUPERSAMPLE), np.uint8)
        # OpenCV's integer coordinates are pixel centres: the corner (x, y) is at x * SUPERSAMPLE - 0.5. 4 fractional bits.
        shifted = [np.rint((((r - (x0, y0)) * SUPERSAMPLE) - 0.5) * 16).astype(np.int32) for r in net]
        cv2.fillPoly(fine, shifted, 255, shift=4)
        # OpenCV fills every pixel that an edge touches: on average half of such a pixel is inside
        cv2.polylines(fine, shifted, True, 128, shift=4)
        share = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        window = out[y0:y1, x0:x1]
        np.maximum(window, share, out=window)
    return out


def read_image_labels(path: str | os.PathLike[str], size: Size) -> np.ndarray:
    """A mask or instance image [H, W] of the slide's size (any integer type).

    Raises:
        UsageError: unreadable, or of another size; the message has both sizes.
    """
    image = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UsageError(f"{path}: not an image that can be read")
    if image.ndim == 3:
        image = image.max(axis=2)
    if image.shape != (size.height, size.width):
        raise UsageError(f"{path}: the labels are {image.shape[1]} x {image.shape[0]}, the slide is {size}")
    return np.asarray(image)


def instance_targets(labels: np.ndarray, core: float = 0.45) -> np.ndarray:
    """Two planes uint8 [2, H, W] (0 or 255) from instance numbers [H, W]: every object, and each object's core.

    The core is where the distance to the object's edge exceeds `core` times its largest: objects of any size have one,
    and cores of touching objects do not touch, so they are the seeds that split a clump (`wsiseg.instances`).
    """
    out = np.zeros((2, *labels.shape), np.uint8)
    out[0][labels > 0] = 255
    for _, ys, xs in each_object(labels):
        y0, x0 = ys.min(), xs.min()
        window = np.zeros((ys.max() - y0 + 3, xs.max() - x0 + 3), np.uint8)
        window[ys - y0 + 1, xs - x0 + 1] = 1
        distance = cv2.distanceTransform(window, cv2.DIST_L2, 3)
        out[1][ys, xs] = np.where(distance[ys - y0 + 1, xs - x0 + 1] > core * distance.max(), 255, 0)
    return out


def each_object(labels: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(number, ys, xs) of every object of an instance image, by one sort."""
    ys, xs = np.nonzero(labels)
    if not len(ys):
        return []
    values = labels[ys, xs]
    order = np.argsort(values, kind="stable")
    values, ys, xs = values[order], ys[order], xs[order]
    cuts = np.flatnonzero(np.diff(values)) + 1
    firsts = np.concatenate([[0], cuts])
    return [
        (int(values[f]), y, x) for f, y, x in zip(firsts, np.split(ys, cuts), np.split(xs, cuts), strict=True)
    ]
