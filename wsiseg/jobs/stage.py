"""Staging: a slide is copied to the node's own disk before it is read, when it fits, and removed afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.temporary import temporary_name, writer_is_gone

SPARE = 1 << 30  # bytes that are left free on the node's disk


class Stage:
    """Copies in a folder of the node. Every copy carries its owner's process id, so that the next owner can clean up.

    Args:
        folder: exists or can be made.
        spare: bytes to leave free.
    """

    def __init__(self, folder: str | os.PathLike[str], spare: int = SPARE) -> None:
        self.folder, self.spare = Path(folder).absolute(), spare
        self._copies: dict[int, Path] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--stage {folder}: {error.strerror}") from error
        for copy in list(self.folder.glob("wsiseg-*")):
            if writer_is_gone(copy.name.removeprefix("wsiseg-").partition("+")[0], copy):
                shutil.rmtree(copy, ignore_errors=True)

    def take(self, slide: Slide) -> str:
        """The path to read `slide` from: a copy, or the slide's own when it does not fit or cannot be copied."""
        if shutil.disk_usage(self.folder).free < slide.size + self.spare:
            return slide.path
        folder = self.folder / f"wsiseg-{temporary_name()}+"
        copy = folder / os.path.basename(slide.path)
        try:
            folder.mkdir()
            if os.path.isdir(slide.path):
                shutil.copytree(slide.path, copy)
            else:
                shutil.copyfile(slide.path, copy)
        except OSError:
            # a full disk or a file that vanishes: reading the slide itself gives the right error, or none
            shutil.rmtree(folder, ignore_errors=True)
            return slide.path
        self._copies[slide.index] = folder
        return str(copy)

    def drop(self, index: int) -> None:
        """Removes the copy of the slide with this index, if there is one."""
        folder = self._copies.pop(index, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Removes all copies."""
        for index in list(self._copies):
            self.drop(index)
