"""Sizes and wholeness of compressed streams, told without decoding them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import cv2
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


def plain_state(data: bytes, start: int, *, baseline: bool, restarts: bool, part: bool) -> str:
    """What is wrong with the scan that begins at `start`, byte by byte; nothing: an empty text."""
    end = data.rfind(b"\xff\xd9", start)
    while data[:end].endswith(b"\xff\xd9") and end - 2 >= start:
        end -= 2
    if end < 0 and part and len(data) >= start + 2 and data[-2] == 0xFF and 0xD0 <= data[-1] <= 0xD7:
        end = len(data)
    if end < 0:
        return "cut"
    after = [data[i + 1] for i in range(start, end - 1) if data[i] == 0xFF]
    stray = [m for m in after if m not in (0, 0xFF) and not (restarts and 0xD0 <= m <= 0xD7)]
    return "garbled" if baseline and stray and stray[0] not in (0xC4, 0xDA, 0xDB, 0xDD) else ""


def plain_frame(data: bytes, *, part: bool = False) -> Frame:
    """`jpeg_frame` with the plain look at the scan."""
    headers = jpeg_headers(data, part=part)
    wrong = plain_state(data, headers.scan, baseline=headers.baseline, restarts=headers.restarts, part=part)
    if wrong:
        raise BadStream(f"its JPEG scan is {wrong}")
    return headers.frame


def told(measure: Callable[[bytes], Frame], data: bytes) -> Frame | str:
    """The frame, or what is wrong with the stream, in as many words as the plain form has."""
    what = said(measure, data)
    return what.split(":")[0] if isinstance(what, str) and "scan is" in what else what


MARKERS = np.frombuffer(b"\0\xff\xd0\xd7\xd8\xd9\xc4\xda\xdb\xdd\xc0\x01\x80", np.uint8)


@pytest.mark.parametrize("part", [False, True])
def test_scans_are_looked_at_as_byte_by_byte(part: bool) -> None:
    """Streams with the same headers, with other ones, and damaged ones, before and behind the scan's beginning."""
    streams = [imagecodecs.jpeg8_encode(picture(64, 64, seed), level=80) for seed in range(3)]
    streams += [
        imagecodecs.jpeg8_encode(picture(64, 48), level=80),
        imagecodecs.jpeg8_encode(picture(64, 64), level=30),
        cv2.imencode(".jpg", picture(64, 64), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    ]
    # A restart interval that the scan does not keep: then markers of restarts are not strange.
    streams.append(streams[0][:2] + b"\xff\xdd\0\x04\0\x09" + streams[0][2:])
    start = jpeg_headers(streams[0]).scan
    assert streams[0][:start] == streams[1][:start] != streams[3][:start]
    rng, frames, answers = np.random.default_rng(0), JpegFrames(part=part), set()
    for _ in range(1500):
        data = bytearray(streams[rng.integers(len(streams))])
        for _ in range(rng.integers(3)):
            data[rng.integers(len(data))] = rng.integers(256)
        for _ in range(rng.integers(4)):
            at = int(rng.integers(start, len(data) - 1))
            data[at : at + 2] = bytes([255, rng.choice(MARKERS)])
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        for _ in range(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])):
            data += bytes([255, rng.choice(MARKERS)])
        want = said(lambda d: plain_frame(d, part=part), bytes(data))
        answers.add(want if isinstance(want, str) else "")
        assert told(lambda d: jpeg_frame(d, part=part), bytes(data)) == want
        assert told(lambda d: frames(np.frombuffer(d, np.uint8)), bytes(data)) == want
    assert {"", "its JPEG scan is cut", "its JPEG scan is garbled"} <= answers


def test_restart_markers_that_the_stream_does_not_announce_are_damage() -> None:
    """A stream's beginning sets the interval to none, whatever tables before it said: decoders stop at the first marker."""
    whole = cv2.imencode(".jpg", picture(64, 64)[..., ::-1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    assert jpeg_frame(whole).size == Size(64, 64)
    at = whole.index(b"\xff\xdd\0\x04")
    bare = whole[:at] + whole[at + 6 :]
    tables = b"\xff\xd8" + whole[at : at + 6] + b"\xff\xd9"
    wrong = imagecodecs.jpeg8_decode(bare, tables=tables)
    assert (wrong != imagecodecs.jpeg8_decode(whole)).any()
    with pytest.raises(BadStream, match="markers where none can be"):
        jpeg_frame(bare)


def test_an_end_marker_twice_is_fine() -> None:
    whole = imagecodecs.jpeg8_encode(picture(64, 64))
    assert jpeg_frame(whole + b"\xff\xd9\xff\xd9").size == Size(64, 64)


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
