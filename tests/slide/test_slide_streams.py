"""Sizes and wholeness of compressed streams, told without decoding them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from slide_samples import picture

from wsiseg.geometry import Size
from wsiseg.slide.streams import (
    BadStream,
    Frame,
    JpegFrames,
    jpeg2000_frame,
    jpeg_frame,
    jpeg_headers,
    jpegxl_frame,
    webp_frame,
)

SIZES = [(8, 8), (64, 48), (1, 1), (301, 17), (256, 256), (40, 320)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(size: tuple[int, int]) -> None:
    image = picture(*size)
    assert jpeg_frame(imagecodecs.jpeg8_encode(image)).size == Size(*size)
    assert webp_frame(imagecodecs.webp_encode(image)).size == Size(*size)
    assert webp_frame(imagecodecs.webp_encode(image, lossless=True)).size == Size(*size)
    assert jpeg2000_frame(imagecodecs.jpeg2k_encode(image)).size == Size(*size)
    assert jpeg2000_frame(imagecodecs.jpeg2k_encode(image, codecformat="jp2")).size == Size(*size)
    assert jpegxl_frame(imagecodecs.jpegxl_encode(image)).size == Size(*size)
    assert jpegxl_frame(imagecodecs.jpegxl_encode(image, usecontainer=True)).size == Size(*size)


def said(measure: Callable[[bytes], Frame], data: bytes) -> Frame | str:
    """The frame, or what is wrong with the stream."""
    try:
        return measure(data)
    except BadStream as error:
        return str(error)


def test_remembered_headers_change_nothing() -> None:
    """Streams with the same headers, with other ones, and damaged ones, before and behind the scan's beginning."""
    streams = [imagecodecs.jpeg8_encode(picture(64, 64, seed), level=80) for seed in range(3)]
    streams += [
        imagecodecs.jpeg8_encode(picture(64, 48), level=80),
        imagecodecs.jpeg8_encode(picture(64, 64), level=30),
    ]
    start = jpeg_headers(streams[0]).scan
    assert streams[0][:start] == streams[1][:start] != streams[3][:start]
    rng, frames = np.random.default_rng(0), JpegFrames()
    for _ in range(300):
        data = bytearray(streams[rng.integers(len(streams))])
        if rng.random() < 0.7:
            data[rng.integers(len(data))] = rng.integers(256)
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        assert said(frames, bytes(data)) == said(jpeg_frame, bytes(data))


def test_samples() -> None:
    assert jpeg_frame(imagecodecs.jpeg8_encode(picture(16, 16))).samples == 3
    assert jpeg_frame(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture(16, 16)[..., 0]))).samples == 1
    assert jpeg2000_frame(imagecodecs.jpeg2k_encode(picture(16, 16))).samples == 3


def test_padding_after_the_end_marker_is_fine() -> None:
    whole = imagecodecs.jpeg8_encode(picture(64, 64))
    assert jpeg_frame(whole + bytes(5000)).size == Size(64, 64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:-2], "the end marker is missing"),
        (lambda d: d[: len(d) // 2], "the end marker is missing"),
        (
            lambda d: d[: len(d) * 3 // 4] + b"\xff\xc0" + d[len(d) * 3 // 4 :],
            "it has markers where none can be",
        ),
        (
            lambda d: d[: len(d) * 3 // 4] + b"\xff\xd9" + d[len(d) * 3 // 4 :],
            "it has markers where none can be",
        ),
        (
            lambda d: d[: len(d) * 3 // 4] + b"\xff\xd3" + d[len(d) * 3 // 4 :],
            "it has markers where none can be",
        ),
        (lambda d: b"\0" * 10 + d[10:], "does not start like a JPEG stream"),
        (lambda d: d[:2] + b"\0" * 10 + d[12:], "headers are garbled"),
        (lambda d: d[:40], "headers are cut"),
        (lambda d: b"\xff\xd8\xff\xd9" + bytes(9), "no scan"),
        (lambda d: b"", "does not start"),
    ],
)
def test_damage_to_jpeg(damage: object, message: str) -> None:
    whole = imagecodecs.jpeg8_encode(picture(64, 64))
    with pytest.raises(BadStream, match=message):
        jpeg_frame(damage(whole))  # type: ignore[operator]


def test_random_damage_to_jpeg_is_mostly_seen() -> None:
    """Overwriting a few hundred bytes of a scan leaves a marker where none can be, nearly always."""
    rng = np.random.default_rng(0)
    whole = bytearray(imagecodecs.jpeg8_encode(picture(256, 256), level=90))
    seen = 0
    for _ in range(200):
        damaged = bytearray(whole)
        at = int(rng.integers(1000, len(whole) - 1100))
        damaged[at : at + 1000] = rng.bytes(1000)
        try:
            jpeg_frame(bytes(damaged))
        except BadStream:
            seen += 1
    assert seen >= 180


@pytest.mark.parametrize("frame", [jpeg_frame, jpeg2000_frame, webp_frame, jpegxl_frame])
def test_any_bytes_are_survived(frame: object) -> None:
    rng = np.random.default_rng(1)
    starts = [
        b"",
        b"\xff\xd8\xff",
        b"\xff\x4f\xff\x51",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\xff\x0a",
        b"\0\0\0\x0cJXL \r\n\x87\n",
    ]
    for start in starts:
        for length in (0, 1, 3, 10, 40, 300):
            data = start + rng.bytes(length)
            with contextlib.suppress(BadStream):
                assert frame(data).size.height >= 0  # type: ignore[operator]


def test_a_part_between_restart_markers() -> None:
    whole = imagecodecs.jpeg8_encode(picture(64, 64))
    assert jpeg_frame(whole[:-2] + b"\xff\xd5", part=True).size == Size(64, 64)
    with pytest.raises(BadStream, match="the end marker is missing"):
        jpeg_frame(whole[:-2] + b"\xff\xd5")
