"""Have the kernels compiled and loaded before memory is measured and slides arrive."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from wsiseg_kernels import cpu
from wsiseg_kernels.cpu.files import read_plain, scan_state


@contextlib.contextmanager
def warming() -> Iterator[None]:
    """Load the kernels in a thread while the block loads the model: both take half a second, mostly of other cores.

    A failure there is left to the call of `warm_kernels` that follows, which meets it again.
    """

    def warm() -> None:
        with contextlib.suppress(Exception):
            warm_kernels()

    thread = threading.Thread(target=warm, name="wsiseg-warm", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def warm_kernels(classes: int = 1) -> None:
    """Call each kernel of the pipeline once, with the types that the pipeline uses, on a 4 x 4 grid."""
    tile, rows = 4, 4
    weights, den = cpu.gaussian_weights(tile), cpu.denominator(rows, tile, tile)
    ring, out = np.zeros((rows, rows, 3), np.uint8), np.zeros((tile, tile, 3), np.uint8)
    sums, band = np.zeros((classes, rows, rows), np.float32), np.zeros((classes, rows, rows), np.float32)
    cpu.shrink(ring, 2, ring[:2, :2].copy())
    cpu.shrink(ring, 1, ring.copy())
    stream = np.array([0xFF, 0xD9], np.uint8)
    scan_state(stream, stream[:0], True, False, False)
    table, work = np.zeros(1, np.int64), np.zeros((2, 4), np.uint16)
    read_plain(0, 0, table, table, (0, 0, 1, 1, 3), (0, 0, 1, 0, 0, 1), stream, ring, work)  # of no segment
    cpu.gather_tile(ring, -1, -1, rows, rows, 0, 0, 255, out)
    cpu.tissue_count(out, 1)
    cpu.accumulate(sums, np.ones((classes, tile, tile), np.float32), weights, 0, 0, rows)
    cpu.finish(sums, 0, rows, den, den, band)
    x, y = np.empty(64, np.int32), np.empty(64, np.int32)
    inside, previous = np.zeros(8, np.uint8), np.zeros(rows, np.float32)
    count = cpu.find_transitions(band[0], 0, 0, 2, 8, 8, 0, 8, 0.5, inside, previous, x, y, 0)
    count = cpu.close_transitions(inside, 0, 8, x, y, count)
    starts, lengths = cpu.transitions_to_runs(x[:count], y[:count], 0, 8, 8)
    cpu.encode_runs(starts, lengths)
