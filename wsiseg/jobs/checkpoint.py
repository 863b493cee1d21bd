"""The state of a slide in progress, so that a slide of hours that is killed repeats minutes.

The pipeline asks `due()` after each finished band and, when it is, gives `save` its arrays. Saving may not cost more
than 1 % of the time: the next one is due after `every` seconds, but not before 100 times what the last one took.
What is loaded is exactly what was saved for the same file, model and options, or nothing.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.store import Store

FORMAT = 1
FOLDER = "checkpoints"
EVERY = 5.0
COST = 0.01


class Checkpoint:
    """The checkpoint of one slide.

    Args:
        store: of the job's folder.
        slide: whose file's size and time must match on load.
        digest: of model and options.
        every: seconds between two savings, at least.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        store: Store,
        slide: Slide,
        digest: str,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._name = store, f"{FOLDER}/{slide.key}"
        self._owner = [digest, slide.id, slide.size, slide.mtime]
        self._every, self._clock = every, clock
        self._next = clock() + every
        self.saved = 0

    def due(self) -> bool:
        """Whether it is time to save. Costs nothing: call it as often as you like."""
        return self._clock() >= self._next

    def save(self, state: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Replaces the checkpoint, whole, flushed to the disk.

        Args:
            state: C-contiguous arrays (anything with a buffer, a dtype and a shape) by name.
            about: plain JSON data, like the next band's number.
        """
        began = self._clock()
        entries, parts, checksum = [], [], 0
        for name, array in state.items():
            view = memoryview(array)
            if not view.c_contiguous:
                raise ValueError(f"checkpoint array {name!r} is not C-contiguous")
            # an empty view cannot be cast, and holds no bytes to write
            data = view.cast("B") if view.nbytes else memoryview(b"")
            dtype = array.dtype.str if hasattr(array, "dtype") else "|u1"
            entries.append(
                [name, dtype, list(array.shape) if hasattr(array, "dtype") else [view.nbytes], data.nbytes]
            )
            parts.append(data)
            checksum = zlib.crc32(data, checksum)
        header = {
            "format": FORMAT,
            "owner": self._owner,
            "about": dict(about or {}),
            "arrays": entries,
            "checksum": checksum,
        }
        self._store.write(self._name, json.dumps(header).encode(), b"\n", *parts)
        self.saved += 1
        now = self._clock()
        self._next = now + max(self._every, (now - began) / COST)

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(arrays by name, writable and own their memory; `about`) as saved, or None when there is nothing that fits."""
        import numpy as np

        data = self._store.read(self._name)
        if data is None:
            return None
        head, _, body = data.partition(b"\n")
        try:
            header = json.loads(head)
            if header["format"] != FORMAT or header["owner"] != self._owner:
                return None
            if (
                len(body) != sum(entry[3] for entry in header["arrays"])
                or zlib.crc32(body) != header["checksum"]
            ):
                return None
        except (ValueError, KeyError, TypeError):
            return None
        arrays, at = {}, 0
        for name, dtype, shape, size in header["arrays"]:
            arrays[name] = np.frombuffer(body[at : at + size], np.dtype(dtype)).reshape(shape).copy()
            at += size
        return arrays, header["about"]

    def discard(self) -> None:
        """Removes it; its slide has a record."""
        self._store.remove(self._name)
