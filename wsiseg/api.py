"""The Python API: one slide in, its segmentation out, by the same engine as the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.errors import SlideError, UsageError
from wsiseg.geometry import Rect
from wsiseg.limits import available_cores, available_memory
from wsiseg.pipeline.config import DEFAULT_MODEL, RunConfig
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideResult, SlideTask
from wsiseg.pipeline.start import start
from wsiseg.runs import Runs
from wsiseg.units import parse_bytes

MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Segmentation:
    """What was found in one slide.

    Attributes:
        size: (height, width) of the slide in pixels. mpp: microns per pixel, or None. scale: slide pixels per network
            pixel. classes: their names. warnings: what a person should know.
    """

    path: str
    size: tuple[int, int]
    mpp: float | None
    scale: int
    classes: tuple[str, ...]
    warnings: tuple[str, ...]
    _runs: tuple[Runs, ...]

    def runs(self, name: str | None = None) -> Runs:
        """The run-length mask of a class; of the first one by default.

        Raises:
            UsageError: for a class that the model does not have.
        """
        if name is not None and name not in self.classes:
            raise UsageError(f"unknown class {name!r}; known: {', '.join(self.classes)}")
        return self._runs[0 if name is None else self.classes.index(name)]

    def rle(self, name: str | None = None) -> str:
        """The CSV field of a class: 1-based "start length" pairs, column-major."""
        return self.runs(name).to_rle()

    def mask(
        self, window: tuple[int, int, int, int] | None = None, name: str | None = None
    ) -> npt.NDArray[np.uint8]:
        """1 inside the mask, uint8 [h, w], of the window (y0, x0, y1, x1) in slide pixels, or of the whole slide."""
        y0, x0, y1, x1 = window or (0, 0, *self.size)
        return self.runs(name).mask(Rect(y0, x0, y1, x1))


def segment(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Sequence[str] = DEFAULT_MODEL,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
    tta: str = "none",
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    **options: Any,
) -> Segmentation:
    """Segment one slide.

    Args:
        path: the slide. model: a bundled name or a model file, or several for an ensemble.
        memory: budget of this process in bytes or like "2GiB"; default 80 % of what is granted to it.
        threads: default: the cores granted. tta, backend, device, precision: as on the command line.
        options: fields of `wsiseg.RunOptions`, such as scale, mpp, tile, overlap, threshold, min_area.

    Raises:
        SlideError: when the slide cannot be read. UsageError, ModelError, BudgetError: for what cannot work.
    """
    models = (
        (os.fspath(model),) if isinstance(model, str | os.PathLike) else tuple(os.fspath(m) for m in model)
    )
    if isinstance(memory, str):
        try:
            memory = parse_bytes(memory)
        except ValueError as error:
            raise UsageError(f"memory: {error}") from error
    unknown = set(options) - set(RunOptions.__dataclass_fields__)
    if unknown:
        raise UsageError(
            f"unknown option {min(unknown)!r}; known: {', '.join(RunOptions.__dataclass_fields__)}"
        )
    config = RunConfig(
        models=models,
        tta=tta,
        backend=backend,
        device=device,
        precision=precision,
        memory=memory or int(available_memory() * MEMORY_SHARE),
        threads=threads or available_cores(),
        options=RunOptions(**options),
    )
    name = os.fspath(path)
    with start(config) as started:
        (outcome,) = started.processor.process(
            [SlideTask(0, os.path.splitext(os.path.basename(name))[0], name)]
        )
    if isinstance(outcome, SlideFailure):
        raise SlideError(name, outcome.error.removeprefix(f"{name}: "))
    assert isinstance(outcome, SlideResult)
    return Segmentation(
        name, outcome.size, outcome.mpp, outcome.scale, outcome.classes, outcome.warnings, outcome.runs
    )
