"""How far a job is, from its records alone: done, failed with reasons, missing, slides per hour, time left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from wsiseg.errors import UsageError
from wsiseg.jobs.folder import SUFFIX, JobFolder
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.records import Record
from wsiseg.jobs.store import is_url

RECENT = 200  # records that the speed is taken from


@dataclass(frozen=True)
class Status:
    """A job's state.

    Attributes:
        url: of the folder.
        total: slides in the manifest.
        done, failed: records, in the order of the manifest.
        missing: slides without a record.
        per_hour: slides in an hour, from the last records; None before there are two.
        seconds_left: at that speed, in bytes of slides; None when the speed is not known.
        pixels: of the done slides.
    """

    url: str
    total: int
    done: tuple[Record, ...]
    failed: tuple[Record, ...]
    missing: tuple[Slide, ...]
    per_hour: float | None
    seconds_left: float | None
    pixels: int


def find_folder(name: str) -> JobFolder:
    """The job's folder of a CSV, of the folder itself, or of a folder with one job in it.

    Raises:
        UsageError: when there is no job, or more than one.
    """
    if is_url(name):
        return JobFolder(name if name.rstrip("/").endswith(SUFFIX) else name.rstrip("/") + SUFFIX)
    for candidate in (name, name.rstrip("/") + SUFFIX):
        if os.path.isfile(os.path.join(candidate, "manifest.json")):
            return JobFolder(candidate)
    if os.path.isdir(name):
        inside = sorted(
            entry.path
            for entry in os.scandir(name)
            if entry.name.endswith(SUFFIX) and os.path.isfile(os.path.join(entry.path, "manifest.json"))
        )
        if len(inside) == 1:
            return JobFolder(inside[0])
        if inside:
            raise UsageError(
                f"{name}: {len(inside)} jobs in it; name one of {', '.join(os.path.basename(i) for i in inside)}"
            )
    raise UsageError(
        f"{name}: no job there (looked for manifest.json in it and in {name.rstrip('/')}{SUFFIX})"
    )


def status_of(folder: JobFolder) -> Status:
    """Reads the manifest and the first line of every record.

    Raises:
        UsageError: when the folder has no manifest.
    """
    manifest = folder.manifest()
    if manifest is None:
        raise UsageError(f"{folder.url}: no manifest in it; nothing was run there")
    found = folder.scan(manifest.slides, None)
    in_order = [found[slide.key] for slide in manifest.slides if slide.key in found]
    done = tuple(record for record in in_order if record.status == "done")
    missing = tuple(slide for slide in manifest.slides if slide.key not in found)
    per_second, bytes_per_second = _speed(in_order)
    left = sum(slide.size for slide in missing) / bytes_per_second if bytes_per_second else None
    return Status(
        url=folder.url,
        total=len(manifest.slides),
        done=done,
        failed=tuple(record for record in in_order if record.status != "done"),
        missing=missing,
        per_hour=3600 * per_second if per_second else None,
        seconds_left=0.0 if not missing else left,
        pixels=sum(record.size[0] * record.size[1] for record in done if record.size),
    )


def _speed(found: Sequence[Record]) -> tuple[float | None, float | None]:
    """(slides, bytes) per second between the first and the last of the latest records."""
    latest = sorted(found, key=lambda record: record.finished)[-RECENT:]
    if len(latest) < 2 or latest[-1].finished <= latest[0].finished:
        return None, None
    seconds = latest[-1].finished - latest[0].finished
    return (len(latest) - 1) / seconds, sum(record.file_size for record in latest[1:]) / seconds
