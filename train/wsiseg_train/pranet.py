"""PraNet (Fan 2020, arXiv 2006.11392): a coarse map from the deep features, refined by reverse attention, on ResNet50."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsiseg_train.blocks import RFB, conv, enlarge
from wsiseg_train.unet import make_encoder


class PraNet(nn.Module):
    """float32 [B, 3, H, W] -> logits [B, outputs, H, W], with three coarser maps while training. H, W multiples of 32.

    Args:
        encoder: with feature maps at 1/8, 1/16 and 1/32; the paper's is a Res2Net50.
        width: channels of the receptive field blocks.
    """

    def __init__(
        self, outputs: int = 1, encoder: str = "resnet50", weights: str = "none", width: int = 32
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, 5, weights)
        c2, c3, c4 = list(self.encoder.out_channels)[-3:]
        self.rfb = nn.ModuleList([RFB(c, width) for c in (c2, c3, c4)])
        self.up4, self.up3, self.up43 = (conv(width, width, relu=False) for _ in range(3))
        self.join3 = conv(2 * width, 2 * width, relu=False)
        self.join2 = conv(3 * width, 3 * width, relu=False)
        self.up34 = conv(2 * width, 2 * width, relu=False)
        self.coarse = nn.Sequential(conv(3 * width, 3 * width, relu=False), nn.Conv2d(3 * width, outputs, 1))
        self.reverse = nn.ModuleList(
            nn.Sequential(
                conv(c, middle, 1),
                *[conv(middle, middle, kernel) for _ in range(count)],
                nn.Conv2d(middle, outputs, 3, padding=1),
            )
            for c, middle, kernel, count in ((c4, 256, 5, 3), (c3, 64, 3, 2), (c2, 64, 3, 2))
        )

    def drop_auxiliary(self) -> None:
        """Nothing to remove: the coarser maps are part of the way to the finest."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        f2, f3, f4 = self.encoder(x)[-3:]
        r2, r3, r4 = (rfb(f) for rfb, f in zip(self.rfb, (f2, f3, f4), strict=True))
        d3 = self.up4(enlarge(r4, smooth=True)) * r3
        d2 = (
            self.up43(enlarge(enlarge(r4, smooth=True), smooth=True))
            * self.up3(enlarge(r3, smooth=True))
            * r2
        )
        j3 = self.join3(torch.cat([d3, enlarge(r4, smooth=True)], 1))
        j2 = self.join2(torch.cat([d2, self.up34(enlarge(j3, smooth=True))], 1))
        coarse = self.coarse(j2)  # at 1/8
        maps = [coarse]
        guide = enlarge(coarse, 0.25, smooth=True)
        for feature, refine in zip((f4, f3, f2), self.reverse, strict=True):
            away = 1 - torch.sigmoid(guide.amax(1, keepdim=True))
            guide = refine(feature * away) + guide
            maps.append(guide)
            if feature is not f2:
                guide = enlarge(guide, smooth=True)
        final = enlarge(maps[-1], 8.0, smooth=True)
        return (final, *maps[-2::-1]) if self.training else final
