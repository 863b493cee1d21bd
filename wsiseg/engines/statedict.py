"""A state dict of a known architecture (smp, timm or MONAI, as the spec's [network] names it) becomes one of our models."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from wsiseg.errors import ModelError
from wsiseg.model.spec import ModelSpec

WRAPPERS = (
    "module.",
    "model.",
    "net.",
    "_orig_mod.",
)  # what data parallel, lightning and compile put before names


def to_onnx(path: Path, spec: ModelSpec) -> bytes:
    """The ONNX bytes of the network that `spec.network` names, with the weights in `path`, in our graph contract.

    Raises:
        ModelError: without torch, without an architecture, or when the weights are none or do not fit it.
    """
    if importlib.util.find_spec("torch") is None:
        raise ModelError(f"{path}: reading a state dict needs torch; pip install 'wsiseg[train]'")
    if not spec.network:
        raise ModelError(
            f"{path}: a state dict needs its architecture; add a [network] table with its name and arguments to the spec"
        )
    checkpoint, networks, export = (
        importlib.import_module(f"wsiseg_train.{name}") for name in ("checkpoint", "networks", "export")
    )
    state = read_state(path)
    net = networks.build_network(spec.network, outputs=checkpoint.output_channels(spec))
    known = net.state_dict()
    missing, unexpected = net.load_state_dict(unwrapped(state, known), strict=False)
    if missing or unexpected:
        first = [*missing, *unexpected][0]
        name = spec.network.get("name")
        raise ModelError(
            f"{path}: {len(missing)} weights missing and {len(unexpected)} unknown for network {name!r} (first: {first})"
        )
    data: bytes = export.export_onnx(net, spec)
    return data


def read_state(path: Path) -> dict[str, Any]:
    """The tensors by name in a `.pt` or `.pth`, read without running anything in it.

    Raises:
        ModelError: for anything else.
    """
    torch = importlib.import_module("torch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways, and none of them may run code
        line = (str(error).strip().splitlines() or ["unreadable"])[0][:120]
        raise ModelError(f"{path}: not a state dict of tensors ({type(error).__name__}: {line})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"{path}: not a state dict: it holds more than tensors by name")
    return state


def unwrapped(state: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """`state` without a wrapper's prefix, when that is what keeps its names from being known."""
    for _ in range(3):
        if any(name in known for name in state):
            return state
        for prefix in WRAPPERS:
            if state and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
