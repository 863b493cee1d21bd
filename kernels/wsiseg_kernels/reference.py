"""Every kernel in plain numpy: slow, and so simple that it is obviously right. The fast forms are tested against it.

Order is (y, x). A row y of a ring of R rows lies at ring[y % R]. "Network" rows and columns are those of the grid that
the network sees, `scale` times coarser than the slide's own ("full-size") pixels.
"""

from __future__ import annotations

import re

import numpy as np

from .arrays import F32, I32, I64, U8, U32, Runs
from .definitions import (
    FILL_REFLECT,
    QUANTA,
    TISSUE_GRAY_DARK,
    TISSUE_MAX_DARK,
    TISSUE_MIN_BRIGHT,
    TISSUE_MIN_CHROMA,
    check_band,
    denominator,
    first_full_row,
    gaussian_weights,
    vote_limit,
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


def accumulate(acc: F32, prob: F32, weights: F32, y0: int, x0: int, height: int) -> None:
    """Add one tile's weighted probabilities to the ring of sums.

    acc float32 [C, R, w], row y of the grid at acc[:, y % R]; prob float32 [C, T, T]; weights float32 [T]; the tile's
    corner (y0, x0) may be negative. Only rows in [0, height) and columns in [0, w) are touched. Each element gets
    (weights[i] * weights[j]) * prob[c, i, j], rounded to float32 after each of the three operations (never fused).
    """
    rows, w, tile = acc.shape[1], acc.shape[2], prob.shape[1]
    j0, j1 = max(0, -x0), min(tile, w - x0)
    if j1 <= j0:
        return
    for i in range(max(0, -y0), min(tile, height - y0)):
        acc[:, (y0 + i) % rows, x0 + j0 : x0 + j1] += (weights[i] * weights[j0:j1]) * prob[:, i, j0:j1]


def finish(acc: F32, y0: int, y1: int, den_y: F32, den_x: F32, out: F32) -> None:
    """Divide finished rows by their denominators, quantise, and zero them in the ring.

    acc float32 [C, R, w]; rows y0..y1 (y1 - y0 <= R); den_y float32 [y1-y0], den_x float32 [w]; out float32
    [C, y1-y0, w] gets rint(sum / (den_y * den_x) * 2**20) / 2**20. The quantum makes all that follows exact integer
    arithmetic.
    """
    quanta = np.float32(QUANTA)
    for y in range(y0, y1):
        row = acc[:, y % acc.shape[1]]
        out[:, y - y0] = np.rint(row / (den_y[y - y0] * den_x) * quanta) / quanta
        row[:] = 0


def shrink(src: U8, scale: int, out: U8) -> None:
    """Exact mean of every scale x scale block, rounded half up; ragged blocks at the right and bottom edge.

    src uint8 [bh, bw, 3], its corner on a block's corner; out uint8 [ceil(bh/scale), ceil(bw/scale), 3].
    """
    bh, bw = src.shape[:2]
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            block = src[v * scale : min(bh, (v + 1) * scale), u * scale : min(bw, (u + 1) * scale)]
            n = block.shape[0] * block.shape[1]
            out[v, u] = (block.reshape(n, 3).sum(0, dtype=np.int64) + n // 2) // n


def shrink_add(src: U8, y0: int, x0: int, scale: int, sums: U32) -> None:
    """Add slide pixels to the sums of the network pixels they lie under, wherever the segment's corner is.

    src uint8 [bh, bw, 3] with its corner at slide pixel (y0, x0), both counted from the sums' own origin; sums uint32
    [R, w, 3], network row v at sums[v % R]. Pixels left of or above the origin or right of column w are ignored.
    """
    for i in range(max(0, -y0), src.shape[0]):
        row = sums[(y0 + i) // scale % sums.shape[0]]
        for j in range(max(0, -x0), min(src.shape[1], row.shape[0] * scale - x0)):
            row[(x0 + j) // scale] += src[i, j]


def shrink_finish(sums: U32, row: int, scale: int, height: int, width: int, out: U8) -> None:
    """Turn one network row of sums into means over the pixels really there, rounded half up, and zero the sums.

    sums uint32 [R, w, 3]; `row` the network row; (height, width) the slide's size in slide pixels, counted from the
    sums' origin; out uint8 [w, 3].
    """
    line = sums[row % sums.shape[0]]
    for u in range(line.shape[0]):
        n = min(scale, height - row * scale) * min(scale, width - u * scale)
        out[u] = (line[u].astype(np.int64) + n // 2) // n
    line[:] = 0


def _reflected(first: int, count: int, length: int) -> I64:
    """Where positions first..first+count lie when the signal is mirrored about its first and last sample."""
    period = max(1, 2 * (length - 1))
    i = np.arange(first, first + count, dtype=np.int64) % period
    return np.minimum(i, period - i) if length > 1 else np.zeros(count, np.int64)


def gather_tile(
    ring: U8, y0: int, x0: int, height: int, width: int, col0: int, fill: int, value: int, out: U8
) -> None:
    """Copy one tile out of the ring of network rows, filling what lies outside the slide.

    ring uint8 [R, w, 3] holds network columns col0..col0+w of a grid of height x width, row y at ring[y % R]; the tile's
    corner (y0, x0) may be negative; out uint8 [T, T, 3]. fill 0: mirror about the edge pixels (reflect-101); 1: the
    constant `value`. A column that the ring does not hold is taken from the nearest one that it does.
    """
    ys, xs = np.arange(y0, y0 + out.shape[0]), np.arange(x0, x0 + out.shape[1])
    rows = _reflected(y0, len(ys), height)
    cols = np.clip(_reflected(x0, len(xs), width) - col0, 0, ring.shape[1] - 1)
    out[:] = ring[(rows % ring.shape[0])[:, None], cols]
    if fill != FILL_REFLECT:
        out[(ys < 0) | (ys >= height)] = value
        out[:, (xs < 0) | (xs >= width)] = value


def tissue_count(tile: U8, limit: int) -> int:
    """How many pixels of a tile are tissue, or `limit` when there are at least that many (counting may stop there).

    tile uint8 [h, w, 3] RGB. Tissue: max >= 20, and max - min >= 12 with min <= 235, or min <= 200.
    """
    hi, lo = tile.max(2).astype(int), tile.min(2).astype(int)
    coloured = (hi - lo >= TISSUE_MIN_CHROMA) & (lo <= TISSUE_MAX_DARK)
    tissue = (hi >= TISSUE_MIN_BRIGHT) & (coloured | (lo <= TISSUE_GRAY_DARK))
    return min(int(tissue.sum()), max(limit, 0))


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
    return _joined(edge[::2], edge[1::2] - edge[::2])


def _joined(starts: I64, lengths: I64) -> Runs:
    """The canonical form of sorted runs: those that touch are one."""
    ends = starts + lengths
    first = np.ones(len(starts), bool)
    first[1:] = starts[1:] != ends[:-1]
    last = np.append(first[1:], True)[: len(starts)]
    return starts[first], ends[last] - starts[first]


def encode_runs(starts: I64, lengths: I64) -> bytes:
    """ASCII "start length start length ..." with 1-based starts; nothing for no runs. int64 [n] each."""
    pairs = zip(starts.tolist(), lengths.tolist(), strict=True)
    return " ".join(f"{start + 1} {length}" for start, length in pairs).encode("ascii")


def decode_runs(text: bytes) -> Runs:
    """The runs of "start length ..." text as int64, 0-based, in the text's order; their values are not judged.

    Numbers are unsigned decimal and fit int64, between ASCII white space. ValueError says at which byte it is not so.
    """
    values = []
    for token in re.finditer(rb"[^ \t\r\n]+", text):
        word = token.group()
        bad = re.search(rb"[^0-9]", word)
        if bad:
            raise ValueError(f"byte {token.start() + bad.start()}: not a digit")
        if int(word) > np.iinfo(np.int64).max:
            raise ValueError(f"byte {token.start()}: number too large")
        values.append(int(word))
    if len(values) % 2:
        raise ValueError(f"byte {len(text)}: a start without a length")
    pairs = np.array(values, np.int64).reshape(-1, 2)
    return pairs[:, 0] - 1, pairs[:, 1].copy()


def runs_to_mask(starts: I64, lengths: I64, height: int, y0: int, x0: int, out: U8) -> None:
    """Draw the window of the mask whose corner is slide pixel (y0, x0): 1 inside runs, 0 elsewhere and off the slide.

    starts, lengths int64 [n], sorted, not overlapping; height the slide's; out uint8 [h, w].
    """
    out[:] = 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        for flat in range(start, start + length):
            x, y = divmod(flat, height)
            if 0 <= x - x0 < out.shape[1] and 0 <= y - y0 < out.shape[0]:
                out[y - y0, x - x0] = 1


def mask_to_runs(mask: U8) -> Runs:
    """The canonical runs of a mask uint8 [H, W]: non-zero is inside."""
    flat = np.concatenate([[0], (mask != 0).T.ravel().astype(np.int8), [0]])
    edges = np.nonzero(np.diff(flat))[0].astype(np.int64)
    return edges[::2], edges[1::2] - edges[::2]


def _split(starts: I64, lengths: I64, height: int) -> Runs:
    """The same pixels with every run inside one column."""
    pieces = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        while length > 0:
            piece = min(length, height - start % height)
            pieces.append((start, piece))
            start, length = start + piece, length - piece
    pairs = np.array(pieces, np.int64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _components(starts: I64, lengths: I64, height: int, reach: int) -> I32:
    """Component of each column-wise run, numbered by first run; reach 1 joins diagonal neighbours, 0 does not."""
    column, top = starts // height, starts % height
    bottom = top + lengths
    labels = np.full(len(starts), -1, np.int32)
    count = 0
    for first in range(len(starts)):
        if labels[first] >= 0:
            continue
        labels[first], todo = count, [first]
        while todo:
            i = todo.pop()
            near = (np.abs(column - column[i]) == 1) & (top < bottom[i] + reach) & (top[i] < bottom + reach)
            for k in np.nonzero(near & (labels < 0))[0]:
                labels[k] = count
                todo.append(int(k))
        count += 1
    return labels


def label_runs(
    starts: I64, lengths: I64, height: int, connectivity: int = 8
) -> tuple[I32, int, I64, I64]:
    """The 8-connected (or 4-connected) components of a mask, on its runs.

    Returns (labels int32 [m], count, starts int64 [m], lengths int64 [m]): the runs cut at column borders, and for each
    its component, 0..count-1 in the order of the components' first runs.
    """
    starts, lengths = _split(starts, lengths, height)
    labels = _components(starts, lengths, height, 1 if connectivity == 8 else 0)
    return labels, int(labels.max(initial=-1)) + 1, starts, lengths


def filter_area(starts: I64, lengths: I64, height: int, min_area: int) -> Runs:
    """The runs without the 8-connected components of fewer than `min_area` pixels, in canonical form."""
    labels, count, starts, lengths = label_runs(starts, lengths, height)
    area = np.zeros(count, np.int64)
    np.add.at(area, labels, lengths)
    keep = area[labels] >= min_area
    return _joined(starts[keep], lengths[keep])


def _complement(starts: I64, lengths: I64, total: int) -> Runs:
    """The runs of everything that is not in these runs, in 0..total."""
    edges = np.concatenate([[0], np.column_stack([starts, starts + lengths]).ravel(), [total]]).astype(
        np.int64
    )
    begin, end = edges[::2], edges[1::2]
    return begin[begin < end], (end - begin)[begin < end]


def fill_holes(starts: I64, lengths: I64, height: int, width: int, max_area: int) -> Runs:
    """The runs with the holes filled that have fewer than `max_area` pixels, in canonical form.

    A hole is a 4-connected component of the background that does not touch the slide's border.
    """
    starts, lengths = _split(*_complement(starts, lengths, height * width), height)
    labels = _components(starts, lengths, height, 0)
    area = np.zeros(int(labels.max(initial=-1)) + 1, np.int64)
    np.add.at(area, labels, lengths)
    column, top = starts // height, starts % height
    border = (column == 0) | (column == width - 1) | (top == 0) | (top + lengths == height)
    open_ = np.zeros(len(area), bool)
    open_[labels[border]] = True
    kept = (open_ | (area >= max_area))[labels]
    return _complement(*_joined(starts[kept], lengths[kept]), height * width)
