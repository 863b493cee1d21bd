"""Models whose input and output stay on the device, for the CUDA path of the pipeline (`wsiseg.pipeline.device_panel`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wsiseg.backends.base import Session


@dataclass(frozen=True)
class ResidentModel:
    """`image` uint8 [B, T, T, 3] and `probability` float32 [B, C, T, T] as numba device arrays; `run` infers between them."""

    batch: int
    image: Any
    probability: Any
    run: Callable[[], None]


@dataclass(frozen=True)
class DeviceMemory:
    """Memory at an address, as others take it in: the CUDA array interface, version 3."""

    pointer: int
    shape: tuple[int, ...]
    typestr: str

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "data": (self.pointer, False),
            "shape": self.shape,
            "typestr": self.typestr,
            "strides": None,
            "version": 3,
        }


def resident_model(batch: int, image: object, probability: object, run: Callable[[], None]) -> ResidentModel:
    """A ResidentModel over anything that has the CUDA array interface; call it in the thread that will use it."""
    from numba import cuda

    return ResidentModel(batch, cuda.as_cuda_array(image), cuda.as_cuda_array(probability), run)


def device_models(session: Session) -> Sequence[tuple[int, Callable[[], ResidentModel]]]:
    """(device number, what makes its model) for every device of a session; () when the CUDA path cannot be taken."""
    models = getattr(session, "device_models", None)
    if models is None or importlib.util.find_spec("numba_cuda") is None:
        return ()
    found: Sequence[tuple[int, Callable[[], ResidentModel]]] = models()
    return found
