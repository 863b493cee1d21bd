"""Augmented training tiles out of the stores: pure numpy, `make(index)` depends on the seed and the index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsiseg_train.augment import Augment, draw_affine, photometric, reach, warp
from wsiseg_train.folds import Part
from wsiseg_train.sampler import Mixture, Sampler


@dataclass(frozen=True)
class Tile:
    """image uint8 [T, T, 3]; target uint8 [C, T, T] (255 times the share); weight uint8 [T, T]; kind: the sampler's."""

    image: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    kind: str


class TileMaker:
    """Reads the window that a tile needs, warps image, target and weight alike, and recolours the image.

    Pixels outside the part (its columns) and outside the slide weigh 0.
    """

    def __init__(
        self, parts: Sequence[Part], mixture: Mixture, augment: Augment, tile: int, seed: int
    ) -> None:
        self.sampler = Sampler(parts, mixture, tile, seed)
        self._parts, self._augment, self._tile, self._seed = parts, augment, tile, seed

    def make(self, index: int) -> Tile:
        place = self.sampler.place(index)
        part = self._parts[place.part]
        rng = np.random.default_rng([self._seed, 3, index])
        matrix = draw_affine(rng, self._augment)
        half = reach(matrix, self._tile, self._augment)
        y0, x0 = max(0, int(place.y) - half), max(0, int(place.x) - half)
        box = (y0, x0, int(place.y) + half, int(place.x) + half)
        image = part.store.window("image", *box)
        weight = part.store.window("weight", *box)
        if x0 < part.x0 or box[3] > part.x1:
            weight = weight.copy()
            weight[:, : max(0, part.x0 - x0)] = 0
            weight[:, max(0, part.x1 - x0) :] = 0
        target = part.store.window("target", *box)
        centre = (place.y - y0, place.x - x0)
        planes = [image, weight, *target]
        image, weight, *targets = warp(planes, matrix, centre, self._tile, rng, self._augment)
        return Tile(photometric(image, rng, self._augment), np.stack(targets), weight, place.kind)
