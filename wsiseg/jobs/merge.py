"""The CSV from the records: every slide once, in the order of the manifest, whole or not at all.

A slide is *missing* when it has no record of the folder's identity, or a damaged one. A *failed* slide has a record
that says why; it has no row, and the exit code says so. Missing slides stop the merge unless `partial` was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from wsiseg.errors import IncompleteError
from wsiseg.jobs import checkpoint, records
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.records import Record
from wsiseg.jobs.store import is_url, write_whole

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "smb",
    "ceph",
    "fuse",
    "9p",
    "afs",
    "orangefs",
    "panfs",
    "wekafs",
)
PATIENCE = 65.0  # seconds; NFS keeps attributes and missing names for up to 60


@dataclass(frozen=True)
class Merged:
    """What a merge found.

    Attributes:
        total: slides in the manifest.
        rows: slides written.
        failed: records of failed slides, in order.
        missing: slides without a record, in order.
    """

    total: int
    rows: int
    failed: tuple[Record, ...] = ()
    missing: tuple[Slide, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        return 3 if self.missing else 1 if self.failed else 0


def merge(
    folder: JobFolder,
    out: str | os.PathLike[str],
    partial: bool = False,
    manifest: Manifest | None = None,
    patience: float | None = None,
) -> Merged:
    """Writes the CSV, at once.

    Args:
        folder: of the job.
        out: path or URL of the CSV.
        partial: write the rows there are even when slides are missing.
        manifest: None reads the folder's.
        patience: seconds to look again for records that a slow file system may hide; None: 65 on a network file
            system, 0 on a disk.

    Raises:
        IncompleteError: slides are missing and `partial` is not given; nothing was written then.
    """
    manifest = manifest or folder.manifest()
    if manifest is None:
        raise IncompleteError(f"{folder.url}: no manifest in it; nothing was run there")
    digest = folder.digest() or ""
    seconds = default_patience(folder.url) if patience is None else patience
    there = {records.key_of_name(name) for name in folder.store.names(records.FOLDER)}
    unseen = [slide for slide in manifest.slides if slide.key not in there]
    if unseen:
        late = look_again(folder, unseen, seconds)
        unseen = [slide for slide in unseen if slide.key not in late]
    if unseen and not partial:
        raise IncompleteError(incomplete_line(folder, manifest, unseen))
    known = {slide.index for slide in unseen}
    missing, failed = list(unseen), list[Record]()
    rows = 0

    def lines() -> Iterator[bytes]:
        nonlocal rows
        yield b"id,predicted\n"
        for slide, data in _read(
            folder, [slide for slide in manifest.slides if slide.index not in known], seconds > 0
        ):
            whole = records.decode(data)
            if whole is None or not whole[0].matches(slide, digest):
                missing.append(slide)
            elif whole[0].status != "done":
                failed.append(whole[0])
            else:
                rows += 1
                yield from csv_rows(*whole)
        if missing and not partial:
            raise IncompleteError(incomplete_line(folder, manifest, missing))

    write_whole(out, lines())
    if not missing:
        # every slide has its record; who died between a record and this left the slide's state behind
        folder.store.remove_folder(checkpoint.FOLDER)
    return Merged(
        len(manifest.slides), rows, tuple(failed), tuple(sorted(missing, key=lambda slide: slide.index))
    )


def _read(folder: JobFolder, slides: Sequence[Slide], slow: bool) -> Iterator[tuple[Slide, bytes | None]]:
    """Each slide with its record's bytes, in order; a few at a time where every read has to travel."""
    if not slow and not is_url(folder.url):
        for slide in slides:
            yield slide, folder.store.read(records.record_name(slide.key))
        return
    with ThreadPoolExecutor(16) as pool:
        for at in range(0, len(slides), 16):
            part = slides[at : at + 16]
            yield from zip(
                part,
                pool.map(lambda slide: folder.store.read(records.record_name(slide.key)), part),
                strict=True,
            )


def csv_rows(record: Record, lines: Sequence[bytes]) -> Iterator[bytes]:
    """A slide's rows: one, or one per class with the id `slide:class` when the model has several."""
    # After the runs there may be lines of other things.
    for name, runs in zip(record.classes, lines[: len(record.classes)], strict=True):
        row_id = record.id if len(record.classes) == 1 else f"{record.id}:{name}"
        if any(c in row_id for c in ',"\r\n'):
            row_id = '"' + row_id.replace('"', '""') + '"'
        yield row_id.encode()
        yield b","
        yield runs
        yield b"\n"


def look_again(
    folder: JobFolder,
    missing: Sequence[Slide],
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Record]:
    """Asks for each missing record by its name, again and again until all are there or `patience` seconds have passed.

    A listing, and the knowledge that a name does not exist, may be a minute old on a shared file system.
    """
    found: dict[str, Record] = {}
    end, pause = clock() + patience, 0.5
    while True:
        found |= folder.scan([slide for slide in missing if slide.key not in found], None, listed=False)
        rest = end - clock()
        if len(found) == len(missing) or rest <= 0:
            return found
        sleep(min(pause, rest))
        pause = min(2 * pause, 10.0)


def default_patience(url: str, mounts: str | None = None) -> float:
    """65 s where records may lie on a network file system, else 0.

    Args:
        url: the job's folder.
        mounts: content of /proc/self/mountinfo; None reads it.
    """
    if "://" in url:
        return 0.0  # object stores show a new object at once
    if mounts is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
                mounts = file.read()
        except OSError:
            return 0.0
    best, kind = "", ""
    real = os.path.realpath(url)
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return PATIENCE if kind.startswith(NETWORK_FILE_SYSTEMS) else 0.0


def incomplete_line(folder: JobFolder, manifest: Manifest, missing: Sequence[Slide]) -> str:
    """The one line of a merge that cannot be complete."""
    names = ", ".join(slide.id for slide in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return (
        f"{folder.url}: {len(missing)} of {len(manifest.slides)} slides have no result yet ({names}); no CSV was written. "
        "Run the same command again for the rest, or merge with --partial"
    )
