"""Every kernel for NVIDIA GPUs in numba-cuda, with the names, signatures and bytes of `reference`.

Arrays may lie on the host or on the device (numba device arrays, or anything with the CUDA array interface). Host
arrays are copied there and back around each call, which is convenient and slow; keep rings and bands on the device.
All launches go to the default stream. Importing needs no GPU; the first launch does, unless NUMBA_ENABLE_CUDASIM=1 was
set before numba was imported.

Lists of runs are handled by the CPU's kernels, here as there: they are a thousand times smaller than the pixels they
stand for, walked in order with every step depending on the last, and wanted on the host, as text. Sending 60,000 of
them to a device and back takes longer than the CPU takes for the work (half a millisecond). So `encode_runs`,
`decode_runs`, `label_runs`, `filter_area` and `fill_holes` take and return host arrays, and `transitions_to_runs` takes
either and returns host arrays.
"""

from __future__ import annotations

from ..cpu import decode_runs, encode_runs, fill_holes, filter_area, label_runs
from ..definitions import denominator, gaussian_weights
from .blend import accumulate, finish
from .columns import close_transitions, find_transitions, mask_to_runs, runs_to_mask, transitions_to_runs
from .pixels import gather_tile, shrink, shrink_add, shrink_finish, tissue_count

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
