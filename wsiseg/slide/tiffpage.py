"""From a tifffile page to a checked `TiffLayout`, or the reason why the page cannot be read."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile

from wsiseg.errors import SlideError, UnsupportedSlide
from wsiseg.geometry import Size, ceil_div
from wsiseg.slide import limits
from wsiseg.slide.tifflayout import TiffLayout

# Tags without which the pixels would be read wrongly, not just described less well.
PIXEL_TAGS = {
    256: "width",
    257: "height",
    258: "number of bits",
    259: "compression",
    262: "photometric interpretation",
    266: "fill order",
    274: "orientation",
    277: "number of samples",
    278: "number of rows in a strip",
    284: "planar configuration",
    317: "predictor",
    320: "colour map",
    322: "tile width",
    323: "tile height",
    332: "ink set",
    338: "list of extra samples",
    339: "sample format",
    347: "JPEG table",
}
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}


def page_layout(path: str | os.PathLike[str], page: Any, name: str) -> TiffLayout:
    """The layout of a tifffile `page`; `name` is how messages call it.

    Raises:
        UnsupportedSlide, SlideError: with the reason.
    """
    _check_tags(path, page, name)
    height, width = _integer(page.imagelength), _integer(page.imagewidth)
    limits.check_size(path, height, width)
    if _integer(page.imagedepth) > 1:
        raise UnsupportedSlide(
            path, f"{name} is a volume of {page.imagedepth} planes; single planes are read"
        )
    samples = _integer(page.samplesperpixel)
    if not 1 <= samples <= limits.MAX_SAMPLES:
        raise UnsupportedSlide(path, f"{name} has {samples} samples per pixel; 1 to 4 are read")
    bits, kind = _sample_type(path, page, name)
    planar = _integer(page.planarconfig) == 2 and samples > 1
    tiled = bool(page.is_tiled)
    if tiled:
        seg_h, seg_w = _integer(page.tilelength), _integer(page.tilewidth)
        if seg_h < 1 or seg_w < 1 or max(seg_h, seg_w) > limits.MAX_SIDE:
            raise SlideError(path, f"{name} has tiles of {seg_w} x {seg_h} pixels")
    else:
        seg_h, seg_w = min(_integer(page.rowsperstrip) or height, height), width
        if seg_h < 1:
            raise SlideError(path, f"{name} has strips of {seg_h} rows")
    segment = Size(seg_h, seg_w)
    what = "tile" if tiled else "strip"
    stored_bytes = seg_h * ceil_div(seg_w * (1 if planar else samples) * bits, 8)
    # Uncompressed strips are cut into virtual ones and never held whole.
    if tiled or _integer(page.compression) != 1:
        limits.check_segment(path, max(stored_bytes, seg_h * seg_w * 3), what)
    count = ceil_div(height, seg_h) * ceil_div(width, seg_w) * (samples if planar else 1)
    if count > limits.MAX_SEGMENTS:
        raise UnsupportedSlide(path, f"{name} has {count} {what}s; at most {limits.MAX_SEGMENTS} are read")
    offsets, counts = _table(page.dataoffsets), _table(page.databytecounts)
    for label, table in (("offsets", offsets), ("byte counts", counts)):
        if len(table) < count:
            raise SlideError(path, f"{name} has {len(table)} {what} {label}; {count} {what}s need one each")
    header = getattr(page, "jpegheader", None)
    tables = getattr(page, "jpegtables", None)
    orientation = _integer(page.tags.valueof(274, 1))
    colormap, oddities = _colormap(page), []
    if not 1 <= orientation <= 8:
        oddities.append(f"orientation {orientation} is not defined; taken as upright")
    if len(offsets) > count:
        oddities.append(
            f"{name} lists {len(offsets)} {what}s, its size needs {count}; the first ones are read"
        )
    if 262 not in page.tags:
        oddities.append("it does not say what its samples mean; taken as MINISWHITE")
    if colormap is not None and 0 < colormap.max(initial=0) < 256:
        # As libtiff and Pillow do: in 16 bits these would all be black.
        colormap = colormap * np.uint16(257)
        oddities.append("its colour map has 8-bit values; taken as such")
    ink = _integer(page.tags.valueof(332, 1))
    if _integer(page.photometric) == 5 and ink != 1:
        raise UnsupportedSlide(path, f"{name} has inks other than CMYK (InkSet {ink}), which are not read")
    return TiffLayout(
        name=name,
        size=Size(height, width),
        segment=segment,
        tiled=tiled,
        samples=samples,
        planar=planar,
        bits=bits,
        kind=kind,
        byteorder=page.parent.byteorder,
        compression=_integer(page.compression),
        predictor=_integer(page.predictor),
        photometric=_integer(page.photometric),
        fillorder=_integer(page.fillorder),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        extra=tuple(_integer(x) for x in _listed(page.extrasamples)),
        subsampling=_subsampling(page),
        colormap=colormap,
        offsets=offsets[:count],
        counts=counts[:count],
        tables=bytes(tables) if tables else None,
        header=bytes(header) if header else None,
        oddities=tuple(oddities),
    )


def _check_tags(path: str | os.PathLike[str], page: Any, name: str) -> None:
    """Refuse a page with a tag that decides about pixels and that tifffile dropped: its default would be taken instead.

    Raises:
        SlideError: naming the tag.
    """
    form, file = page.parent.tiff, page.parent.filehandle
    file.seek(page.offset)
    count = int.from_bytes(file.read(form.tagnosize), "little" if form.byteorder == "<" else "big")
    entries = file.read(min(count, 4096) * form.tagsize)
    codes = np.frombuffer(entries[: len(entries) // form.tagsize * form.tagsize], np.uint8)
    listed = codes.reshape(-1, form.tagsize)[:, :2].copy().view(f"{form.byteorder}u2").ravel()
    for code in sorted(set(listed.tolist()) & PIXEL_TAGS.keys() - set(page.tags.keys())):
        raise SlideError(path, f"{name} has a {PIXEL_TAGS[code]} (tag {code}) that cannot be read")


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return int(value[0]) if isinstance(value, (tuple, list)) and value else 0


def _listed(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _table(values: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Offsets or counts as int64; one beyond 63 bits becomes -1, which no file holds."""
    try:
        return np.asarray(values, dtype=np.int64).ravel()
    except (OverflowError, ValueError, TypeError):
        wide = np.asarray([v if isinstance(v, int) and 0 <= v < 2**63 else -1 for v in _listed(values)])
        return wide.astype(np.int64)


def _sample_type(path: str | os.PathLike[str], page: Any, name: str) -> tuple[int, str]:
    bits = page.bitspersample
    if isinstance(bits, (tuple, list)):
        if len(set(bits)) != 1:
            raise UnsupportedSlide(
                path, f"{name} has samples of {', '.join(map(str, bits))} bits; equal ones are read"
            )
        bits = bits[0]
    formats = set(_listed(page.sampleformat))
    if len(formats) > 1:
        raise UnsupportedSlide(path, f"{name} mixes sample formats {sorted(map(int, formats))}")
    code = _integer(page.sampleformat) or 1
    if code not in KINDS:
        raise UnsupportedSlide(path, f"{name} has complex samples")
    return int(bits), KINDS[code]


def _subsampling(page: Any) -> tuple[int, int]:
    value = _listed(page.tags.valueof(530, None))
    if len(value) >= 2:
        return _integer(value[0]), _integer(value[1])
    return (2, 2) if _integer(page.photometric) == 6 else (1, 1)


def _colormap(page: Any) -> Any:
    if _integer(page.photometric) != 3:
        return None
    raw = page.tags.valueof(320, None)
    try:
        flat = np.asarray(raw).astype(np.uint16).ravel()
    except (TypeError, ValueError, OverflowError):
        return None
    return flat.reshape(3, -1) if flat.size and flat.size % 3 == 0 else None


def compression_name(code: int) -> str:
    """What people call a TIFF compression."""
    known = {
        1: "none",
        2: "CCITT RLE",
        3: "CCITT fax 3",
        4: "CCITT fax 4",
        5: "LZW",
        6: "old-style JPEG",
        7: "JPEG",
    }
    known |= {8: "deflate", 32946: "deflate", 32773: "PackBits", 34925: "LZMA", 50000: "zstd", 34926: "zstd"}
    known |= {50001: "WebP", 34927: "WebP", 34712: "JPEG 2000", 33003: "JPEG 2000 (Aperio, YCbCr)"}
    known |= {
        33004: "JPEG 2000 (Aperio)",
        33005: "JPEG 2000 (Aperio, RGB)",
        50002: "JPEG XL",
        52546: "JPEG XL",
    }
    if code in known:
        return known[code]
    try:
        return tifffile.COMPRESSION(code).name
    except ValueError:
        return f"compression {code}"
