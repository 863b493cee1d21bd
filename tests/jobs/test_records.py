"""Records read back; half of one is none; what differs is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.conftest import write_slides
from tests.jobs.fake import FakeResult, FakeRuns
from wsiseg.errors import UsageError
from wsiseg.jobs.folder import JobFolder, differing
from wsiseg.jobs.manifest import find_slides
from wsiseg.jobs.records import decode, decode_header, record_name

IDENTITY = {"model": "m", "options": {"tile": 512, "threshold": 0.5}}


def job(tmp_path: Path, count: int = 3) -> tuple[JobFolder, list, str]:
    manifest = find_slides([write_slides(tmp_path / "slides", count)])
    folder = JobFolder.beside(tmp_path / "out.csv")
    folder.write_manifest(manifest)
    return folder, list(manifest.slides), folder.claim(IDENTITY)


def result(slide: object, *texts: str) -> FakeResult:
    classes = tuple(f"c{i}" for i in range(len(texts)))
    return FakeResult(
        slide, (10, 20), tuple(map(FakeRuns, texts)), classes, 0.5, 2, 1.25, {"tiles": 7}, ("odd",)
    )


def test_a_record_reads_back_with_all_its_classes(tmp_path: Path) -> None:
    folder, slides, digest = job(tmp_path)
    folder.write_done(slides[0], digest, result(slides[0], "1 2 7 3", "", "9 1"))
    data = folder.store.read(record_name(slides[0].key))
    decoded = decode(data)
    assert decoded is not None
    record, lines = decoded
    assert lines == [b"1 2 7 3", b"", b"9 1"]
    assert (record.size, record.mpp, record.scale, record.classes) == ((10, 20), 0.5, 2, ("c0", "c1", "c2"))
    assert (record.stats, record.warnings, record.seconds) == ({"tiles": 7}, ("odd",), 1.25)
    assert record.matches(slides[0], digest)


def test_every_cut_and_every_changed_byte_of_the_runs_is_noticed(tmp_path: Path) -> None:
    folder, slides, digest = job(tmp_path)
    folder.write_done(slides[0], digest, result(slides[0], "1 2 7 3", "5 5"))
    data = folder.store.read(record_name(slides[0].key))
    assert data is not None
    assert all(decode(data[:end]) is None for end in range(len(data)))
    body = data.index(b"\n") + 1
    for at in range(body, len(data)):
        assert decode(data[:at] + b"#" + data[at + 1 :]) is None


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"null", b'{"format": 99}', b'{"format": 1, "id": "a"}', b"\xff\xfe"]
)
def test_what_is_not_a_record_is_none(line: bytes) -> None:
    assert decode_header(line) is None


def test_only_matching_records_are_found(tmp_path: Path) -> None:
    folder, slides, digest = job(tmp_path, 5)
    folder.write_done(slides[0], digest, result(slides[0], "1 1"))
    folder.write_done(slides[1], "another", result(slides[1], "1 1"))
    folder.write_failed(slides[2], digest, "a\nreason", "SlideError")
    folder.write_done(slides[3], digest, result(slides[3], "1 1"))
    Path(slides[3].path).write_text("another slide under the same name")
    fresh = find_slides([tmp_path / "slides"]).slides
    found = folder.scan(fresh, digest)
    assert {record.id: record.status for record in found.values()} == {"s000": "done", "s002": "failed"}
    assert found[slides[2].key].error == "a reason"
    assert [record.id for record in folder.forget_failures(found).values()] == ["s000"]
    assert [record.id for record in folder.scan(fresh, digest).values()] == ["s000"]


def test_another_identity_is_refused_by_name_only_when_there_are_records(tmp_path: Path) -> None:
    folder, slides, digest = job(tmp_path)
    other = {"model": "m", "options": {"tile": 1024, "threshold": 0.5}}
    assert folder.claim(other) != digest
    digest = folder.claim(IDENTITY)
    folder.write_done(slides[0], digest, result(slides[0], "1 1"))
    assert folder.claim({"options": {"threshold": 0.5, "tile": 512}, "model": "m"}) == digest
    with pytest.raises(UsageError, match=r"its 1 records .*: options\.tile 512, now 1024\. .*--fresh"):
        folder.claim(other)
    folder.start_over()
    assert folder.claim(other) != digest


def test_differences_are_named_in_order() -> None:
    there = {"a": 1, "b": {"c": [1, 2]}, "gone": True}
    wanted = {"a": 2, "b": {"c": [1, 2]}, "new": None, "x": "y"}
    assert differing(there, wanted) == ["a 1, now 2", "gone true, now unset", "x unset, now y"]
