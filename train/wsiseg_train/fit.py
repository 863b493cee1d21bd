"""`wsiseg train`: a recipe becomes best.pt and last.pt, with curves, and resumes after a kill.

The folder holds `resume.ckpt` (Lightning's whole state, rewritten each epoch), `best.pt` and `last.pt` (checkpoints of wsiseg),
`curves.csv`, `curves.png`, and `recipe.json`.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging

from wsiseg.errors import UsageError
from wsiseg.model.spec import ModelSpec
from wsiseg_train.checkpoint import read_checkpoint, save_checkpoint
from wsiseg_train.config import Recipe
from wsiseg_train.curves import plot_curves
from wsiseg_train.folds import split_stores
from wsiseg_train.module import SegmentationModule
from wsiseg_train.store import TrainingStore, open_stores

RESUME = "resume.ckpt"


@dataclass(frozen=True)
class TrainResult:
    """Where the checkpoints are, the best held-out Dice (None when nothing is held out), and the steps made."""

    best: Path
    last: Path
    dice: float | None
    steps: int


class Keeper(Callback):
    """After every epoch: a line of the curves, last.pt, best.pt when the held-out Dice rose, and the resume point."""

    def __init__(self, out: Path, recipe: Recipe, say: Any) -> None:
        self.out, self.recipe, self.say = out, recipe, say
        self.best = -1.0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(trainer, module)
        # Lightning's save waits for every process: all of them come here, and the first one writes
        temporary = self.out / f".{RESUME}.part"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, self.out / RESUME)

    def _write(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        metrics["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        _add_row(self.out / "curves.csv", {"step": trainer.global_step, **metrics})
        self.say(
            "step {} of {}: {}".format(
                trainer.global_step,
                self.recipe.train.steps,
                ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()),
            )
        )
        assert isinstance(module, SegmentationModule)
        state = averaged_state(trainer, module)
        dice = metrics.get("dice")
        spec = replace(
            self.recipe.spec,
            scores={**self.recipe.spec.scores, **({"held_out_dice": dice} if dice is not None else {})},
        )
        save_checkpoint(self.out / "last.pt", spec, state)
        if dice is None or dice > self.best:
            self.best = self.best if dice is None else dice
            save_checkpoint(self.out / "best.pt", spec, state)


def averaging(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """The running average's update with a warm-up: a decay of (1 + n) / (10 + n) after n steps until it reaches `decay`,
    so that a short training's average is not made of its first steps.
    """

    def update(average: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        return average * share + current * (1 - share)

    return update


def averaged_state(trainer: L.Trainer, module: SegmentationModule) -> dict[str, torch.Tensor]:
    """The network's weights, averaged where the recipe averages them."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        averaged = getattr(callback, "_average_model", None)
        if averaged is not None:
            return {
                k.removeprefix("net."): v
                for k, v in averaged.module.state_dict().items()
                if k.startswith("net.")
            }
    return dict(module.net.state_dict())


def train_recipe(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    say: Any = print,
    stores: Sequence[TrainingStore] | None = None,
) -> TrainResult:
    """Train a recipe into the folder `out`.

    Args:
        resume: go on from `out`'s resume point; without one, start.
        say: receives one line per epoch.
        stores: opened already (several folds of one run); read from the recipe's paths otherwise.

    Raises:
        UsageError: data or settings that do not fit, or a loss that is not a number.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    config = recipe.train
    _quiet()
    L.seed_everything(config.seed, verbose=False)
    if config.threads:
        torch.set_num_threads(config.threads)
    if stores is None:
        stores = open_stores(store_paths(recipe), recipe.data.memory)
    planes = stores[0].info.classes
    if planes != recipe.spec.classes:
        raise UsageError(
            f"{recipe.where}: the model's classes {'/'.join(recipe.spec.classes)} are not the stores' {'/'.join(planes)}"
        )
    split = split_stores(stores, recipe.data.fold, recipe.data.folds, recipe.data.split)
    module = SegmentationModule(recipe, split)
    if recipe.weights:
        _, state = read_checkpoint(recipe.weights)
        module.net.load_state_dict(state)
    keeper = Keeper(folder, recipe, say)
    callbacks: list[Callback] = [keeper]
    if config.ema:
        callbacks.insert(0, WeightAveraging(avg_fn=averaging(config.ema)))
    if config.patience and split.held:
        callbacks.append(EarlyStopping("dice", patience=config.patience, mode="max"))
    epochs = max(1, -(-config.steps // config.epoch))
    point = folder / RESUME
    if not resume:
        for name in (RESUME, "curves.csv", "best.pt", "last.pt"):
            (folder / name).unlink(missing_ok=True)
    (folder / "recipe.json").write_text(
        json.dumps(plain_recipe(recipe), indent=1, sort_keys=True), encoding="utf-8"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # hints about srun, workers, devices
        warnings.filterwarnings("ignore", module="torch")
        trainer = L.Trainer(
            accelerator="auto", devices=config.devices if config.devices == "auto" else int(config.devices), precision=precision_of(config.precision),  # type: ignore[arg-type]
            max_epochs=epochs, accumulate_grad_batches=config.accumulate, gradient_clip_val=config.clip or None, callbacks=callbacks,
            strategy=strategy_of(config.devices), logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1, use_distributed_sampler=False, default_root_dir=folder, deterministic=True,
        )  # fmt: skip
        trainer.fit(module, ckpt_path=_resume_point(point) if resume else None, weights_only=True)
    plot_curves(folder / "curves.csv", folder / "curves.png")
    dice = keeper.best if split.held else None
    return TrainResult(folder / "best.pt", folder / "last.pt", dice, trainer.global_step)


def cross_validate(recipe: Recipe, out: str | os.PathLike[str], say: Any = print) -> list[tuple[int, float]]:
    """Every fold of a recipe into `out`/fold-N; the table (fold, best held-out Dice), also written as folds.csv."""
    stores = open_stores(store_paths(recipe), recipe.data.memory)
    table = []
    for fold in range(recipe.data.folds):
        part = replace(recipe, data=replace(recipe.data, fold=fold))
        result = train_recipe(
            part,
            Path(out) / f"fold-{fold}",
            say=lambda line, fold=fold: say(f"fold {fold}: {line}"),
            stores=stores,
        )
        table.append((fold, float(result.dice or 0.0)))
    with open(Path(out) / "folds.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("fold", "dice"), *table])
    return table


def store_paths(recipe: Recipe) -> list[Path]:
    """The recipe's stores: as written when they exist there, else beside the recipe.

    Raises:
        UsageError: naming the path that is in neither place.
    """
    paths = []
    for text in recipe.data.stores:
        places = [Path(text), Path(recipe.where).parent / text]
        found = next((p for p in places if p.exists()), None)
        if found is None:
            raise UsageError(
                f"{recipe.where}: no training stores at {text}; make them with `wsiseg prepare`, or --set data.stores=PATH"
            )
        paths.append(found)
    return paths


def _resume_point(point: Path) -> str | None:
    """The path of a resume point that can be read, None where there is none.

    Raises:
        UsageError: a file that is damaged, or holds anything but tensors and plain data.
    """
    if not point.exists():
        return None
    try:
        torch.load(point, map_location="cpu", weights_only=True)
    except Exception as error:
        line = (str(error).strip().splitlines() or ["unreadable"])[0][:160]
        raise UsageError(
            f"{point}: not a resume point of tensors and plain data ({type(error).__name__}: {line}); start again without --resume"
        ) from error
    return os.fspath(point)


def strategy_of(devices: str) -> str:
    """Lightning's word for one device, or for several: some encoders have weights that no output needs."""
    count = torch.cuda.device_count() if devices == "auto" else int(devices)
    return "ddp_find_unused_parameters_true" if count > 1 else "auto"


def precision_of(name: str) -> str:
    """Lightning's word for it."""
    return {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}[name]


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data, for the record."""
    from dataclasses import asdict

    data = asdict(
        replace(
            recipe,
            spec=ModelSpec(
                name=recipe.spec.name, classes=recipe.spec.classes, thresholds=recipe.spec.thresholds
            ),
        )
    )
    data["spec"] = recipe.spec.to_dict()
    return data


def _add_row(path: Path, row: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if int(r["step"]) < row["step"]]
    rows.append(row)
    names = list(dict.fromkeys(k for r in rows for k in r))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _quiet() -> None:
    for name in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
