"""Caps on what a slide's headers may ask for, checked before anything is allocated."""

from __future__ import annotations

import os

from wsiseg.errors import UnsupportedSlide
from wsiseg.units import format_bytes

# A slide has at most this many pixels: ten times the largest that scanners make.
MAX_PIXELS = 250 * 10**9
# Longest side; a network coordinate and a run's column stay far within 32 bits.
MAX_SIDE = 2_000_000
# Bytes of one decoded tile or strip. It is held whole by every decoding thread.
MAX_SEGMENT_BYTES = 512 * 2**20
# Bytes of one stored tile or strip: compression may not grow pixels by more than this factor, plus headers.
MAX_GROWTH, MAX_STORED_EXTRA = 4, 1 << 16
# Tiles or strips of one level; their offsets and counts take 16 bytes each.
MAX_SEGMENTS = 64_000_000
# Images (pages and sub-images) of one file that are looked at.
MAX_PAGES = 1000
# Channels of one pixel.
MAX_SAMPLES = 64
# A whole PNG or JPEG file is decoded at once.
MAX_IMAGE_PIXELS = 100_000_000


def check_size(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Refuse sizes that no slide has.

    Raises:
        UnsupportedSlide: with the size and the limit.
    """
    if height < 1 or width < 1:
        raise UnsupportedSlide(path, f"the header says {width} x {height} pixels, which is empty")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise UnsupportedSlide(
            path,
            f"the header says {width} x {height} pixels; at most {MAX_SIDE} on a side "
            f"and {MAX_PIXELS // 10**9} gigapixels are read",
        )


def check_segment(path: str | os.PathLike[str], nbytes: int, what: str) -> None:
    """Refuse a tile, strip or chunk whose decoded form is too large to hold.

    Raises:
        UnsupportedSlide: with its size and the limit.
    """
    if nbytes > MAX_SEGMENT_BYTES:
        raise UnsupportedSlide(
            path,
            f"one {what} decodes to {format_bytes(nbytes)}; at most {format_bytes(MAX_SEGMENT_BYTES)} are held at once",
            "convert the slide to tiles",
        )
