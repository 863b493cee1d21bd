"""Finished slides read back from their records: for outputs that were asked for later, and for the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsiseg.errors import OutputError, SlideError
from wsiseg.geometry import Size
from wsiseg.jobs import records
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.records import Record
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.kinds import KINDS, missing_outputs
from wsiseg.outputs.save import SlideOutputs, save_outputs
from wsiseg.runs import Runs
from wsiseg.slide import open_slide


@dataclass(frozen=True)
class Finished:
    """A slide of the manifest with its record, and its masks when it was done."""

    slide: Slide
    record: Record
    classes: tuple[ObjectClass, ...]

    def outputs(self) -> SlideOutputs:
        """The slide as the writers of outputs need it."""
        return SlideOutputs(self.slide.id, self.classes, self.record.mpp, lambda: open_slide(self.slide.path))


def finished(folder: JobFolder, slides: Sequence[Slide]) -> Iterator[Finished]:
    """Every slide that has a record, in the manifest's order, one in memory at a time."""
    found = folder.scan(slides, None)
    for slide in slides:
        header = found.get(slide.key)
        if header is None:
            continue
        whole = records.decode(folder.store.read(records.record_name(slide.key)))
        record, lines = whole or (header, [])
        classes: tuple[ObjectClass, ...] = ()
        if record.status == "done" and record.size is not None:
            size = Size(*record.size)
            means = records.means_of(record, lines)
            classes = tuple(
                ObjectClass(
                    name,
                    Runs.from_rle(line.decode(), size, strict=False),
                    np.array(means[k], np.float64) if means else None,
                )
                for k, (name, line) in enumerate(zip(record.classes, lines, strict=False))
            )
        yield Finished(slide, record, classes)


def save_missing(
    folder: JobFolder, slides: Sequence[Slide], into: str | os.PathLike[str], kinds: Sequence[str]
) -> int:
    """Write the outputs of finished slides that are not there yet, and return of how many slides.

    Raises:
        OutputError: one cannot be written.
    """
    # What needs the probability planes was written by the worker that had them.
    kinds = [kind for kind in kinds if not KINDS[kind].planes]
    lacking = [s for s in slides if missing_outputs(s.id, into, kinds)]
    count = 0
    for one in finished(folder, lacking):
        if one.record.status == "done":
            save_outputs(into, missing_outputs(one.slide.id, into, kinds), one.outputs())
            count += 1
    return count


def write_batch_report(
    path: str | os.PathLike[str],
    folder: JobFolder,
    manifest: Manifest,
    settings: dict[str, Any],
    model: dict[str, Any],
    when: str,
) -> int:
    """The report of a whole job, from its records; see `wsiseg.outputs.report.page.write_report`.

    Raises:
        OutputError: it cannot be written.
    """
    from wsiseg import __version__
    from wsiseg.outputs.report.page import ReportRun, write_report
    from wsiseg.outputs.report.rows import CROP_SIDE, CROPS, Doubt, ReportSlide
    from wsiseg.outputs.thumbnail import Thumbnail, read_thumbnail
    from wsiseg.outputs.uncertain import doubtful_crops

    def pictures(one: Finished) -> tuple[Thumbnail | None, list[Doubt]]:
        try:
            with open_slide(one.slide.path) as opened:
                crops = doubtful_crops(opened, one.classes, CROPS, CROP_SIDE)
                return read_thumbnail(opened), [Doubt(image, caption) for image, caption in crops]
        except SlideError:
            return None, []  # the slide is gone or damaged since; its row stands without a picture

    def rows() -> Iterator[ReportSlide]:
        for one in finished(folder, manifest.slides):
            record = one.record
            if record.status != "done" or record.size is None:
                yield ReportSlide(one.slide.id, error=record.error or "no record")
                continue
            thumbnail, doubts = pictures(one)
            yield ReportSlide(
                one.slide.id,
                size=Size(*record.size),
                mpp=record.mpp,
                classes=one.classes,
                thumbnail=thumbnail,
                doubts=doubts,
                seconds=record.seconds,
                bottleneck=str(record.stats.get("bottleneck", "")),
                warnings=record.warnings,
            )

    try:
        return write_report(path, ReportRun("wsiseg report", when, __version__, settings, model), rows())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
