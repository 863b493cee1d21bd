"""PNG and JPEG files, and Hamamatsu's JPEG in parts between restart markers."""

from __future__ import annotations

from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from slide_samples import picture, plain_shrink, read_path

from wsiseg.errors import UnsupportedSlide
from wsiseg.slide import DecodePool, open_slide

PICTURE = picture(70, 90)
GRAY = np.ascontiguousarray(PICTURE[..., 0])


def three(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, 2)


@pytest.mark.parametrize("kind", ["RGB", "gray", "16-bit RGB", "16-bit gray", "RGBA"])
def test_png(tmp_path: Path, pool: DecodePool, kind: str) -> None:
    alpha = PICTURE[..., 2:]
    blended = np.floor(PICTURE * (alpha / 255.0) + 0.5).astype(int) + 255 - alpha
    image, want = {
        "RGB": (PICTURE, PICTURE),
        "gray": (GRAY, three(GRAY)),
        "16-bit RGB": (PICTURE.astype(np.uint16) * 257, PICTURE),
        "16-bit gray": (GRAY.astype(np.uint16) * 257, three(GRAY)),
        "RGBA": (np.ascontiguousarray(np.dstack([PICTURE, alpha])), blended.astype(np.uint8)),
    }[kind]
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(image))
    for scale in (1, 3):
        np.testing.assert_array_equal(read_path(path, scale, pool), plain_shrink(want, scale))


def test_jpeg_and_gray_jpeg(tmp_path: Path, pool: DecodePool) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(PICTURE))
    np.testing.assert_array_equal(read_path(path, 1, pool), imagecodecs.jpeg8_decode(path.read_bytes()))
    path.write_bytes(imagecodecs.jpeg8_encode(GRAY))
    np.testing.assert_array_equal(
        read_path(path, 1, pool), three(imagecodecs.jpeg8_decode(path.read_bytes()))
    )


def test_cmyk_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    four = np.ascontiguousarray(np.dstack([PICTURE, GRAY]))
    path.write_bytes(imagecodecs.jpeg8_encode(four, colorspace="CMYK", outcolorspace="CMYK"))
    with pytest.raises(UnsupportedSlide, match="CMYK JPEG files are not read"):
        open_slide(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["little", "big"])
def test_exif_orientation(tmp_path: Path, pool: DecodePool, orientation: int, order: str) -> None:
    plain = imagecodecs.jpeg8_encode(PICTURE)
    mark, number = (
        (b"II*\0", lambda v, n: v.to_bytes(n, "little"))
        if order == "little"
        else (b"MM\0*", lambda v, n: v.to_bytes(n, "big"))
    )
    entry = number(274, 2) + number(3, 2) + number(1, 4) + number(orientation, 2) + b"\0\0"
    exif = b"Exif\0\0" + mark + number(8, 4) + number(1, 2) + entry + bytes(4)
    path = tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    shown = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    got = read_path(path, 1, pool)
    assert got.shape == shown.shape
    assert np.abs(got.astype(int) - shown).max() <= 4


def test_ndpi_parts(tmp_path: Path, pool: DecodePool) -> None:
    """Hamamatsu stores one JPEG per page and lists where its restart markers are; each part is read by itself."""
    image = picture(256, 512, noise=4)
    how = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_RST_INTERVAL, 8]
    how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), how)[1].tobytes()
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    starts = [at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    starts += [
        i + 2 for i in range(starts[0], len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7
    ]
    path = tmp_path / "a.ndpi.tif"
    tifffile.imwrite(
        path, iter([data]), shape=image.shape, dtype="u1", photometric="ycbcr", compression="jpeg", rowsperstrip=256,
        metadata=None, subsampling=(1, 1),
        extratags=[(271, 2, None, "Hamamatsu", True), (65420, 4, 1, 1, True), (65421, 11, 1, 20.0, True), (65426, 4, len(starts), tuple(starts), True)],
    )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.format == "Hamamatsu NDPI"
        assert slide.levels[0].segment.height == 8
    whole = imagecodecs.jpeg8_decode(data)
    for scale in (1, 3):
        np.testing.assert_array_equal(read_path(path, scale, pool), plain_shrink(whole, scale))
