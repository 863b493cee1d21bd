"""A U-Net that is cheap on a CPU: any timm encoder, one convolution per decoder level, and no level at full resolution.

On a CPU with bf16 matrix units the convolutions are nearly free and what costs is moving full-resolution activations
through memory. So the decoder stops at half the input's resolution and bilinear interpolation does the rest: at 3 microns
per pixel a glomerulus is 30 to 120 pixels wide, and its outline is smoother than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg_train.blocks import Presence


class CompactUnet(nn.Module):
    """float32 [B, 3, H, W] -> logits [B, outputs, H, W]; H and W multiples of 2 ** depth.

    Args:
        encoder: name of a timm ResNet (`channels` is passed to it where given).
        channels: widths of the encoder's four stages.
        decoder: widths of the decoder's levels, deepest first: `depth - 1` of them.
        depth: feature maps taken from the encoder, at 1/2, 1/4, ... 1/2**depth.
        convs: convolutions per decoder level.
        shuffle: the head gives four values per half-resolution pixel, which a pixel shuffle lays out at full resolution: for
            objects of a few pixels. Otherwise the logits are interpolated bilinearly.
        dropout: probability of dropping a channel before the head, in training.
        classifier: also gives a logit [B] that says whether the tile holds an object, from the deepest feature map.
    """

    def __init__(
        self,
        outputs: int = 1,
        encoder: str = "resnet18",
        channels: Sequence[int] | None = (48, 96, 192, 192),
        decoder: Sequence[int] = (96, 64, 32),
        depth: int = 4,
        convs: int = 1,
        dropout: float = 0.0,
        shuffle: bool = False,
        pretrained: bool = False,
        classifier: bool = False,
    ) -> None:
        super().__init__()
        import timm

        if len(decoder) != depth - 1:
            raise ValueError(f"decoder has {len(decoder)} levels, depth {depth} needs {depth - 1}")
        extra: dict[str, Any] = {} if channels is None else {"channels": tuple(channels)}
        self.encoder = timm.create_model(
            encoder, features_only=True, out_indices=tuple(range(depth)), pretrained=pretrained, **extra
        )
        widths = self.encoder.feature_info.channels()
        blocks, previous = [], widths[-1]
        for skip, width in zip(widths[-2::-1], decoder, strict=True):
            blocks.append(
                nn.Sequential(_conv(previous + skip, width), *[_conv(width, width) for _ in range(convs - 1)])
            )
            previous = width
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout2d(dropout)
        self.shuffle, self.classifier = shuffle, classifier
        self.head = (
            nn.Conv2d(previous, outputs * 4, 3, padding=1) if shuffle else nn.Conv2d(previous, outputs, 1)
        )
        nn.init.constant_(self.head.bias, -2.0)  # objects are rare: start from a low probability
        if classifier:
            self.presence = Presence(widths[-1])

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.encoder(x)
        y = features[-1]
        for skip, block in zip(features[-2::-1], self.blocks, strict=True):
            y = block(torch.cat([F.interpolate(y, scale_factor=2.0, mode="nearest"), skip], 1))
        y = self.head(self.dropout(y))
        if self.shuffle:
            y = F.pixel_shuffle(y, 2)
        else:
            y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        return (y, self.presence(features[-1])) if self.classifier else y


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
