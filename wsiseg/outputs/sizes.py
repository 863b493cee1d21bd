"""How large the slides of a submission are: from a table, or from the slides themselves."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from wsiseg.errors import UsageError
from wsiseg.geometry import Size

SLIDE_SUFFIXES = (".tif", ".tiff", ".svs", ".btf", ".ndpi", ".zarr")


def read_sizes(path: str | os.PathLike[str]) -> dict[str, Size]:
    """The table of --sizes: a CSV with the columns id, height, width (in any order, others are ignored).

    Raises:
        UsageError: with the line that is wrong.
    """
    name, sizes = os.fspath(path), {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in ("id", "height", "width") if c not in (reader.fieldnames or [])]
            if missing:
                raise UsageError(f"{name}: needs the columns id,height,width; {', '.join(missing)} missing")
            for row in reader:
                line, key = reader.line_num, row["id"]
                try:
                    size = Size(int(row["height"]), int(row["width"]))
                except (TypeError, ValueError):
                    raise UsageError(
                        f"{name}: line {line}: height {row['height']!r} and width {row['width']!r} must be whole numbers"
                    ) from None
                if size.height < 1 or size.width < 1:
                    raise UsageError(f"{name}: line {line}: a slide of {size} has no pixels")
                if key in sizes:
                    raise UsageError(f"{name}: line {line}: the id {key!r} occurs twice")
                sizes[key] = size
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{name}: not a CSV of text: {error}") from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error
    return sizes


def slide_sizes(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Size]:
    """The sizes of slides (files, or folders of them) by their ids.

    Raises:
        SlideError: one cannot be opened. UsageError: no slide, or two of the same id.
    """
    from wsiseg.slide import open_slide

    sizes: dict[str, Size] = {}
    for path in _slides(paths):
        slide = open_slide(path)
        try:
            if slide.id in sizes:
                raise UsageError(f"{path}: another slide has the id {slide.id!r} too; ids must differ")
            sizes[slide.id] = slide.size
        finally:
            slide.close()
    return sizes


def _slides(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    found = []
    for path in map(Path, paths):
        if path.is_dir() and path.suffix.lower() != ".zarr":
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SLIDE_SUFFIXES)
            if not inside:
                raise UsageError(f"{path}: no slide in this folder ({', '.join(SLIDE_SUFFIXES)})")
            found += inside
        else:
            found.append(path)
    return found
