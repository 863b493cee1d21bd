"""One slide's row of the report: its picture with contours, its numbers, and the plot of its objects' sizes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from wsiseg.geometry import Size
from wsiseg.objects import find_objects
from wsiseg.outputs.geojson import ObjectClass, colour
from wsiseg.outputs.outlines import Outlines, trace
from wsiseg.outputs.overlay import contour_points, jpeg
from wsiseg.outputs.thumbnail import Thumbnail
from wsiseg.units import format_duration, format_megapixels

PICTURE_BYTES = 140_000
CONTOUR_BYTES = 70_000
CROP_BYTES = 5_000
CROPS, CROP_SIDE = 4, 132
"""How many of the least certain objects are shown, and how large, in pixels."""
_BINS = 12
_RING_BYTES = 24  # of the shortest ring in a path


@dataclass(frozen=True, eq=False)
class Doubt:
    """A crop uint8 [h, w, 3] around an object that the model is not certain of, and what to say under it."""

    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class ReportSlide:
    """What the report says of one slide; `error` is the reason of a failure, the rest is then mostly unknown."""

    id: str
    size: Size | None = None
    mpp: float | None = None
    classes: Sequence[ObjectClass] = ()
    thumbnail: Thumbnail | None = None
    seconds: float | None = None
    bottleneck: str = ""
    warnings: Sequence[str] = ()
    error: str = ""
    doubts: Sequence[Doubt] = ()


@dataclass
class Row:
    """A finished row, and what it adds to the totals."""

    html: str
    objects: int = 0
    pixels: int = 0
    failed: bool = False
    warned: bool = False
    seconds: float = 0.0
    classes: list[str] = field(default_factory=list)


def slide_row(slide: ReportSlide, number: int) -> Row:
    """The row of a slide. Every text from outside is escaped."""
    if slide.error:
        cells = [
            _cell('<span class="missing">no picture</span>', 0),
            _cell(f'<strong class="id">{escape(slide.id)}</strong>', slide.id),
            f'<td colspan="7" class="reason"><strong>Failed.</strong> {escape(slide.error)}</td>',
        ]
        return Row(f'<tr class="failed" data-state="failed">{"".join(cells)}</tr>\n', failed=True)
    measured = [(one, find_objects(one.runs)) for one in slide.classes]
    counts = [len(objects) for _, objects in measured]
    total, pixels = sum(counts), slide.size.pixels if slide.size else 0
    share = 100 * sum(one.runs.area for one, _ in measured) / pixels if pixels else 0.0
    diameters = 2 * np.sqrt(np.concatenate([o.area for _, o in measured] or [np.empty(0)]) / np.pi)
    mm2 = pixels * (slide.mpp / 1000) ** 2 if slide.mpp else 0.0
    outlines = [trace(objects) for _, objects in measured]
    density = f"{total / mm2:.2f}" if mm2 else '<abbr title="microns per pixel unknown">n/a</abbr>'
    by_class = "".join(
        f'<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" '
        f'fill="{_rgb(k)}"/></svg>{escape(one.name)}: {count}</li>'
        for k, ((one, _), count) in enumerate(zip(measured, counts, strict=True))
    )
    notes = "".join(f"<li>{escape(text)}</li>" for text in slide.warnings)
    details = " · ".join(
        [str(slide.size), format_megapixels(pixels), f"{slide.mpp:g} µm/px" if slide.mpp else "µm/px unknown"]
    )
    state = "warned" if slide.warnings else "found" if total else "empty"
    cells = [
        _cell(_picture(slide, outlines, total, number), number),
        _cell(f'<strong class="id">{escape(slide.id)}</strong><div class="detail">{details}</div>{_doubts(slide.doubts)}', slide.id),
        _cell(f'{total}<ul class="classes">{by_class}</ul>' if len(measured) > 1 else str(total), total),
        _cell(f"{share:.3f} %", share),
        _cell(density, total / mm2 if mm2 else -1),
        _cell(_histogram(diameters * (slide.mpp or 1), "µm" if slide.mpp else "px"), float(np.median(diameters)) if total else -1),
        _probability(slide.classes),
        _cell(
            (format_duration(slide.seconds) if slide.seconds is not None else "")
            + (f'<div class="detail">held by {escape(slide.bottleneck)}</div>' if slide.bottleneck else ""),
            slide.seconds or 0,
        ),
        _cell(f'<ul class="notes">{notes}</ul>' if notes else "", len(slide.warnings)),
    ]  # fmt: skip
    return Row(
        f'<tr data-state="{state}" data-objects="{total}">{"".join(cells)}</tr>\n',
        objects=total,
        pixels=pixels,
        warned=bool(slide.warnings),
        seconds=slide.seconds or 0.0,
        classes=[one.name for one in slide.classes],
    )


def _cell(html: str, value: object) -> str:
    return f'<td data-v="{escape(str(value))}">{html}</td>'


def _probability(classes: Sequence[ObjectClass]) -> str:
    """The mean of the objects' mean probabilities, and the lowest of them."""
    known = [one.probability for one in classes if one.probability is not None]
    means = np.concatenate(known) if known else np.empty(0)
    if not len(means):
        return _cell("" if known else '<abbr title="probabilities were not kept">n/a</abbr>', -1)
    return _cell(f'{means.mean():.3f}<div class="detail">lowest {means.min():.2f}</div>', float(means.mean()))


def _doubts(doubts: Sequence[Doubt]) -> str:
    """The least certain objects, folded away until somebody asks."""
    if not doubts:
        return ""
    figures = []
    for one in doubts[:CROPS]:
        data = base64.b64encode(jpeg(one.image, CROP_BYTES)).decode()
        height, width = one.image.shape[:2]
        words = escape(one.caption)
        figures.append(
            f'<li><svg class="crop" role="img" aria-label="crop of {words}" viewBox="0 0 {width} {height}">'
            f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/></svg>'
            f'<span class="detail">{words}</span></li>'
        )
    return f'<details class="doubts"><summary>least certain objects, by mean probability</summary><ul>{"".join(figures)}</ul></details>'


def _rgb(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour(number))


def _picture(slide: ReportSlide, outlines: list[Outlines], total: int, number: int) -> str:
    """The thumbnail as SVG with the contours as paths over it, inside the button that opens it."""
    if slide.thumbnail is None:
        return '<span class="missing">no picture</span>'
    image, scale = slide.thumbnail.image, slide.thumbnail.scale
    height, width = image.shape[:2]
    data = base64.b64encode(jpeg(image, PICTURE_BYTES)).decode()
    budget = CONTOUR_BYTES // max(1, len(outlines))
    paths = "".join(
        f'<path class="contour" fill="none" stroke="{_rgb(k)}" d="{_path(one, scale, budget)}"/>'
        for k, one in enumerate(outlines)
    )
    words = escape(f"{slide.id}: thumbnail with the contours of {total} object{'' if total == 1 else 's'}")
    return (
        f'<button type="button" class="open" aria-label="Enlarge {words}">'
        f'<svg class="slide" id="slide{number}" role="img" aria-label="{words}" viewBox="0 0 {width} {height}" '
        f'data-width="{width}" data-height="{height}" data-title="{escape(slide.id)}" preserveAspectRatio="xMidYMid meet">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        f"{paths}</svg></button>"
    )


def _path(outlines: Outlines, scale: int, budget: int) -> str:
    """The rings as one SVG path of at most `budget` characters: coarser, then without the smallest, if need be."""
    tolerance = 0.2
    while True:
        rings = contour_points(outlines, scale, tolerance, budget // _RING_BYTES)
        # Tenths of a pixel, each point relative to the one before it: short numbers.
        text = "".join(_ring(np.round(ring * 10).astype(np.int64)) for ring in rings if len(ring))
        if len(text) <= budget or tolerance > 20:
            return text[: text.rfind("z", 0, budget) + 1] if len(text) > budget else text
        tolerance *= 2


def _ring(points: np.ndarray) -> str:
    steps = np.diff(points, axis=0)
    moves = " ".join(f"{x / 10:g} {y / 10:g}" for x, y in steps[np.abs(steps).sum(1) > 0].tolist())
    return f"M{points[0, 0] / 10:g} {points[0, 1] / 10:g}l{moves or '.1 0'}z"


def _histogram(diameters: np.ndarray, unit: str) -> str:
    """Equivalent diameters of a slide's objects as bars, with the numbers in words."""
    if not len(diameters):
        return '<span class="detail">none</span>'
    top = float(diameters.max())
    step = 10.0 ** np.floor(np.log10(max(top, 1e-9)))
    top = float(np.ceil(top / step * 2) * step / 2) or 1.0
    counts = np.histogram(diameters, _BINS, (0, top))[0]
    bars = "".join(
        f'<rect x="{k * 10 + 1}" y="{40 - 38 * n / counts.max():.1f}" width="8" height="{38 * n / counts.max():.1f}"/>'
        for k, n in enumerate(counts)
        if n
    )
    words = (
        f"equivalent diameters from {diameters.min():.0f} to {diameters.max():.0f} {unit}, "
        f"median {np.median(diameters):.0f} {unit}"
    )
    return (
        f'<svg class="plot" role="img" aria-label="{words}" viewBox="0 0 120 56"><title>{words}</title>{bars}'
        f'<line x1="0" y1="40.5" x2="120" y2="40.5"/><text x="0" y="53">0</text>'
        f'<text x="120" y="53" text-anchor="end">{top:g} {unit}</text></svg>'
        f'<div class="detail">median {np.median(diameters):.0f} {unit}</div>'
    )
