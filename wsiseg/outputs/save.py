"""What `--save` can write beside the CSV, by name: one function per slide for whoever has its runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.geometry import Size
from wsiseg.outputs.files import output_errors
from wsiseg.outputs.geojson import ObjectClass, write_geojson
from wsiseg.outputs.kinds import KINDS, output_path, parse_kinds
from wsiseg.outputs.masks import write_mask_tiff, write_mask_zarr
from wsiseg.outputs.planes import plane_bytes
from wsiseg.outputs.probability import BAND, ProbabilityPlanes, write_probability
from wsiseg.outputs.table import SlideObjects, write_objects

if TYPE_CHECKING:
    from wsiseg.runs import Runs
    from wsiseg.slide import Slide

OVERLAY_SIDE = 1600
CORE = "core"
"""The class of a model that tells touching objects apart."""
LARGEST_INSTANCE_BOX = 4_000_000
"""Pixels of an object's bounding box beyond which `instances` leaves it whole: splitting draws the box. A fixed number,
so that rows do not depend on the memory budget."""
_INSTANCE_BYTES = 24  # of each of them
_PYARROW = 100 << 20  # resident memory of pyarrow once imported


@dataclass(frozen=True)
class SlideOutputs:
    """A finished slide as the writers need it.

    Args:
        id: names the files.
        classes: name, runs (and where known mean probabilities) of each class.
        mpp: microns per pixel at full size.
        open: opens the slide; only called for what shows its pixels.
        scale: slide pixels per network pixel. thresholds: of the classes.
        planes: the probabilities, while they are kept; see `Kind.planes`.
        notes: what a person should know of the outputs; writers add to it. seconds: what writing each took.
    """

    id: str
    classes: Sequence[ObjectClass]
    mpp: float | None
    open: Callable[[], Slide]
    scale: int = 1
    thresholds: Sequence[float] = ()
    planes: ProbabilityPlanes | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SaveOptions:
    """`tolerance`: how many pixels GeoJSON outlines may be off (0: exact)."""

    tolerance: float = 0.0


def _masks(slide: SlideOutputs) -> tuple[list, list[str]]:  # type: ignore[type-arg]
    return [one.runs for one in slide.classes], [one.name for one in slide.classes]


def _mask(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    runs, names = _masks(slide)
    write_mask_tiff(path, runs, slide.mpp, names=names, ome=True)


def _mask_zarr(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    runs, names = _masks(slide)
    write_mask_zarr(path, runs, slide.mpp, names=names)


def _geojson(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    write_geojson(path, slide.id, slide.classes, slide.mpp, tolerance=options.tolerance)


def _objects(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    write_objects(path, [SlideObjects(slide.id, slide.classes, slide.mpp)])


def _overlay(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    from wsiseg.outputs.overlay import write_overlay
    from wsiseg.outputs.thumbnail import read_thumbnail

    with slide.open() as opened:
        thumbnail = read_thumbnail(opened, OVERLAY_SIDE)
    write_overlay(path, thumbnail, slide.classes, slide.mpp)


def _probability(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    if slide.planes is None:
        raise ValueError("the probabilities of this slide were not kept")
    write_probability(path, slide.planes, [one.name for one in slide.classes], slide.scale, slide.mpp)


def _uncertain(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    from wsiseg.outputs.uncertain import write_uncertain

    with slide.open() as opened:
        write_uncertain(path, opened, slide.classes)


def _instances(path: Path, slide: SlideOutputs, options: SaveOptions) -> None:
    """One row per object; a class called "core" tells the objects of the other classes apart."""
    from wsiseg.outputs.instances import WAIST_SHARE, split_at_cores, split_objects, write_instances

    names, left = [one.name for one in slide.classes], list[int]()
    core = names.index(CORE) if CORE in names and len(names) > 1 else None
    solid = [k for k in range(len(names)) if k != core]

    def rows() -> Iterator[tuple[str, Iterable[Runs]]]:
        for k in solid:
            runs = slide.classes[k].runs
            label = slide.id if len(solid) == 1 else f"{slide.id}:{names[k]}"
            if core is None:
                # One network pixel is the least that a waist can mean.
                yield label, split_objects(runs, slide.scale, WAIST_SHARE, LARGEST_INSTANCE_BOX, left)
            elif slide.planes is None:
                raise ValueError("the probabilities of this slide were not kept")
            else:
                threshold = slide.thresholds[core]
                yield (
                    label,
                    split_at_cores(
                        runs, slide.planes, (k, core), slide.scale, threshold, LARGEST_INSTANCE_BOX, left
                    ),
                )

    write_instances(path, rows())
    if left:
        slide.notes.append(
            f"instances: {len(left)} object{'' if len(left) == 1 else 's'} with a bounding box of more than "
            f"{LARGEST_INSTANCE_BOX:,} pixels left whole"
        )


WRITERS: dict[str, Callable[[Path, SlideOutputs, SaveOptions], None]] = {
    "mask": _mask,
    "mask-zarr": _mask_zarr,
    "probability": _probability,
    "probability-zarr": _probability,
    "geojson": _geojson,
    "objects": _objects,
    "objects-parquet": _objects,
    "overlay": _overlay,
    "uncertain": _uncertain,
    "instances": _instances,
}


def save_outputs(
    folder: str | os.PathLike[str],
    kinds: Iterable[str],
    slide: SlideOutputs,
    options: SaveOptions | None = None,
) -> list[Path]:
    """Writes the outputs of one slide into `folder` (made if missing), and returns their paths.

    Files are written one after the other, each whole or not at all; files of the same name are replaced.

    Raises:
        OutputError: one cannot be written. SlideError: the slide cannot be read again for its picture.
    """
    folder, written = Path(folder), []
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in parse_kinds(kinds):
        path = output_path(folder, slide.id, name)
        began = time.perf_counter()
        WRITERS[name](path, slide, options or SaveOptions())
        slide.seconds[name] = time.perf_counter() - began
        written.append(path)
    return written


def save_bytes(kinds: Iterable[str], size: Size, runs: int, network: Size | None = None) -> int:
    """Memory that writing needs at most at once, beside the runs themselves.

    Args:
        runs: how many the slide's masks have together. network: size of the network grid.
    """
    needs = [0]
    for name in kinds:
        if name.startswith("mask"):
            needs.append(plane_bytes(size))
        elif name.startswith("probability"):
            needs.append(plane_bytes(network or size))
        else:
            # Labels, outlines and points: about 250 bytes per run; the picture and its ring.
            picture = 3 * 4 * OVERLAY_SIDE * OVERLAY_SIDE
            extra = {
                "overlay": picture,
                "uncertain": picture,
                "objects-parquet": _PYARROW,
                "instances": _INSTANCE_BYTES * LARGEST_INSTANCE_BOX,
            }.get(name, 0)
            if KINDS[name].means:
                extra = max(extra, BAND * (network or size).width)
            needs.append(250 * runs + extra)
    return max(needs)
