"""What a person looks at before training: class balance, object sizes, colours, example tiles; of every store and every fold."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsiseg.errors import UsageError
from wsiseg_train.augment import PRESETS
from wsiseg_train.curves import plot_histograms
from wsiseg_train.folds import Part, split_stores
from wsiseg_train.preview import outlined, write_sheet
from wsiseg_train.sampler import Mixture
from wsiseg_train.store import open_stores
from wsiseg_train.tiles import TileMaker

SHEET, COLUMNS, TILE = 12, 6, 256


def write_report(
    paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], folds: int = 4
) -> dict[str, Any]:
    """Write `report.json`, `report.md`, `sizes.png` and sheets of example tiles into the folder `out`; returns the report.

    The sheets are `tiles.png` of everything and `fold-N.png` of each fold's held-out side. A fold that cannot be made
    says why in its row.

    Memory bound: one store at a time, wholly.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    stores = open_stores(paths)
    measured = {s.info.id: describe(Part(s, 0, s.shape[1])) for s in stores}
    report: dict[str, Any] = {"stores": list(measured.values()), "folds": []}
    write_examples([Part(s, 0, s.shape[1]) for s in stores], folder / "tiles.png")
    for fold in range(folds):
        try:
            split = split_stores(stores, fold, folds)
        except UsageError as error:
            report["folds"].append({"fold": fold, "problem": str(error)})
            continue
        parts = [measured[p.store.info.id] if whole(p) else describe(p) for p in split.held]
        row = {"fold": fold, "train_objects": sum(len(p.centres) for p in split.train),
               "held_out_objects": sum(len(p.centres) for p in split.held), **pooled(parts)}  # fmt: skip
        report["folds"].append(row)
        write_examples(split.held, folder / f"fold-{fold}.png")
    sizes = {f"fold {r['fold']}": r.pop("diameters") for r in report["folds"] if "diameters" in r}
    for store in report["stores"]:
        store.pop("diameters")
    plot_histograms(folder / "sizes.png", sizes, "object diameter, network pixels")
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / "report.md").write_text(as_text(report), encoding="utf-8")
    return report


def whole(part: Part) -> bool:
    """Whether a part is its whole store."""
    return part.x0 == 0 and part.x1 == part.store.shape[1]


def write_examples(parts: Sequence[Part], path: Path) -> None:
    """A sheet of tiles as they are: half of them around objects, outlined."""
    tile = min(TILE, *(n for p in parts for n in (p.store.shape[0], p.x1 - p.x0)))
    maker = TileMaker(parts, Mixture(), PRESETS["none"], max(32, tile), seed=0)
    tiles = [maker.make(i) for i in range(SHEET)]
    write_sheet([outlined(t.image, t.target, t.weight) for t in tiles], path, COLUMNS)


def describe(part: Part) -> dict[str, Any]:
    """Numbers of one part of a store: shares of pixels, object diameters in network pixels, colour of tissue."""
    store = part.store
    box = (0, part.x0, store.shape[0], part.x1)
    target, weight, tissue, image = (store.window(n, *box) for n in ("target", "weight", "tissue", "image"))
    seen = weight > 0
    count, _, stats, _ = cv2.connectedComponentsWithStats(
        ((target[0] > 127) & seen).astype(np.uint8), connectivity=8
    )
    diameters = np.sqrt(stats[1:count, cv2.CC_STAT_AREA] * 4 / np.pi)
    stained = (tissue > 0) & seen
    colours = image[stained][::7] if stained.any() else image.reshape(-1, 3)[::7]
    return {
        "id": store.info.id, "group": store.info.group, "confidence": store.info.confidence,
        "size": [store.shape[0], part.x1 - part.x0], "mpp": store.info.mpp, "objects": len(diameters),
        "seen": float(seen.mean()), "tissue": float((tissue[seen] > 0).mean()) if seen.any() else 0.0,
        "share": {name: float((plane[seen] > 127).mean()) if seen.any() else 0.0 for name, plane in zip(store.info.classes, target, strict=True)},
        "diameter": quantiles(diameters), "diameters": diameters.round(2).tolist(),
        "colour_mean": colours.mean(0).round(1).tolist(), "colour_std": colours.std(0).round(1).tolist(),
    }  # fmt: skip


def quantiles(values: np.ndarray) -> dict[str, float]:
    """The 5th, 50th and 95th percentile; {} of nothing."""
    return {str(q): round(float(np.percentile(values, q)), 2) for q in (5, 50, 95)} if len(values) else {}


def pooled(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same numbers of several parts together, each counting by its pixels that may be scored."""
    area = np.array([p["size"][0] * p["size"][1] * p["seen"] for p in parts]) + 1e-9
    diameters = [d for p in parts for d in p["diameters"]]

    def mean(values: Sequence[Any]) -> np.ndarray:
        return np.average(np.asarray(values, np.float64), axis=0, weights=area)

    names = parts[0]["share"]
    centre = mean([p["colour_mean"] for p in parts])
    square = mean([np.square(p["colour_std"]) + np.square(p["colour_mean"]) for p in parts])
    return {
        "tissue": float(mean([p["tissue"] for p in parts])),
        "share": {name: float(mean([p["share"][name] for p in parts])) for name in names},
        "diameter": quantiles(np.array(diameters)), "diameters": diameters,
        "colour_mean": centre.round(1).tolist(),
        "colour_std": np.sqrt(np.maximum(square - centre**2, 0)).round(1).tolist(),
    }  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """The folds as a Markdown table, and what to look out for."""
    head = "| held out | objects | training objects | tissue | share of classes | diameter 5, 50, 95 % | colour of tissue (R G B) |"
    lines = ["# Before training", "", f"{len(report['stores'])} stores, {sum(s['objects'] for s in report['stores'])} objects.", "",
             head, "| --- " + "| ---: " * 6 + "|"]  # fmt: skip
    for row in report["folds"]:
        if "problem" in row:
            lines.append(f"| fold {row['fold']} | {row['problem']} | | | | | |")
            continue
        share = ", ".join(f"{name} {100 * value:.2f} %" for name, value in row["share"].items())
        colour = " ".join(
            f"{m:.0f}±{s:.0f}" for m, s in zip(row["colour_mean"], row["colour_std"], strict=True)
        )
        size = ", ".join(f"{v:.0f}" for v in row["diameter"].values())
        lines.append(f"| fold {row['fold']} | {row['held_out_objects']} | {row['train_objects']} | {100 * row['tissue']:.0f} % | {share} | {size} | {colour} |")  # fmt: skip
    if len(report["stores"]) == 1:
        lines += ["", "One store: folds are regions. Tiles drawn at random from it would leak between folds."]
    return "\n".join([*lines, ""])
