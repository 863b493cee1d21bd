"""A U-Net with a ResNet34 encoder in plain torch: the size of network that the figures speak of, with no other package."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.model.spec import ModelSpec

SPEC = ModelSpec(
    "unet-resnet34", tile=512, tile_multiple=32, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)
)


def _conv(source: int, target: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(source, target, size, stride, size // 2, bias=False), nn.BatchNorm2d(target)
    )


class _Block(nn.Module):
    def __init__(self, source: int, target: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = _conv(source, target, stride), _conv(target, target)
        self.skip = _conv(source, target, stride, 1) if stride > 1 or source != target else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.b(functional.relu(self.a(x))) + self.skip(x))


class UNet(nn.Module):
    """Float [B, 3, T, T] -> logits [B, 1, T, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 64, 2, 7)
        widths, depths = (64, 64, 128, 256, 512), (3, 4, 6, 3)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *[
                    _Block(widths[i] if k == 0 else widths[i + 1], widths[i + 1], 2 if k == 0 and i else 1)
                    for k in range(n)
                ]
            )
            for i, n in enumerate(depths)
        )
        skips, self.decoder, source = (256, 128, 64, 64, 0), nn.ModuleList(), 512
        for skip, target in zip(skips, (256, 128, 64, 32, 16), strict=True):
            self.decoder.append(
                nn.Sequential(_conv(source + skip, target), nn.ReLU(), _conv(target, target), nn.ReLU())
            )
            source = target
        self.head = nn.Conv2d(16, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        kept = [x]
        x = functional.max_pool2d(x, 3, 2, 1)
        for level in self.levels:
            x = level(x)
            kept.append(x)
        skips = [kept[3], kept[2], kept[1], kept[0], None]
        for stage, skip in zip(self.decoder, skips, strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = stage(x if skip is None else torch.cat([x, skip], 1))
        return self.head(x)


class Graph(nn.Module):
    """The whole graph: uint8 [B, T, T, 3] -> float32 probabilities [B, 1, T, T]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(SPEC.mean).view(1, 3, 1, 1))
        self.register_buffer("gain", 1 / torch.tensor(SPEC.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = (image.to(self.mean.dtype).permute(0, 3, 1, 2) - self.mean) * self.gain
        return torch.sigmoid(self.net(x).float())


def build(seed: int = 0) -> nn.Module:
    """The seeded network; its statistics are set so that activations neither die nor explode. Each call gives its own."""
    return copy.deepcopy(_build(seed))


@functools.cache
def _build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = UNet()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 3, 64, 64))
    return Graph(net).eval()
