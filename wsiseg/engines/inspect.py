"""Read a TensorRT engine's layers and say in which precision its work is really done.

Asking for half precision is not getting it: a flag on a typed network, or a graph still in float32, has silently given
float32 engines. So after a build every layer that does the work is looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wsiseg.errors import EngineError

HALF = {"fp16": ("half", "fp16"), "bf16": ("bf16", "bfloat16"), "fp32": ("float", "fp32")}
WORK = ("conv", "gemm", "matrix", "matmul", "myelin", "foreignnode", "kgen")


@dataclass(frozen=True)
class Layers:
    """Layers that do the work (convolutions, matrix products, fused blocks), by whether they are in the wanted precision."""

    right: tuple[str, ...]
    wrong: tuple[str, ...]
    others: int


def inspect_layers(text: str, precision: str) -> Layers:
    """The layers of an engine inspector's JSON.

    Raises:
        EngineError: for text that holds no layer information.
    """
    try:
        layers = list(json.loads(text)["Layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the engine's layer information cannot be read ({error}); build with detailed profiling verbosity"
        ) from error
    right: list[str] = []
    wrong: list[str] = []
    others = 0
    for layer in layers:
        if not isinstance(layer, dict):
            raise EngineError(
                "the engine's layer information holds names only; build with detailed profiling verbosity"
            )
        name = str(layer.get("Name", ""))
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
        if not any(word in kind for word in WORK):
            others += 1
            continue
        formats = [_format(t) for t in (*layer.get("Inputs", ()), *layer.get("Outputs", ()))]
        (right if any(word in f for f in formats for word in HALF[precision]) else wrong).append(name)
    return Layers(tuple(right), tuple(wrong), others)


def require(layers: Layers, precision: str) -> None:
    """Fail when a layer that does work is not in `precision`, or when there is none at all.

    Raises:
        EngineError: naming the first such layers.
    """
    if layers.wrong:
        some = ", ".join(layers.wrong[:3])
        raise EngineError(
            f"the engine is not {precision}: {len(layers.wrong)} of {len(layers.wrong) + len(layers.right)} working layers are in "
            f"another precision ({some}); this is a fault of the export, please report it, or build with --precision fp32"
        )
    if not layers.right:
        raise EngineError(f"the engine shows no working layer in {precision}; its precision cannot be proven")


def _format(tensor: Any) -> str:
    return (
        str(tensor.get("Format/Datatype", tensor.get("Datatype", ""))).lower()
        if isinstance(tensor, dict)
        else ""
    )
