"""The page around the rows: head, summary, table, the large view, settings and model card."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

from wsiseg.outputs.files import atomic_file
from wsiseg.outputs.report.rows import ReportSlide, slide_row
from wsiseg.units import format_duration, format_megapixels

_COLUMNS = (
    ("Slide", "number"),
    ("Name", "text"),
    ("Objects", "number"),
    ("Area share", "number"),
    ("Per mm²", "number"),
    ("Diameters", "number"),
    ("Probability", "number"),
    ("Time", "number"),
    ("Warnings", "number"),
)


@dataclass(frozen=True)
class ReportRun:
    """What the report says of the whole run: a title, when it was made, settings and the model's card as plain data."""

    title: str = "wsiseg report"
    when: str = ""
    version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


def write_report(path: str | os.PathLike[str], run: ReportRun, slides: Iterable[ReportSlide]) -> int:
    """Writes the page, and returns how many slides it shows.

    The file needs nothing beside it and nothing from a network; a content security policy forbids it both, and
    allows no script but its own. A slide takes up to about 300 kB.

    Memory bound: one slide's row; rows wait in a temporary file, since the summary stands above them.

    Raises:
        OutputError: the file cannot be written.
    """
    style, script = _asset("page.css"), _asset("page.js")
    rows = []
    with atomic_file(path) as file, tempfile.TemporaryFile() as body:
        for number, slide in enumerate(slides, 1):
            row = slide_row(slide, number)
            body.write(row.html.encode("utf-8", "replace"))
            row.html = ""
            rows.append(row)
        done = [row for row in rows if not row.failed]
        facts = [
            ("slides", str(len(rows))),
            ("failed", str(len(rows) - len(done))),
            ("with warnings", str(sum(row.warned for row in rows))),
            ("objects", str(sum(row.objects for row in rows))),
            ("segmented", format_megapixels(sum(row.pixels for row in rows))),
            ("time of slides", format_duration(sum(row.seconds for row in rows))),
        ]
        file.write(
            f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(run.title)}</title>
<style>{style}</style></head><body>
<header><h1>{escape(run.title)}</h1>
<p>{escape(" · ".join(x for x in (run.when, f"wsiseg {run.version}" if run.version else "") if x))}</p>
<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)}</dl></header>
<main>
<form class="tools" role="search"><label>Find <input type="search" id="find" placeholder="name, warning or reason"></label>
<label>Show <select id="show"><option value="">all slides</option><option value="found">with objects</option>
<option value="empty">without objects</option><option value="warned">with warnings</option>
<option value="failed">failed</option></select></label>
<label><input type="checkbox" id="contours" checked> contours</label>
<output id="count" aria-live="polite">{len(rows)} of {len(rows)} slides</output></form>
<div class="scroll"><table><thead><tr>{_head()}</tr></thead><tbody>
""".encode()
        )
        body.seek(0)
        while chunk := body.read(1 << 20):
            file.write(chunk)
        file.write(
            f"""</tbody></table></div>
<section class="cards"><div><h2>Settings</h2>{_card(run.settings)}</div>
<div><h2>Model</h2>{_card(run.model)}</div></section></main>
<dialog id="view" aria-labelledby="view-title"><div class="bar"><h2 id="view-title"></h2>
<span class="hint">wheel or + and - zoom, drag or arrows move, 0 fits, c contours, Esc closes</span>
<button type="button" id="in" aria-label="Zoom in">+</button><button type="button" id="out" aria-label="Zoom out">−</button>
<button type="button" id="fit">Fit</button><label><input type="checkbox" id="view-contours" checked> contours</label>
<button type="button" id="close">Close</button></div><div id="stage" tabindex="0" aria-label="the enlarged slide"></div></dialog>
<script>{script}</script></body></html>
""".encode()
        )
    return len(rows)


def _asset(name: str) -> str:
    return resources.files("wsiseg.outputs.report").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _head() -> str:
    return "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort" data-kind="{kind}">{name}</button></th>'
        for name, kind in _COLUMNS
    )


def _card(values: Mapping[str, Any]) -> str:
    """Plain data as a list of names and values."""
    if not values:
        return "<p>not recorded</p>"
    items = "".join(
        f"<div><dt>{escape(str(k))}</dt><dd>{escape(_words(v))}</dd></div>" for k, v in values.items()
    )
    return f"<dl>{items}</dl>"


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(v) for v in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_words(v)}" for k, v in value.items())
    return "default" if value is None else str(value) or "none"
