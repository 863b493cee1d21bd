"""Folds: by slide when there are several, by region (stripes of one slide) when there is one. Never by random tile.

Tiles drawn at random from one slide overlap each other and share their stain, so a random tile split measures memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsiseg.errors import UsageError
from wsiseg_train.store import TrainingStore


@dataclass(frozen=True)
class Part:
    """The columns [x0, x1) of a store that belong to one side of a split."""

    store: TrainingStore
    x0: int
    x1: int

    def holds(self, x: float) -> bool:
        return self.x0 <= x < self.x1

    @property
    def centres(self) -> list[tuple[float, float]]:
        """Objects whose centre lies in this part."""
        return [(y, x) for y, x in self.store.info.centres if self.holds(x)]


@dataclass(frozen=True)
class Split:
    """What is trained on, and what is held out. A store may appear on both sides, with different columns."""

    train: tuple[Part, ...]
    held: tuple[Part, ...]


def split_stores(
    stores: Sequence[TrainingStore], fold: int, folds: int, by: str = "auto", seed: int = 0
) -> Split:
    """Fold `fold` of `folds`; fold -1 trains on everything and holds nothing out.

    Stores of pseudo-labels (confidence below 1) are trained on in every fold and never held out, unless there are no others.

    Args:
        by: "slide" (stratified by the stores' groups), "region" (stripes of each slide with equally many objects), or
            "auto": by slide when there are at least as many slides as folds.

    Raises:
        UsageError: a fold that does not exist, more folds than slides, or a side without an object.
    """
    if by not in ("auto", "slide", "region"):
        raise UsageError(f"folds by {by!r}: choose auto, slide or region")
    whole = tuple(Part(s, 0, s.shape[1]) for s in stores)
    if fold == -1:
        return _checked(Split(whole, ()), fold)
    trusted = [s for s in stores if s.info.confidence >= 1]
    if trusted and len(trusted) < len(stores):
        split = split_stores(trusted, fold, folds, by, seed)
        pseudo = tuple(part for part in whole if part.store.info.confidence < 1)
        return Split(split.train + pseudo, split.held)
    if not 0 <= fold < folds:
        raise UsageError(
            f"fold {fold} of {folds} does not exist; folds are 0 to {folds - 1}, and -1 trains on everything"
        )
    if by == "auto":
        by = "slide" if len(stores) >= folds else "region"
    if by == "slide" and len(stores) < folds:
        raise UsageError(
            f"{folds} folds by slide need at least as many slides, there are {len(stores)}; use fewer, or folds by region"
        )
    if by == "slide":
        held_ids = stratified([s.info.group for s in stores], fold, folds, seed)
        return _checked(
            Split(
                tuple(p for i, p in enumerate(whole) if i not in held_ids),
                tuple(p for i, p in enumerate(whole) if i in held_ids),
            ),
            fold,
        )
    train: list[Part] = []
    held: list[Part] = []
    for store in stores:
        x0, x1 = stripe(store, fold, folds)
        held.append(Part(store, x0, x1))
        train += [Part(store, a, b) for a, b in ((0, x0), (x1, store.shape[1])) if b > a]
    return _checked(Split(tuple(train), tuple(held)), fold)


def stripe(store: TrainingStore, fold: int, folds: int) -> tuple[int, int]:
    """Columns [x0, x1) of a region fold: stripes with equally many objects."""
    xs = [x for _, x in store.info.centres]
    edges = np.quantile(xs, np.linspace(0, 1, folds + 1)) if xs else np.linspace(0, store.shape[1], folds + 1)
    edges[0], edges[-1] = 0, store.shape[1]
    return int(edges[fold]), int(edges[fold + 1])


def stratified(groups: Sequence[str], fold: int, folds: int, seed: int) -> set[int]:
    """Indices of the stores of a fold, of which `groups` says the groups; each group gives its share."""
    held: set[int] = set()
    for group in sorted(set(groups)):
        members = [i for i, other in enumerate(groups) if other == group]
        order = np.random.default_rng(seed).permutation(len(members))
        cut = [members[k] for k in order[fold * len(members) // folds : (fold + 1) * len(members) // folds]]
        held.update(cut)
    return held


def _checked(split: Split, fold: int) -> Split:
    for side, parts in (("training", split.train), ("held-out", split.held)):
        if (parts or side == "training") and not any(part.centres for part in parts):
            raise UsageError(
                f"fold {fold} has no object on its {side} side; use fewer folds, or folds by slide"
            )
    return split
