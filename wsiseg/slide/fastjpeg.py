"""`--fast-jpeg`: JPEG segments decoded at 1/2, 1/4 or 1/8 in the DCT domain, offered as extra levels of the slide.

Faster than decoding whole and shrinking, but not the exact mean: about 0.3 gray levels apart on stained slides. Off by default. Needs
simplejpeg, which gives libjpeg-turbo's scaling; imagecodecs does not.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Size, ceil_div
from wsiseg.slide.level import U8, Level, Scratch
from wsiseg.slide.segments import JPEG, check_fit
from wsiseg.slide.streams import BadStream, jpeg_frame
from wsiseg.slide.tiffsource import TiffSource

FACTORS = (2, 4, 8)


def available() -> bool:
    """Whether simplejpeg is installed."""
    return importlib.util.find_spec("simplejpeg") is not None


def require() -> None:
    """Raises UsageError when it is not."""
    if not available():
        raise UsageError("--fast-jpeg needs the package simplejpeg; install it, or leave the option out")


def fast_levels(levels: tuple[Level, ...]) -> list[Level]:
    """A level for each JPEG level and factor whose segments divide evenly; [] where the slide is no YCbCr JPEG."""
    found: list[Level] = []
    for level in levels:
        source = level.source
        if not isinstance(source, TiffSource) or not level.downsample or not _usable(source):
            continue
        for factor in FACTORS:
            if np.any(level.ys[1:-1] % factor) or np.any(level.xs[1:-1] % factor):
                continue
            size = Size(ceil_div(level.size.height, factor), ceil_div(level.size.width, factor))
            ys, xs = level.ys // factor, level.xs // factor
            ys[-1], xs[-1] = size.height, size.width
            found.append(
                replace(
                    level,
                    index=len(levels) + len(found),
                    size=size,
                    downsample=level.downsample * factor,
                    ys=ys,
                    xs=xs,
                    source=FastSource(source, factor),
                    note=f"{level.note} decoded at 1/{factor}",
                    exact=False,
                )
            )
    return found


def _usable(source: TiffSource) -> bool:
    layout = source.layout
    plain = layout.samples == 3 and not layout.planar and layout.header is None and layout.orientation == 1
    return layout.compression in JPEG and layout.photometric == 6 and plain


class FastSource:
    """A `SegmentSource` that decodes another's JPEG segments at 1/factor."""

    def __init__(self, whole: TiffSource, factor: int) -> None:
        self._whole, self._factor = whole, factor

    def stored(self, row: int, col: int) -> int:
        return self._whole.stored(row, col)

    def total_stored(self) -> int:
        return self._whole.total_stored()

    def read(self, row: int, col: int, scratch: Scratch) -> U8:
        whole, f = self._whole, self._factor
        layout = whole.layout
        height = ceil_div(min(layout.segment.height, layout.size.height - row * layout.segment.height), f)
        width = ceil_div(min(layout.segment.width, layout.size.width - col * layout.segment.width), f)

        def decode(data: bytes) -> U8:
            import simplejpeg

            frame = jpeg_frame(data)
            check_fit(frame.size, frame.samples, layout.segment, 3)
            if layout.tables:
                data = layout.tables[:-2] + data[2:]
            least = (ceil_div(frame.size.height, f), ceil_div(frame.size.width, f))
            got = simplejpeg.decode_jpeg(
                data,
                "RGB",
                fastdct=False,
                fastupsample=False,
                min_height=least[0],
                min_width=least[1],
                min_factor=1,
            )
            if got.shape[0] < height or got.shape[1] < width or got.shape[:2] != least:
                raise BadStream(
                    f"it decodes to {got.shape[1]} x {got.shape[0]} of {width} x {height} pixels at 1/{f}"
                )
            return np.ascontiguousarray(got[:height, :width])

        return whole.read_stored(row, col, scratch, (height, width), decode)
