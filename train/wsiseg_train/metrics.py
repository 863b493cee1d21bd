"""Scores of masks and objects: plain numpy, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AP_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass
class Counts:
    """Pixels that agree and differ; add them up over windows or images."""

    hit: float = 0.0
    false: float = 0.0
    missed: float = 0.0

    def add(self, mask: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> None:
        """Count two bool masks of one shape, where `where` is true."""
        if where is not None:
            mask, truth = mask & where, truth & where
        both = int((mask & truth).sum())
        self.hit += both
        self.false += int(mask.sum()) - both
        self.missed += int(truth.sum()) - both

    @property
    def dice(self) -> float:
        """2 hit / (|mask| + |truth|); 1 for two empty masks."""
        total = 2 * self.hit + self.false + self.missed
        return 2 * self.hit / total if total else 1.0

    @property
    def iou(self) -> float:
        total = self.hit + self.false + self.missed
        return self.hit / total if total else 1.0

    @property
    def precision(self) -> float:
        return self.hit / (self.hit + self.false) if self.hit + self.false else 1.0

    @property
    def recall(self) -> float:
        return self.hit / (self.hit + self.missed) if self.hit + self.missed else 1.0


def iou_table(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """float64 [objects, true objects]: intersection over union of instance images (0 is background)."""
    _, a = np.unique(labels, return_inverse=True)
    _, b = np.unique(truth, return_inverse=True)
    a, b = a.reshape(-1) + (0 if (labels == 0).any() else 1), b.reshape(-1) + (0 if (truth == 0).any() else 1)
    rows, cols = int(a.max()) + 1, int(b.max()) + 1
    both = np.bincount(a * cols + b, minlength=rows * cols).reshape(rows, cols).astype(np.float64)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    return np.asarray((both / np.maximum(union, 1))[1:, 1:])


def average_precision(table: np.ndarray, thresholds: Sequence[float] = AP_THRESHOLDS) -> float:
    """The Data Science Bowl's score of one image: mean over thresholds of TP / (TP + FP + FN); 1 for no objects at all.

    Args:
        table: `iou_table`. Above 0.5 every object matches at most one, so a match is one entry above the threshold.
    """
    found, true = table.shape
    if not found and not true:
        return 1.0
    values = []
    for threshold in thresholds:
        hits = int((table > threshold).sum()) if table.size else 0
        values.append(hits / (found + true - hits))
    return float(np.mean(values))


def object_f1(table: np.ndarray, threshold: float = 0.5) -> float:
    """2 TP / (objects + true objects) at one IoU threshold; 1 for no objects at all."""
    found, true = table.shape
    hits = int((table > threshold).sum()) if table.size else 0
    return 2 * hits / (found + true) if found + true else 1.0
