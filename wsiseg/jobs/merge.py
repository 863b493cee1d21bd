"""The CSV from the records: every slide once, in the order of the manifest, whole or not at all.

A slide is *missing* when it has no record of the folder's identity, or a damaged one. A *failed* slide has a record
that says why; it has no row, and the exit code says so. Missing slides stop the merge unless `partial` was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from wsiseg.errors import IncompleteError
from wsiseg.jobs import records
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.records import Record
from wsiseg.jobs.store import write_whole

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
    found = folder.scan(manifest.slides, None)
    missing = [slide for slide in manifest.slides if slide.key not in found]
    if missing:
        seconds = default_patience(folder.url) if patience is None else patience
        found |= look_again(folder, missing, seconds)
        missing = [slide for slide in manifest.slides if slide.key not in found]
    if missing and not partial:
        raise IncompleteError(incomplete_line(folder, manifest, missing))
    damaged: list[Slide] = []
    rows = 0

    def lines() -> Iterator[bytes]:
        nonlocal rows
        yield b"id,predicted\n"
        for slide in manifest.slides:
            record = found.get(slide.key)
            if record is None or record.status != "done":
                continue
            whole = records.decode(folder.store.read(records.record_name(slide.key)))
            if whole is None:
                damaged.append(slide)
                if not partial:
                    raise IncompleteError(incomplete_line(folder, manifest, damaged))
                continue
            rows += 1
            yield from csv_rows(*whole)

    write_whole(out, lines())
    failed = tuple(found[s.key] for s in manifest.slides if s.key in found and found[s.key].status != "done")
    return Merged(
        len(manifest.slides), rows, failed, tuple(sorted([*missing, *damaged], key=lambda s: s.index))
    )


def csv_rows(record: Record, lines: Sequence[bytes]) -> Iterator[bytes]:
    """A slide's rows: one, or one per class with the id `slide:class` when the model has several."""
    for name, runs in zip(record.classes, lines, strict=True):
        row_id = record.id if len(lines) == 1 else f"{record.id}:{name}"
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
