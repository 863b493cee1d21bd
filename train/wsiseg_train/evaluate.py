"""Scores of a submission against the truth, on runs: no full-size mask is made unless a label file is a mask image."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.runs import Runs, parse_rle
from wsiseg_train.labels import IMAGE_SUFFIXES
from wsiseg_train.metrics import average_precision, iou_table, object_f1


@dataclass(frozen=True)
class MaskScore:
    """One image's scores, in pixels of the slide."""

    id: str
    dice: float
    iou: float
    precision: float
    recall: float


@dataclass(frozen=True)
class InstanceScore:
    """One image's object scores: average precision over IoU 0.5 to 0.95, F1 at 0.5, counts, and the pixels' Dice."""

    id: str
    ap: float
    f1: float
    found: int
    true: int
    dice: float


def read_rows(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Every id of a CSV with its encodings, in order; several rows of one id are its objects (the 2018 format).

    Raises:
        UsageError: not such a CSV.
    """
    csv.field_size_limit(2**31 - 1)
    rows: dict[str, list[str]] = defaultdict(list)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if len(header) < 2 or header[0].lower() not in ("id", "imageid"):
                raise UsageError(
                    f"{path}: the header must be id,predicted (or ImageId,EncodedPixels), not {','.join(header)[:60]!r}"
                )
            for line in lines:
                if line:
                    rows[line[0]].append(line[1] if len(line) > 1 else "")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    return dict(rows)


def _runs(text: str, size: Size | None, where: str) -> Runs:
    if size is not None:
        try:
            return Runs.from_rle(text, size)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    starts, lengths, problems = parse_rle(text)
    if problems:
        raise UsageError(f"{where}: {problems[0]}")
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    if len(starts) and (int(starts[0]) < 0 or bool((starts[1:] < starts[:-1] + lengths[:-1]).any())):
        raise UsageError(f"{where}: runs overlap, or start before the first pixel")
    # intersection, area and Dice are those of intervals: a slide of one column of any height does
    return Runs.merged(starts, lengths, Size(1 << 62, 1))


def _truth(path: str | os.PathLike[str], name: str, size: Size | None) -> Runs:
    """The truth of an id: a row of a CSV, or a mask image (or a folder of them)."""
    place = Path(path)
    if place.is_dir():
        found = [p for p in sorted(place.iterdir()) if p.stem == name and p.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise UsageError(f"{path}: no mask image named {name}")
        place = found[0]
    image = cv2.imread(os.fspath(place), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UsageError(f"{place}: not an image that can be read")
    runs = Runs.from_mask(image if image.ndim == 2 else image.max(axis=2))
    if size is None:
        return Runs(runs.starts, runs.lengths, Size(1 << 62, 1))
    if runs.size != size:
        raise UsageError(f"{place}: the mask is {runs.size}, the slide is {size}")
    return runs


def coverage_runs(path: str | os.PathLike[str], size: Size) -> Runs:
    """An image of any size, stretched over the slide (nearest), as runs: where it is not 0."""
    image = cv2.imread(os.fspath(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise UsageError(f"{path}: not an image that can be read")
    rows = (np.arange(image.shape[0] + 1) * size.height + image.shape[0] - 1) // image.shape[0]
    cols = (np.arange(image.shape[1] + 1) * size.width + image.shape[1] - 1) // image.shape[1]
    starts, lengths = [], []
    for column in range(image.shape[1]):
        on = np.flatnonzero(np.diff(np.concatenate([[0], (image[:, column] > 0).astype(np.int8), [0]])))
        if not len(on):
            continue
        top, bottom = rows[on[0::2]], rows[on[1::2]]
        xs = np.arange(cols[column], cols[column + 1], dtype=np.int64)
        starts.append((xs[:, None] * size.height + top[None]).ravel())
        lengths.append(np.broadcast_to(bottom - top, (len(xs), len(top))).ravel())
    if not starts:
        return Runs.empty(size)
    return Runs.merged(np.concatenate(starts), np.concatenate(lengths), size)


def score_masks(
    predicted: str | os.PathLike[str], truth: str | os.PathLike[str], *, size: Size | None = None, within: str | os.PathLike[str] | None = None,
    columns: tuple[float, float] | None = None,
    label: str | None = None,
) -> list[MaskScore]:  # fmt: skip
    """Pixel scores per image of a submission, in its order.

    Args:
        truth: a CSV, a mask image, or a folder of mask images.
        size: of the slides, where masks are to be checked against it; needed with `within` and `columns`.
        within: score only where this image (of any size) is not 0.
        label: the class to score of a submission whose rows are ID:CLASS.
        columns: score only these slide columns [x0, x1): a region that was held out.

    Raises:
        UsageError: ids without truth, runs that overlap or leave the slide.
    """
    rows = read_rows(predicted)
    if label is not None:
        rows = {name[: -len(label) - 1]: v for name, v in rows.items() if name.endswith(f":{label}")}
    if (within is not None or columns is not None) and size is None:
        raise UsageError(
            "scoring inside a region needs the slide's size; give --size WIDTHxHEIGHT or --slide"
        )
    table = read_rows(truth) if Path(truth).suffix.lower() == ".csv" else None
    region = coverage_runs(within, size) if within is not None and size is not None else None
    scores = []
    for name, texts in rows.items():
        mask = _runs(texts[0], size, f"{predicted}: {name}")
        if table is not None and name not in table:
            raise UsageError(f"{truth}: no row for {name}")
        right = (
            _truth(truth, name, size) if table is None else _runs(table[name][0], size, f"{truth}: {name}")
        )
        if columns is not None:
            mask, right = (r.columns(int(columns[0]), int(columns[1])) for r in (mask, right))
        if region is not None:
            mask, right = mask.intersection(region), right.intersection(region)
        scores.append(_score(name, mask, right))
    return scores


def masks_of(
    predicted: str | os.PathLike[str], truth: str | os.PathLike[str], name: str, size: Size, label: str | None = None
) -> tuple[Runs, Runs]:  # fmt: skip
    """The predicted and the true mask of one image of a submission; see `score_masks`.

    Raises:
        UsageError: an id without a row or truth, runs that overlap or leave the slide.
    """
    rows, key = read_rows(predicted), name if label is None else f"{name}:{label}"
    if key not in rows:
        raise UsageError(f"{predicted}: no row for {key}")
    mask = _runs(rows[key][0], size, f"{predicted}: {key}")
    if Path(truth).suffix.lower() != ".csv":
        return mask, _truth(truth, name, size)
    table = read_rows(truth)
    if name not in table:
        raise UsageError(f"{truth}: no row for {name}")
    return mask, _runs(table[name][0], size, f"{truth}: {name}")


def _score(name: str, mask: Runs, right: Runs) -> MaskScore:
    both, a, b = mask.overlap(right), mask.area, right.area
    union = a + b - both
    return MaskScore(
        name, mask.dice(right), both / union if union else 1.0, both / a if a else 1.0, both / b if b else 1.0
    )


def score_instances(predicted: str | os.PathLike[str], truth: str | os.PathLike[str]) -> list[InstanceScore]:
    """Object scores per image; both CSVs have one row per object (ImageId,EncodedPixels), or `truth` is a folder of
    instance images. Overlapping objects: the later one wins a pixel."""
    rows = read_rows(predicted)
    folder = Path(truth) if Path(truth).is_dir() else None
    table = {} if folder is not None else read_rows(truth)
    scores = []
    for name in rows if folder is not None else table:
        if folder is not None:
            image = cv2.imread(os.fspath(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            if image is None:
                raise UsageError(f"{folder}: no instance image {name}.png")
            true = np.ascontiguousarray(image.T).ravel().astype(np.int32)
            found = paint(rows.get(name, []), len(true), f"{predicted}: {name}")
        else:
            length = max(extent(rows.get(name, [])), extent(table[name]))
            true = paint(table[name], length, f"{truth}: {name}")
            found = paint(rows.get(name, []), length, f"{predicted}: {name}")
        scores.append(instance_score(name, found, true))
    return scores


def instance_score(name: str, found: np.ndarray, true: np.ndarray) -> InstanceScore:
    """Scores of two instance images of one shape."""
    table = iou_table(found, true)
    total = int((found > 0).sum()) + int((true > 0).sum())
    both = int(((found > 0) & (true > 0)).sum())
    return InstanceScore(
        name,
        average_precision(table),
        object_f1(table),
        table.shape[0],
        table.shape[1],
        2 * both / total if total else 1.0,
    )


def extent(texts: Sequence[str]) -> int:
    """One past the last pixel of several encodings, at least 1."""
    ends = [1]
    for text in texts:
        starts, lengths, _ = parse_rle(text)
        ends += [int((starts + lengths).max())] if len(starts) else []
    return max(ends)


def paint(texts: Sequence[str], length: int, where: str) -> np.ndarray:
    """int32 [length], column-major: the number of the object at each pixel.

    Raises:
        UsageError: an object that leaves the image.
    """
    out = np.zeros(length, np.int32)
    for number, text in enumerate(texts, 1):
        starts, lengths, problems = parse_rle(text)
        if problems:
            raise UsageError(f"{where}: object {number}: {problems[0]}")
        for start, count in zip(starts.tolist(), lengths.tolist(), strict=True):
            if start < 0 or start + count > length:
                raise UsageError(f"{where}: object {number} leaves the image of {length} pixels")
            out[start : start + count] = number
    return out
