"""What a runtime must give: a session, a loaded model with a fixed tile and batch, and slots to work in.

The graph is the contract: uint8 [B, T, T, 3] RGB in, float32 [B, C, T, T] probabilities out. Normalisation, half
precision, flips, ensembles and the last activation are inside the graph, so no backend repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from wsiseg.model.spec import ModelSpec


@dataclass(frozen=True)
class SessionOptions:
    """How to load a model.

    Attributes:
        tile: T in network pixels. batch: B. slots: how many batches may be in flight.
        threads: CPU threads for CPU runtimes. streams: batches that they work on at once; 0 is one per thread.
        precision: "auto", "fp32", "bf16", "fp16" or "int8".
        device: "auto", "cpu", "cuda", "cuda:0" ...
        device_memory: bytes of device memory that a GPU session may use, or None.
        presence: tiles whose classification head says less are not decoded; 0 decodes every tile.
    """

    tile: int
    batch: int
    slots: int
    threads: int
    precision: str = "auto"
    device: str = "auto"
    device_memory: int | None = None
    presence: float = 0.0
    streams: int = 0


@runtime_checkable
class Session(Protocol):
    """A loaded model on a device, with `slots` independent batches in flight.

    A slot goes round: fill `input(slot)`, `start(slot, count)`, `wait(slot)`, use the result, fill again. Different
    slots may be used from different threads; one slot by one thread at a time. `start` does not block on the result.
    Results may be waited for in any order.
    """

    spec: ModelSpec
    options: SessionOptions
    description: str  # e.g. "openvino 2026.4 CPU bf16", what people are told
    precision: str  # what really runs: "fp32", "bf16", "fp16", "int8"

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        """The slot's own input, uint8 [B, T, T, 3]; write tiles here."""

    def start(self, slot: int, count: int) -> None:
        """Begin inference of the first `count` tiles of the slot; the rest is padding."""

    def wait(self, slot: int) -> npt.NDArray[np.float32]:
        """Block until the slot's result is there: float32 [count, C, T, T], valid until the slot is filled again."""

    def close(self) -> None:
        """Wait for what is in flight and release everything."""


@runtime_checkable
class SkipsTiles(Protocol):
    """A session that leaves the decoder out where a model's classification head sees no object."""

    def absent(self, slot: int) -> npt.NDArray[np.bool_]:
        """Which tiles of the slot's result, after `wait`, were not decoded: bool [count]. They are all zeros in it."""
