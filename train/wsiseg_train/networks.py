"""The networks by name: what `[network]` of a recipe and `spec.network` of a model may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from wsiseg.errors import ModelError, unknown_name


def _compact(**arguments: Any) -> nn.Module:
    from wsiseg_train.compact import CompactUnet

    return CompactUnet(**arguments)


def _unet(**arguments: Any) -> nn.Module:
    from wsiseg_train.unet import Unet

    return Unet(**arguments)


def _plain(**arguments: Any) -> nn.Module:
    from wsiseg_train.unet import PlainUnet

    return PlainUnet(**arguments)


def _pranet(**arguments: Any) -> nn.Module:
    from wsiseg_train.pranet import PraNet

    return PraNet(**arguments)


def _smp(outputs: int, arch: str = "FPN", encoder: str = "resnet34", **arguments: Any) -> nn.Module:
    """Any architecture of segmentation_models_pytorch, by its own arguments."""
    import segmentation_models_pytorch as smp

    if arch.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise ModelError(unknown_name("smp architecture", arch, sorted(smp.MODEL_ARCHITECTURES_MAPPING)))
    weights = arguments.pop("weights", "none")
    return smp.create_model(
        arch, encoder, encoder_weights=None if weights == "none" else weights, classes=outputs, **arguments
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "compact-unet": _compact, "unet": _unet, "plain-unet": _plain, "pranet": _pranet, "smp": _smp,
}  # fmt: skip


def build_network(network: dict[str, Any], outputs: int) -> nn.Module:
    """The network that a spec names: {"name": ..., and its arguments}, giving logits with `outputs` channels.

    Raises:
        ModelError: a name or an argument that does not exist.
    """
    arguments = dict(network)
    name = arguments.pop("name", None)
    if name not in NETWORKS:
        raise ModelError(unknown_name("network", str(name), NETWORKS))
    try:
        return NETWORKS[name](outputs=outputs, **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name!r} cannot be built: {error}") from error
