"""Building blocks that the libraries lack or write in a form that does not export well: means instead of adaptive pools,
scale factors instead of sizes, so that no shape arithmetic enters the ONNX graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, dilation: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution of unchanged size, batch norm, ReLU."""
    pad = dilation * (kernel // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, padding=pad, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def enlarge(x: Tensor, factor: float = 2.0, smooth: bool = False) -> Tensor:
    """Enlarged by a factor: nearest, or bilinear."""
    if smooth:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return F.interpolate(x, scale_factor=factor, mode="nearest")


class SCSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy 2018, arXiv 1808.08127)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        middle = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, middle, 1), nn.ReLU(inplace=True), nn.Conv2d(middle, channels, 1)
        )
        self.spatial = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.channel(squeezed)) + x * torch.sigmoid(self.spatial(x))


class CBAM(nn.Module):
    """Convolutional block attention: channels by mean and maximum, then places (Woo 2018, arXiv 1807.06521)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        middle = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, middle, 1), nn.ReLU(inplace=True), nn.Conv2d(middle, channels, 1)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(
            self.channel(x.mean((2, 3), keepdim=True)) + self.channel(x.amax((2, 3), keepdim=True))
        )
        return x * torch.sigmoid(
            self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        )


class Presence(nn.Module):
    """The classification head: feature maps [B, C, h, w] -> logit [B] that the tile holds an object.

    Mean and maximum over the places: the mean says how much, the maximum does not overlook an object at the tile's edge.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))[:, 0]


class AttentionGate(nn.Module):
    """Weighs a skip connection by the coarser level that it joins (Oktay 2018, arXiv 1804.03999)."""

    def __init__(self, skip: int, gate: int) -> None:
        super().__init__()
        middle = max(8, skip // 2)
        self.skip = nn.Conv2d(skip, middle, 1, bias=False)
        self.gate = nn.Conv2d(gate, middle, 1)
        self.out = nn.Conv2d(middle, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        return skip * torch.sigmoid(self.out(F.relu(self.skip(skip) + self.gate(gate))))


class FPA(nn.Module):
    """Feature pyramid attention over three halvings (Li 2018, arXiv 1805.10180). The input's edge must be a multiple of 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.whole = nn.Conv2d(channels, channels, 1)  # batch norm of a single value has no meaning
        self.middle = conv(channels, channels, 1)
        self.down = nn.ModuleList([conv(channels, 1, 7), conv(1, 1, 5), conv(1, 1, 3)])
        self.side = nn.ModuleList([conv(1, 1, 7), conv(1, 1, 5), conv(1, 1, 3)])

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.whole(x.mean((2, 3), keepdim=True))
        levels, y = [], x
        for down, side in zip(self.down, self.side, strict=True):
            y = down(F.max_pool2d(y, 2))
            levels.append(side(y))
        attention = levels[2]
        for level in (levels[1], levels[0]):
            attention = level + enlarge(attention, smooth=True)
        return self.middle(x) * enlarge(attention, smooth=True) + pooled


class RFB(nn.Module):
    """Receptive field block: four branches of growing dilation (Liu 2018; as in PraNet)."""

    def __init__(self, inputs: int, outputs: int = 32) -> None:
        super().__init__()
        self.point = conv(inputs, outputs, 1, relu=False)
        self.branches = nn.ModuleList(
            nn.Sequential(
                conv(inputs, outputs, 1, relu=False),
                nn.Conv2d(outputs, outputs, (1, k), padding=(0, k // 2), bias=False), nn.BatchNorm2d(outputs),
                nn.Conv2d(outputs, outputs, (k, 1), padding=(k // 2, 0), bias=False), nn.BatchNorm2d(outputs),
                conv(outputs, outputs, 3, dilation=k, relu=False),
            )
            for k in (3, 5, 7)
        )  # fmt: skip
        self.merge = conv(outputs * 4, outputs, relu=False)
        self.short = conv(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        merged = self.merge(torch.cat([self.point(x), *[b(x) for b in self.branches]], 1))
        return F.relu(merged + self.short(x))
