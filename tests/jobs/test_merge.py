"""The CSV has every slide once, in order, and is not there while slides are missing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.jobs.conftest import expected_csv, write_slides
from tests.jobs.fake import FakeResult, FakeRuns, rle_of
from wsiseg.errors import IncompleteError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Slide, find_slides
from wsiseg.jobs.merge import default_patience, look_again, merge
from wsiseg.jobs.records import record_name


def finished(tmp_path: Path, count: int = 4) -> tuple[JobFolder, tuple[Slide, ...], Path]:
    slides = find_slides([write_slides(tmp_path / "slides", count)])
    out = tmp_path / "out.csv"
    folder = JobFolder.beside(out)
    folder.write_manifest(slides)
    digest = folder.claim({})
    for slide in reversed(slides.slides):
        folder.write_done(
            slide, digest, FakeResult(slide, (1, 1), (FakeRuns(rle_of(Path(slide.path).read_bytes())),))
        )
    return folder, slides.slides, out


def test_rows_come_in_the_manifests_order(tmp_path: Path) -> None:
    folder, _, out = finished(tmp_path, 20)
    assert merge(folder, out).exit_code == 0
    assert out.read_bytes() == expected_csv(tmp_path / "slides")


def test_missing_slides_stop_it_and_leave_the_old_csv(tmp_path: Path) -> None:
    folder, slides, out = finished(tmp_path)
    out.write_text("old")
    folder.store.remove(record_name(slides[2].key))
    with pytest.raises(IncompleteError, match=r"1 of 4 slides have no result yet \(s002\)"):
        merge(folder, out, patience=0)
    assert out.read_text() == "old"
    merged = merge(folder, out, partial=True, patience=0)
    assert (merged.exit_code, merged.rows, [slide.id for slide in merged.missing]) == (3, 3, ["s002"])
    assert out.read_bytes() == expected_csv(tmp_path / "slides", without=["s002"])


def test_a_damaged_record_is_a_missing_one(tmp_path: Path) -> None:
    folder, slides, out = finished(tmp_path)
    path = Path(folder.url) / record_name(slides[1].key)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IncompleteError, match="s001"):
        merge(folder, out, patience=0)
    assert not out.exists()
    assert [slide.id for slide in merge(folder, out, partial=True, patience=0).missing] == ["s001"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_complete_merge_forgets_slides_in_progress(tmp_path: Path) -> None:
    folder, slides, out = finished(tmp_path)
    folder.store.write(f"checkpoints/{slides[0].key}/00000", b"left behind")
    record = folder.store.read(record_name(slides[1].key))
    folder.store.remove(record_name(slides[1].key))
    merge(folder, out, partial=True, patience=0)
    assert list(folder.store.names("checkpoints")) == [f"checkpoints/{slides[0].key}/00000"]
    folder.store.write(record_name(slides[1].key), record)
    merge(folder, out, patience=0)
    assert list(folder.store.names("checkpoints")) == []


def test_failed_slides_have_no_row_and_a_reason(tmp_path: Path) -> None:
    folder, slides, out = finished(tmp_path)
    folder.write_failed(slides[0], folder.digest() or "", "cut short", "BadSegment")
    merged = merge(folder, out)
    assert (merged.exit_code, [record.error for record in merged.failed]) == (1, ["cut short"])
    assert out.read_bytes() == expected_csv(tmp_path / "slides", without=["s000"])


def test_ids_with_commas_are_quoted_and_classes_get_rows(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / 'a,"b.tif').write_text("x")
    manifest = find_slides([tmp_path / "slides"])
    folder = JobFolder.beside(tmp_path / "out.csv")
    folder.write_manifest(manifest)
    runs = (FakeRuns("1 1"), FakeRuns(""))
    folder.write_done(
        manifest.slides[0], folder.claim({}), FakeResult(manifest.slides[0], (1, 1), runs, ("k", "l"))
    )
    merge(folder, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        assert list(csv.reader(file)) == [["id", "predicted"], ['a,"b:k', "1 1"], ['a,"b:l', ""]]


def test_records_that_a_slow_file_system_hides_are_waited_for(tmp_path: Path) -> None:
    folder, slides, _ = finished(tmp_path)
    hidden = {slide.key: folder.store.read(record_name(slide.key)) for slide in slides[:2]}
    for key in hidden:
        folder.store.remove(record_name(key))
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        waits.append(seconds)
        if len(waits) in (2, 4):
            key, data = hidden.popitem()
            folder.store.write(record_name(key), data)

    assert len(look_again(folder, slides[:2], 60, lambda: now[0], sleep)) == 2
    assert len(waits) == 4
    folder.store.remove(record_name(slides[0].key))
    assert look_again(folder, slides[:1], 60, lambda: now[0], sleep) == {}
    assert now[0] < 130


@pytest.mark.parametrize(("kind", "seconds"), [("nfs4", 65.0), ("lustre", 65.0), ("ext4", 0.0)])
def test_only_network_file_systems_are_waited_for(kind: str, seconds: float) -> None:
    mounts = f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / /data rw - {kind} server:/data rw\n"
    assert default_patience("/data/job", mounts) == seconds
    assert default_patience("/database/job", mounts) == 0.0
    assert default_patience("s3://bucket/job", mounts) == 0.0
