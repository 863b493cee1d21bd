"""Samples of any supported kind to 8-bit RGB, by documented integer formulas.

gray              R = G = B = v; MINISWHITE first becomes 255 - v
1, 2, 4 bits      v * 255 / (2^bits - 1)
10 to 16 bits     v >> (depth - 8), where depth is the number of bits really used; larger values become 255
palette           the colour map's entry, its 16 bits >> 8
CMYK              round((255 - C) (255 - K) / 255), likewise M and Y
alpha             on white: unassociated round((v a + 255 (255 - a)) / 255); associated v + 255 - a
other extra samples are ignored
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsiseg.errors import UnsupportedSlide
from wsiseg.slide.level import U8, Scratch
from wsiseg.slide.tifflayout import TiffLayout

Array = npt.NDArray[Any]
Convert = Callable[[Sequence[Array], Scratch], U8]

PHOTOMETRIC = {
    0: "MINISWHITE",
    1: "gray",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
}
PHOTOMETRIC |= {9: "ICCLAB", 10: "ITULAB", 32803: "CFA", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}


def photometric_name(code: int) -> str:
    """What people call a photometric interpretation."""
    return PHOTOMETRIC.get(code, f"photometric interpretation {code}")


def converter(path: str | os.PathLike[str], layout: TiffLayout, depth: int) -> Convert:
    """The function from decoded samples (one array [h, w, n], or one [h, w, 1] per plane) to uint8 [h, w, 3].

    `depth` is the number of bits that samples of more than 8 bits really use.

    Raises:
        UnsupportedSlide: the pixel type is not read; the message names it.
    """
    photometric, samples = layout.photometric, layout.samples
    if layout.kind == "f":
        raise UnsupportedSlide(
            path, f"pixels are {layout.bits}-bit floating point; 8 and 16-bit integers are read"
        )
    if layout.kind == "i":
        raise UnsupportedSlide(path, f"pixels are signed {layout.bits}-bit integers; unsigned ones are read")
    if layout.bits > 16:
        raise UnsupportedSlide(path, f"pixels are {layout.bits}-bit integers; at most 16 bits are read")
    jpeg = layout.compression == 7
    aperio = layout.compression == 33003
    if (
        photometric == 6
        and not jpeg
        and not aperio
        and layout.compression not in (33004, 33005, 34712, 50001, 34927)
    ):
        raise UnsupportedSlide(path, "YCbCr pixels without JPEG compression are not read")
    if photometric == 6 and layout.planar:
        raise UnsupportedSlide(path, "YCbCr pixels in separate planes are not read")
    base = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}.get(photometric)
    if base is None:
        raise UnsupportedSlide(path, f"{photometric_name(photometric)} pixels are not read")
    if samples < base:
        raise UnsupportedSlide(
            path, f"{photometric_name(photometric)} needs {base} samples per pixel, not {samples}"
        )
    if base == 1 and samples > 2:
        raise UnsupportedSlide(
            path, f"gray pixels with {samples} samples are not read; RGB or one gray channel is"
        )
    if photometric == 3 and (layout.colormap is None or layout.bits > 8):
        raise UnsupportedSlide(path, "palette pixels without a usable colour map are not read")
    alpha = alpha_kind(layout, base)
    shift = max(0, depth - 8) if layout.bits > 8 else 0

    def to_eight(v: Array) -> U8:
        if layout.bits > 8:
            return np.minimum(v >> shift, 255).astype(np.uint8)
        if layout.bits < 8 and photometric != 3:
            return v * np.uint8(255 // ((1 << layout.bits) - 1))
        return v.astype(np.uint8, copy=False)

    table = None
    if photometric == 3:
        assert layout.colormap is not None
        table = np.zeros((256, 3), np.uint8)
        entries = (layout.colormap.T[:256] >> 8).astype(np.uint8)
        table[: len(entries)] = entries

    def convert(planes: Sequence[Array], scratch: Scratch) -> U8:
        height, width = planes[0].shape[:2]
        first = planes[0]
        if (
            len(planes) == 1
            and first.shape[2] == 3
            and base == 3
            and first.dtype == np.uint8
            and layout.bits == 8
        ):
            return first if not aperio else _ycbcr(first)
        out: U8 = scratch.take("rgb", height * width * 3).reshape(height, width, 3)
        channels = [to_eight(p[..., 0]) for p in planes] if len(planes) > 1 else None
        pixels = None if channels is not None else to_eight(first)
        if base == 1:
            gray = channels[0] if channels is not None else pixels[..., 0]  # type: ignore[index]
            if table is not None:
                np.take(table, gray, axis=0, out=out)
            else:
                value = 255 - gray if photometric == 0 else gray
                cv2.merge([np.ascontiguousarray(value)] * 3, out)
        elif base == 3:
            if channels is not None:
                cv2.merge([np.ascontiguousarray(c) for c in channels[:3]], out)
            else:
                np.copyto(out, pixels[..., :3])  # type: ignore[index]
            if aperio:
                out[:] = _ycbcr(out)
        else:
            cmyk = np.stack(channels[:4], -1) if channels is not None else pixels
            assert cmyk is not None
            white = 255 - cmyk[..., 3:4].astype(np.uint16)
            np.copyto(out, _over_255((255 - cmyk[..., :3]).astype(np.uint16) * white), casting="unsafe")
        if alpha in (1, 2):
            a = channels[base] if channels is not None else pixels[..., base]  # type: ignore[index]
            _on_white(out, a, associated=alpha == 1)
        return out

    return convert


def alpha_kind(layout: TiffLayout, base: int) -> int:
    """How the first extra sample is used: 1 associated alpha, 2 unassociated alpha, 0 not at all.

    A fourth sample that nothing describes is taken as alpha, as Pillow and libtiff do.
    """
    if layout.samples <= base:
        return 0
    if not layout.extra:
        return 2 if layout.samples == base + 1 and layout.bits >= 8 else 0
    return layout.extra[0] if layout.extra[0] in (1, 2) else 0


def _over_255(product: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """round(product / 255) for products of two bytes."""
    wide = product.astype(np.uint32) + 128
    return ((wide + (wide >> 8)) >> 8).astype(np.uint16)


def _on_white(rgb: U8, alpha: U8, *, associated: bool) -> None:
    a = alpha[..., None].astype(np.uint16)
    if associated:
        np.copyto(rgb, np.minimum(rgb + (255 - a), 255), casting="unsafe")
    else:
        np.copyto(rgb, _over_255(rgb * a) + (255 - a), casting="unsafe")


def _ycbcr(pixels: U8) -> U8:
    """Full-range BT.601 YCbCr to RGB, as JFIF defines it."""
    y, cb, cr = (pixels[..., i].astype(np.int32) for i in range(3))
    cb, cr = cb - 128, cr - 128
    red = y + ((91881 * cr + 32768) >> 16)
    green = y + ((32768 - 22554 * cb - 46802 * cr) >> 16)
    blue = y + ((116130 * cb + 32768) >> 16)
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)
