"""Every kernel in plain numpy: slow, and so simple that it is obviously right. The fast forms are tested against it.

Order is (y, x). A row y of a ring of R rows lies at ring[y % R]. "Network" rows and columns are those of the grid that
the network sees, `scale` times coarser than the slide's own ("full-size") pixels.
"""

from __future__ import annotations

from ..definitions import denominator, gaussian_weights
from .objects import fill_holes, filter_area, label_runs
from .pixels import accumulate, finish, gather_tile, shrink, shrink_add, shrink_finish, tissue_count
from .runs import decode_runs, encode_runs, mask_to_runs, runs_to_mask
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
