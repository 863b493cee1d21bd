"""Tiny painted slides and their labels, for the training tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile


def paint(seed: int, height: int = 520, width: int = 700, discs: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [H, W, 3], instance numbers uint16 [H, W]): purple discs on pink tissue with a white rim."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 245, np.uint8)
    image[20 : height - 20, 20 : width - 20] = (220, 160, 200)
    labels = np.zeros((height, width), np.uint16)
    number = 0
    while number < discs:
        y, x, r = (
            int(rng.integers(60, height - 60)),
            int(rng.integers(60, width - 60)),
            int(rng.integers(18, 34)),
        )
        disc = np.zeros(labels.shape, np.uint8)
        cv2.circle(disc, (x, y), r, 1, -1)
        if labels[disc > 0].any():
            continue
        number += 1
        labels[disc > 0] = number
        image[disc > 0] = (120, 50, 140)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), labels


def write_tiff(path: Path, image: np.ndarray, mpp: float = 0.5) -> None:
    tifffile.imwrite(
        path, image, tile=(128, 128), photometric="rgb", compression="deflate",
        resolution=(10000 / mpp, 10000 / mpp), resolutionunit="CENTIMETER",
    )  # fmt: skip


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three slides (a, b, c), mask images and instance images."""
    root = tmp_path_factory.mktemp("painted")
    for name in ("slides", "masks", "instances"):
        (root / name).mkdir()
    for seed, name in enumerate("abc"):
        image, labels = paint(seed)
        write_tiff(root / "slides" / f"{name}.tif", image)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), np.where(labels > 0, 255, 0).astype(np.uint8))
        cv2.imwrite(str(root / "instances" / f"{name}.png"), labels)
    return root


@pytest.fixture(scope="session")
def stores(painted: Path) -> Path:
    """Training stores of the three slides at scale 2."""
    from wsiseg_train.prepare import PrepareOptions, prepare_slide

    out = painted / "stores"
    for name in "abc":
        prepare_slide(
            painted / "slides" / f"{name}.tif",
            [painted / "masks" / f"{name}.png"],
            out,
            PrepareOptions(mpp=1.0, classes=("disc",)),
        )
    return out
