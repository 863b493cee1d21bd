"""Slides in zarr: OME-Zarr 0.4 and 0.5 pyramids, and plain arrays of zarr v2 and v3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsiseg.errors import BadSegment, SlideError, UnsupportedSlide, WsisegError
from wsiseg.geometry import Size, ceil_div
from wsiseg.slide import limits
from wsiseg.slide.depth import used_bits
from wsiseg.slide.level import U8, Level, Scratch, edges, whole_downsample
from wsiseg.slide.mpp import MICRONS, pick_mpp
from wsiseg.slide.opened import Opened
from wsiseg.slide.pixels import converter
from wsiseg.slide.tifflayout import TiffLayout
from wsiseg.slide.zarrcheck import check_metadata, check_stored
from wsiseg.slide.zarrchunks import local_chunks

I64_EMPTY = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Axes:
    """Which axes of an array are rows, columns and channels (None: gray); the others have length 1."""

    y: int
    x: int
    c: int | None


def open_zarr(path: str, mpp: float | None) -> Opened:
    """Open a zarr array or an OME-Zarr image.

    Raises:
        UnsupportedSlide, SlideError: with the reason.
    """
    import zarr

    check_metadata(path)
    try:
        node = zarr.open(path, mode="r")
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise SlideError(path, f"is a folder but not a readable zarr array or group ({reason})") from error
    try:
        return _open(path, node, mpp)
    except WsisegError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise SlideError(path, f"its zarr metadata is damaged ({reason})") from error


def _open(path: str, node: Any, mpp: float | None) -> Opened:
    import zarr

    found: list[tuple[str, float, float]] = []
    warnings: list[str] = []
    if isinstance(node, zarr.Array):
        names: Any = getattr(node.metadata, "dimension_names", None) or node.attrs.get("_ARRAY_DIMENSIONS")
        arrays, label = [node], f"zarr v{node.metadata.zarr_format}"
        labels = [str(n).lower() for n in names] if isinstance(names, (list, tuple)) and all(names) else []
    else:
        attributes = dict(node.attrs)
        if "bioformats2raw.layout" in attributes.get("ome", attributes) and "0" in node:
            warnings.append("it is a collection of images; the first is read")
            node = node["0"]
            attributes = dict(node.attrs)
        holder = attributes.get("ome", attributes)
        scales = holder.get("multiscales")
        if not scales:
            raise UnsupportedSlide(path, "the zarr group is not an OME-Zarr image (it has no multiscales)")
        image = scales[0]
        arrays = [node[d["path"]] for d in image["datasets"]]
        labels = [
            a["name"].lower() if isinstance(a, dict) else str(a).lower() for a in image.get("axes", "tczyx")
        ]
        label = f"OME-Zarr {holder.get('version') or image.get('version') or '0.4'}"
        found = _ome_mpp(image, labels)
    first = arrays[0]
    axes = _axes(path, first.shape, labels)
    depth = 8
    source = ZarrSource(path, first, axes, "level 0", depth)
    check_stored(path, first)
    if source.layout.bits > 8:
        depth = used_bits(source.samples, source.layout.rows, source.layout.cols, source.layout.bits)
        warnings.append(f"16-bit samples of which {depth} bits are used; scaled to 8 bits by >> {depth - 8}")
        source = ZarrSource(path, first, axes, "level 0", depth)
    if source.layout.samples == 4:
        warnings.append("its fourth channel is taken as transparency and put on white")
    levels = [_level(0, source.size, source)]
    for i, array in enumerate(arrays[1:], 1):
        try:
            lower = ZarrSource(path, array, _axes(path, array.shape, labels), f"level {i}", depth)
            if lower.size.pixels < source.size.pixels and lower.layout.samples == source.layout.samples:
                levels.append(_level(len(levels), source.size, lower))
        except SlideError as error:
            warnings.append(f"a lower resolution is not used: {error.reason}")
    picked = pick_mpp(found, mpp)
    kind = "RGB" if source.layout.samples >= 3 else "gray"
    return Opened(
        levels=tuple(levels),
        layout=f"chunks of {source.layout.segment}, {kind}",
        compression=_codecs(first),
        mpp=picked,
        warnings=(*warnings, *picked.warnings),
        format=label,
    )


def _level(index: int, full: Size, source: ZarrSource) -> Level:
    layout = source.layout
    down = 1 if index == 0 else whole_downsample(full, layout.size)
    ys, xs = edges(layout.size.height, layout.segment.height), edges(layout.size.width, layout.segment.width)
    return Level(index, layout.size, down, ys, xs, source, source.scratch, layout.name)


def _axes(path: str, shape: tuple[int, ...], labels: list[str]) -> Axes:
    if len(labels) == len(shape) and {"y", "x"} <= set(labels):
        y, x = labels.index("y"), labels.index("x")
        c = next(
            (i for i, a in enumerate(labels) if a in ("c", "s", "channel", "rgb") and shape[i] > 1), None
        )
    else:
        long = [i for i, n in enumerate(shape) if n > 1]
        if len(long) == 3 and shape[long[2]] in (3, 4):
            y, x, c = long
        elif len(long) == 3 and shape[long[0]] in (3, 4):
            c, y, x = long
        elif len(shape) >= 2 and len(long) <= 2:
            y, x, c = len(shape) - 2, len(shape) - 1, None
        else:
            raise UnsupportedSlide(path, f"a zarr array of shape {shape} is not an RGB or gray image")
    rest = [n for i, n in enumerate(shape) if i not in (y, x, c) and n > 1]
    if rest or (c is not None and shape[c] not in (3, 4)):
        raise UnsupportedSlide(
            path, f"a zarr array of shape {shape} is a stack; one RGB or gray image is read"
        )
    return Axes(y, x, c)


def _ome_mpp(image: dict[str, Any], labels: list[str]) -> list[tuple[str, float, float]]:
    try:
        transforms = image["datasets"][0]["coordinateTransformations"] + image.get(
            "coordinateTransformations", []
        )
        size = {"y": 1.0, "x": 1.0}
        for transform in transforms:
            if transform.get("type") == "scale":
                for name in size:
                    size[name] *= float(transform["scale"][labels.index(name)])
        units = {a["name"].lower(): a.get("unit") for a in image["axes"] if isinstance(a, dict)}
        y, x = (size[n] * MICRONS[str(units[n]).lower()] for n in "yx")
    except (KeyError, IndexError, TypeError, ValueError):
        return []
    return [("OME-Zarr scale", y, x)]


def _codecs(array: Any) -> str:
    metadata = array.metadata
    if metadata.zarr_format == 2:
        compressor = metadata.compressor
        return getattr(compressor, "codec_id", "none") if compressor else "none"
    names = [type(c).__name__.removesuffix("Codec").lower() for c in metadata.codecs]
    return ", ".join(n for n in names if n not in ("bytes", "transpose")) or "none"


class ZarrSource:
    """A `SegmentSource` over one array: a chunk is a segment. Safe from several threads."""

    def __init__(self, path: str, array: Any, axes: Axes, name: str, depth: int) -> None:
        self._path, self._array, self._axes = path, array, axes
        height, width = array.shape[axes.y], array.shape[axes.x]
        limits.check_size(path, height, width)
        chunks = array.chunks
        segment = Size(min(height, chunks[axes.y]), min(width, chunks[axes.x]))
        samples = 1 if axes.c is None else array.shape[axes.c]
        dtype = np.dtype(array.dtype)
        if dtype.kind not in "uif":
            raise UnsupportedSlide(path, f"pixels of type {dtype} are not read")
        # Chunks can hold more than is read of them: other axes, and padding at the edges.
        stored = int(np.prod([max(n, 1) for n in chunks], dtype=object)) * dtype.itemsize
        limits.check_segment(path, max(stored, segment.pixels * samples * dtype.itemsize), "chunk")
        if ceil_div(height, segment.height) * ceil_div(width, segment.width) > limits.MAX_SEGMENTS:
            raise UnsupportedSlide(
                path, f"its chunks of {segment} are too many; at most {limits.MAX_SEGMENTS} are read"
            )
        self.layout = TiffLayout(
            name=name,
            size=Size(height, width),
            segment=segment,
            tiled=True,
            samples=samples,
            planar=False,
            bits=dtype.itemsize * 8,
            kind=dtype.kind,
            byteorder="<",
            compression=1,
            predictor=1,
            photometric=1 if samples == 1 else 2,
            fillorder=1,
            orientation=1,
            extra=(2,) if samples == 4 else (),
            subsampling=(1, 1),
            colormap=None,
            offsets=I64_EMPTY,
            counts=I64_EMPTY,
        )
        self._convert = converter(path, self.layout, depth)
        self._chunks = local_chunks(array)
        deep = samples if axes.c is None else chunks[axes.c]
        self.scratch = {
            "stored": stored,
            "decoded": stored * ceil_div(samples, deep) + segment.pixels * samples * dtype.itemsize,
            "rgb": segment.pixels * 3,
        }

    @property
    def size(self) -> Size:
        return self.layout.size

    def stored(self, row: int, col: int) -> int:
        return 0

    def total_stored(self) -> int:
        try:
            return int(self._array.nbytes_stored())
        except Exception as error:
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise SlideError(
                self._path, f"how many bytes {self.layout.name} takes cannot be told ({reason})"
            ) from error

    def samples(self, row: int, col: int, scratch: Scratch) -> list[np.ndarray[Any, Any]]:
        """One array [h, w, samples]."""
        try:
            got = self._direct(row, col, scratch) if self._chunks else None
            return [self._through_zarr(row, col) if got is None else got]
        except Exception as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise BadSegment(
                self._path,
                f"chunk row {row}, column {col} of {self.layout.name} is damaged: {reason}",
                "--on-bad-tile white goes on without it",
            ) from error

    def _direct(self, row: int, col: int, scratch: Scratch) -> np.ndarray[Any, Any] | None:
        """The pixels from the chunks themselves; None when one of them is missing and has the fill value."""
        assert self._chunks is not None
        axes, lay = self._axes, self.layout
        height = min(lay.segment.height, lay.size.height - row * lay.segment.height)
        width = min(lay.segment.width, lay.size.width - col * lay.segment.width)
        place = [0] * self._array.ndim
        place[axes.y], place[axes.x] = row, col
        deep = 1 if axes.c is None else self._array.chunks[axes.c]
        parts = []
        for slot in range(ceil_div(lay.samples, deep)):
            if axes.c is not None:
                place[axes.c] = slot
            chunk = self._chunks.read(tuple(place), scratch, slot)
            if chunk is None:
                return None
            kept = [axes.y, axes.x] if axes.c is None else [axes.y, axes.x, axes.c]
            rest = [i for i in range(chunk.ndim) if i not in kept]
            where: list[Any] = [..., *([0] * len(rest))]
            part = chunk.transpose(kept + rest)[:height, :width]
            parts.append(part.reshape(height, width, -1) if axes.c is None else part[tuple(where)])
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return whole[..., : lay.samples]

    def _through_zarr(self, row: int, col: int) -> np.ndarray[Any, Any]:
        axes, seg = self._axes, self.layout.segment
        select: list[Any] = [0] * self._array.ndim
        select[axes.y] = slice(row * seg.height, min(self.layout.size.height, (row + 1) * seg.height))
        select[axes.x] = slice(col * seg.width, min(self.layout.size.width, (col + 1) * seg.width))
        if axes.c is not None:
            select[axes.c] = slice(None)
        got = np.asarray(self._array[tuple(select)])
        kept = [i for i in (axes.y, axes.x, axes.c) if i is not None]
        got = got.transpose([sorted(kept).index(i) for i in kept])
        return got if got.ndim == 3 else got[..., None]

    def read(self, row: int, col: int, scratch: Scratch) -> U8:
        return np.ascontiguousarray(self._convert(self.samples(row, col, scratch), scratch))
