"""Compute kernels: blending, shrinking, tissue, runs straight from network resolution, components.

`wsiseg_kernels.NAME` is the CPU form of a kernel; numba is imported when the first is asked for. `cpu`, `cuda` and
`reference` hold the same names with the same signatures: numba on one core without the GIL, numba-cuda, plain numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cpu import (
        accumulate,
        close_transitions,
        decode_runs,
        denominator,
        encode_runs,
        fill_holes,
        filter_area,
        find_transitions,
        finish,
        gather_tile,
        gaussian_weights,
        label_runs,
        mask_to_runs,
        runs_to_mask,
        shrink,
        shrink_add,
        shrink_finish,
        tissue_count,
        transitions_to_runs,
    )

__all__ = [
    "accumulate",
    "close_transitions",
    "decode_runs",
    "denominator",
    "encode_runs",
    "fill_holes",
    "filter_area",
    "find_transitions",
    "finish",
    "gather_tile",
    "gaussian_weights",
    "label_runs",
    "mask_to_runs",
    "runs_to_mask",
    "shrink",
    "shrink_add",
    "shrink_finish",
    "tissue_count",
    "transitions_to_runs",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import cpu

        return getattr(cpu, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
