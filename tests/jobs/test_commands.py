"""What a person types: status, merge, shards by hand, staging, records behind a URL."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import (
    ROOT,
    count_records,
    environment,
    expected_csv,
    leftovers,
    run_driver,
    write_slides,
)
from tests.jobs.fake import FakeProcessor
from wsiseg.cli.job_options import shard_command
from wsiseg.cli.main import join_values
from wsiseg.errors import UsageError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.launch import on_own_gpus
from wsiseg.jobs.manifest import Slide, find_slides
from wsiseg.jobs.merge import merge
from wsiseg.jobs.pool import WorkerSpec
from wsiseg.jobs.request import JobRequest, check
from wsiseg.jobs.stage import Stage
from wsiseg.jobs.work import run_local, work
from wsiseg.limits import available_gpus


def wsiseg(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsiseg", *map(str, arguments)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_three_shards_status_and_merge(tmp_path: Path, slides: Path) -> None:
    out = tmp_path / "out.csv"
    (slides / "s033.tif").write_text("fail out of ink")
    run_driver(slides, "-o", out, "--shard", "0/3", code=1)
    run_driver(slides, "-o", out, "--shard", "2/3")
    assert not out.exists()
    incomplete = wsiseg("merge", out, code=3)
    assert f"{60 - count_records(out)} of 60 slides have no result yet" in incomplete.stderr
    assert not out.exists()
    state = json.loads(wsiseg("status", out, "--json", code=3).stdout)
    assert (state["total"], len(state["done"]), len(state["missing"])) == (
        60,
        count_records(out) - 1,
        60 - count_records(out),
    )
    shown = wsiseg("status", tmp_path, code=3).stdout
    assert "s033: " in shown
    assert "out of ink" in shown
    run_driver(slides, "-o", out, "--shard", "auto", "--shards", 3, JOB_COMPLETION_INDEX="1")
    wsiseg("merge", f"{out}.wsiseg", code=1)
    assert out.read_bytes() == expected_csv(slides, without=["s033"])
    wsiseg("merge", out, "-o", tmp_path / "copy.csv", "--partial", code=1)
    assert (tmp_path / "copy.csv").read_bytes() == out.read_bytes()


def test_a_shard_does_not_repeat_failed_slides_unless_asked(tmp_path: Path) -> None:
    slides, out = write_slides(tmp_path / "slides", 4, {2: "fail no"}), tmp_path / "out.csv"
    run_driver(slides, "-o", out, "--shard", "0/1", code=1)
    (record,) = [p for p in Path(f"{out}.wsiseg").glob("records/*/*.txt") if '"failed"' in p.read_text()]
    before = record.stat().st_mtime_ns
    run_driver(slides, "-o", out, "--shard", "0/1", code=1)
    assert record.stat().st_mtime_ns == before
    run_driver(slides, "-o", out, "--shard", "0/1", "--retry-failed", code=1)
    assert record.stat().st_mtime_ns != before


def test_a_frozen_manifest_refuses_a_slide_that_changed_since(tmp_path: Path) -> None:
    slides, out = write_slides(tmp_path / "slides", 6), tmp_path / "out.csv"
    run_driver(slides, "-o", out, "--shard", "0/2")
    todo = [s for s in find_slides([slides]).slides if JobFolder.beside(out).header(s) is None]
    Path(todo[0].path).write_text("another")
    Path(todo[1].path).unlink()
    done = run_driver(slides, "-o", out, "--shard", "1/2", code=1)
    assert "changed since the manifest was written" in done.stderr
    assert "is gone since the manifest was written" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster": "sge"}, "known: slurm, dask-slurm, tcp://HOST:PORT"),
        ({"cluster": "slurm", "shard": "0/2"}, "do not go together"),
        ({"shard": "0/2", "fresh": True}, "run it once without --shard"),
        ({"shard": "0/2", "shards": 2}, "goes with --shard auto"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(JobRequest(("a",), "o.csv", WorkerSpec("m:f"), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nothing", "nothing.csv"])
def test_no_job_is_one_line(tmp_path: Path, name: str) -> None:
    for command in ("status", "merge"):
        done = wsiseg(command, tmp_path / name, code=2)
        assert "no job there" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_staged_slides_give_the_same_bytes_and_leave_nothing(tmp_path: Path) -> None:
    slides, out, stage = (
        write_slides(tmp_path / "slides", 60, {9: "fail bad", 33: "segv"}),
        tmp_path / "out.csv",
        tmp_path / "scratch",
    )
    done = run_driver(slides, "-o", out, "--stage", stage, code=1)
    assert out.read_bytes() == expected_csv(slides, without=["s009", "s033"])
    assert f"s009: {slides}/s009.tif: bad" in done.stderr
    # what a crash left is removed by the next one that stages there
    Stage(stage)
    assert list(stage.iterdir()) == []


def test_every_slide_that_fits_is_read_from_its_copy(tmp_path: Path, slides: Path) -> None:
    folder, manifest = JobFolder.beside(tmp_path / "out.csv"), find_slides([slides])
    read: list[Path] = []

    class Reading(FakeProcessor):
        def _one(self, task: Any, data: bytes, stop: threading.Event) -> Any:
            read.append(Path(task.path))
            assert Path(task.path).read_bytes() == (slides / Path(task.path).name).read_bytes()
            assert len(list((tmp_path / "scratch").iterdir())) <= 3  # a copy goes when its slide is done
            return super()._one(task, data, stop)

    stage = Stage(tmp_path / "scratch", spare=0)
    digest = folder.claim({})
    done = list(work(folder, manifest.slides, Reading({}), lambda: digest, threading.Event(), stage))
    assert len(done) == 60
    assert all((tmp_path / "scratch") in path.parents for path in read)
    assert list((tmp_path / "scratch").iterdir()) == []
    merge(folder, tmp_path / "out.csv", manifest=manifest)
    assert (tmp_path / "out.csv").read_bytes() == expected_csv(slides)


def test_a_slide_that_does_not_fit_is_read_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("a")
    slide = Slide(0, "a", str(tmp_path / "a.tif"), "0" * 16, 1, 0)
    stage = Stage(tmp_path / "scratch", spare=1 << 60)
    assert stage.take(slide) == slide.path
    roomy = Stage(tmp_path / "scratch", spare=0)
    assert Path(roomy.take(slide)).read_text() == "a"
    roomy.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_records_and_csv_behind_a_url(slides: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec (the cluster extra)")
    url = "memory://wsiseg-tests/url/out.csv"
    folder, manifest, processor = JobFolder.beside(url), find_slides([slides]), FakeProcessor({})
    assert run_local(manifest, folder, processor, processor.identity).done == 60
    assert run_local(manifest, JobFolder.beside(url), processor, processor.identity).skipped == 60
    with pytest.raises(UsageError, match="options , now x"):
        run_local(manifest, JobFolder.beside(url), processor, {**processor.identity, "options": "x"})
    merge(JobFolder.beside(url), url)
    assert fsspec.filesystem("memory").cat_file("/wsiseg-tests/url/out.csv") == expected_csv(slides)
    folder.start_over()
    assert list(folder.store.names("records")) == []


def test_a_run_with_its_records_elsewhere(tmp_path: Path, slides: Path) -> None:
    out = tmp_path / "out.csv"
    run_driver(slides, "-o", out, "--records", tmp_path / "r")
    assert out.read_bytes() == expected_csv(slides)
    assert not Path(f"{out}.wsiseg").exists()
    assert leftovers(tmp_path) == []
    assert "60 of 60" in wsiseg("status", tmp_path / "r").stdout
    wsiseg("merge", tmp_path / "r", code=2)


def test_a_shards_command_is_the_same_without_the_cluster() -> None:
    typed = [
        "run",
        "a",
        "--cluster",
        "slurm",
        "-o",
        "x.csv",
        "--sbatch=--time=1",
        "--gpus",
        "4",
        "--tile",
        "512",
        "--dry-run",
        "--fresh",
    ]
    assert shard_command(typed) == ["run", "a", "-o", "x.csv", "--tile", "512"]
    assert join_values(["--sbatch", "--time=1", "x"]) == ["--sbatch=--time=1", "x"]


def test_each_worker_sees_one_gpu_in_turn() -> None:
    gpus = available_gpus({"CUDA_VISIBLE_DEVICES": "0, 3"})
    spec = on_own_gpus(WorkerSpec("m:f"), 4, gpus)
    assert [spec.environ_of(i)["CUDA_VISIBLE_DEVICES"] for i in range(4)] == ["0", "3", "0", "3"]
    assert on_own_gpus(WorkerSpec("m:f"), 1, gpus).environ == ()
    assert available_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
