"""A real slide that is stopped in its midst goes on there, through the files on the disk, with the same bytes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests import fixtures_models
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, find_slides
from wsiseg.jobs.merge import merge
from wsiseg.jobs.segmenter import Segmenter
from wsiseg.jobs.work import WorkerContext, run_local
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.options import RunOptions


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    model = tmp_path / "model.onnx"
    model.write_bytes(fixtures_models.random_conv(4, classes=2, tissue="none"))
    return RunConfig(models=(str(model),), memory=4 << 30, threads=1, options=RunOptions(tile=64))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "slides").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (1500, 500, 3), np.uint8)
        tifffile.imwrite(tmp_path / f"slides/s{seed}.tif", pixels, photometric="rgb", tile=(64, 64))
    return find_slides([tmp_path / "slides"])


def run(folder: JobFolder, config: RunConfig, manifest: Manifest, stop_at: float | None = None) -> list[Any]:
    """Runs the job in this process; stops the second slide at this share of it. Returns the new records."""
    stop, records = threading.Event(), list[Any]()
    context = WorkerContext(0, folder)
    segmenter = Segmenter(config, context)
    context.digest = folder.claim(segmenter.identity)

    def progress(job: Any, share: float) -> None:
        if stop_at is not None and job.task.id == "s1" and share > stop_at:
            stop.set()

    segmenter._processor.progress = progress
    run_local(manifest, folder, segmenter, segmenter.identity, stop, records.append)
    segmenter._stack.close()
    return records


def test_a_stopped_slide_goes_on_in_its_midst(tmp_path: Path, config: RunConfig, manifest: Manifest) -> None:
    plain = JobFolder.beside(tmp_path / "plain.csv")
    whole = run(plain, config, manifest)
    merge(plain, tmp_path / "plain.csv")
    assert (tmp_path / "plain.csv").stat().st_size > 10_000
    folder = JobFolder.beside(tmp_path / "out.csv")
    assert [record.id for record in run(folder, config, manifest, 0.4)] == ["s0"]
    parts = list(Path(folder.url).glob("checkpoints/*/*"))
    assert [path.name for path in parts] == ["00000"]
    assert [record.id for record in run(folder, config, manifest, 0.8)] == []
    assert sorted(path.name for path in Path(folder.url).glob("checkpoints/*/*")) == ["00000", "00001"]
    (last,) = run(folder, config, manifest)
    tiles = last.stats["counts"]["tiles"] / whole[1].stats["counts"]["tiles"]
    assert 0.1 < tiles < 0.4
    assert list(Path(folder.url).glob("checkpoints/*")) == []
    merge(folder, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
