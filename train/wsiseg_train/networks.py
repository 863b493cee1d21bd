"""The registry of networks."""
from __future__ import annotations
from typing import Any
from torch import nn
from wsiseg.errors import ModelError, unknown_name
from wsiseg_train.compact import CompactUnet

def build_network(network: dict[str, Any], outputs: int) -> nn.Module:
    arguments = dict(network)
    name = arguments.pop("name", None)
    if name != "compact-unet":
        raise ModelError(unknown_name("network", name, ["compact-unet"]))
    return CompactUnet(outputs=outputs, **arguments)
