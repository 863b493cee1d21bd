"""The learning-rate finder (Smith 2015): the loss while the rate rises from tiny to large; its steepest fall is suggested."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import torch

from wsiseg_train.config import Recipe
from wsiseg_train.fit import store_paths
from wsiseg_train.folds import split_stores
from wsiseg_train.losses import WeightedSum, deep_loss
from wsiseg_train.module import SegmentationModule
from wsiseg_train.predict import normalise
from wsiseg_train.store import open_stores


def find_lr(
    recipe: Recipe, out: str | os.PathLike[str], low: float = 1e-6, high: float = 0.3, steps: int = 80
) -> float:
    """Write lr.csv and lr.png into `out` and return the suggested rate: where the smoothed loss falls fastest.

    Stops when the loss is four times its best.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.train.seed)
    split = split_stores(
        open_stores(store_paths(recipe), recipe.data.memory),
        recipe.data.fold,
        recipe.data.folds,
        recipe.data.split,
    )
    module = SegmentationModule(recipe, split)
    net, loss = module.net.train(), WeightedSum(recipe.losses[0].terms)
    optimizer = torch.optim.AdamW(net.parameters(), lr=low, weight_decay=recipe.train.weight_decay)
    rates, losses, smooth = [], [], 0.0
    for step in range(steps):
        rate = low * (high / low) ** (step / (steps - 1))
        optimizer.param_groups[0]["lr"] = rate
        tiles = [module.maker.make(step * recipe.train.batch + i) for i in range(recipe.train.batch)]
        image, target, weight = (
            torch.from_numpy(np.stack([getattr(t, n) for t in tiles])) for n in ("image", "target", "weight")
        )
        output = net(normalise(image, recipe.spec))
        if recipe.spec.has_classifier:
            output = output[0]
        outputs = list(output) if isinstance(output, tuple) else [output]
        value = deep_loss(
            loss, outputs, recipe.train.deep, target.float() / 255, weight.float()[:, None] / 255
        )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        smooth = 0.9 * smooth + 0.1 * float(value.detach())
        rates.append(rate)
        losses.append(smooth / (1 - 0.9 ** (step + 1)))
        if not math.isfinite(losses[-1]) or losses[-1] > 4 * min(losses):
            break
    with open(folder / "lr.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("lr", "loss"), *zip(rates, losses, strict=True)])
    usable = [v for v in losses if math.isfinite(v)]
    slope = np.gradient(usable, np.log(rates[: len(usable)])) if len(usable) > 2 else np.zeros(len(usable))
    best = rates[int(np.argmin(slope))]
    from wsiseg_train.curves import plot_lines

    plot_lines(folder / "lr.png", {"loss": (rates[: len(usable)], usable)}, "learning rate", log_x=True)
    return best
