"""The outputs that `--save` knows, by name, and how their files are called. Loads nothing: the parent of a run stays light."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import UsageError, unknown_name
from wsiseg.outputs.files import safe_name


@dataclass(frozen=True)
class Kind:
    """One output.

    Args:
        suffix: the end of its file's name. what: for people.
        planes: it is made of the probability planes, which are gone when the slide has its record.
        means: it shows the mean probability of objects, where the record has them.
    """

    suffix: str
    what: str
    planes: bool = False
    means: bool = False


KINDS: dict[str, Kind] = {
    "mask": Kind(".mask.ome.tif", "mask at full size, tiled pyramidal OME-TIFF"),
    "mask-zarr": Kind(".mask.zarr", "mask at full size, OME-Zarr 0.5 with a pyramid"),
    "probability": Kind(
        ".probability.ome.tif", "probabilities at network resolution, pyramidal OME-TIFF", planes=True
    ),
    "probability-zarr": Kind(".probability.zarr", "probabilities as OME-Zarr 0.5", planes=True),
    "geojson": Kind(".geojson", "polygons with holes for QuPath", means=True),
    "objects": Kind(".objects.csv", "a table with a row per object", means=True),
    "objects-parquet": Kind(".objects.parquet", "the same table as Parquet", means=True),
    "overlay": Kind(".overlay.png", "a small picture with contours and a legend"),
    "uncertain": Kind(
        ".uncertain.png", "crops of the objects that the model is least certain of", means=True
    ),
    "instances": Kind(".instances.csv", "one row per object, touching ones split", planes=True),
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


def keeps_probabilities(kinds: Iterable[str]) -> bool:
    """Whether an output asks for the probabilities of slides while they are processed."""
    return any(KINDS[name].planes or KINDS[name].means for name in kinds)


def output_path(folder: str | os.PathLike[str], slide_id: str, kind: str) -> Path:
    """The file of one output of a slide."""
    return Path(folder) / (safe_name(slide_id) + KINDS[kind].suffix)


def missing_outputs(slide_id: str, into: str | os.PathLike[str], kinds: Iterable[str]) -> list[str]:
    """Those of the kinds whose files of a slide are not in the folder."""
    return [kind for kind in kinds if not output_path(into, slide_id, kind).exists()]
