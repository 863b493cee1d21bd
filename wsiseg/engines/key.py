"""The cache key of an engine: a hash over everything that a compiled plan depends on.

A TensorRT plan is machine code for one GPU, one TensorRT and one driver generation. Its key says which, part by part,
so that a plan that does not match is refused by the name of the part, never run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from wsiseg.errors import EngineError

SCHEMA = 1
# Parts that must be equal to run a plan, with what people call them. The rest only says how it was built.
MUST_MATCH = (
    ("runtime_version", "TensorRT version"),
    ("compute_capability", "compute capability"),
    ("gpu", "GPU"),
    ("driver", "driver generation"),
)


@dataclass(frozen=True)
class Machine:
    """What a plan is tied to: the runtime's version, the GPU and its compute capability, the driver's CUDA major."""

    runtime_version: str
    gpu: str
    compute_capability: str
    driver: str


@dataclass(frozen=True)
class BuildOptions:
    """The options of `wsiseg build-engine` that change the plan.

    Attributes:
        precision: "fp16", "bf16" or "fp32". tile: T. batch: the largest batch. tta: flips inside.
        workspace: bytes the builder may use, 0 for its own limit. optimization_level: 0 to 5.
        refit: weights can be exchanged later. tf32: allow TF32 in fp32 engines.
    """

    precision: str
    tile: int
    batch: int
    tta: str = "none"
    workspace: int = 0
    optimization_level: int = 3
    refit: bool = False
    tf32: bool = False


def engine_key(model_digest: str, machine: Machine, options: BuildOptions) -> str:
    """SHA-256 over all parts and the schema number, in hexadecimal."""
    parts = {"schema": SCHEMA, "model": model_digest, "machine": asdict(machine), "options": asdict(options)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def key_parts(model_digest: str, machine: Machine, options: BuildOptions) -> dict[str, Any]:
    """What the sidecar keeps: the parts in words, and the key over them."""
    return {**asdict(machine), "options": asdict(options), "key": engine_key(model_digest, machine, options)}


def check_machine(stated: dict[str, Any], here: Machine, where: str, fix: str) -> None:
    """Refuse a plan of another machine.

    Raises:
        EngineError: naming the first part that differs, both values, and `fix`, the command that builds for this one.
    """
    for name, words in MUST_MATCH:
        want, have = str(stated.get(name, "unknown")), str(getattr(here, name))
        if want != have:
            raise EngineError(
                f"{where}: built for {words} {want}, this machine has {have}; build it here with `{fix}`"
            )


def check_sizes(tile: int, batch: int, wanted_tile: int, wanted_batch: int, where: str, fix: str) -> None:
    """Refuse a tile or batch that the plan was not built for; 0 in the plan means any.

    Raises:
        EngineError: with both values and the command.
    """
    if tile and tile != wanted_tile:
        raise EngineError(
            f"{where}: built for tile {tile}, asked for {wanted_tile}; run with --tile {tile}, or `{fix} --tile {wanted_tile}`"
        )
    if batch and wanted_batch > batch:
        raise EngineError(
            f"{where}: built for batches up to {batch}, asked for {wanted_batch}; run with --batch {batch}, or `{fix} --batch {wanted_batch}`"
        )


def timing_cache_name(machine: Machine) -> str:
    """The name of the timing cache that fits: one per TensorRT version and GPU, since others' timings mislead."""
    digest = hashlib.sha256(json.dumps(asdict(machine), sort_keys=True).encode()).hexdigest()
    return f"timing-{machine.runtime_version}-{digest[:16]}.cache"
