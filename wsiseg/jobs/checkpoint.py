"""The state of a slide in progress, so that a slide of hours that is killed repeats minutes.

    checkpoints/abcdef0123456789/00000, 00001, ...    one part per save, written whole and never again

A part holds what was found since the part before it, and the small state to go on from; `pace` says when the next one
is due. Parts are chained by checksums: what is loaded is the longest chain that was saved for the same file, model and
options, which is a state that the slide was in, whoever wrote parts beside it.

Saving happens in a thread of its own, with the flush to the disk, and the pipeline does not wait for it.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.pace import Pace, Prices
from wsiseg.jobs.store import Store

FORMAT = 2
FOLDER = "checkpoints"


class Checkpoint:
    """The checkpoint of one slide.

    Args:
        store: of the job's folder.
        slide: whose file's size and time must match on load.
        digest: of model and options.
        prices: what saving costs in this process, or None when that is not known yet.
        clock: seconds that only go forward.

    Attributes:
        saved: parts written by this process.
        problem: why nothing is saved any more, or "".
    """

    def __init__(
        self,
        store: Store,
        slide: Slide,
        digest: str,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._folder, self._clock = store, f"{FOLDER}/{slide.key}", clock
        self._owner = [digest, slide.id, slide.size, slide.mtime]
        self._prices = prices or Prices()
        self._pace = Pace(self._prices, clock)
        self._loaded = self._next = (
            0,
            0,
            0.0,
        )  # number of the next part, checksum before it, seconds before it
        self._thread: threading.Thread | None = None
        self.saved, self.problem = 0, ""

    @property
    def seconds(self) -> float:
        """What saving took, in its own thread."""
        return self._pace.paid

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(arrays by name, writable and own their memory; `about`) as saved, or None when there is nothing that fits.

        Growing arrays come whole, from all parts; the others and `about` from the last.
        """
        import numpy as np

        grown: dict[str, list[Any]] = {}
        state, about, number, checksum, seconds, price = {}, None, 0, 0, 0.0, None
        while (part := self._read(number, checksum)) is not None:
            header, body = part
            arrays, at = [], 0
            for name, dtype, shape, size in [*header["grown"], *header["state"]]:
                arrays.append((name, np.frombuffer(body[at : at + size], np.dtype(dtype)).reshape(shape)))
                at += size
            for name, array in arrays[: len(header["grown"])]:
                grown.setdefault(name, []).append(array)
            state = {name: array.copy() for name, array in arrays[len(header["grown"]) :]}
            about, checksum, seconds = header["about"], header["checksum"], header["seconds"]
            if header["price"] is not None and self._prices.last is None:
                price = header["price"]
            number += 1
        if about is None:
            return None
        self._loaded = number, checksum, seconds
        if price is not None:
            self._prices.note(*price)
        return {name: np.concatenate(parts) for name, parts in grown.items()} | state, about

    def begin(self, resumed: bool) -> None:
        """The slide begins now: from what was loaded, or anew, and then what was saved before is worth nothing."""
        self._next = self._loaded if resumed else (0, 0, 0.0)
        self._pace.begin(self._next[2])

    def due(self, size: int) -> bool:
        """Whether it is time to save `size` bytes. Costs nothing: call it as often as you like."""
        return not self.problem and not self._busy() and self._pace.due(size)

    def save(
        self, grown: Mapping[str, Any], state: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> None:
        """Begins to write one more part; returns before it is on the disk.

        Args:
            grown: what is new in arrays that only grow, by name; C-contiguous, and nobody changes them any more.
            state: all of the other arrays, likewise.
            about: plain JSON data, like the next row's number.
        """
        self.settle()
        entries: list[list[list[Any]]] = [[], []]
        views = []
        for group, arrays in zip(entries, (grown, state), strict=True):
            for name, array in arrays.items():
                view = memoryview(array)
                if not view.c_contiguous:
                    raise ValueError(f"checkpoint array {name!r} is not C-contiguous")
                # an empty view cannot be cast, and holds no bytes to write
                views.append(view.cast("B") if view.nbytes else memoryview(b""))
                group.append([name, array.dtype.str, list(array.shape), view.nbytes])
        number, before, _ = self._next
        header: dict[str, Any] = {
            "format": FORMAT, "owner": self._owner, "before": before, "about": dict(about or {}),
            "seconds": self._pace.elapsed, "price": self._prices.last, "grown": entries[0], "state": entries[1],
        }  # fmt: skip
        header["checksum"] = _checksum(before, header["about"], views)
        self._next = number + 1, header["checksum"], 0.0
        self._pace.taken()
        self._thread = threading.Thread(
            target=self._write, args=(number, header, views), name="wsiseg-checkpoint", daemon=True
        )
        self._thread.start()

    def settle(self) -> None:
        """Waits until what is being saved is on the disk, or cannot be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def discard(self) -> None:
        """Removes it; its slide has a record."""
        self._store.remove_folder(self._folder)

    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self, number: int, header: dict[str, Any], views: list[memoryview]) -> None:
        began = self._clock()
        try:
            self._store.write(f"{self._folder}/{number:05d}", json.dumps(header).encode(), b"\n", *views)
            self.saved += 1
        except (
            Exception
        ) as error:  # an object store's client has its own; without a checkpoint the slide still goes on
            self.problem = str(error)
        self._pace.saved(self._clock() - began, sum(view.nbytes for view in views))

    def _read(self, number: int, before: int) -> tuple[dict[str, Any], bytes] | None:
        """Header and body of a part, when it is whole, ours, and follows the one with this checksum."""
        data = self._store.read(f"{self._folder}/{number:05d}")
        if data is None:
            return None
        head, _, body = data.partition(b"\n")
        try:
            header = json.loads(head)
            if (header["format"], header["owner"], header["before"]) != (FORMAT, self._owner, before):
                return None
            whole = len(body) == sum(entry[3] for entry in [*header["grown"], *header["state"]])
            if not whole or _checksum(before, header["about"], [body]) != header["checksum"]:
                return None
        except (ValueError, KeyError, TypeError):
            return None
        return header, body


def _checksum(before: int, about: Mapping[str, Any], parts: list[Any]) -> int:
    checksum = zlib.crc32(json.dumps(about, sort_keys=True).encode(), before)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum
