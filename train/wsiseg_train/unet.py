"""A U-Net over any encoder of timm or segmentation_models_pytorch, with the parts that those libraries' U-Nets lack.

SCSE or CBAM attention, attention gates, an FPA bottleneck, hypercolumns, deep supervision, dropout and a classification
head, each on its own. ResNet34 + SCSE + FPA + hypercolumns is the network of arXiv 1904.04445.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsiseg.errors import ModelError, unknown_name
from wsiseg_train.blocks import CBAM, FPA, SCSE, AttentionGate, Presence, conv, enlarge

ATTENTION: dict[str, type[nn.Module]] = {"scse": SCSE, "cbam": CBAM}
BOTTLENECKS = ("none", "centre", "fpa")


class Unet(nn.Module):
    """float32 [B, 3, H, W] -> logits [B, outputs, H, W], or a tuple with the auxiliary outputs while training.

    Args:
        encoder: a name of segmentation_models_pytorch, or "tu-" and a name of timm.
        weights: "none", "imagenet" (downloaded by the library), or the path of a state dict of the encoder.
        depth, decoder: levels, and widths of the decoder's levels (deepest first).
        attention: "none", "scse" or "cbam" after each decoder level.
        gates: attention gates on the skip connections.
        bottleneck: "none", "centre" (two convolutions) or "fpa" (needs tiles that are multiples of 8 * 2 ** depth).
        hypercolumns: the head sees every decoder level, enlarged.
        deep: auxiliary outputs of the coarser decoder levels, gone at export.
        classifier: also gives a logit [B] that says whether the tile holds an object.
        dropout: of channels, before the head.
    """

    def __init__(
        self,
        outputs: int = 1,
        encoder: str = "resnet34",
        weights: str = "none",
        depth: int = 5,
        decoder: Sequence[int] = (256, 128, 64, 32, 16),
        attention: str = "none",
        gates: bool = False,
        bottleneck: str = "none",
        hypercolumns: bool = False,
        deep: bool = False,
        classifier: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if attention != "none" and attention not in ATTENTION:
            raise ModelError(unknown_name("attention", attention, ["none", *ATTENTION]))
        if bottleneck not in BOTTLENECKS:
            raise ModelError(unknown_name("bottleneck", bottleneck, BOTTLENECKS))
        if len(decoder) != depth:
            raise ModelError(f"the decoder has {len(decoder)} widths for a depth of {depth}")
        self.encoder = make_encoder(encoder, depth, weights)
        widths = list(self.encoder.out_channels)[1:][::-1]  # deepest first, without the input itself
        self.centre: nn.Module = nn.Identity()
        if bottleneck == "centre":
            self.centre = nn.Sequential(conv(widths[0], widths[0]), conv(widths[0], widths[0]))
        elif bottleneck == "fpa":
            self.centre = FPA(widths[0])
        skips = [*widths[1:], 0]
        befores = [widths[0], *decoder[:-1]]
        self.gates = nn.ModuleList(
            AttentionGate(skip, before) if gates and skip else nn.Identity()
            for skip, before in zip(skips, befores, strict=True)
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                conv(before + skip, width),
                conv(width, width),
                ATTENTION[attention](width) if attention != "none" else nn.Identity(),
            )
            for before, skip, width in zip(befores, skips, decoder, strict=True)
        )
        self.gated, self.hypercolumns, self.deep, self.classifier = gates, hypercolumns, deep, classifier
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(sum(decoder) if hypercolumns else decoder[-1], outputs, 3, padding=1)
        self.side = nn.ModuleList([nn.Conv2d(w, outputs, 1) for w in decoder[:-1]][::-1] if deep else [])
        if classifier:
            self.presence = Presence(widths[0])

    def drop_auxiliary(self) -> None:
        """Remove what only training needs."""
        self.deep, self.side = False, nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...] | tuple[Tensor | tuple[Tensor, ...], Tensor]:
        features = self.encoder(x)[1:][::-1]
        presence = self.presence(features[0]) if self.classifier else None
        y = self.centre(features[0])
        made: list[Tensor] = []
        for i, (level, gate) in enumerate(zip(self.levels, self.gates, strict=True)):
            y = enlarge(y)
            if i + 1 < len(features):
                skip = features[i + 1]
                y = torch.cat([y, gate(skip, y) if self.gated else skip], 1)
            y = level(y)
            made.append(y)
        if self.hypercolumns:
            deepest = len(made) - 1
            y = torch.cat(
                [y, *[enlarge(m, 2.0 ** (deepest - i), smooth=True) for i, m in enumerate(made[:-1])]], 1
            )
        out: Tensor | tuple[Tensor, ...] = self.head(self.dropout(y))
        if self.deep and self.training:
            assert isinstance(out, Tensor)
            out = (out, *[side(m) for side, m in zip(self.side, made[-2::-1], strict=True)])
        return out if presence is None else (out, presence)


def make_encoder(name: str, depth: int, weights: str = "none") -> nn.Module:
    """An encoder of segmentation_models_pytorch (or timm, "tu-..."), with its weights.

    Raises:
        ModelError: a name that neither library has, or weights that cannot be had or do not fit.
    """
    import segmentation_models_pytorch as smp

    try:
        encoder = smp.encoders.get_encoder(
            name, depth=depth, weights="imagenet" if weights == "imagenet" else None
        )
    except KeyError as error:
        raise ModelError(
            f"encoder {name!r} is unknown; use a name of segmentation_models_pytorch, or tu-NAME of timm"
        ) from error
    except Exception as error:
        line = (str(error).strip().splitlines() or ["no reason given"])[0][:160]
        raise ModelError(
            f'encoder {name!r} with weights {weights!r} cannot be made ({type(error).__name__}: {line}); use weights = "none" or a file'
        ) from error
    if weights not in ("none", "imagenet"):
        try:
            encoder.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except Exception as error:
            line = (str(error).strip().splitlines() or ["unreadable"])[0][:160]
            raise ModelError(f"{weights}: not weights of encoder {name!r} ({line})") from error
    return encoder


class PlainUnet(nn.Module):
    """The U-Net of the paper with batch norm and dropout, from scratch: two convolutions a level, widths doubling.

    Args:
        width: channels of the first level; `depth` halvings.
        dropout: of channels, between the two convolutions of each level.
        classifier: also gives a logit [B] that says whether the tile holds an object, from the deepest level.
    """

    def __init__(
        self,
        outputs: int = 1,
        width: int = 24,
        depth: int = 4,
        dropout: float = 0.1,
        classifier: bool = False,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        widths = [width * min(8, 2**i) for i in range(depth + 1)]
        self.down = nn.ModuleList(
            nn.Sequential(conv(before, w), nn.Dropout2d(dropout), conv(w, w))
            for before, w in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.Sequential(conv(deep + skip, skip), nn.Dropout2d(dropout), conv(skip, skip))
            for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, outputs, 1)
        if classifier:
            self.presence = Presence(widths[-1])

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features: list[Tensor] = []
        for i, level in enumerate(self.down):
            x = level(nn.functional.max_pool2d(x, 2) if i else x)
            features.append(x)
        for level, skip in zip(self.up, features[-2::-1], strict=True):
            x = level(torch.cat([enlarge(x), skip], 1))
        out = self.head(x)
        return (out, self.presence(features[-1])) if self.classifier else out
