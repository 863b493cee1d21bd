"""Whether a zarr folder can be opened without harm and holds anything, before zarr is asked to read it."""

from __future__ import annotations

import os
from typing import Any

from wsiseg.errors import SlideError

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def check_metadata(path: str) -> None:
    """Refuse metadata, of the group and of what is in it, that is a pipe or a device: opening it could wait for ever."""
    folders = [path, *(e.path for e in os.scandir(path) if e.is_dir())]
    for name in (os.path.join(folder, file) for folder in folders for file in METADATA):
        if os.path.exists(name) and not os.path.isfile(name):
            raise SlideError(path, f"{os.path.relpath(name, path)} is not a regular file")


def check_stored(path: str, array: Any) -> None:
    """Refuse an array in a local folder without a single chunk: a copy that broke off, not a slide of one colour."""
    root = getattr(array.store, "root", None)
    if root is None:
        return
    with os.scandir(os.path.join(root, array.path)) as entries:
        if all(e.name == "zarr.json" or e.name.startswith(".") for e in entries):
            raise SlideError(path, "none of its chunks is there")
