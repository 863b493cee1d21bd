"""The training store: one zarr (v3) group per slide, on the network grid, with everything that sampling needs.

Arrays: `image` uint8 [h, w, 3]; `target` uint8 [C, h, w], 255 times the share inside; `weight` uint8 [h, w], 255 times the
confidence (0 where nothing may be learned or scored); `tissue` uint8 [h, w]; `density` float32 [ceil(h/16), ceil(w/16)],
relative probability of a tile's centre; `labels` int32 [h, w], instance numbers, only where there are any.
Attributes: see `StoreInfo`. Chunks are 512 x 512, so a sampler reads a tile and not the slide.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from wsiseg.errors import UsageError

STORE_FORMAT = "wsiseg-training-1"
CHUNK = 512
DENSITY_STEP = 16
SUFFIX = ".train.zarr"


@dataclass(frozen=True)
class StoreInfo:
    """What a store says of itself.

    Attributes:
        id: the slide's.
        classes: names of the target planes.
        scale, mpp: slide pixels, and microns (or None), per network pixel.
        size: (H, W) of the slide in slide pixels.
        group: a kind of image, for stratified folds and balanced sampling; "" when there is one kind.
        centres: (y, x) of each object in network pixels, of the first class.
        source: the slide's and the labels' file names.
        confidence: weight of the labels in the loss; below 1 they are pseudo-labels, which are learned from and not scored.
    """

    id: str
    classes: tuple[str, ...]
    scale: int
    mpp: float | None
    size: tuple[int, int]
    group: str = ""
    centres: tuple[tuple[float, float], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    confidence: float = 1.0


class TrainingStore:
    """A store open for reading.

    Args:
        path: the zarr folder.
        memory: arrays up to this many bytes together are kept in memory; larger ones are read window by window.

    Memory bound: `memory`, or one window at a time.
    """

    def __init__(self, path: str | os.PathLike[str], memory: int = 1 << 30) -> None:
        self.path = os.fspath(path)
        try:
            group = zarr.open_group(self.path, mode="r")
        except Exception as error:
            raise UsageError(
                f"{self.path}: no training store can be opened there ({type(error).__name__}); make one with `wsiseg prepare`"
            ) from error
        attributes = dict(group.attrs)
        found = attributes.pop("format", None)
        if found != STORE_FORMAT:
            raise UsageError(
                f"{self.path}: training store format {found!r}, this wsiseg reads {STORE_FORMAT!r}; run `wsiseg prepare` again"
            )
        attributes["classes"] = tuple(attributes["classes"])
        attributes["size"] = tuple(attributes["size"])
        attributes["centres"] = tuple((float(y), float(x)) for y, x in attributes["centres"])
        self.info = StoreInfo(**attributes)
        self._arrays: dict[str, Any] = dict(group.arrays())
        self.shape: tuple[int, int] = self._arrays["weight"].shape
        if sum(int(a.nbytes) for a in self._arrays.values()) <= memory:
            self._arrays = {name: np.asarray(array[...]) for name, array in self._arrays.items()}

    def window(self, name: str, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """A window of an array (cut to the grid): [h, w], [h, w, 3] or [C, h, w]."""
        array = self._arrays[name]
        rows, cols = slice(max(0, y0), max(0, y1)), slice(max(0, x0), max(0, x1))
        return np.asarray(array[:, rows, cols] if name == "target" else array[rows, cols])

    def whole(self, name: str) -> np.ndarray:
        """A whole array."""
        return np.asarray(self._arrays[name][...])

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __repr__(self) -> str:
        return f"TrainingStore({self.info.id!r}, {self.shape[1]} x {self.shape[0]}, {len(self.info.centres)} objects)"


def write_store(path: str | os.PathLike[str], info: StoreInfo, arrays: dict[str, np.ndarray]) -> None:
    """Write a store under a temporary name and rename it; an existing one is replaced."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    group = zarr.open_group(os.fspath(temporary), mode="w", zarr_format=3)
    group.attrs.update({"format": STORE_FORMAT, **asdict(info)})
    for name, values in arrays.items():
        chunks = tuple(min(n, 3 if n <= 4 else CHUNK) for n in values.shape)
        group.create_array(name, data=np.ascontiguousarray(values), chunks=chunks)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


def open_stores(paths: Sequence[str | os.PathLike[str]], memory: int = 4 << 30) -> list[TrainingStore]:
    """The stores of files and folders, in the order of their ids; `memory` is shared, first come, first served.

    Raises:
        UsageError: no store, or stores that differ in classes.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.name.endswith(SUFFIX):
            found.append(path)
        else:
            found += sorted(path.glob("*" + SUFFIX))
    if not found:
        raise UsageError(
            f"no training stores (*{SUFFIX}) in {', '.join(map(str, paths))}; make them with `wsiseg prepare`"
        )
    stores = []
    for path in found:
        store = TrainingStore(path, memory)
        memory -= sum(a.nbytes for a in store._arrays.values() if isinstance(a, np.ndarray))
        stores.append(store)
    classes = {store.info.classes for store in stores}
    if len(classes) > 1:
        raise UsageError(
            "training stores differ in classes: " + " and ".join(sorted("/".join(c) for c in classes))
        )
    return sorted(stores, key=lambda s: s.info.id)
