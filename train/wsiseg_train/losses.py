"""Losses on logits [B, C, H, W] against targets in [0, 1] with a weight per pixel [B, 1, H, W]; each gives one number.

Pixels of weight 0 do not matter at all. Dice and Tversky are over the whole batch, channel by channel, so an empty tile
does not count as a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.errors import UsageError, unknown_name

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
SMOOTH = 10.0


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.expand_as(values).sum().clamp(min=1.0)


def bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross entropy, each channel on its own."""
    return _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), weight)


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Softmax cross entropy against the channels' shares; a missing background channel is what the others leave."""
    full = _with_background(logits, target)
    return _mean(-(full * F.log_softmax(logits, 1)).sum(1, keepdim=True), weight)


def _with_background(logits: Tensor, target: Tensor) -> Tensor:
    if target.shape[1] == logits.shape[1]:
        return target
    return torch.cat([(1 - target.sum(1, keepdim=True)).clamp(min=0), target], 1)


def _probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid, or softmax without its background when the logits have one channel more than the target."""
    return torch.sigmoid(logits) if logits.shape[1] == target.shape[1] else torch.softmax(logits, 1)[:, 1:]


def tversky(
    logits: Tensor, target: Tensor, weight: Tensor, alpha: float = 0.5, beta: float = 0.5, gamma: float = 1.0
) -> Tensor:
    """1 - TP / (TP + alpha FP + beta FN), to the power gamma (Salehi 2017; focal: Abraham 2018)."""
    p = _probabilities(logits, target)
    axes = (0, 2, 3)
    hit = (p * target * weight).sum(axes)
    false = (p * (1 - target) * weight).sum(axes)
    missed = ((1 - p) * target * weight).sum(axes)
    index = (hit + SMOOTH / 2) / (hit + alpha * false + beta * missed + SMOOTH / 2)
    return ((1 - index) ** gamma).mean()


def dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - the soft Dice coefficient."""
    return tversky(logits, target, weight)


def focal(logits: Tensor, target: Tensor, weight: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Cross entropy that forgets what is already right (Lin 2017)."""
    p = torch.sigmoid(logits)
    close = p * target + (1 - p) * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _mean(balance * (1 - close) ** gamma * plain, weight)


def lovasz_hinge(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss on hinge errors (Berman 2018), per tile and channel.

    A tile without a single pixel of weight counts as nothing.
    """
    hard = (target > 0.5).to(logits.dtype)
    losses = []
    for b in range(logits.shape[0]):
        seen = weight[b, 0] > 0
        if not bool(seen.any()):
            continue
        for c in range(logits.shape[1]):
            score, truth = logits[b, c][seen], hard[b, c][seen]
            errors, order = torch.sort(1 - score * (2 * truth - 1), descending=True)
            losses.append(torch.dot(F.relu(errors), _lovasz_gradient(truth[order])))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _lovasz_gradient(truth: Tensor) -> Tensor:
    total = truth.sum()
    jaccard = 1 - (total - truth.cumsum(0)) / (total + (1 - truth).cumsum(0))
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": bce, "cross-entropy": cross_entropy, "dice": dice, "tversky": tversky, "focal": focal, "lovasz": lovasz_hinge,
}  # fmt: skip


class WeightedSum:
    """A sum of named losses: {"bce": 1.0, "dice": 0.5}; a value may be {"weight": 1.0, "alpha": 0.3, ...}."""

    def __init__(self, terms: dict[str, float | dict[str, float]]) -> None:
        if not terms:
            raise UsageError("a loss needs at least one term; known are " + ", ".join(LOSSES))
        self._terms: list[tuple[str, float, dict[str, float]]] = []
        for name, value in terms.items():
            if name not in LOSSES:
                raise UsageError(unknown_name("loss", name, LOSSES))
            options = dict(value) if isinstance(value, dict) else {"weight": float(value)}
            self._terms.append((name, float(options.pop("weight", 1.0)), options))

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for name, share, options in self._terms:
            total = total + share * LOSSES[name](logits, target, weight, **options)
        return total


def deep_loss(
    loss: Loss, outputs: Sequence[Tensor], shares: Sequence[float], target: Tensor, weight: Tensor
) -> Tensor:
    """The loss of the main output plus `shares` of the auxiliary ones, each enlarged to the target."""
    total = loss(outputs[0], target, weight)
    for share, side in zip(shares, outputs[1:], strict=False):
        if side.shape[-2:] != target.shape[-2:]:
            side = F.interpolate(side, size=target.shape[-2:], mode="bilinear", align_corners=False)
        total = total + share * loss(side, target, weight)
    return total
