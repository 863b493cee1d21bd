"""The eight orientations of TIFF and EXIF: how stored pixels are turned to be shown."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from wsiseg.slide.level import U8


@dataclass(frozen=True, slots=True)
class Turn:
    """Transpose first, then flip."""

    transpose: bool
    flip_y: bool
    flip_x: bool

    def apply(self, pixels: U8) -> U8:
        """uint8 [h, w, 3] as shown, C-contiguous."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.flip_y:
            pixels = pixels[::-1]
        if self.flip_x:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)


def turn(orientation: int) -> Turn:
    """The turn of orientation 1 to 8."""
    return Turn(orientation >= 5, orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7))


def exif_orientation(jpeg: bytes) -> int:
    """The orientation that a JPEG's EXIF header gives; 1 when there is none or it can't be understood."""
    at = jpeg.find(b"Exif\0\0", 0, 65536)
    if at < 0:
        return 1
    body = jpeg[at + 6 : at + 6 + 65536]
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    try:
        if order is None:
            return 1
        start = struct.unpack_from(f"{order}I", body, 4)[0]
        for i in range(struct.unpack_from(f"{order}H", body, start)[0]):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", body, start + 2 + 12 * i)
            if tag == 274:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
