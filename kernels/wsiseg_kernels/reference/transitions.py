"""Where the full-size mask toggles, in plain numpy: the band is interpolated whole and compared row by row."""

from __future__ import annotations

import numpy as np

from ..arrays import F32, I32, I64, U8, Runs
from ..definitions import QUANTA, check_band, first_full_row, vote_limit
from .runs import joined


def find_transitions(
    band: F32,
    row0: int,
    col0: int,
    scale: int,
    height: int,
    width: int,
    x0: int,
    x1: int,
    threshold: float,
    inside: U8,
    prev: F32,
    out_x: I32,
    out_y: I32,
    count: int,
) -> int:
    """Where the full-size mask of columns x0..x1 toggles, going down, as far as this band of network rows decides it.

    band float32 [n, cw]: rows row0..row0+n and columns col0..col0+cw of the network grid of a slide of height x width
    slide pixels, multiples of 2**-20 (as `finish` makes them; others are rounded). Interpolation is bilinear with
    half-pixel centres and clamped edges (OpenCV's INTER_LINEAR), evaluated exactly in integers; a pixel is in the mask
    when it is > threshold. `inside` uint8 [x1-x0] and `prev` float32 [cw] carry the state from band to band: give zeros
    with row0 == 0, and the same arrays again with the next band. Full-size rows below the centre of the band's last row
    wait for the next band, unless it is the grid's last.

    Appends (column, row) to out_x, out_y int32 [capacity] from `count` on and returns the new count. Rows of one column
    ascend; the order of columns is not fixed. When the arrays are too small it returns -(capacity needed) and leaves
    `inside` and `prev` as they were (what lies beyond `count` in the arrays is then arbitrary).
    """
    n, cw = band.shape
    check_band(n, cw, row0, col0, scale, height, width, x0, x1)
    if n == 0:
        return count
    last = row0 + n == -(-height // scale)
    top = 0 if row0 == 0 else first_full_row(row0 - 1, scale)
    bottom = height if last else first_full_row(row0 + n - 1, scale)
    known = band if row0 == 0 else np.vstack([prev[None], band])
    q = np.rint(known.astype(np.float64) * QUANTA).astype(np.int64)
    (ya, yb, wy), (xa, xb, wx) = _taps(top, min(bottom, height), height, scale), _taps(x0, x1, width, scale)
    ya, yb, xa, xb = (
        ya - max(row0 - 1, 0),
        np.minimum(yb - max(row0 - 1, 0), len(q) - 1),
        xa - col0,
        xb - col0,
    )
    xa, xb = xa.clip(0, cw - 1), xb.clip(0, cw - 1)
    across = (2 * scale - wx) * q[:, xa] + wx * q[:, xb]
    votes = (2 * scale - wy)[:, None] * across[ya] + wy[:, None] * across[yb]
    mask = np.vstack([inside[None] != 0, votes > vote_limit(threshold, scale)])
    y, x = np.nonzero(mask[1:] != mask[:-1])
    total = count + len(y)
    if total > min(len(out_x), len(out_y)):
        return -total
    out_y[count:total], out_x[count:total] = y + top, x + x0
    inside[:], prev[:] = mask[-1], band[-1]
    return total


def _taps(first: int, last: int, length: int, scale: int) -> tuple[I64, I64, I64]:
    """For full-size positions first..last: both network neighbours, and the second's weight out of 2 * scale."""
    cells = -(-length // scale)
    u = np.clip(2 * np.arange(first, last, dtype=np.int64) + 1 - scale, 0, 2 * scale * (cells - 1))
    a = u // (2 * scale)
    return a, np.minimum(a + 1, cells - 1), u % (2 * scale)


def close_transitions(inside: U8, x0: int, height: int, out_x: I32, out_y: I32, count: int) -> int:
    """Close the columns that are still inside the mask below the slide's last row: a transition at row `height`.

    inside uint8 [columns] of full-size columns from x0 on; it is zeroed. Appends as `find_transitions` does and
    returns the new count, or -(capacity needed) with nothing changed.
    """
    x = np.nonzero(inside)[0]
    total = count + len(x)
    if total > min(len(out_x), len(out_y)):
        return -total
    out_x[count:total], out_y[count:total] = x + x0, height
    inside[:] = 0
    return total


def transitions_to_runs(x: I32, y: I32, x0: int, x1: int, height: int) -> Runs:
    """Pair the transitions of each column into runs, columns in order; runs that meet at a column's border become one.

    x, y int32 [m]: columns in x0..x1 and rows in 0..height; rows of one column ascend. ValueError when a column has an
    odd number of them (`close_transitions` was not called) or lies outside x0..x1.
    """
    if len(x) and (x.min() < x0 or x.max() >= x1):
        raise ValueError(f"a transition lies outside columns {x0}..{x1}")
    order = np.argsort(x, kind="stable")
    column, edge = x[order].astype(np.int64), x[order].astype(np.int64) * height + y[order]
    if len(edge) % 2 or (column[::2] != column[1::2]).any():
        raise ValueError("a column has an odd number of transitions: close_transitions was not called")
    return joined(edge[::2], edge[1::2] - edge[::2])
