"""Whether a lower resolution really is the slide: some real files carry levels of other pixels, or none at all.

A few windows of the full size are shrunk and compared with the same places of the level. The level's error is the mean
absolute difference of its pixels to the block means, or to the blocks' centre pixels where that is smaller (some
writers pick pixels instead of averaging). Pixels of another picture differ by about as much as the picture itself
varies, so a level is accepted when its error stays below `TOLERANCE` gray levels or half of that variation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsiseg.errors import BadSegment
from wsiseg.slide.level import U8, Level, Scratch

TOLERANCE = 8.0
# Work per level: at most this many windows, and about this many pixels decoded of the full size.
WINDOWS, PIXELS = 12, 24_000_000
WINDOW_SIDE = 256
MAX_DOWNSAMPLE = 1024


def mismatch(full: Level, lower: Level) -> str | None:
    """Why `lower` is not a reduction of `full`; None when it is."""
    d = lower.downsample
    if not 2 <= d <= MAX_DOWNSAMPLE:
        return f"it is reduced {d} times; 2 to {MAX_DOWNSAMPLE} are used"
    scratch = Scratch()
    wanted, means, centres = [], [], []
    for y, x, height, width in _windows(full, lower):
        try:
            big = read_window(full, y * d, x * d, height * d, width * d, scratch)
            small = read_window(lower, y, x, height, width, scratch)
        except BadSegment:
            continue
        blocks = big.reshape(height, d, width, d, 3)
        means.append(blocks.mean((1, 3), dtype=np.float32).reshape(-1, 3))
        centres.append(blocks[:, d // 2, :, d // 2].astype(np.float32).reshape(-1, 3))
        wanted.append(small.astype(np.float32).reshape(-1, 3))
    if not wanted:
        return "none of the places compared can be read"
    got, mean, centre = np.concatenate(wanted), np.concatenate(means), np.concatenate(centres)
    error = float(min(np.abs(got - mean).mean(), np.abs(got - centre).mean()))
    variation = float(np.abs(mean - mean.mean(0)).mean())
    if error > max(TOLERANCE, variation / 2):
        return f"its pixels differ from the full size by {error:.0f} gray levels"
    return None


def read_window(level: Level, y: int, x: int, height: int, width: int, scratch: Scratch) -> U8:
    """Pixels [y, y + height) x [x, x + width) of a level, uint8 [height, width, 3]; decodes all it touches.

    Raises:
        BadSegment: a segment is damaged.
    """
    out = np.empty((height, width, 3), np.uint8)
    for i in _between(level.ys, y, y + height):
        for j in _between(level.xs, x, x + width):
            src = level.source.read(i, j, scratch)
            top, left = int(level.ys[i]), int(level.xs[j])
            y0, y1 = max(y, top), min(y + height, top + src.shape[0])
            x0, x1 = max(x, left), min(x + width, left + src.shape[1])
            out[y0 - y : y1 - y, x0 - x : x1 - x] = src[y0 - top : y1 - top, x0 - left : x1 - left]
    return out


def _between(edges: npt.NDArray[np.int64], first: int, end: int) -> range:
    return range(int(np.searchsorted(edges, first, "right")) - 1, int(np.searchsorted(edges, end, "left")))


def _windows(full: Level, lower: Level) -> list[tuple[int, int, int, int]]:
    """(y, x, height, width) in pixels of `lower`, spread over the slide, each wholly inside both levels."""
    d = lower.downsample
    rows, cols = min(lower.size.height, full.size.height // d), min(lower.size.width, full.size.width // d)
    height, width = (min(n, max(1, WINDOW_SIDE // d)) for n in (rows, cols))
    if height < 1 or width < 1:
        return []
    decoded = (full.segment.height + height * d) * (full.segment.width + width * d)
    count = max(1, min(WINDOWS, PIXELS // decoded))
    # Evenly down the slide, and across it by the golden ratio: no row or column is met twice.
    down = [(k + 0.5) / count for k in range(count)]
    across = [(0.5 + k * 0.6180339887) % 1 for k in range(count)]
    return [
        (round(v * (rows - height)), round(u * (cols - width)), height, width)
        for v, u in zip(down, across, strict=True)
    ]
