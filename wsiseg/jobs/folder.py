"""The folder of a job, `<submission>.wsiseg/`: manifest, identity, records, checkpoints, logs, submissions.

    manifest.json    which slides (`manifest.Manifest`)
    identity.json    what every byte of the results depends on: model and options, as plain data
    settings.json    what the person who submitted it asked for
    records/ab/abcdef0123456789.txt      one finished or failed slide (`records.Record`)
    checkpoints/abcdef0123456789/        the state of a slide in progress (`checkpoint`)
    slurm/0001/      script, plan, claims, ids and logs of one submission

Every file is written whole by whoever has it; nobody locks. A folder holds the results of one identity only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wsiseg.errors import UsageError
from wsiseg.jobs import records
from wsiseg.jobs.manifest import NAME as MANIFEST
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.records import Record
from wsiseg.jobs.store import Store, open_store
from wsiseg.jobs.temporary import host_name

IDENTITY = "identity.json"
SETTINGS = "settings.json"
SUFFIX = ".wsiseg"
PARTS = ("records", "checkpoints", "logs", "slurm", ".wsiseg-tmp")


class JobFolder:
    """The folder of one job, on a disk or behind an fsspec URL."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.store: Store = open_store(url)
        self.url = self.store.url
        self.host = host_name()

    @classmethod
    def beside(
        cls, submission: str | os.PathLike[str], records: str | os.PathLike[str] | None = None
    ) -> JobFolder:
        """The folder of a submission CSV: beside it, unless `records` says where."""
        return cls(records if records is not None else os.fspath(submission) + SUFFIX)

    # -- manifest

    def manifest(self) -> Manifest | None:
        """The frozen list, or None when there is none yet."""
        data = self.store.read(MANIFEST)
        return None if data is None else Manifest.from_bytes(data, f"{self.url}/{MANIFEST}")

    def write_manifest(self, manifest: Manifest) -> None:
        """Replaces the list. Records of slides that stay in it keep their worth."""
        data = manifest.to_bytes()
        if self.store.read(MANIFEST) != data:
            self.store.write(MANIFEST, data)

    def freeze_manifest(self, manifest: Manifest) -> Manifest:
        """The list that counts: this one if nobody wrote one before, else the one that is there."""
        if self.store.create(MANIFEST, manifest.to_bytes()):
            return manifest
        frozen = self.manifest()
        assert frozen is not None
        return frozen

    # -- identity

    def identity(self) -> dict[str, Any] | None:
        """What the records of this folder were made with, or None."""
        data = self.store.read(IDENTITY)
        if data is None:
            return None
        try:
            content = json.loads(data)
            return dict(content["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.url}/{IDENTITY}: not readable ({error}); use --fresh to start over"
            ) from error

    def claim(self, identity: Mapping[str, Any]) -> str:
        """The digest of `identity`, after making sure that the folder's records were made with the same.

        Raises:
            UsageError: naming every option that differs, when there are records of another identity.
        """
        wanted = json.loads(canonical(identity))
        digest = identity_digest(wanted)
        text = json.dumps(
            {"digest": digest, "identity": wanted}, indent=1, sort_keys=True, ensure_ascii=False
        )
        data = text.encode() + b"\n"
        there = self.identity()
        if there is None:
            if self.store.create(IDENTITY, data):
                return digest
            there = self.identity() or {}
        if identity_digest(there) == digest:
            return digest
        if self._count():
            raise self._refusal(there, wanted)
        self.store.write(IDENTITY, data)
        return digest

    def claim_settings(self, settings: Mapping[str, Any]) -> None:
        """Compares what a person asks for with what was asked before, where the identity is known on the nodes only.

        Raises:
            UsageError: naming what differs, when there are records.
        """
        wanted = json.loads(canonical(settings))
        data = self.store.read(SETTINGS)
        there = json.loads(data) if data else wanted
        if there != wanted and self._count():
            raise self._refusal(there, wanted)
        self.store.write(SETTINGS, json.dumps(wanted, indent=1, sort_keys=True).encode() + b"\n")

    def _count(self) -> int:
        return sum(1 for name in self.store.names(records.FOLDER) if records.key_of_name(name))

    def _refusal(self, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> UsageError:
        return UsageError(
            f"{self.url}: its {self._count()} records were made with another model or other options: "
            f"{'; '.join(differing(there, wanted))}. Give another output, the same options, or --fresh to start over"
        )

    def digest(self) -> str | None:
        """The digest of the folder's identity, or None before anything was processed."""
        identity = self.identity()
        return None if identity is None else identity_digest(identity)

    # -- records

    def write_done(self, slide: Slide, digest: str, result: Any) -> Record:
        """Writes and flushes the record of a `SlideResult`."""
        record, lines = records.done_record(slide, digest, result, self.host)
        self.store.write(records.record_name(slide.key), *records.encode(record, lines))
        return record

    def write_failed(self, slide: Slide, digest: str, error: str, kind: str) -> Record:
        """Writes and flushes the record of a slide that failed."""
        record = records.failed_record(slide, digest, error, kind, self.host)
        self.store.write(records.record_name(slide.key), *records.encode(record, []))
        return record

    def header(self, slide: Slide) -> Record | None:
        """The header of a slide's record, or None when there is none."""
        return records.decode_header(self.store.read_line(records.record_name(slide.key)))

    def scan(self, slides: Iterable[Slide], digest: str | None, listed: bool = True) -> dict[str, Record]:
        """Headers of the records that match, by key.

        Args:
            slides: of the manifest.
            digest: of the identity; None takes the folder's own.
            listed: look into the listings first (one read per folder); False asks for each file by its name, which
                also finds what a stale listing of a shared file system hides.
        """
        digest = digest if digest is not None else self.digest()
        if digest is None:
            return {}
        wanted = list(slides)
        if listed:
            there = {records.key_of_name(name) for name in self.store.names(records.FOLDER)}
            wanted = [slide for slide in wanted if slide.key in there]

        def read(part: list[Slide]) -> list[Record]:
            found = ((self.header(slide), slide) for slide in part)
            return [record for record, slide in found if record is not None and record.matches(slide, digest)]

        parts = [wanted[i : i + 256] for i in range(0, len(wanted), 256)]
        # the threads hide the latency of shared file systems and object stores
        with ThreadPoolExecutor(8) as pool:
            return {record.key: record for part in pool.map(read, parts) for record in part}

    def forget_failures(self, found: dict[str, Record]) -> dict[str, Record]:
        """Removes the failed ones among `found`, so that they are tried again; returns the others."""
        for record in found.values():
            if record.status != "done":
                self.store.remove(records.record_name(record.key))
        return {key: record for key, record in found.items() if record.status == "done"}

    # -- the whole

    def start_over(self) -> None:
        """Removes everything that a job left here, for `--fresh`."""
        for part in PARTS:
            self.store.remove_folder(part)
        for name in (IDENTITY, SETTINGS, MANIFEST):
            self.store.remove(name)

    def clean(self) -> int:
        """Removes what dead processes left half-written; returns how many files."""
        return self.store.clean()


def canonical(identity: Mapping[str, Any]) -> str:
    """JSON that is the same for the same content; tuples are lists."""
    return json.dumps(identity, sort_keys=True, separators=(",", ":"), default=str)


def identity_digest(identity: Mapping[str, Any]) -> str:
    """32 hexadecimal digits for everything the results depend on."""
    return hashlib.blake2b(canonical(identity).encode(), digest_size=16).hexdigest()


def differing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs, as "tile 512, now 1024", in order of name."""
    old, new = _flat(there), _flat(wanted)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            lines.append(f"{name} {_short(old.get(name))}, now {_short(new.get(name))}")
    return lines


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = value
    return flat


def _short(value: Any) -> str:
    text = "unset" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
