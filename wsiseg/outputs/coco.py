"""COCO's run-length encodings, both the plain and the compressed one, and the JSON file around them.

COCO's order is ours (column by column); its counts alternate between outside and inside, beginning with outside.
Source: maskApi.c of https://github.com/cocodataset/cocoapi.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.objects import find_objects
from wsiseg.outputs.files import atomic_file
from wsiseg.runs import Runs

_LARGEST = 2**32 - 1  # counts are unsigned 32-bit numbers in COCO's own code


def to_counts(runs: Runs) -> np.ndarray:
    """The plain encoding: int64 [2 n + 1] (or [2 n] when the last pixel is inside), summing to the slide's pixels."""
    edges = np.column_stack([runs.starts, runs.ends]).ravel()
    counts = np.diff(np.concatenate([[0], edges, [runs.size.pixels]]))
    return counts if counts[-1] or len(counts) == 1 else counts[:-1]


def from_counts(counts: np.ndarray, size: Size) -> Runs:
    """The mask of plain counts.

    Raises:
        UsageError: a negative count, or counts that do not sum to the slide's pixels.
    """
    counts = np.asarray(counts, np.int64)
    if (counts < 0).any() or int(counts.sum()) != size.pixels:
        raise UsageError(f"COCO counts sum to {int(counts.sum())}, not to the {size.pixels} pixels of {size}")
    edges = np.cumsum(counts)
    starts, ends = edges[:-1:2], edges[1::2]
    return Runs.merged(starts[: len(ends)], ends - starts[: len(ends)], size)


def compress(counts: np.ndarray) -> str:
    """COCO's compressed string: from the fourth count on the difference to the last but one, in 5-bit groups.

    Raises:
        UsageError: a count does not fit COCO's 32 bits.
    """
    if counts.max(initial=0) > _LARGEST:
        raise UsageError(
            f"a run of {int(counts.max())} pixels does not fit COCO's RLE, which holds up to {_LARGEST}"
        )
    values = counts.astype(np.int64)
    values[3:] = values[3:] - counts[1:-2]
    # The groups of all numbers at once: number i needs groups until what is left is its own sign.
    groups = np.zeros((len(values), 8), np.uint8)
    more = np.ones(len(values), bool)
    used = np.zeros(len(values), np.int64)
    for k in range(8):
        low = (values & 0x1F).astype(np.uint8)
        values = values >> 5
        used += more
        ends = np.where(low & 0x10, values == -1, values == 0)
        groups[:, k] = 48 + (low | np.where(ends, 0, 0x20))
        more = more & ~ends
    return groups[np.arange(8) < used[:, None]].tobytes().decode("ascii")


def expand(text: str) -> np.ndarray:
    """The plain counts of a compressed string: int64 [n].

    Raises:
        UsageError: characters that the encoding does not have, or an end within a number.
    """
    data = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if len(data) == 0:
        return np.empty(0, np.int64)
    if (data < 0).any() or (data > 63).any() or data[-1] & 0x20:
        raise UsageError("not a compressed COCO RLE")
    last = np.nonzero((data & 0x20) == 0)[0]
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 7:
        raise UsageError("not a compressed COCO RLE: a number too large")
    place = np.arange(len(data)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((data & 0x1F) << (5 * place), first)
    negative = (data[last] & 0x10) > 0
    values = values - (negative.astype(np.int64) << (5 * (last - first + 1)))
    # Undo the differences: odd and even counts are two running sums, each from its first differenced number.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def encode(runs: Runs) -> dict[str, Any]:
    """COCO's compressed RLE of a mask: {"size": [height, width], "counts": text}."""
    return {"size": [runs.size.height, runs.size.width], "counts": compress(to_counts(runs))}


def decode(rle: Any) -> Runs:
    """The mask of a COCO RLE, plain or compressed.

    Raises:
        UsageError: in one line, what is wrong with it.
    """
    try:
        height, width = (int(n) for n in rle["size"])
        counts = rle["counts"]
    except (TypeError, KeyError, ValueError):
        raise UsageError("not a COCO RLE: it needs size and counts") from None
    if height < 1 or width < 1:
        raise UsageError(f"a COCO RLE of size {height} x {width} has no pixels")
    size = Size(height, width)
    if isinstance(counts, str):
        return from_counts(expand(counts), size)
    try:
        return from_counts(np.array(counts, np.int64), size)
    except (TypeError, ValueError, OverflowError):
        raise UsageError("not a COCO RLE: counts are neither text nor whole numbers") from None


@dataclass(frozen=True)
class SlideMasks:
    """The masks of one slide, by class name."""

    id: str
    size: Size
    classes: dict[str, Runs]
    file_name: str = ""


def write_coco(path: str | os.PathLike[str], slides: Sequence[SlideMasks], *, instances: bool = False) -> int:
    """Writes a COCO file: one annotation per slide and class, or per object, and returns how many.

    Raises:
        UsageError: a slide too large for COCO's 32-bit counts. OutputError: the file cannot be written.
    """
    names = list(dict.fromkeys(name for slide in slides for name in slide.classes))
    number = 0
    with atomic_file(path) as file:

        def put(value: Any) -> None:
            file.write(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())

        file.write(b'{"images":')
        put(
            [
                {"id": k, "file_name": s.file_name or s.id, "height": s.size.height, "width": s.size.width}
                for k, s in enumerate(slides, 1)
            ]
        )
        file.write(b',\n"categories":')
        put([{"id": k, "name": name} for k, name in enumerate(names, 1)])
        file.write(b',\n"annotations":[')
        for image, slide in enumerate(slides, 1):
            for name, runs in slide.classes.items():
                for piece, (y0, x0, y1, x1) in _pieces(runs, instances):
                    file.write(b",\n" if number else b"\n")
                    number += 1
                    put(
                        {
                            "id": number,
                            "image_id": image,
                            "category_id": names.index(name) + 1,
                            "segmentation": encode(piece),
                            "area": piece.area,
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "iscrowd": 0 if instances else 1,
                        }
                    )
        file.write(b"\n]}\n")
    return number


def _pieces(runs: Runs, instances: bool) -> list[tuple[Runs, tuple[int, int, int, int]]]:
    """The mask, or each of its objects, with its box y0, x0, y1, x1."""
    objects = find_objects(runs)
    if not instances:
        if not len(objects):
            return [(runs, (0, 0, 0, 0))]
        y0, x0 = objects.boxes[:, :2].min(0).tolist()
        y1, x1 = objects.boxes[:, 2:].max(0).tolist()
        return [(runs, (y0, x0, y1, x1))]
    order, bounds = objects.grouped()
    pieces = []
    for k in range(len(objects)):
        mine = order[bounds[k] : bounds[k + 1]]
        piece = Runs.merged(objects.starts[mine], objects.lengths[mine], runs.size)
        y0, x0, y1, x1 = objects.boxes[k].tolist()
        pieces.append((piece, (y0, x0, y1, x1)))
    return pieces


def read_coco(path: str | os.PathLike[str]) -> list[SlideMasks]:
    """The masks in a COCO file, per image the union of its annotations of each class.

    An image's id is its file's name without the extension. Polygons are filled as `geojson.fill_polygon` does.

    Raises:
        UsageError: not such a file; names the annotation that is wrong.
    """
    from wsiseg.outputs.geojson import fill_polygon

    name = os.fspath(path)
    try:
        data = json.loads(Path(path).read_bytes())
        images = {image["id"]: image for image in data["images"]}
        sizes = {key: Size(int(image["height"]), int(image["width"])) for key, image in images.items()}
        categories = {c["id"]: str(c["name"]) for c in data.get("categories", [])}
        annotations = data["annotations"]
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file") from None
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not JSON: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{name}: not a COCO file: it needs images and annotations") from None
    masks: dict[Any, dict[str, list[Runs]]] = {key: {} for key in images}
    for number, annotation in enumerate(annotations, 1):
        try:
            image, segmentation = annotation["image_id"], annotation["segmentation"]
            size = sizes[image]
            if isinstance(segmentation, list):
                runs = Runs.empty(size)
                for polygon in segmentation:
                    ring = np.array(polygon, np.float64).reshape(-1, 2)
                    runs = runs.union(Runs.merged(*fill_polygon([ring], size), size))
            else:
                runs = decode(segmentation)
        except UsageError as error:
            raise UsageError(f"{name}: annotation {number}: {error}") from None
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{name}: annotation {number}: no known image, or no segmentation") from None
        if runs.size != size:
            raise UsageError(f"{name}: annotation {number}: its size is {runs.size}, its image's is {size}")
        label = categories.get(annotation.get("category_id"), "")
        masks[image].setdefault(label, []).append(runs)
    return [
        SlideMasks(
            Path(str(images[key].get("file_name", key))).stem,
            sizes[key],
            {label: _union(parts) for label, parts in masks[key].items()},
            str(images[key].get("file_name", "")),
        )
        for key in images
    ]


def _union(parts: list[Runs]) -> Runs:
    return Runs.merged(
        np.concatenate([p.starts for p in parts]), np.concatenate([p.lengths for p in parts]), parts[0].size
    )
