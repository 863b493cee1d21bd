"""Opening a TIFF: which of its pages are the slide, which are its lower resolutions, and what it says of itself."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import IO, Any, cast

import numpy as np
import tifffile

from wsiseg.errors import SlideError, UnsupportedSlide, WsisegError
from wsiseg.geometry import Size
from wsiseg.slide import limits
from wsiseg.slide.depth import used_bits
from wsiseg.slide.level import Level, whole_downsample
from wsiseg.slide.mpp import from_aperio, from_imagej, from_ome, from_resolution, pick_mpp, rational
from wsiseg.slide.opened import Opened
from wsiseg.slide.pixels import alpha_kind, photometric_name
from wsiseg.slide.rawfile import CappedReader, RawFile
from wsiseg.slide.tifflayout import TiffLayout, join_planes, split_strips
from wsiseg.slide.tiffpage import compression_name, page_layout
from wsiseg.slide.tiffpages import base_page, brief, forget_pages, list_pages, unread_pages
from wsiseg.slide.tiffsource import TiffSource

# tifffile reports oddities by logging; without a handler they would land on stderr in the middle of a progress line.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(file: RawFile, mpp: float | None) -> Opened:
    """Open a TIFF.

    Raises:
        UnsupportedSlide, SlideError: with the reason.
    """
    try:
        with tifffile.TiffFile(cast(IO[bytes], CappedReader(file)), name=file.path, _multifile=False) as tiff:
            pages, warnings = list_pages(file, tiff)
            try:
                return _open(file, tiff, pages, warnings, mpp)
            finally:
                forget_pages(pages)
    except WsisegError:
        raise
    except RecursionError as error:
        raise SlideError(file.path, "its TIFF structure refers to itself") from error
    except tifffile.TiffFileError as error:
        raise SlideError(
            file.path, f"its TIFF structure is damaged ({' '.join(str(error).split())[:160]})"
        ) from error
    except Exception as error:
        # tifffile takes tags as they come; one of an unexpected kind or length surfaces as any exception.
        raise SlideError(
            file.path, "its TIFF structure is damaged (a tag has a value of the wrong kind)"
        ) from error


def _open(file: RawFile, tiff: Any, pages: list[Any], warnings: list[str], mpp: float | None) -> Opened:
    base = base_page(file, tiff, pages, warnings)
    page = pages[base]
    layout = _channels(file, tiff, pages, base, warnings)
    warnings += layout.oddities
    depth = 8
    source = TiffSource(file, split_strips(layout), depth)
    if layout.bits > 8:
        depth = used_bits(source.samples, source.layout.rows, source.layout.cols, layout.bits)
        warnings.append(
            f"{layout.bits}-bit samples of which {depth} bits are used; scaled to 8 bits by >> {depth - 8}"
        )
        source = TiffSource(file, split_strips(layout), depth)
    if tiff.is_bif:
        warnings.append("Ventana's tiles overlap as they were scanned; they are put side by side")
    if layout.compression == 33004 and layout.samples >= 3:
        warnings.append(
            "JPEG 2000 of compression 33004 is taken as RGB; libvips stores YCbCr under that number"
        )
    if layout.samples > 3 or (layout.samples == 2 and layout.photometric < 4):
        warnings += _extra_samples(layout)
    missing = int(np.count_nonzero(layout.counts == 0))
    what = "tiles" if layout.tiled else "strips"
    if missing == len(layout.counts):
        # A writer that gave up leaves such files; a slide all white would be a result that nobody questions.
        raise SlideError(file.path, f"none of its {missing} {what} is in the file (all byte counts are 0)")
    if missing:
        warnings.append(
            f"{missing} of {len(layout.counts)} {what} are missing (byte count 0); they are white"
        )
    levels = [_level(0, source.size, source)]
    for name, other in _reduced(tiff, pages, base, warnings):
        try:
            lower = page_layout(file.path, other, name)
            if _kin(layout, lower):
                lower_source = TiffSource(
                    file, split_strips(replace(lower, orientation=layout.orientation)), depth
                )
                levels.append(_level(len(levels), source.size, lower_source))
        except SlideError as error:
            warnings.append(f"a lower resolution is not used: {error.reason}")
    warnings += unread_pages(tiff, pages, base, {x.note for x in levels})
    levels = [levels[0], *sorted(levels[1:], key=lambda x: -x.size.pixels)]
    levels = [replace(x, index=i) for i, x in enumerate(levels)]
    found = _mpp(tiff, page)
    picked = pick_mpp(found, mpp)
    return Opened(
        levels=tuple(levels),
        layout=_describe(layout),
        compression=compression_name(layout.compression),
        mpp=picked,
        warnings=(*warnings, *picked.warnings),
        format=_format(tiff),
    )


def _extra_samples(layout: TiffLayout) -> list[str]:
    base = {2: 3, 5: 4, 6: 3}.get(layout.photometric, 1)
    if layout.samples <= base:
        return []
    kind = alpha_kind(layout, base)
    if kind and layout.extra:
        return ["transparent pixels are put on white"]
    if kind:
        return [f"sample {base + 1} of a pixel is not described; taken as transparency and put on white"]
    return [f"{layout.samples - base} extra samples per pixel are ignored"]


def _level(index: int, full: Size, source: TiffSource) -> Level:
    down = 1 if index == 0 else whole_downsample(full, source.size)
    return Level(index, source.size, down, source.ys, source.xs, source, source.scratch, source.layout.name)


def _axes(file: RawFile, tiff: Any, pages: int, warnings: list[str]) -> dict[str, int]:
    """Axes longer than 1 of the first image by the file's own metadata (OME, ImageJ, tifffile); {} without such."""
    if not (tiff.is_ome or tiff.is_imagej or tiff.is_shaped or tiff.is_qpi):
        return {}
    if pages >= limits.MAX_PAGES:
        raise UnsupportedSlide(
            file.path, f"it has {limits.MAX_PAGES} pages or more; one RGB or gray image is read"
        )
    try:
        series = tiff.series[0]
        return {a: int(n) for a, n in zip(series.axes, series.shape, strict=True) if n > 1}
    except Exception as error:  # whatever tifffile's readers of foreign metadata raise
        warnings.append(
            f"what it says of its axes cannot be read ({brief(error)}); its pages are taken as they are"
        )
        return {}


def _channels(file: RawFile, tiff: Any, pages: list[Any], base: int, warnings: list[str]) -> TiffLayout:
    """The layout of the slide, with gray pages joined to RGB where three of them are its channels."""
    layout = page_layout(file.path, pages[base], f"page {base}")
    others = {a: n for a, n in _axes(file, tiff, len(pages), warnings).items() if a not in "YXS"}
    if not others:
        alike = [p for p in pages if p.hash == pages[base].hash]
        plain = layout.samples == 1 and layout.bits >= 8 and layout.photometric == 1
        if not (plain and len(pages) == len(alike) == 3 and layout.segment_bytes()):
            return layout
        others = {"C": 3}
        warnings.append("three equal gray pages; read as red, green and blue")
    elif list(others.values()) == [3] and layout.samples == 1 and not {"Z", "T"} & set(others):
        if "C" in others and layout.photometric != 2:
            warnings.append("three gray channels; read as red, green and blue")
    else:
        listed = ", ".join(f"{n} along {a}" for a, n in others.items())
        raise UnsupportedSlide(
            file.path, f"it is a stack of planes ({listed}); one RGB or gray image is read"
        )
    if len(pages) < base + 3:
        # ImageJ and "shaped" files can store all planes behind one page.
        return _stacked(file, tiff, layout)
    channels = [page_layout(file.path, pages[base + i], f"page {base + i}") for i in range(3)]
    first = channels[0]
    for other in channels[1:]:
        same = (other.size, other.segment, other.bits, other.compression, other.samples, other.predictor)
        if same != (first.size, first.segment, first.bits, first.compression, first.samples, first.predictor):
            raise UnsupportedSlide(file.path, "its three gray pages are stored in different ways")
    return join_planes(channels)


def _stacked(file: RawFile, tiff: Any, layout: TiffLayout) -> TiffLayout:
    """Three uncompressed gray planes stored one after another behind a single page."""
    if layout.compression != 1 or layout.tiled or layout.rows != 1:
        raise UnsupportedSlide(file.path, "its planes are not stored as pages")
    plane = layout.segment_bytes()
    start = int(layout.offsets[0])
    if start + 3 * plane > file.size:
        raise SlideError(file.path, f"three planes of {plane} bytes reach past the end of the file")
    parts = [
        replace(layout, offsets=np.array([start + i * plane]), counts=np.array([plane])) for i in range(3)
    ]
    return join_planes(parts)


def _reduced(tiff: Any, pages: list[Any], base: int, warnings: list[str]) -> list[tuple[str, Any]]:
    """Pages and sub-images that could be lower resolutions, with their names."""
    page = pages[base]
    found: list[tuple[str, Any]] = []
    try:
        for i, sub in enumerate(page.pages or ()):
            if i >= 64:
                break
            found.append((f"sub-image {i} of page {base}", sub))
    except Exception as error:  # whatever tifffile raises for tags of the wrong kind
        warnings.append(f"sub-images after {len(found)} of page {base} cannot be read ({brief(error)})")
    for i, other in enumerate(pages):
        if i != base and other.imagewidth < page.imagewidth and other.imagelength < page.imagelength:
            found.append((f"page {i}", other))
    return [(n, p) for n, p in found if isinstance(p, tifffile.TiffPage)]


def _kin(full: TiffLayout, lower: TiffLayout) -> bool:
    """Whether `lower` may be a lower resolution of `full`: the same kind of pixels and a whole ratio of sizes."""
    same = (full.bits, full.kind, full.samples, full.tiled) == (
        lower.bits,
        lower.kind,
        lower.samples,
        lower.tiled,
    )
    return same and whole_downsample(full.size, lower.size) >= 2


def _mpp(tiff: Any, page: Any) -> list[tuple[str, float, float]]:
    description = page.description if isinstance(page.description, str) else ""
    x, y = rational(page.tags.valueof(282)), rational(page.tags.valueof(283))
    unit = page.tags.valueof(296, 2)
    found: list[tuple[str, float, float]] = []
    first = tiff.pages[0].description
    if tiff.is_ome and isinstance(first, str):
        found += from_ome(first)
    found += from_aperio(description)
    if tiff.is_imagej:
        return found + from_imagej(description, x, y)
    return found + from_resolution(x, y, int(unit) if isinstance(unit, int) else 0)


def _describe(layout: TiffLayout) -> str:
    s = layout.segment
    parts = [f"tiles of {s}" if layout.tiled else f"strips of {s.height} row{'s' * (s.height != 1)}"]
    if layout.planar:
        parts.append("planar")
    bits = f"{layout.bits}-bit " if layout.bits != 8 else ""
    parts.append(f"{bits}{photometric_name(layout.photometric)}")
    return ", ".join(parts)


def _format(tiff: Any) -> str:
    names = {"svs": "Aperio SVS", "ndpi": "Hamamatsu NDPI", "scn": "Leica SCN", "philips": "Philips TIFF"}
    names |= {"qpi": "Vectra QPTIFF", "ome": "OME-TIFF", "imagej": "ImageJ TIFF", "bif": "Ventana BIF"}
    for flag, name in names.items():
        if getattr(tiff, f"is_{flag}", False):
            return name
    return "BigTIFF" if tiff.is_bigtiff else "TIFF"
