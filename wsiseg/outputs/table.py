"""The table of objects: one row per object with its place, size and shape; CSV or Parquet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.objects import find_objects
from wsiseg.outputs.files import atomic_file, write_atomically
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.outlines import trace

COLUMNS = (
    "slide", "class", "object", "x0", "y0", "x1", "y1", "centroid_x", "centroid_y", "area_px", "area_um2",
    "equivalent_diameter_um", "circularity", "mean_probability",
)  # fmt: skip
"""`object` counts from 1 within slide and class, in the order of the GeoJSON; boxes are half-open, in pixels, as are
centroids (the first pixel's middle is 0.5); circularity is 4 pi area / perimeter^2, 1 for a disc (see
`Outlines.perimeters`). Columns in microns are empty where the slide's mpp is not known, mean_probability where no
probabilities were kept."""


@dataclass(frozen=True)
class SlideObjects:
    """What one slide contributes to the table."""

    slide_id: str
    classes: Sequence[ObjectClass]
    mpp: float | None = None


def object_columns(slide: SlideObjects) -> dict[str, np.ndarray]:
    """The table of one slide: an array for each of COLUMNS, all of one length; unknown numbers are NaN."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    mpp = slide.mpp or np.nan
    for one in slide.classes:
        objects = find_objects(one.runs)
        count = len(objects)
        perimeter = trace(objects).perimeters(count)
        values: dict[str, np.ndarray] = {
            "slide": np.full(count, slide.slide_id, object),
            "class": np.full(count, one.name, object),
            "object": np.arange(1, count + 1),
            **{name: objects.boxes[:, k] for k, name in enumerate(("y0", "x0", "y1", "x1"))},
            "centroid_x": objects.centroids[:, 1].round(3),
            "centroid_y": objects.centroids[:, 0].round(3),
            "area_px": objects.area,
            "area_um2": (objects.area * mpp * mpp).round(3),
            "equivalent_diameter_um": (2 * np.sqrt(objects.area / np.pi) * mpp).round(3),
            "circularity": (4 * np.pi * objects.area / perimeter**2).round(4),
            "mean_probability": np.full(count, np.nan)
            if one.probability is None
            else one.probability.round(5),
        }
        for name in COLUMNS:
            parts[name].append(values[name])
    return {name: np.concatenate(pieces) if pieces else np.empty(0) for name, pieces in parts.items()}


def write_objects(path: str | os.PathLike[str], slides: Iterable[SlideObjects]) -> int:
    """Writes the objects of all slides to a .csv or .parquet file, and returns how many.

    Memory bound: one slide's objects for CSV; all of them for Parquet.

    Raises:
        UsageError: another extension, or Parquet without pyarrow. OutputError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        with atomic_file(path) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            count = 0
            for slide in slides:
                columns = [[_plain(v) for v in column.tolist()] for column in object_columns(slide).values()]
                writer.writerows(zip(*columns, strict=True))
                count += len(columns[0])
            text.detach()
        return count
    if suffix != ".parquet":
        raise UsageError(f"{os.fspath(path)}: a table of objects is .csv or .parquet")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError(
            "writing Parquet needs the package pyarrow: pip install pyarrow, or write a .csv"
        ) from None
    tables = [object_columns(slide) for slide in slides]
    whole = {name: np.concatenate([t[name] for t in tables] or [np.empty(0)]) for name in COLUMNS}
    # What is not known is null, as it is empty in the CSV.
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in whole.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())
    return table.num_rows


def _plain(value: object) -> object:
    return "" if value != value else value  # only NaN differs from itself
