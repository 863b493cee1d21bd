"""One TOML file is one recipe: the model's spec, the network, the data, the augmentation, the losses, the optimisation."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsiseg.errors import UsageError, unknown_name
from wsiseg.model.spec import ModelSpec
from wsiseg_train.augment import Augment, augment_from
from wsiseg_train.sampler import Mixture

SCHEDULES = ("constant", "one-cycle", "cosine-restarts", "plateau", "hold-decay")
PRECISIONS = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class DataConfig:
    """Where tiles come from.

    Attributes:
        stores: folders or *.train.zarr, relative to the recipe's folder or to the working folder.
        tile: training tile edge in network pixels.
        fold, folds, split: see `split_stores`; fold -1 trains on everything.
        mixture: shares of the samplers.
        workers: processes that make tiles; 0 makes them in the training process, -1 chooses by the cores granted.
            memory: bytes of stores kept in memory.
    """

    stores: tuple[str, ...] = ()
    tile: int = 256
    fold: int = 0
    folds: int = 4
    split: str = "auto"
    mixture: Mixture = field(default_factory=Mixture)
    workers: int = -1
    memory: int = 4 << 30


@dataclass(frozen=True)
class LossStage:
    """A loss and the step from which it holds."""

    terms: dict[str, Any]
    start: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are found.

    Attributes:
        steps: optimiser steps. epoch: steps between validations and resume points.
        batch, accumulate: tiles per pass, passes per step.
        lr, weight_decay, schedule, warmup: AdamW; `warmup` in steps. For "cosine-restarts" the first period is
            `period` epochs and each next one `period_factor` times as long (5 and 2, as published).
            "hold-decay" holds the rate for `hold` of the steps and then falls linearly to 1 %.
        clip: largest gradient norm, 0 is off.
        ema: decay of the averaged weights that are validated and shipped (smaller in the first steps), 0 is off.
        patience: epochs without a better held-out Dice before stopping, 0 is off (as it is where nothing is held out).
        precision: "bf16", "fp16" (GPU), "fp32". channels_last is always on.
        deep: loss shares of auxiliary outputs. classifier: loss share of the classification head.
        devices: processes or GPUs; "auto". threads: torch threads on a CPU, 0 leaves it.
    """

    steps: int = 2000
    epoch: int = 200
    batch: int = 8
    accumulate: int = 1
    lr: float = 2e-3
    weight_decay: float = 0.01
    schedule: str = "hold-decay"
    warmup: int = 60
    hold: float = 0.3
    period: int = 5
    period_factor: int = 2
    clip: float = 1.0
    ema: float = 0.998
    patience: int = 0
    precision: str = "bf16"
    deep: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    classifier: float = 0.2
    devices: str = "auto"
    threads: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `losses` in the order of their starts, `weights` a checkpoint to start from (or "")."""

    spec: ModelSpec
    data: DataConfig
    augment: Augment
    train: TrainConfig
    losses: tuple[LossStage, ...] = (LossStage({"bce": 1.0, "dice": 0.5}),)
    weights: str = ""
    where: str = field(default="", compare=False)

    def loss_at(self, step: int) -> LossStage:
        """The stage that holds at `step`."""
        return [s for s in self.losses if s.start <= step][-1]


def read_recipe(path: str | os.PathLike[str], overrides: dict[str, str] | None = None) -> Recipe:
    """The recipe of a TOML file, with `section.key=value` overrides (values in TOML).

    Raises:
        UsageError: one line naming the section and key, and what is known.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML ({error})") from error
    for key, text in (overrides or {}).items():
        section, _, name = key.rpartition(".")
        if not section or not name:
            raise UsageError(f"--set {key}={text}: write it as section.key=value, such as train.steps=100")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        place: Any = data
        for part in section.split("."):
            if isinstance(place, list) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            else:
                place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UsageError(
                f"--set {key}={text}: the recipe has no table {section!r}; a stage is loss.0, loss.1"
            )
        place[name] = value
    return recipe_from(data, os.fspath(path))


def recipe_from(data: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain data."""
    known = ("model", "network", "data", "sampling", "augment", "loss", "train", "weights")
    for key in data:
        if key not in known:
            raise UsageError(f"{where}: " + unknown_name("section", key, known))
    for key in ("model", "network", "data"):
        if key not in data:
            raise UsageError(f"{where}: section [{key}] is missing")
    model = {**data["model"], "format": 1, "network": data["network"]}
    spec = ModelSpec.from_dict(model, where)
    sampling = dict(data.get("sampling", {}))
    sampling["groups"] = tuple(sorted(dict(sampling.get("groups", {})).items()))
    mixture = _fill(Mixture, sampling, where, "sampling")
    config = _fill(DataConfig, {**data["data"], "mixture": mixture}, where, "data")
    augment = dict(data.get("augment", {}))
    settings = dict(data.get("train", {}))
    if "devices" in settings:
        settings["devices"] = str(settings["devices"])
    train = _fill(TrainConfig, settings, where, "train")
    recipe = Recipe(
        spec=spec,
        data=config,
        augment=augment_from(str(augment.pop("preset", "light")), augment),
        train=train,
        losses=_losses(data.get("loss", {"bce": 1.0, "dice": 0.5}), where),
        weights=str(data.get("weights", "")),
        where=where,
    )
    _check(recipe)
    return recipe


def _losses(data: Any, where: str) -> tuple[LossStage, ...]:
    stages = data if isinstance(data, list) else [data]
    made = []
    for stage in stages:
        terms = dict(stage)
        made.append(LossStage(start=int(terms.pop("start", 0)), terms=terms))
    if not made or made[0].start != 0 or [s.start for s in made] != sorted({s.start for s in made}):
        raise UsageError(f"{where}: [[loss]] stages must begin at start = 0 and ascend")
    return tuple(made)


def _fill(kind: Any, values: dict[str, Any], where: str, section: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise UsageError(f"{where}: [{section}] " + unknown_name("setting", key, known))
    made = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    if isinstance(made.get("stores"), str):
        made["stores"] = (made["stores"],)
    given = kind()
    for key, value in made.items():
        wanted: Any = type(getattr(given, key))
        allowed = (int, float) if wanted is float else wanted
        if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
            words = {
                int: "a whole number",
                float: "a number",
                str: "a text",
                tuple: "a list",
                bool: "true or false",
            }
            raise UsageError(
                f"{where}: [{section}] {key} = {value!r} must be {words.get(wanted, wanted.__name__)}"
            )
    return kind(**made)


def _check(recipe: Recipe) -> None:
    train, data, where = recipe.train, recipe.data, recipe.where

    def check(ok: bool, what: str) -> None:
        if not ok:
            raise UsageError(f"{where}: {what}")

    check(train.schedule in SCHEDULES, unknown_name("schedule", train.schedule, SCHEDULES))
    check(train.precision in PRECISIONS, unknown_name("precision", train.precision, PRECISIONS))
    check(
        min(train.steps, train.epoch, train.batch, train.accumulate) >= 1,
        "steps, epoch, batch and accumulate must be at least 1",
    )
    check(train.lr > 0 and train.weight_decay >= 0, "lr must be positive and weight_decay not negative")
    head = bool(recipe.spec.network.get("classifier", False))
    check(
        head == recipe.spec.has_classifier,
        f"[network] classifier is {str(head).lower()} and [model] has_classifier is"
        f" {str(recipe.spec.has_classifier).lower()}; set both, or neither",
    )
    check(
        data.fold >= 0 or train.schedule != "plateau",
        "schedule plateau follows the held-out Dice, and fold -1 holds nothing out",
    )
    check(
        train.devices == "auto" or (train.devices.isdigit() and int(train.devices) >= 1),
        f'devices {train.devices!r} must be a number of devices, or "auto"',
    )
    check(data.workers >= -1, f"workers {data.workers} must be -1 or more")
    check(0 <= train.ema < 1, f"ema {train.ema} must be in [0, 1)")
    check(
        data.tile % recipe.spec.tile_multiple == 0,
        f"training tile {data.tile} is not a multiple of {recipe.spec.tile_multiple}",
    )
