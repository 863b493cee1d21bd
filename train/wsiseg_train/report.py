"""What a person looks at before training: class balance, object sizes, colours, example tiles; for all stores and by fold."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsiseg_train.augment import PRESETS
from wsiseg_train.folds import split_stores
from wsiseg_train.preview import outlined, write_sheet
from wsiseg_train.sampler import Mixture
from wsiseg_train.store import TrainingStore, open_stores
from wsiseg_train.tiles import TileMaker


def write_report(
    paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], folds: int = 4
) -> dict[str, Any]:
    """Write `report.json` and `tiles.png` into the folder `out`; returns the report."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    stores = open_stores(paths)
    report: dict[str, Any] = {"stores": [describe(s) for s in stores], "folds": []}
    for fold in range(folds):
        try:
            split = split_stores(stores, fold, folds)
        except Exception as error:
            report["folds"].append({"fold": fold, "problem": str(error)})
            continue
        report["folds"].append(
            {
                "fold": fold,
                "train_objects": sum(len(p.centres) for p in split.train),
                "held_out_objects": sum(len(p.centres) for p in split.held),
            }
        )
    split = split_stores(stores, -1, folds)
    maker = TileMaker(split.train, Mixture(), PRESETS["none"], 256, seed=0)
    tiles = [maker.make(i) for i in range(24)]
    write_sheet([outlined(t.image, t.target, t.weight) for t in tiles], folder / "tiles.png")
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def describe(store: TrainingStore) -> dict[str, Any]:
    """Numbers of one store: shares of pixels, object diameters in network pixels, colour of tissue."""
    target, weight, tissue, image = (store.whole(n) for n in ("target", "weight", "tissue", "image"))
    seen = weight > 0
    count, _, stats, _ = cv2.connectedComponentsWithStats(
        ((target[0] > 127) & seen).astype(np.uint8), connectivity=8
    )
    diameters = np.sqrt(stats[1:count, cv2.CC_STAT_AREA] * 4 / np.pi)
    colours = (
        image[(tissue > 0) & seen][::7] if bool(((tissue > 0) & seen).any()) else image.reshape(-1, 3)[::7]
    )
    return {
        "id": store.info.id, "group": store.info.group, "size": list(store.shape), "mpp": store.info.mpp, "objects": len(diameters),
        "seen": float(seen.mean()), "tissue": float((tissue[seen] > 0).mean()) if seen.any() else 0.0,
        "share": {name: float((plane[seen] > 127).mean()) if seen.any() else 0.0 for name, plane in zip(store.info.classes, target, strict=True)},
        "diameter": {str(q): float(np.percentile(diameters, q)) for q in (5, 50, 95)} if len(diameters) else {},
        "colour_mean": colours.mean(0).round(1).tolist(), "colour_std": colours.std(0).round(1).tolist(),
    }  # fmt: skip
