"""What a person may set for a run, and what one slide becomes: frozen values that travel between threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wsiseg.runs import Runs

TISSUE_RULES = ("auto", "none")
LEVELS = ("auto", "0")
ON_BAD_TILE = ("fail", "white")


@dataclass(frozen=True)
class RunOptions:
    """Options of a run; None takes the model spec's value.

    Attributes:
        tile: T in network pixels. overlap: share of T. batch: tiles per inference; 0 chooses.
        scale: slide pixels per network pixel; goes before mpp. mpp: the slides' microns per pixel, over the files';
        mpp_by_id: the same for single slides, as (id, mpp) pairs.
        threshold: a pixel is in the mask when its probability is greater.
        min_area, fill_holes: in slide pixels.
        tissue: "auto" or "none". level: "auto" uses a pyramid level that divides the scale, "0" full size only.
        presence: tiles whose classification head says less are not decoded; 0 decodes all. For models that have one.
        on_bad_tile: "fail" or "white". fast_jpeg: shrink JPEG in the DCT domain (not exact).
    """

    tile: int | None = None
    overlap: float | None = None
    batch: int = 0
    scale: int | None = None
    mpp: float | None = None
    mpp_by_id: tuple[tuple[str, float], ...] = ()
    threshold: float | None = None
    min_area: int | None = None
    fill_holes: int | None = None
    tissue: str | None = None
    presence: float | None = None
    level: str = "auto"
    on_bad_tile: str = "fail"
    fast_jpeg: bool = False

    def mpp_of(self, slide_id: str) -> float | None:
        """Microns per pixel that were given for a slide; None when its file decides."""
        return dict(self.mpp_by_id).get(slide_id, self.mpp)

    def identity(self) -> dict[str, Any]:
        """Plain data of everything here that the result's bytes depend on.

        Without batch, which does not change them, and presence, of which the session knows whether it applies.
        """
        left_out = ("batch", "presence")
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}


@dataclass(frozen=True)
class SlideTask:
    """One slide to do: its place in the manifest, its id in the CSV, and its file."""

    index: int
    id: str
    path: str


@dataclass(frozen=True)
class SlideResult:
    """A finished slide.

    Attributes:
        size: (H, W) in slide pixels. mpp: microns per pixel or None. scale: slide pixels per network pixel.
        runs: one run-length mask per class, in the order of `classes`.
        means: the mean probability of each object of each class, where probabilities were kept: float64 [n] each, in
            the order of `wsiseg.objects.find_objects`.
        seconds: from opening to the last run. stats: figures for people and for `bench`.
        warnings: what a person should know about this slide.
    """

    task: SlideTask
    size: tuple[int, int]
    mpp: float | None
    scale: int
    classes: tuple[str, ...]
    runs: tuple[Runs, ...]
    seconds: float
    stats: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    means: tuple[npt.NDArray[np.float64], ...] = ()


@dataclass(frozen=True)
class SlideFailure:
    """A slide that could not be done: the line for people, and the kind of error (its class's name)."""

    task: SlideTask
    error: str
    kind: str


# Which stage the feeder waited for, and what to call it. Cutting tiles is our own work between the two.
WAITS = {"wait for reading": "reading", "wait for network": "the network", "cut": "cutting tiles"}


def bottleneck(times: Mapping[str, float]) -> str:
    """The stage that held a slide back: the one that its feeder spent most of its time on."""
    waits = {name: times.get(stage, 0.0) for stage, name in WAITS.items()}
    return max(waits, key=lambda name: waits[name]) if any(waits.values()) else "opening"
