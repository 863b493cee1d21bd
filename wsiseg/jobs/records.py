"""One record per slide: its runs, or the reason why there are none, and everything they depend on.

A record is text. The first line is JSON (what `wsiseg status` shows, and what resume compares); then, for a finished
slide, one line of runs per class as they stand in the CSV, and, where probabilities were kept, one line per class with the
mean probability of each object in ten-thousandths. The header carries their length and checksum, so half a
record, which a crashed storage server may leave, is no record.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsiseg.jobs.manifest import Slide

FORMAT = 1
FOLDER = "records"
MEAN_STEPS = 10_000


@dataclass(frozen=True)
class Record:
    """The header of a record.

    Attributes:
        id, key: of the slide.
        path: where the slide was when it was processed.
        status: "done" or "failed".
        file_size, mtime: the slide's file as it was measured before it was processed.
        digest: of the model and the options (`identity_digest`).
        finished: Unix time at which the record was made.
        seconds: how long the slide took.
        host: where.
        error, kind: the reason of a failure in one line, and the name of its class.
        classes: names, one per line of runs.
        size: (height, width) of the slide in pixels; None when it failed.
        mpp, scale, stats, warnings: as the pipeline gave them.
        lengths, checksum: bytes of each line without its end, and the CRC-32 of them all.
    """

    id: str
    key: str
    path: str
    status: str
    file_size: int
    mtime: int
    digest: str
    finished: float = 0.0
    seconds: float = 0.0
    host: str = ""
    error: str = ""
    kind: str = ""
    classes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    mpp: float | None = None
    scale: int | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    checksum: int = 0

    def matches(self, slide: Slide, digest: str) -> bool:
        """Whether this is the result of that very file under that model and those options."""
        return (
            self.digest == digest
            and (self.file_size, self.mtime) == (slide.size, slide.mtime)
            and self.id == slide.id
        )


def record_name(key: str) -> str:
    """Where the record of a key lies: 256 folders keep each listing short at 100,000 slides."""
    return f"{FOLDER}/{key[:2]}/{key}.txt"


def key_of_name(name: str) -> str | None:
    """The key of a record's file name, or None when it is not a record's."""
    stem = name.rsplit("/", 1)[-1]
    return stem[:-4] if name.startswith(FOLDER + "/") and stem.endswith(".txt") else None


def done_record(slide: Slide, digest: str, result: Any, host: str) -> tuple[Record, list[bytes]]:
    """The record of a `SlideResult` and its lines (ASCII): runs, then means where the result has them."""
    lines = [runs.to_rle().encode("ascii") for runs in result.runs]
    for means in getattr(result, "means", ()):
        lines.append(" ".join(str(round(mean * MEAN_STEPS)) for mean in means.tolist()).encode("ascii"))
    record = Record(
        id=slide.id,
        key=slide.key,
        path=slide.path,
        status="done",
        file_size=slide.size,
        mtime=slide.mtime,
        digest=digest,
        finished=round(time.time(), 3),
        seconds=round(float(result.seconds), 4),
        host=host,
        classes=tuple(result.classes),
        size=(int(result.size[0]), int(result.size[1])),
        mpp=result.mpp,
        scale=result.scale,
        stats=result.stats,
        warnings=tuple(result.warnings),
        lengths=tuple(len(line) for line in lines),
        checksum=_checksum(lines),
    )
    return record, lines


def failed_record(slide: Slide, digest: str, error: str, kind: str, host: str) -> Record:
    """The record of a slide that cannot be processed."""
    return Record(
        id=slide.id,
        key=slide.key,
        path=slide.path,
        status="failed",
        file_size=slide.size,
        mtime=slide.mtime,
        digest=digest,
        finished=round(time.time(), 3),
        host=host,
        error=" ".join(error.split()),
        kind=kind,
    )


def encode(record: Record, lines: list[bytes]) -> list[bytes]:
    """The parts of the record's file."""
    header = {k: v for k, v in vars(record).items() if v not in ((), {}, "", None)}
    parts = [json.dumps({"format": FORMAT, **header}, ensure_ascii=False, default=_plain).encode(), b"\n"]
    for line in lines:
        parts += [line, b"\n"]
    return parts


def decode_header(line: bytes | None) -> Record | None:
    """The record of a header line; None for anything that is not one of this format."""
    if not line:
        return None
    try:
        values = json.loads(line)
        if values.pop("format") != FORMAT:
            return None
        for name in ("classes", "lengths", "warnings"):
            values[name] = tuple(values.get(name, ()))
        if values.get("size") is not None:
            values["size"] = (values["size"][0], values["size"][1])
        return Record(**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def decode(data: bytes | None) -> tuple[Record, list[bytes]] | None:
    """The record and its lines: a line of runs per class, then one of means per class or none. None when it is damaged, cut short or not a record."""
    if not data:
        return None
    head, _, body = data.partition(b"\n")
    record = decode_header(head)
    if record is None:
        return None
    lines, at = [], 0
    for length in record.lengths:
        lines.append(body[at : at + length])
        at += length + 1
    if len(body) != at or zlib.crc32(body) != record.checksum:
        return None
    return record, lines


def means_of(record: Record, lines: list[bytes]) -> list[list[float]]:
    """The mean probability of each object, per class, in the order of `find_objects`; [] where none were kept."""
    kept = lines[len(record.classes) :]
    return [[int(word) / MEAN_STEPS for word in line.split()] for line in kept]


def _checksum(lines: list[bytes]) -> int:
    value = 0
    for line in lines:
        value = zlib.crc32(b"\n", zlib.crc32(line, value))
    return value


def _plain(value: Any) -> Any:
    """Numbers of numpy, which this package does not import, as Python's."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
