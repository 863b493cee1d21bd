"""Every kernel in numba on one core: releases the GIL, allocates little, gives the bytes of `reference`.

Arrays are best C-contiguous; those named in `gather_tile`, `shrink` and `tissue_count` must be. What each kernel means
is told in `reference`.
"""

from __future__ import annotations

from ..definitions import denominator, gaussian_weights
from .blend import accumulate, finish
from .objects import fill_holes, filter_area, label_runs
from .runs import decode_runs, encode_runs, mask_to_runs, runs_to_mask
from .shrink import shrink
from .sums import shrink_add, shrink_finish
from .tiles import gather_tile, tissue_count
from .transitions import close_transitions, find_transitions, transitions_to_runs

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
