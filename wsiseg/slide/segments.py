"""One stored TIFF segment to an array of its samples: read with `pread`, checked against its own header, decoded.

Image codecs carry their own size in the stream. It is checked before the decoder sees it, because decoders allocate
what the stream claims; the others decode into a buffer of the size that the TIFF header gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from wsiseg.errors import UnsupportedSlide
from wsiseg.geometry import Size
from wsiseg.slide.level import U8, Scratch
from wsiseg.slide.streams import BadStream, JpegFrames, jpeg2000_frame, jpegxl_frame, webp_frame
from wsiseg.slide.tifflayout import TiffLayout
from wsiseg.slide.tiffpage import compression_name

Array = npt.NDArray[Any]
# decode(data, row, column, scratch) -> [h, w, samples]; h and w may fall short of the stored segment at the edges
Decode = Callable[[Any, int, int, Scratch], Array]

# libdeflate reads the same streams as zlib, half as fast again.
_DEFLATE = "deflate" if imagecodecs.DEFLATE.available else "zlib"
BYTE_CODECS: dict[int, str] = {
    5: "lzw",
    8: _DEFLATE,
    32946: _DEFLATE,
    32773: "packbits",
    34925: "lzma",
    50000: "zstd",
    34926: "zstd",
}
JPEG, JPEG2000, WEBP, JPEGXL = {7}, {33003, 33004, 33005, 34712}, {50001, 34927}, {50002, 52546}
READ = {1, *BYTE_CODECS, *JPEG, *JPEG2000, *WEBP, *JPEGXL}


def decoder(path: str | os.PathLike[str], layout: TiffLayout) -> Decode:
    """The function that decodes segments of `layout`.

    Raises:
        UnsupportedSlide: the compression, predictor or sample size is not read; the message names it.
    """
    code = layout.compression
    if code not in READ:
        name = compression_name(code)
        raise UnsupportedSlide(
            path, f"{name}{'' if name.startswith('compression') else ' compression'} is not read"
        )
    if code in JPEG:
        return _jpeg(path, layout)
    if code in JPEG2000:
        return _image(layout, imagecodecs.jpeg2k_decode, jpeg2000_frame)
    if code in WEBP:
        return _image(layout, _webp_decode, webp_frame)
    if code in JPEGXL:
        if not imagecodecs.JPEGXL.available:
            raise UnsupportedSlide(path, "JPEG XL compression is not read: imagecodecs was built without it")
        return _image(layout, imagecodecs.jpegxl_decode, jpegxl_frame)
    return _bytes(path, layout)


def _bytes(path: str | os.PathLike[str], layout: TiffLayout) -> Decode:
    """Codecs that give back plain bytes, and none at all."""
    name = BYTE_CODECS.get(layout.compression)
    decompress = getattr(imagecodecs, f"{name}_decode") if name else None
    samples, width, bits = layout.segment_samples, layout.segment.width, layout.bits
    if layout.predictor not in (1, 2) or (layout.predictor == 2 and bits not in (8, 16, 32)):
        raise UnsupportedSlide(path, f"predictor {layout.predictor} with {bits}-bit samples is not read")
    if layout.predictor == 2 and layout.compression == 1:
        raise UnsupportedSlide(path, "a predictor without compression is not read")
    wide = bits in (8, 16, 32)
    dtype = (
        np.dtype(f"{layout.byteorder}{layout.kind}{bits // 8}")
        if wide
        else np.dtype(np.uint16 if bits > 8 else np.uint8)
    )
    if not wide and bits not in (1, 2, 4, 10, 12, 14):
        raise UnsupportedSlide(path, f"{bits}-bit samples are not read")
    row_bytes, full, last = layout.row_bytes, layout.segment_bytes(), layout.rows - 1
    cut = layout.segment_bytes(last)

    def decode(data: Any, row: int, col: int, scratch: Scratch) -> Array:
        need = cut if row == last else full
        if layout.fillorder == 2:
            data = imagecodecs.bitorder_decode(bytes(data))
        if decompress is None:
            flat = np.frombuffer(data, np.uint8, count=min(need, len(data)))
        else:
            # Strips at the end may decode to the full height, so the buffer has it.
            flat = decompress(data, out=scratch.take("decoded", full))
        if flat.size < need:
            raise BadStream(f"it decodes to {flat.size} of {need} bytes")
        flat = flat[:need]
        if not wide:
            packed = imagecodecs.packints_decode(flat.tobytes(), dtype, bits, runlen=width * samples)
            return packed.reshape(-1, width, samples)
        values = flat.view(dtype).reshape(need // row_bytes, width, samples)
        if layout.predictor == 2:
            values = values.astype(dtype.newbyteorder("="), copy=False)
            values = imagecodecs.delta_decode(values, axis=1, out=values)
        return values

    return decode


def _jpeg(path: str | os.PathLike[str], layout: TiffLayout) -> Decode:
    if layout.bits != 8:
        raise UnsupportedSlide(path, f"JPEG with {layout.bits}-bit samples is not read")
    samples = layout.segment_samples
    space: int | None = None
    out_space: Any = {1: 1, 3: 2, 4: 4}.get(samples)
    if samples == 3 and layout.photometric not in (2, 6):
        raise UnsupportedSlide(path, f"JPEG with photometric interpretation {layout.photometric} is not read")
    tables, header, limit = layout.tables, layout.header, layout.segment
    measure = JpegFrames(part=header is not None)

    def decode(data: Any, row: int, col: int, scratch: Scratch) -> Array:
        if header is None:
            data = np.frombuffer(data, np.uint8)
            frame = measure(data)
        else:
            data = header + bytes(data)
            frame = measure(np.frombuffer(data, np.uint8))
            data += b"\xff\xd9"
        check_fit(frame.size, frame.samples, limit, samples)
        colour = space
        if samples == 3 and layout.photometric == 2 and not frame.jfif:
            colour = 2  # RGB stored as such, as Aperio does
        out = scratch.take("decoded", frame.size.pixels * samples)
        out = (
            out.reshape(frame.size.height, frame.size.width, samples)
            if samples > 1
            else out.reshape(frame.size.height, -1)
        )
        got = imagecodecs.jpeg8_decode(
            data, tables=tables, colorspace=colour, outcolorspace=out_space, out=out
        )
        return got.reshape(frame.size.height, frame.size.width, samples)

    return decode


def _image(layout: TiffLayout, decompress: Any, measure: Any) -> Decode:
    """Codecs that carry their own size and sample count."""
    limit, samples = layout.segment, layout.segment_samples
    dtype = np.dtype(np.uint16 if layout.bits > 8 else np.uint8)

    def decode(data: Any, row: int, col: int, scratch: Scratch) -> Array:
        if layout.fillorder == 2 and layout.compression in WEBP:
            # libtiff turns the bits of all but its image codecs' streams, and counts WebP among the plain ones.
            data = imagecodecs.bitorder_decode(bytes(data))
        frame = measure(data)
        check_fit(frame.size, frame.samples or samples, limit, samples)
        out = scratch.take("decoded", frame.size.pixels * samples * dtype.itemsize).view(dtype)
        shape = (
            (frame.size.height, frame.size.width, samples)
            if samples > 1
            else (frame.size.height, frame.size.width)
        )
        try:
            got = decompress(data, out=out.reshape(shape))
        except ValueError as error:
            raise BadStream(f"its pixels are not what the header says ({error})") from error
        return got.reshape(frame.size.height, frame.size.width, samples)

    return decode


def _webp_decode(data: Any, out: Array) -> Array:
    return imagecodecs.webp_decode(data, hasalpha=out.shape[-1] == 4, out=out)


def check_fit(size: Size, samples: int, limit: Size, wanted: int) -> None:
    """Refuse a stream whose own size is larger than its segment, or whose samples are not the image's."""
    if size.height < 1 or size.width < 1 or size.height > limit.height or size.width > limit.width:
        raise BadStream(f"its stream claims {size} pixels in a segment of {limit}")
    if samples != wanted:
        raise BadStream(f"its stream has {samples} components; the header says {wanted}")


def pread(fd: int, offset: int, count: int, buffer: U8) -> memoryview:
    """`count` bytes at `offset` into `buffer`.

    Raises:
        BadStream: the file ends before.
    """
    view = memoryview(buffer.data)[:count]
    done = 0
    while done < count:
        got = os.preadv(fd, [view[done:]], offset + done)
        if got == 0:
            raise BadStream(f"the file ends after {done} of its {count} bytes")
        done += got
    return view
