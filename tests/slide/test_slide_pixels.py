"""Every pixel type that is read, against the documented formula written plainly here."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from slide_samples import patch_tag, picture, plain_shrink, read_path, read_slide, write_tiff

from wsiseg.slide import DecodePool, open_slide

PICTURE = picture(97, 130)
GRAY = PICTURE[..., 1]
ALPHA = PICTURE[..., 2]


def three(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, 2)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, array, metadata=None, **options)
    return path


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    v, a = rgb.astype(float), alpha.astype(float)[..., None]
    return np.floor(v * a / 255 + 0.5).astype(int) + 255 - alpha.astype(int)[..., None]


def rgba(path: Path) -> np.ndarray:
    save(path, np.dstack([PICTURE, ALPHA]), photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32))
    return on_white(PICTURE, ALPHA)


def rgba_planar(path: Path) -> np.ndarray:
    stack = np.ascontiguousarray(np.moveaxis(np.dstack([PICTURE, ALPHA]), -1, 0))
    save(path, stack, photometric="rgb", extrasamples=["unassalpha"], planarconfig="separate", rowsperstrip=9)
    return on_white(PICTURE, ALPHA)


def rgba_premultiplied(path: Path) -> np.ndarray:
    less = np.minimum(PICTURE, ALPHA[..., None])
    save(path, np.dstack([less, ALPHA]), photometric="rgb", extrasamples=["assocalpha"])
    return less.astype(int) + 255 - ALPHA.astype(int)[..., None]


def rgb_and_unspecified(path: Path) -> np.ndarray:
    save(path, np.dstack([PICTURE, ALPHA]), photometric="rgb", extrasamples=["unspecified"])
    return PICTURE


def rgba_16(path: Path) -> np.ndarray:
    save(
        path,
        np.dstack([PICTURE, ALPHA]).astype(np.uint16) * 257,
        photometric="rgb",
        extrasamples=["unassalpha"],
    )
    return on_white(PICTURE, ALPHA)


def gray(path: Path) -> np.ndarray:
    save(path, GRAY, photometric="minisblack", tile=(32, 32), compression="zlib")
    return three(GRAY)


def gray_alpha(path: Path) -> np.ndarray:
    save(
        path,
        np.dstack([GRAY, ALPHA]),
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    return on_white(three(GRAY), ALPHA)


def gray_jpeg(path: Path) -> np.ndarray:
    save(path, GRAY, photometric="minisblack", tile=(32, 32), compression="jpeg")
    return three(tifffile.imread(path))


def miniswhite(path: Path) -> np.ndarray:
    save(path, GRAY, photometric="miniswhite")
    return three(255 - GRAY)


def miniswhite_16(path: Path) -> np.ndarray:
    save(path, GRAY.astype(np.uint16) * 257, photometric="miniswhite")
    return three(255 - GRAY)


def palette(path: Path) -> np.ndarray:
    colours = np.random.default_rng(1).integers(0, 65536, (3, 256), dtype=np.uint16)
    save(path, GRAY, photometric="palette", colormap=colours, compression="lzw")
    return (colours >> 8).astype(np.uint8).T[GRAY]


def bilevel(path: Path) -> np.ndarray:
    bits = GRAY > 127
    save(path, bits, photometric="minisblack")
    return three(bits * np.uint8(255))


def cmyk(path: Path) -> np.ndarray:
    data = np.dstack([PICTURE, ALPHA])
    save(path, data, photometric="separated", tile=(32, 32))
    product = (255 - data[..., :3].astype(float)) * (255 - data[..., 3:].astype(float)) / 255
    return np.floor(product + 0.5)


def deep(bits: int, order: str = "<", **options: object) -> Callable[[Path], np.ndarray]:
    """16-bit samples that use `bits` bits; the top byte of those is the 8-bit picture."""

    def make(path: Path) -> np.ndarray:
        rng = np.random.default_rng(bits)
        low = rng.integers(0, 1 << (bits - 8), PICTURE.shape)
        full = (PICTURE.astype(np.uint16) << (bits - 8)) | low.astype(np.uint16)
        full[5, 5] = (1 << bits) - 1
        save(path, full, photometric="rgb", byteorder=order, **options)
        return full >> (bits - 8)

    return make


def twelve_packed(path: Path) -> np.ndarray:
    full = GRAY.astype(np.uint16) * 16 + 3
    packed = bytearray()
    for row in np.pad(full, ((0, 0), (0, full.shape[1] % 2))):
        for a, b in zip(row[::2].tolist(), row[1::2].tolist(), strict=True):
            packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    save(path, np.zeros((97, 195), np.uint8), photometric="minisblack", rowsperstrip=1 << 20)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(packed)
    patch_tag(path, 256, value=struct.pack("<I", 130))
    patch_tag(path, 258, value=struct.pack("<H", 12))
    return three(full >> 4)


KINDS: dict[str, Callable[[Path], np.ndarray]] = {
    "RGBA on white": rgba,
    "planar RGBA": rgba_planar,
    "premultiplied RGBA": rgba_premultiplied,
    "RGB and an undefined channel": rgb_and_unspecified,
    "16-bit RGBA": rgba_16,
    "gray": gray,
    "gray and alpha": gray_alpha,
    "gray JPEG": gray_jpeg,
    "MINISWHITE": miniswhite,
    "16-bit MINISWHITE": miniswhite_16,
    "palette": palette,
    "1 bit": bilevel,
    "CMYK": cmyk,
    "12 bits, packed": twelve_packed,
    "16 bits, all used": deep(16),
    "16 bits, 12 used": deep(12, tile=(32, 32), compression="zlib", predictor=True),
    "16 bits, 10 used, big-endian": deep(10, ">", rowsperstrip=7),
    "16 bits, 14 used, JPEG 2000": deep(14, tile=(32, 32), compression="jpeg2000"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_follow_the_formula(tmp_path: Path, pool: DecodePool, kind: str) -> None:
    path = tmp_path / "slide.tif"
    want = KINDS[kind](path).astype(np.uint8)
    for scale in (1, 3):
        np.testing.assert_array_equal(read_path(path, scale, pool), plain_shrink(want, scale))


def test_depth_is_noticed_and_the_same_for_every_panel(tmp_path: Path, pool: DecodePool) -> None:
    path = tmp_path / "slide.tif"
    want = deep(12)(path)
    with open_slide(path) as slide:
        assert any("12 bits are used" in w for w in slide.warnings)
        for x0, x1 in ((0, 30), (30, 31), (31, 130)):
            np.testing.assert_array_equal(read_slide(slide, 1, pool, columns=(x0, x1)), want[:, x0:x1])


def test_aperio_ycbcr_in_jpeg_2000(tmp_path: Path, pool: DecodePool) -> None:
    """Compression 33003: YCbCr components under a tag that says RGB; tifffile leaves them unconverted."""
    converted = cv2.cvtColor(picture(128, 192), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    tiles = [
        imagecodecs.jpeg2k_encode(np.ascontiguousarray(converted[y : y + 64, x : x + 64]), mct=False)
        for y in (0, 64)
        for x in (0, 64, 128)
    ]
    path = tmp_path / "s.svs"
    tifffile.imwrite(
        path, iter(tiles), shape=converted.shape, dtype="u1", photometric="rgb", tile=(64, 64), metadata=None,
        compression=34712, description="Aperio Image Library v1|MPP = 0.5",
    )  # fmt: skip
    patch_tag(path, 259, value=struct.pack("<H", 33003))
    y, cb, cr = converted.astype(float).transpose(2, 0, 1) - np.array([0, 128, 128])[:, None, None]
    want = np.dstack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb]).clip(0, 255)
    assert np.abs(read_path(path, 1, pool) - want).max() < 0.51


SHOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("how", [{"tile": (32, 48)}, {"rowsperstrip": 10}, {"rowsperstrip": 1}], ids=str)
def test_orientations(tmp_path: Path, pool: DecodePool, orientation: int, how: dict[str, object]) -> None:
    path = write_tiff(tmp_path / "slide.tif", PICTURE, extratags=[(274, 3, 1, orientation, True)], **how)
    want = np.ascontiguousarray(SHOWN[orientation](PICTURE))
    with open_slide(path) as slide:
        for scale in (1, 2, 3, 7):
            np.testing.assert_array_equal(read_slide(slide, scale, pool), plain_shrink(want, scale))
