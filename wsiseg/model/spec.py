"""The model spec: what a model expects and gives, as plain data that travels inside every model file.

It is the `spec` of a `ckpt.pt`, the `wsiseg.spec` metadata entry (JSON) of a `model.onnx`, and a field of an
engine's sidecar. Nothing in it is executable.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from wsiseg.errors import ModelError, unknown_name

SPEC_FORMAT = 1
METADATA_KEY = "wsiseg.spec"
FILLS = ("reflect", "white", "black")
ACTIVATIONS = ("sigmoid", "softmax")
TISSUE_RULES = ("auto", "none")


@dataclass(frozen=True)
class ModelSpec:
    """What a model expects and gives.

    Attributes:
        name: letters, digits, dots, dashes and underscores.
        classes: names of the foreground classes, one per output channel: the graph gives [B, C, T, T].
        tile: default tile edge T in network pixels.
        tile_multiple: T must be a multiple of this (the network's total down-sampling).
        mpp: microns per network pixel the model was trained at; None when it has no physical scale.
        scale: slide pixels per network pixel when the slide's mpp (or the model's) is unknown.
        overlap: default overlap of neighbouring tiles as a share of T.
        fill: what lies outside the slide: "reflect", "white" or "black".
        mean, std: normalisation that is already inside the graph, in 0..255 units of RGB (for the record).
        activation: "sigmoid" (independent classes) or "softmax" (background is class 0 and is not given out).
        thresholds: one per class; a pixel is in the mask when its probability is greater.
        tissue: "auto" skips tiles without tissue by the documented rule; "none" runs every tile.
        min_area, fill_holes: defaults, in square microns when mpp is known, else in slide pixels. 0 is off.
        has_classifier: the graph also gives a second output [B] or [B, C], the probability that a tile holds an object.
        presence: with a classifier, a tile whose second output stays below this is not decoded; 0 decodes every tile.
        network: how to build the torch network again: {"name": ..., and its arguments}.
        trained_on, licence, note: for people.
        scores: measured figures, {"name": value}.
    """

    name: str
    classes: tuple[str, ...] = ("object",)
    tile: int = 512
    tile_multiple: int = 32
    mpp: float | None = None
    scale: int = 1
    overlap: float = 0.25
    fill: str = "reflect"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    activation: str = "sigmoid"
    thresholds: tuple[float, ...] = (0.5,)
    tissue: str = "auto"
    min_area: float = 0.0
    fill_holes: float = 0.0
    has_classifier: bool = False
    presence: float = 0.05
    network: dict[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    licence: str = ""
    note: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def check(ok: bool, what: str) -> None:
            if not ok:
                raise ModelError(f"model spec of {self.name!r}: {what}")

        check(
            bool(self.name) and all(c.isalnum() or c in "._-" for c in self.name),
            "name must be letters, digits, '.', '-', '_'",
        )
        check(
            len(self.classes) >= 1 and len(set(self.classes)) == len(self.classes),
            "classes must be distinct and at least one",
        )
        check(
            self.tile_multiple >= 1 and self.tile >= 1 and self.tile % self.tile_multiple == 0,
            f"tile {self.tile} is not a multiple of {self.tile_multiple}",
        )
        check(
            self.mpp is None or (math.isfinite(self.mpp) and 0.01 <= self.mpp <= 100),
            f"mpp {self.mpp} is not between 0.01 and 100",
        )
        check(self.scale >= 1, f"scale {self.scale} is below 1")
        check(0 <= self.overlap <= 0.75, f"overlap {self.overlap} is not between 0 and 0.75")
        check(self.fill in FILLS, unknown_name("fill", self.fill, FILLS))
        check(self.activation in ACTIVATIONS, unknown_name("activation", self.activation, ACTIVATIONS))
        check(self.tissue in TISSUE_RULES, unknown_name("tissue rule", self.tissue, TISSUE_RULES))
        check(
            len(self.thresholds) == len(self.classes),
            f"{len(self.thresholds)} thresholds for {len(self.classes)} classes",
        )
        check(all(0 <= t < 1 for t in self.thresholds), "thresholds must be in [0, 1)")
        check(0 <= self.presence < 1, f"presence {self.presence} is not in [0, 1)")
        check(self.min_area >= 0 and self.fill_holes >= 0, "min_area and fill_holes must not be negative")

    def to_dict(self) -> dict[str, Any]:
        """Plain data with a format number; `from_dict` is its inverse."""
        return {"format": SPEC_FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Any, where: str = "model spec") -> ModelSpec:
        """The spec from plain data.

        Raises:
            ModelError: naming the field, for anything that does not fit.
        """
        if not isinstance(data, dict) or "name" not in data:
            raise ModelError(
                f"{where}: no model spec in it; export the model with wsiseg, or use `wsiseg import-model`"
            )
        values = dict(data)
        version = values.pop("format", None)
        if version != SPEC_FORMAT:
            raise ModelError(
                f"{where}: model spec format {version!r}, this wsiseg reads {SPEC_FORMAT}; update wsiseg or export again"
            )
        known = {f.name: f for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ModelError(f"{where}: " + unknown_name("model spec field", key, known))
        for key in ("classes", "mean", "std", "thresholds"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"{where}: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str = "model spec") -> ModelSpec:
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"{where}: the model spec is not JSON ({error})") from error
        return cls.from_dict(data, where)
