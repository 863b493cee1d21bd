"""Probabilities of a whole region by the network in torch: for validation while training, and for a threshold sweep.

The processor (`wsiseg run`) is what scores a finished model; this is its short twin: same weights of a tile's pixels, same
grid spacing, the region held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from wsiseg.model.spec import ModelSpec
from wsiseg_kernels import reference
from wsiseg_train.augment import recolour
from wsiseg_train.folds import Part
from wsiseg_train.metrics import Counts

#: Shifts of a held-out region that stand for another laboratory's stain: maps of optical density [3, 4].
SHIFTS: dict[str, np.ndarray | None] = {
    "plain": None,
    "pale": np.hstack([0.6 * np.eye(3), np.full((3, 1), 0.02)]),
    "dark": np.hstack([1.4 * np.eye(3), np.full((3, 1), 0.08)]),
    "red": np.array([[0.75, 0.1, 0.15, 0.05], [0.15, 0.95, 0.0, 0.05], [0.0, 0.2, 0.9, 0.05]]),
    "blue": np.array([[1.1, 0.1, 0.0, 0.05], [0.0, 0.9, 0.1, 0.05], [0.1, 0.0, 0.65, 0.02]]),
}


def logits_of(output: object) -> torch.Tensor:
    """The main logits of a network's output, whatever comes with them."""
    while isinstance(output, tuple | list):
        output = output[0]
    assert isinstance(output, torch.Tensor)
    return output


@torch.no_grad()
def predict_grid(
    net: nn.Module,
    image: np.ndarray,
    spec: ModelSpec,
    *,
    tile: int | None = None,
    batch: int = 4,
    bf16: bool = True,
) -> np.ndarray:
    """float32 [C, h, w] probabilities of an image uint8 [h, w, 3] on the network grid, blended like the processor's.

    Args:
        net: in evaluation mode, giving logits.
        tile: tile edge; the spec's by default, smaller when the image is.
    """
    device = next(net.parameters()).device
    h, w = image.shape[:2]
    step = spec.tile_multiple
    edge = min(tile or spec.tile, -(-max(h, w) // step) * step)
    stride = max(1, round(edge * (1 - spec.overlap)))
    weights = reference.gaussian_weights(edge)
    kernel = np.outer(weights, weights).astype(np.float32)
    starts = [
        [-(edge - stride) + i * stride for i in range(-(-(n + edge - stride) // stride))] for n in (h, w)
    ]
    mode = "reflect" if spec.fill == "reflect" else "constant"
    pad = edge
    padded = np.pad(
        image,
        ((pad, pad), (pad, pad), (0, 0)),
        mode,
        **({} if mode == "reflect" else {"constant_values": 255 if spec.fill == "white" else 0}),
    )  # type: ignore[call-overload]
    places = [(y, x) for y in starts[0] for x in starts[1]]
    total = np.zeros((len(spec.classes), h, w), np.float32)
    share = np.zeros((h, w), np.float32)
    for k in range(0, len(places), batch):
        chunk = places[k : k + batch]
        tiles = np.stack([padded[y + pad : y + pad + edge, x + pad : x + pad + edge] for y, x in chunk])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = logits_of(net(normalise(torch.from_numpy(tiles).to(device), spec)))
        p = (
            torch.softmax(logits.float(), 1)[:, 1:]
            if spec.activation == "softmax"
            else torch.sigmoid(logits.float())
        )
        for (y, x), values in zip(chunk, p.cpu().numpy(), strict=True):
            a, b, c, d = max(y, 0), min(y + edge, h), max(x, 0), min(x + edge, w)
            if a < b and c < d:
                part = kernel[a - y : b - y, c - x : d - x]
                total[:, a:b, c:d] += values[:, a - y : b - y, c - x : d - x] * part
                share[a:b, c:d] += part
    return total / share


def normalise(image: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """uint8 [B, T, T, 3] to float32 [B, 3, T, T], channels last, as the exported graph does it."""
    mean = torch.tensor(spec.mean, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=image.device).view(1, 3, 1, 1)
    return ((image.permute(0, 3, 1, 2).float() - mean) / std).contiguous(memory_format=torch.channels_last)


def predict_part(
    net: nn.Module, part: Part, spec: ModelSpec, shift: np.ndarray | None = None, bf16: bool = True
) -> np.ndarray:
    """float32 [C, h, x1 - x0] of a part of a store, seen with a margin of half a tile of its neighbourhood."""
    margin = spec.tile // 2
    a, b = max(0, part.x0 - margin), min(part.store.shape[1], part.x1 + margin)
    image = part.store.window("image", 0, a, part.store.shape[0], b)
    if shift is not None:
        image = recolour(image, shift)
    # rows without anything to score at the top and bottom are not worth a tile
    seen = part.store.window("weight", 0, part.x0, part.store.shape[0], part.x1).any(axis=1)
    rows = np.flatnonzero(seen)
    out = np.zeros((len(spec.classes), part.store.shape[0], part.x1 - part.x0), np.float32)
    if len(rows):
        y0, y1 = max(0, int(rows[0]) - margin), min(part.store.shape[0], int(rows[-1]) + 1 + margin)
        p = predict_grid(net, np.ascontiguousarray(image[y0:y1]), spec, bf16=bf16)
        out[:, y0:y1] = p[:, :, part.x0 - a : part.x1 - a]
    return out


def sweep(
    probabilities: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    seen: Sequence[np.ndarray],
    thresholds: Sequence[float],
) -> dict[float, Counts]:
    """Pixel counts of one class at each threshold, over several images float [h, w], bool [h, w], bool [h, w]."""
    table = {t: Counts() for t in thresholds}
    for p, truth, where in zip(probabilities, truths, seen, strict=True):
        for t, counts in table.items():
            counts.add(p > t, truth, where)
    return table
