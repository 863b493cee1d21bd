"""The Lightning module: one training step, validation on the held-out side, schedules. The loop itself is Lightning's."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wsiseg.errors import UsageError
from wsiseg.limits import available_cores
from wsiseg_train.config import Recipe
from wsiseg_train.folds import Part, Split
from wsiseg_train.losses import WeightedSum, deep_loss
from wsiseg_train.metrics import Counts
from wsiseg_train.networks import build_network
from wsiseg_train.predict import normalise, predict_part
from wsiseg_train.tiles import TileMaker


class TileSet(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """Tiles `first` to `first + count` of a maker, as arrays that torch collates."""

    def __init__(self, maker: TileMaker, first: int, count: int) -> None:
        self._maker, self._first, self._count = maker, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tile = self._maker.make(self._first + index)
        return tile.image, tile.target, tile.weight


class SegmentationModule(L.LightningModule):
    """Trains the network of a recipe.

    Args:
        recipe: what to do.
        split: the training parts and the held-out parts.

    Every tile is decided by (seed, step), so an interrupted training that resumes at an epoch's end sees the same tiles as
    one that ran through.
    """

    def __init__(self, recipe: Recipe, split: Split) -> None:
        super().__init__()
        self.recipe, self.split = recipe, split
        self.net: nn.Module = build_network(recipe.spec.network, outputs_of(recipe)).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        self.maker = TileMaker(
            split.train, recipe.data.mixture, recipe.augment, recipe.data.tile, recipe.train.seed
        )
        self._losses = {stage.start: WeightedSum(stage.terms) for stage in recipe.losses}

    # -- data

    def train_dataloader(self) -> DataLoader[Any]:
        config = self.recipe.train
        per_epoch = config.epoch * config.accumulate * config.batch
        first = (
            self.trainer.current_epoch * per_epoch * self.trainer.world_size
            + self.trainer.global_rank * per_epoch
        )
        # the last epoch is shorter where the steps are no multiple of it
        left = config.steps - self.trainer.current_epoch * config.epoch
        count = min(per_epoch, max(1, left) * config.accumulate * config.batch)
        workers = workers_of(self.recipe.data.workers, available_cores())
        extra = {"prefetch_factor": 6} if workers else {}
        return DataLoader(
            TileSet(self.maker, first, count), batch_size=config.batch, num_workers=workers, **extra
        )

    # -- steps

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        image, target, weight = batch
        target, weight = target.float() / 255, weight.float()[:, None] / 255
        output = self.net(normalise(image, self.recipe.spec))
        presence = None
        if self.recipe.spec.has_classifier:
            output, presence = output
        outputs = [o.float() for o in (output if isinstance(output, tuple | list) else [output])]
        stage = self._losses[self.recipe.loss_at(self.global_step).start]
        loss = deep_loss(stage, outputs, self.recipe.train.deep, target, weight)
        if presence is not None:
            holds = ((target > 0.5) & (weight > 0)).flatten(1).any(1).float()
            head = nn.functional.binary_cross_entropy_with_logits(presence.float().flatten(), holds)
            loss = loss + self.recipe.train.classifier * head
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UsageError(
                f"the loss became {value} at step {self.global_step}; lower train.lr, or use precision fp32; the last checkpoint is whole"
            )
        self.log("loss", value, on_step=False, on_epoch=True, batch_size=len(image))  # the epoch's mean
        return loss

    def validation_step(self, *_: Any) -> None:
        """Dice of the held-out side, all of it: validation is by region, and its loader gives one batch of nothing.

        Here and not at the epoch's end: callbacks come before the module there, and the averaged weights that are to be
        scored, the ones that are shipped, have been swapped out again by then.
        """
        for name, dice in zip(
            self.recipe.spec.classes, held_dice(self.net, self.split.held, self.recipe), strict=True
        ):
            self.log(f"dice_{name}", dice, batch_size=1)
            if name == self.recipe.spec.classes[0]:
                self.log("dice", dice, prog_bar=True, batch_size=1)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(1 if self.split.held else 0, 1), batch_size=1)  # type: ignore[arg-type]

    # -- optimisation

    def configure_optimizers(self) -> Any:
        config = self.recipe.train
        optimizer = torch.optim.AdamW(self.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        if config.schedule == "plateau":
            schedule: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, mode="max", factor=0.5, patience=3
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "dice"}}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule_of(optimizer, config), "interval": "step"},
        }


def schedule_of(optimizer: torch.optim.Optimizer, config: Any) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by step (each schedule but "plateau" is a function of the step)."""
    schedules = torch.optim.lr_scheduler
    if config.schedule == "one-cycle":
        return schedules.OneCycleLR(
            optimizer,
            config.lr,
            total_steps=config.steps + 1,
            pct_start=0.1,
            final_div_factor=50,
            cycle_momentum=False,
        )
    if config.schedule == "cosine-restarts":
        return schedules.CosineAnnealingWarmRestarts(
            optimizer, T_0=config.period * config.epoch, T_mult=config.period_factor
        )

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / max(1, config.warmup))
        done = step / config.steps
        fall = 1.0
        if config.schedule == "hold-decay" and done > config.hold:
            fall = max(0.01, (1 - done) / (1 - config.hold))
        return rise * fall

    return schedules.LambdaLR(optimizer, factor)


def workers_of(wanted: int, cores: int) -> int:
    """Processes that make tiles. A tile costs under a tenth of a step on a CPU, and a worker that shares a core with one
    of the network's threads holds up all of them (benchmarks/loader.py): so none on up to two cores.
    """
    if wanted >= 0:
        return wanted
    return 0 if cores <= 2 else min(8, cores // 2)


def outputs_of(recipe: Recipe) -> int:
    """Channels of the logits."""
    return len(recipe.spec.classes) + (1 if recipe.spec.activation == "softmax" else 0)


def held_dice(net: nn.Module, parts: tuple[Part, ...], recipe: Recipe) -> list[float]:
    """Dice of each class over all held-out parts together, at the spec's thresholds, where the weight is not 0."""
    was_training = net.training
    net.eval()
    counts = [Counts() for _ in recipe.spec.classes]
    for part in parts:
        p = predict_part(net, part, recipe.spec, bf16=recipe.train.precision == "bf16")
        height = part.store.shape[0]
        truth = part.store.window("target", 0, part.x0, height, part.x1)
        seen = part.store.window("weight", 0, part.x0, height, part.x1) > 0
        for c, count in enumerate(counts):
            count.add(p[c] > recipe.spec.thresholds[c], truth[c] > 127, seen)
    net.train(was_training)
    return [count.dice for count in counts]
