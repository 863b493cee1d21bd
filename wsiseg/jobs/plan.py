"""The chunks of one submission, and who does which: each element of the array its own, and then what nobody has begun.

    slurm/0001/plan.json      the keys of each chunk, one chunk a line, large chunks first
    slurm/0001/claims/12      the element that began chunk 12; written once, by whoever is first

An element keeps its loaded model and goes on with the next chunk, so that a start-up is paid once per GPU and chunks may
be small at the end. A claim is no lock: nobody waits for it, and one whose owner died is taken up by the owner when the
cluster starts it again, or by the next submission when it does not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.shards import Shard
from wsiseg.jobs.store import Store

CLAIMS = "claims"


class Plan:
    """One element's view of a plan.

    Args:
        store: of the job's folder. name: of the plan in it. shard: which element this is.
        slides: of the manifest; keys that are not among them are passed over.

    Raises:
        UsageError: the plan is gone, or made for another array.
    """

    def __init__(self, store: Store, name: str, shard: Shard, slides: Sequence[Slide]) -> None:
        data = store.read(name)
        if data is None:
            raise UsageError(f"{store.url}/{name}: the plan of this submission is gone; submit again")
        self._keys: list[list[str]] = json.loads(data)
        if shard.count > len(self._keys):
            raise UsageError(
                f"--shard {shard}: the plan has {len(self._keys)} chunks, fewer than the array has tasks"
            )
        self._store, self._folder, self._me = store, name.rpartition("/")[0], shard.index
        self._by_key = {slide.key: slide for slide in slides}
        self._mine: list[int] | None = None
        self._lost: set[int] = set()  # begun by others; a slow file system may go on listing them as free

    def take(self) -> list[Slide] | None:
        """The next chunk of this element, largest slides first; None when every chunk was begun by somebody."""
        if self._mine is None:
            # it may have been here before, and was killed
            self._mine = sorted(
                c for c, owner in claims(self._store, self._folder).items() if owner == self._me
            )
        number = self._mine.pop(0) if self._mine else self._claim()
        if number is None:
            return None
        return [self._by_key[key] for key in self._keys[number] if key in self._by_key]

    def left(self) -> bool:
        """Whether there is a chunk that nobody has begun, or that this element began before it was started again."""
        return bool(self._mine) or bool(self._free())

    def _free(self) -> list[int]:
        begun = _begun(self._store, self._folder) | self._lost
        return [number for number in range(len(self._keys)) if number not in begun]

    def _claim(self) -> int | None:
        while free := self._free():
            number = self._me if self._me in free else free[0]
            if self._store.create(_name(self._folder, number), f"{self._me}\n".encode()):
                return number
            self._lost.add(number)
        return None


def claims(store: Store, folder: str) -> dict[int, int]:
    """Chunk -> element that began it."""
    owners = {number: store.read(_name(folder, number)) for number in _begun(store, folder)}
    return {number: int(owner) for number, owner in owners.items() if owner}


def active_keys(
    chunks: Sequence[Sequence[str]], owners: Mapping[int, int], elements: Collection[int]
) -> set[str]:
    """Keys that some of these waiting or running elements do, or will do: what they began, and what nobody did."""
    if not elements:
        return set()
    return {
        key for n, keys in enumerate(chunks) if owners.get(n) is None or owners[n] in elements for key in keys
    }


def _begun(store: Store, folder: str) -> set[int]:
    return {int(name.rpartition("/")[2]) for name in store.names(f"{folder}/{CLAIMS}")}


def _name(folder: str, number: int) -> str:
    return f"{folder}/{CLAIMS}/{number}"
