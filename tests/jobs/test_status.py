"""What `wsiseg status` says follows from the records alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.jobs.fake import FakeResult, FakeRuns
from wsiseg.cli.status import show
from wsiseg.jobs import records
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import find_slides
from wsiseg.jobs.status import status_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    """Six slides of 1000 bytes: four records a minute apart, of which one failed, and two missing."""
    (tmp_path / "slides").mkdir()
    for i in range(6):
        (tmp_path / f"slides/s{i}.tif").write_text("x" * 1000)
    job, manifest = JobFolder.beside(tmp_path / "out.csv"), find_slides([tmp_path / "slides"])
    job.write_manifest(manifest)
    digest = job.claim({})
    for i, slide in enumerate(manifest.slides[:4]):
        monkeypatch.setattr(records.time, "time", lambda i=i: 1000.0 + 60 * i)
        if i == 2:
            job.write_failed(slide, digest, "cut short", "SlideError")
        else:
            job.write_done(slide, digest, FakeResult(slide, (2000, 3000), (FakeRuns("1 1"),)))
    return job


def test_speed_and_time_left_follow_from_the_records(folder: JobFolder) -> None:
    status = status_of(folder)
    assert (status.total, len(status.done), [r.error for r in status.failed]) == (6, 3, ["cut short"])
    assert [slide.id for slide in status.missing] == ["s4", "s5"]
    assert status.per_hour == pytest.approx(60)
    assert status.seconds_left == pytest.approx(120)
    assert status.pixels == 3 * 2000 * 3000


def test_it_is_shown_for_people(folder: JobFolder) -> None:
    text = io.StringIO()
    show(status_of(folder), Console(file=text, soft_wrap=True, highlight=False, width=200), 1)
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines[0] == folder.url
    assert lines[1:5] == [
        "done 3 of 6 18 Mpx",
        "failed 1",
        "missing 2",
        "speed 60 slides an hour about 2 min 00 s left",
    ]
    assert lines[5] == "failed s2: cut short"
    assert lines[6].startswith("missing s4: ")
    assert lines[7] == "... and 1 more; --all lists them"


def test_a_job_that_has_just_begun_knows_no_speed(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("x")
    job = JobFolder.beside(tmp_path / "out.csv")
    job.write_manifest(find_slides([tmp_path / "a.tif"]))
    status = status_of(job)
    assert (status.per_hour, status.seconds_left) == (None, None)
