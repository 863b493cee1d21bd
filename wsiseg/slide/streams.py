"""Sizes in the headers of compressed image streams, and whether a stream is whole, without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsiseg.geometry import Size
from wsiseg.slide.level import U8
from wsiseg_kernels.cpu.files import CUT, GARBLED, OTHER_HEADERS, WHOLE, scan_state

SCAN = {
    CUT: "its JPEG scan is cut: the end marker is missing",
    GARBLED: "its JPEG scan is garbled: it has markers where none can be",
}


class BadStream(Exception):
    """A segment's bytes are damaged; the text says how and follows "because"."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a stream says of itself. `samples` 0: not said."""

    size: Size
    samples: int
    jfif: bool = False
    bits: int = 8
    adobe: int = -1


@dataclass(frozen=True, slots=True)
class JpegHeaders:
    """What stands before a JPEG stream's scan: `frame` and, for checking the scan, where it begins and its kind."""

    frame: Frame
    scan: int
    baseline: bool
    restarts: bool


class JpegFrames:
    """`jpeg_frame` for many streams of one writer: headers that equal the last ones byte for byte are not read again.

    Safe from several threads: the last ones are kept as one pair, which is replaced whole.
    """

    def __init__(self, *, part: bool = False) -> None:
        self._part = part
        self._last: tuple[U8, JpegHeaders] | None = None

    def __call__(self, data: U8) -> Frame:
        """As `jpeg_frame`, of uint8 [n]."""
        last = self._last
        if last is not None:
            begin, headers = last
            state = scan_state(data, begin, headers.baseline, headers.restarts, self._part)
            if state == WHOLE:
                return headers.frame
            if state != OTHER_HEADERS:
                raise BadStream(SCAN[state])
        headers = jpeg_headers(bytes(data), part=self._part)
        _check_scan(data, headers, part=self._part)
        self._last = data[: headers.scan].copy(), headers
        return headers.frame


def jpeg_frame(data: bytes, *, part: bool = False) -> Frame:
    """Frame header of a JPEG stream, after checking that its scan is whole.

    Decoders fill what is missing with gray and say nothing, so the end marker must be there and, in a baseline stream,
    no other marker may lie inside the scan. Damage that leaves the markers alone can't be seen this way.

    Args:
        part: the stream is a part between restart markers (NDPI); then it may end with one of those.

    Raises:
        BadStream: no frame, or a scan that is cut or garbled.
    """
    headers = jpeg_headers(data, part=part)
    _check_scan(np.frombuffer(data, np.uint8), headers, part=part)
    return headers.frame


def jpeg_headers(data: bytes, *, part: bool = False) -> JpegHeaders:
    """The headers of a JPEG stream; arguments and errors as of `jpeg_frame`."""
    if data[:2] != b"\xff\xd8":
        raise BadStream("it does not start like a JPEG stream")
    at, frame, process, jfif, adobe, restarts = 2, None, 0, False, -1, part
    while True:
        if at + 4 > len(data):
            raise BadStream("its JPEG headers are cut")
        if data[at] != 0xFF:
            raise BadStream("its JPEG headers are garbled")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        if marker == 0xD9:
            raise BadStream("its JPEG stream has no scan")
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2:
            raise BadStream("its JPEG headers are garbled")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6:
                raise BadStream("its JPEG headers are cut")
            process, frame = marker, struct.unpack(">BHHB", body[:6])
        elif marker == 0xDD and len(body) >= 2:
            restarts = restarts or any(body[:2])
        elif marker == 0xE0:
            jfif = jfif or body[:5] == b"JFIF\0"
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        at += 2 + length
    if frame is None:
        raise BadStream("its JPEG stream has no frame header")
    bits, height, width, samples = frame
    if bits != 8:
        raise BadStream(f"its JPEG stream has {bits}-bit samples")
    whole = Frame(Size(height, width), samples, jfif, bits, adobe)
    return JpegHeaders(whole, at + 2 + length, process in (0xC0, 0xC1), restarts)


def _check_scan(data: U8, headers: JpegHeaders, *, part: bool) -> None:
    """The end marker must follow the scan, and nothing but data may come before it."""
    state = scan_state(data, data[: headers.scan], headers.baseline, headers.restarts, part)
    if state != WHOLE:
        raise BadStream(SCAN[state])


def jpeg2000_frame(data: Any) -> Frame:
    """Size of a JPEG 2000 code stream, raw or in JP2 boxes.

    Raises:
        BadStream: no size segment, or a stream without its end marker.
    """
    head = bytes(data[:4096])
    at = head.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(head) < at + 42:
        raise BadStream("it does not start like a JPEG 2000 stream")
    x1, y1, x0, y0, tw, th, tx, ty, samples = struct.unpack(">8IH", head[at + 8 : at + 42])
    if x1 <= x0 or y1 <= y0 or tw == 0 or th == 0 or tx > x0 or ty > y0:
        raise BadStream("its JPEG 2000 header is garbled")
    if -(-(x1 - tx) // tw) * -(-(y1 - ty) // th) > 65535:
        raise BadStream("its JPEG 2000 header claims more tiles than there can be")
    if bytes(data[-64:]).rfind(b"\xff\xd9") < 0:
        raise BadStream("its JPEG 2000 stream is cut: the end marker is missing")
    return Frame(
        Size(y1 - y0, x1 - x0), samples, bits=(head[at + 42] & 0x7F) + 1 if len(head) > at + 42 else 8
    )


def webp_frame(data: Any) -> Frame:
    """Size of a WebP stream.

    Raises:
        BadStream: no WebP header, or fewer bytes than it says.
    """
    head = bytes(data[:30])
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        raise BadStream("it does not start like a WebP stream")
    if struct.unpack("<I", head[4:8])[0] + 8 > len(data) + 1:
        raise BadStream("its WebP stream is cut")
    kind = head[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(head[24:27], "little")
        height = 1 + int.from_bytes(head[27:30], "little")
    elif kind == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (v & 0x3FFF for v in struct.unpack("<HH", head[26:30]))
    else:
        raise BadStream("its WebP stream has no image")
    return Frame(Size(height, width), 0)


def jpegxl_frame(data: Any) -> Frame:
    """Size of a JPEG XL code stream, bare or in boxes.

    Raises:
        BadStream: no size header.
    """
    head = bytes(data[:65536])
    at = 0
    if head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        at = head.find(b"\xff\x0a", head.find(b"jxlc") if b"jxlc" in head else max(0, head.find(b"jxlp")))
    if at < 0 or head[at : at + 2] != b"\xff\x0a":
        raise BadStream("it does not start like a JPEG XL stream")
    bits = int.from_bytes(head[at + 2 : at + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else 1 + take((9, 13, 18, 30)[take(2)])

    small = take(1)
    height = side(small)
    ratio = take(3)
    if ratio:
        num, den = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        width = height * num // den
    else:
        width = side(small)
    return Frame(Size(height, width), 0)
