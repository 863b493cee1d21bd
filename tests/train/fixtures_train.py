"""A tiny recipe for the training tests, as plain data."""

from __future__ import annotations

from pathlib import Path


def recipe_data(stores: Path, **train: object) -> dict:
    """A tiny recipe over the painted stores, as plain data."""
    return {
        "model": {"name": "discs", "classes": ["disc"], "tile": 64, "tile_multiple": 16, "mpp": 1.0, "scale": 2, "mean": [180.0] * 3, "std": [50.0] * 3},
        "network": {"name": "plain-unet", "width": 4, "depth": 3, "dropout": 0.0},
        "data": {"stores": [str(stores)], "tile": 64, "fold": 0, "folds": 3, "workers": 0},
        "augment": {"preset": "light"},
        "train": {"steps": 8, "epoch": 4, "batch": 2, "precision": "fp32", "ema": 0.5, "warmup": 2, **train},
    }  # fmt: skip
