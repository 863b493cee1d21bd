"""The real processor through every way to spread slides: the same bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.conftest import ROOT, environment, leftovers, wait_for
from tests.jobs.slurm_engine import Slurm, missing

pytestmark = pytest.mark.xdist_group("real")


def wsiseg(*arguments: object, code: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsiseg", *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(**extra), cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four slides, of which one is damaged, and `plain.csv`."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "slides").mkdir()
    for i in range(3):
        wsiseg("synth", folder / f"slides/kidney{i}.tif", "--size", f"{1500 + 300 * i}x1200", "--seed", i)
    (folder / "slides/notes.tif").write_text("not a slide at all")
    wsiseg("run", folder / "slides", "-o", folder / "plain.csv", "--threads", 1, code=1)
    assert len((folder / "plain.csv").read_text().splitlines()) == 4
    return folder


@pytest.mark.slow
def test_shards_and_workers_give_the_same_bytes(real: Path) -> None:
    wsiseg("run", real / "slides", "-o", real / "two.csv", "--threads", 2, "--workers", 2, code=1)
    for i in range(2):
        subprocess.run(
            [sys.executable, "-m", "wsiseg", "run", real / "slides", "-o", real / "sharded.csv", "--threads", "1", "--shard", f"{i}/2"],
            env=environment(), cwd=ROOT, capture_output=True, check=False,
        )  # fmt: skip
    wsiseg("merge", real / "sharded.csv", code=1)
    assert (real / "two.csv").read_bytes() == (real / "plain.csv").read_bytes()
    assert (real / "sharded.csv").read_bytes() == (real / "plain.csv").read_bytes()
    assert leftovers(real) == []
    shown = wsiseg("status", real / "two.csv", code=1).stdout
    assert "notes" in shown


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_slurm_array_gives_the_same_bytes(real: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    slurm = Slurm(tmp_path_factory.mktemp("slurm") / "s", 1, wait_for)
    try:
        command = [
            "run",
            real / "slides",
            "-o",
            real / "slurm.csv",
            "--threads",
            1,
            "--cluster",
            "slurm",
            "--gpus",
            2,
        ]
        said = wsiseg(*command, "--sbatch", "--time=10", **slurm.env).stderr
        match = re.search(r"merge job (\d+)", said)
        assert match, said
        wait_for(lambda: slurm.state(match[1]) in ("COMPLETED", "FAILED"), "the merge job")
        assert (real / "slurm.csv").read_bytes() == (real / "plain.csv").read_bytes()
    finally:
        slurm.stop()
    shutil.rmtree(real / "slurm.csv.wsiseg")
