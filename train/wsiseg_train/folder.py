"""A folder of tiles and masks from training stores, aware of tissue and folds."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg_train.folds import split_stores
from wsiseg_train.store import open_stores


def write_tiles(stores: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, tile: int = 256, stride: int = 256, min_tissue: float = 0.05, folds: int = 4) -> int:  # fmt: skip
    """Write images/ID_Y_X.png, masks/ID_Y_X.png (the first class, 0 or 255) and tiles.csv; returns how many.

    A tile belongs to the fold that holds all of it. Tiles with less tissue than `min_tissue`, with pixels that may not be
    learned, or across a fold's border are left out.

    Raises:
        UsageError: nothing was left.
    """
    if tile < 8 or stride < 1:
        raise UsageError(
            f"tiles of {tile} every {stride} pixels cannot be cut; the tile must be at least 8, the stride 1"
        )
    folder = Path(out)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    opened = open_stores(stores)
    rows = []
    for fold in range(folds):
        for part in split_stores(opened, fold, folds).held:
            height = part.store.shape[0]
            for y in range(0, height - tile + 1, stride):
                for x in range(part.x0, part.x1 - tile + 1, stride):
                    box = (y, x, y + tile, x + tile)
                    tissue = float((part.store.window("tissue", *box) > 0).mean())
                    if tissue < min_tissue or not bool(part.store.window("weight", *box).all()):
                        continue
                    mask = np.where(part.store.window("target", *box)[0] > 127, 255, 0).astype(np.uint8)
                    name = f"{part.store.info.id}_{y}_{x}.png"
                    cv2.imwrite(str(folder / "images" / name), part.store.window("image", *box)[..., ::-1])
                    cv2.imwrite(str(folder / "masks" / name), mask)
                    rows.append(
                        (
                            name,
                            part.store.info.id,
                            y,
                            x,
                            fold,
                            round(tissue, 4),
                            round(float((mask > 0).mean()), 4),
                        )
                    )
    if not rows:
        raise UsageError(
            f"no tile of {tile} pixels has {min_tissue:.0%} tissue inside one fold; give a smaller --tile or --min-tissue"
        )
    with open(folder / "tiles.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "slide", "y", "x", "fold", "tissue", "object"), *rows])
    return len(rows)
