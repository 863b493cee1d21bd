"""A contact sheet of training tiles: each beside the same tile with its target outlined, so that a person can look."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from wsiseg.errors import OutputError
from wsiseg_train.config import Recipe
from wsiseg_train.folds import split_stores
from wsiseg_train.store import open_stores
from wsiseg_train.tiles import TileMaker

COLOURS = ((0, 200, 0), (255, 200, 0), (0, 200, 255))


def write_preview(recipe: Recipe, path: str | os.PathLike[str], count: int = 24, columns: int = 6) -> None:
    """A PNG of the first `count` training tiles of a recipe, as augmented."""
    from wsiseg_train.fit import store_paths

    split = split_stores(
        open_stores(store_paths(recipe), recipe.data.memory),
        recipe.data.fold,
        recipe.data.folds,
        recipe.data.split,
    )
    maker = TileMaker(split.train, recipe.data.mixture, recipe.augment, recipe.data.tile, recipe.train.seed)
    tiles = [maker.make(i) for i in range(count)]
    write_sheet([outlined(t.image, t.target, t.weight) for t in tiles], path, columns)


def outlined(image: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """A copy of `image` [h, w, 3] with each plane of `target` [C, h, w] outlined; what weighs nothing is darkened."""
    out = image.copy()
    if weight is not None:
        out[weight == 0] //= 3
    for plane, colour in zip(target, COLOURS, strict=False):
        contours, _ = cv2.findContours((plane > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(out, contours, -1, colour, 2)
    return out


def write_sheet(tiles: Sequence[np.ndarray], path: str | os.PathLike[str], columns: int = 6) -> None:
    """Tiles of one size [h, w, 3] RGB in rows, as a PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    h, w = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (h + 4), columns * (w + 4), 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (h + 4), i % columns * (w + 4)
        sheet[y : y + h, x : x + w] = tile
    ok, data = cv2.imencode(".png", sheet[..., ::-1])
    try:
        with open(path, "wb") as file:
            file.write(data.tobytes() if ok else b"")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
