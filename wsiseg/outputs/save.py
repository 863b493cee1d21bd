"""What `--save` can write beside the CSV, by name: one function per slide for whoever has its runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.errors import UsageError, unknown_name
from wsiseg.geometry import Size
from wsiseg.outputs.files import output_errors, safe_name
from wsiseg.outputs.geojson import ObjectClass, write_geojson
from wsiseg.outputs.masks import write_mask_tiff, write_mask_zarr
from wsiseg.outputs.planes import plane_bytes
from wsiseg.outputs.table import SlideObjects, write_objects

if TYPE_CHECKING:
    from wsiseg.slide import Slide

OVERLAY_SIDE = 1600
_PYARROW = 100 << 20  # resident memory of pyarrow once imported


@dataclass(frozen=True)
class SlideOutputs:
    """A finished slide as the writers need it.

    Args:
        id: names the files.
        classes: name, runs (and where known mean probabilities) of each class.
        mpp: microns per pixel at full size.
        open: opens the slide; only called for what shows its pixels.
    """

    id: str
    classes: Sequence[ObjectClass]
    mpp: float | None
    open: Callable[[], Slide]


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


@dataclass(frozen=True)
class Kind:
    """One output: the end of its file's name, what it is, and its writer."""

    suffix: str
    what: str
    write: Callable[[Path, SlideOutputs, SaveOptions], None]


KINDS: dict[str, Kind] = {
    "mask": Kind(".mask.ome.tif", "mask at full size, tiled pyramidal OME-TIFF", _mask),
    "mask-zarr": Kind(".mask.zarr", "mask at full size, OME-Zarr 0.5 with a pyramid", _mask_zarr),
    "geojson": Kind(".geojson", "polygons with holes for QuPath", _geojson),
    "objects": Kind(".objects.csv", "a table with a row per object", _objects),
    "objects-parquet": Kind(".objects.parquet", "the same table as Parquet", _objects),
    "overlay": Kind(".overlay.png", "a small picture with contours and a legend", _overlay),
}


def parse_kinds(words: Iterable[str]) -> tuple[str, ...]:
    """The names in `--save` values, which may be repeated and hold commas; in the order of KINDS, each once.

    Raises:
        UsageError: an unknown name; the message lists the known ones.
    """
    names = {name.strip() for word in words for name in word.split(",") if name.strip()}
    for name in sorted(names):
        if name not in KINDS:
            raise UsageError("--save: " + unknown_name("output", name, KINDS))
    return tuple(name for name in KINDS if name in names)


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
        path = folder / (safe_name(slide.id) + KINDS[name].suffix)
        KINDS[name].write(path, slide, options or SaveOptions())
        written.append(path)
    return written


def save_bytes(kinds: Iterable[str], size: Size, runs: int) -> int:
    """Memory that writing needs at most at once, beside the runs themselves.

    Args:
        runs: how many the slide's masks have together.
    """
    needs = [0]
    for name in kinds:
        if name.startswith("mask"):
            needs.append(plane_bytes(size))
        else:
            # Labels, outlines and points: about 250 bytes per run; the picture and its ring.
            extra = {"overlay": 3 * 4 * OVERLAY_SIDE * OVERLAY_SIDE, "objects-parquet": _PYARROW}.get(name, 0)
            needs.append(250 * runs + extra)
    return max(needs)
