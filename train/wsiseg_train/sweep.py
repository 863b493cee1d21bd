"""A checkpoint's scores on the held-out fold: thresholds, and the stain shifts that stand for other laboratories."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from wsiseg.errors import UsageError
from wsiseg_train.checkpoint import load_checkpoint, save_checkpoint
from wsiseg_train.config import Recipe
from wsiseg_train.fit import store_paths
from wsiseg_train.folds import Part, split_stores
from wsiseg_train.metrics import Counts
from wsiseg_train.predict import SHIFTS, predict_part
from wsiseg_train.store import open_stores

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))


def sweep_checkpoint(
    path: str | os.PathLike[str], recipe: Recipe, write: bool = False, shifts: bool = True
) -> list[dict[str, Any]]:
    """Dice of each class by threshold on the held-out side, as rows {"class", "shift", "threshold", "dice"...}.

    Args:
        write: put each class's best threshold on the unshifted region into the checkpoint's spec.
        shifts: also score the region recoloured by each of `SHIFTS`.

    Raises:
        UsageError: the recipe holds nothing out.
    """
    net, spec = load_checkpoint(path)
    split = split_stores(
        open_stores(store_paths(recipe), recipe.data.memory),
        recipe.data.fold,
        recipe.data.folds,
        recipe.data.split,
    )
    if not split.held:
        raise UsageError(f"{recipe.where}: fold {recipe.data.fold} holds nothing out; --set data.fold=0")
    rows: list[dict[str, Any]] = []
    best = list(spec.thresholds)
    for name, shift in SHIFTS.items() if shifts else [("plain", None)]:
        counts = count_held(net, spec, split.held, shift)
        for c, label in enumerate(spec.classes):
            scored = {t: counts[c][t].dice for t in THRESHOLDS}
            if name == "plain":
                best[c] = max(scored, key=lambda t: scored[t])
            rows += [{"class": label, "shift": name, "threshold": t, "dice": d} for t, d in scored.items()]
    if write:
        save_checkpoint(path, replace(spec, thresholds=tuple(best)), net.state_dict())
    return rows


def count_held(net: Any, spec: Any, parts: tuple[Part, ...], shift: Any = None) -> list[dict[float, Counts]]:
    """Counts per class and threshold over all held-out parts together."""
    table = [{t: Counts() for t in THRESHOLDS} for _ in spec.classes]
    for part in parts:
        p = predict_part(net, part, spec, shift)
        height = part.store.shape[0]
        truth = part.store.window("target", 0, part.x0, height, part.x1) > 127
        seen = part.store.window("weight", 0, part.x0, height, part.x1) > 0
        for c, thresholds in enumerate(table):
            for t, counts in thresholds.items():
                counts.add(p[c] > t, truth[c], seen)
    return table
