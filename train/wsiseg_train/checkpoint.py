"""`ckpt.pt`: a format tag, the model spec as plain data, and a state dict; nothing in the file can run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsiseg.errors import ModelError
from wsiseg.model.spec import ModelSpec

CHECKPOINT_FORMAT = "wsiseg-checkpoint-1"


def save_checkpoint(
    path: str | os.PathLike[str], spec: ModelSpec, state: dict[str, torch.Tensor], *, half: bool = False
) -> None:
    """Write `ckpt.pt` under a temporary name, flush it, and rename it over `path`.

    Args:
        half: store floating tensors as float16 (half the file); values that would overflow are refused.

    Raises:
        ModelError: a weight is not finite, or does not fit float16.
    """
    tensors = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if tensor.is_floating_point():
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"{path}: weight {name!r} is not finite; the training diverged, lower the learning rate"
                )
            if half and float(tensor.abs().max()) > 65504:
                raise ModelError(f"{path}: weight {name!r} overflows float16; save it in float32")
            tensor = tensor.half() if half else tensor.float()
        tensors[name] = tensor
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": CHECKPOINT_FORMAT, "spec": spec.to_dict(), "state_dict": tensors}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[ModelSpec, dict[str, torch.Tensor]]:
    """The spec and the float32 state dict of a `ckpt.pt`.

    Raises:
        ModelError: for a file that is missing, is no wsiseg checkpoint, or holds anything but tensors and plain data.
    """
    try:
        data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such checkpoint") from error
    except Exception as error:
        line = (str(error).strip().splitlines() or ["unreadable"])[0][:160]
        raise ModelError(
            f"{path}: not a checkpoint of tensors and plain data ({type(error).__name__}: {line})"
        ) from error
    if not isinstance(data, dict) or data.get("format") != CHECKPOINT_FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise ModelError(
            f"{path}: checkpoint format {found!r}, this wsiseg reads {CHECKPOINT_FORMAT!r}; make it with `wsiseg train`"
        )
    spec = ModelSpec.from_dict(data.get("spec"), str(path))
    state = data.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"{path}: the state dict must hold tensors only")
    return spec, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelSpec]:
    """The network of a `ckpt.pt`, in evaluation mode and float32, giving logits; and its spec.

    Raises:
        ModelError: also when the weights do not fit the network that the spec names.
    """
    from wsiseg_train.networks import build_network

    spec, state = read_checkpoint(path)
    # where training started from is no matter here: its file may be gone, and nothing is downloaded to be overwritten
    network = {k: v for k, v in spec.network.items() if k not in ("weights", "pretrained")}
    net = build_network(network, outputs=output_channels(spec))
    missing, unexpected = net.load_state_dict(state, strict=False)
    if missing or unexpected:
        first = (list(missing) + list(unexpected))[0]
        raise ModelError(
            f"{path}: {len(missing)} weights missing and {len(unexpected)} unknown for network {spec.network.get('name')!r} (first: {first})"
        )
    return net.eval(), spec


def output_channels(spec: ModelSpec) -> int:
    """Channels of the logits: one per class, and one more for the background of a softmax."""
    return len(spec.classes) + (1 if spec.activation == "softmax" else 0)
