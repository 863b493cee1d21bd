"""Where the tiles of an epoch are centred: around every object, by density, at random; decided by the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsiseg.errors import UsageError
from wsiseg_train.folds import Part
from wsiseg_train.store import DENSITY_STEP


@dataclass(frozen=True)
class Place:
    """A tile's centre (y, x), network pixels, in part `part`; `kind` is the sampler that chose it."""

    part: int
    y: float
    x: float
    kind: str


@dataclass(frozen=True)
class Mixture:
    """Shares of the three samplers; they are normalised.

    Attributes:
        objects: a tile around an object, moved by up to `offset` tiles each way. Every object once before any twice.
        density: by the store's density map.
        uniform: anywhere that may be learned: the random negatives.
        offset: largest move of an object's tile, in tiles.
        groups: relative frequency of the groups of stores ({} takes stores as they come).
    """

    objects: float = 0.5
    density: float = 0.3
    uniform: float = 0.2
    offset: float = 0.4
    groups: tuple[tuple[str, float], ...] = ()


class Sampler:
    """`place(index)` is a pure function of the seed and the index: any worker, any order, any restart.

    Args:
        parts: where tiles may be centred.
        tile: tile edge, network pixels.

    Raises:
        UsageError: no place for a sampler with a share, or a group that no store has.
    """

    def __init__(self, parts: Sequence[Part], mixture: Mixture, tile: int, seed: int) -> None:
        self._parts, self._mixture, self._tile, self._seed = parts, mixture, tile, seed
        shares = np.array([mixture.objects, mixture.density, mixture.uniform], np.float64)
        if (shares < 0).any() or shares.sum() <= 0:
            raise UsageError("sampling shares must not be negative, and one must be positive")
        self._shares = np.cumsum(shares / shares.sum())
        self._cells: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [_cells(part) for part in parts]
        self._groups = _group_index(parts, dict(mixture.groups))
        self._objects = []
        for _, members in self._groups:
            found = [(p, y, x) for p in members for y, x in parts[p].centres]
            if mixture.objects and not found:
                raise UsageError("sampling around objects, but a group of the training side has none")
            self._objects.append(found)

    @property
    def objects(self) -> int:
        """Objects on this side of the split."""
        return sum(map(len, self._objects))

    def place(self, index: int) -> Place:
        """The centre of tile `index`."""
        rng = np.random.default_rng([self._seed, 1, index])
        chosen = int(np.searchsorted([c for c, _ in self._groups], rng.random(), "right"))
        members = self._groups[chosen][1]
        kind = int(np.searchsorted(self._shares, rng.random(), "right"))
        if kind == 0:
            part, y, x = self._object(chosen, index)
            y, x = np.array([y, x]) + rng.uniform(-self._mixture.offset, self._mixture.offset, 2) * self._tile
            return self._inside(part, float(y), float(x), "objects")
        part = members[int(rng.integers(len(members)))] if len(members) > 1 else members[0]
        ys, xs, sums = self._cells[part]
        if kind == 1:
            cell = int(np.searchsorted(sums, rng.random() * sums[-1], "right"))
        else:
            cell = int(rng.integers(len(ys)))
        y, x = (np.array([ys[cell], xs[cell]]) + rng.random(2)) * DENSITY_STEP
        return self._inside(part, float(y), float(x), "density" if kind == 1 else "uniform")

    def _inside(self, part: int, y: float, x: float, kind: str) -> Place:
        """A place at least a quarter of a tile inside its part (or in its middle): a tile is not mostly outside."""
        bounds = self._parts[part]
        margin = self._tile / 4
        height, middle = bounds.store.shape[0], (bounds.x0 + bounds.x1) / 2
        y = min(max(y, min(margin, height / 2)), max(height - margin, height / 2))
        x = min(max(x, min(bounds.x0 + margin, middle)), max(bounds.x1 - margin, middle))
        return Place(part, y, x, kind)

    def _object(self, group: int, index: int) -> tuple[int, float, float]:
        """Objects in shuffled rounds. Indices are spread over the kinds at random, so a round is that many *indices*
        divided by the share: a round then misses few objects and repeats few."""
        found = self._objects[group]
        share = float(self._shares[0]) * (
            self._groups[group][0] - (self._groups[group - 1][0] if group else 0.0)
        )
        turn = int(index * share)
        order = np.random.default_rng([self._seed, 2, group, turn // len(found)]).permutation(len(found))
        return found[int(order[turn % len(found)])]


def _cells(part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, running sum of density) of the density cells in a part."""
    density = part.store.whole("density").copy()
    columns = (np.arange(density.shape[1]) + 0.5) * DENSITY_STEP
    density[:, (columns < part.x0) | (columns >= part.x1)] = 0
    ys, xs = np.nonzero(density)
    if not len(ys):
        return np.zeros(1, np.int64), np.full(1, part.x0 // DENSITY_STEP), np.ones(1)
    return ys, xs, np.cumsum(density[ys, xs], dtype=np.float64)


def _group_index(parts: Sequence[Part], wanted: dict[str, float]) -> list[tuple[float, list[int]]]:
    """(running share, parts) per group."""
    if not wanted:
        return [(1.0, list(range(len(parts))))]
    known = sorted({p.store.info.group for p in parts})
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"no training store of group {name!r}; the groups are {', '.join(map(repr, known))}"
            )
    total, running, found = sum(wanted.values()), 0.0, []
    for name, share in wanted.items():
        running += share / total
        found.append((running, [i for i, p in enumerate(parts) if p.store.info.group == name]))
    return [(1.0 if i == len(found) - 1 else c, m) for i, (c, m) in enumerate(found)]
