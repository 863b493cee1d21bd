"""A real Dask scheduler and workers on loopback, and Dask workers in jobs of a real Slurm."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.conftest import (
    ROOT,
    Case,
    count_records,
    driver,
    environment,
    expected_csv,
    run_driver,
    wait_for,
    write_slides,
)
from tests.jobs.slurm_engine import Slurm, free_ports, missing

pytest.importorskip("distributed", reason="needs Dask (the cluster extra)")
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("dask")]

QUIET = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "20s",
    "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__ENABLED": "False",
}


class Dask:
    """A scheduler and workers, each a process that this object started."""

    def __init__(self, folder: Path, workers: int, **extra: str) -> None:
        self.dir = folder
        self.port, self.dashboard = free_ports(2)
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.env = environment(**QUIET, **extra)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--dashboard-address",
            f"127.0.0.1:{self.dashboard}",
        )
        wait_for(lambda: "Scheduler at" in self.log("scheduler"), "the scheduler")
        self.workers = [self.add_worker(f"w{i}") for i in range(workers)]

    def log(self, name: str) -> str:
        return (self.dir / f"{name}.log").read_text()

    def start(self, name: str, *options: object) -> subprocess.Popen[bytes]:
        command = "scheduler" if name == "scheduler" else "worker"
        with open(self.dir / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command, *map(str, options)],
                env=self.env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def add_worker(self, name: str) -> subprocess.Popen[bytes]:
        """One single-threaded worker without a nanny, so that its death is its own."""
        return self.start(
            name, self.address, "--host", "127.0.0.1", "--nthreads", 1, "--no-nanny", "--name", name, "--no-dashboard",
            "--memory-limit", 0, "--local-directory", self.dir / "scratch",
        )  # fmt: skip

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def dask(tmp_path: Path, case: Case) -> Iterator[Callable[[int], Dask]]:
    (tmp_path / "dask").mkdir()
    with contextlib.ExitStack() as stack:

        def make(workers: int) -> Dask:
            engine = Dask(tmp_path / "dask", workers, WSISEG_TEST_LOG=str(case.log))
            stack.callback(engine.stop)
            return engine

        yield make


def begin(case: Case, engine: Dask) -> subprocess.Popen[str]:
    arguments = driver(case.dir / "slides", "-o", case.out, "--cluster", engine.address)
    return subprocess.Popen(arguments, env=engine.env, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(case: Case, process: subprocess.Popen[str], code: int = 0) -> str:
    case.gate.touch()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    case.check()
    return errors


def processed(case: Case) -> int:
    return count_records(case.out)


@pytest.mark.parametrize("case", [("Dask", "none")], indirect=True)
def test_undisturbed(case: Case, dask: Callable[[int], Dask]) -> None:
    case.slides()
    said = finish(case, begin(case, dask(2)))
    assert "dashboard: " in said


@pytest.mark.parametrize("case", [("Dask", "two workers killed (SIGKILL)")], indirect=True)
def test_workers_killed(case: Case, dask: Callable[[int], Dask]) -> None:
    case.slides(hold=[0, 1, 2])
    engine = dask(3)
    process = begin(case, engine)
    wait_for(lambda: processed(case) >= 1 or process.poll() is not None, "the first record")
    for worker in engine.workers[:2]:
        worker.kill()
    engine.add_worker("late")
    finish(case, process)


@pytest.mark.parametrize("case", [("Dask", "poison slide (SIGSEGV)")], indirect=True)
def test_a_poison_slide(case: Case, dask: Callable[[int], Dask]) -> None:
    case.slides({30: "segv"})
    case.without = ("s030",)
    said = finish(case, begin(case, dask(2)), code=1)
    assert "s030.tif: its worker process died 3 times on it: SIGSEGV" in said


@pytest.mark.parametrize("case", [("Dask", "slide that kills the whole Dask worker")], indirect=True)
def test_a_slide_that_kills_dask_workers(case: Case, dask: Callable[[int], Dask]) -> None:
    case.slides({30: "killparent"})
    case.without = ("s030",)
    engine = dask(2)
    process = begin(case, engine)
    spare = 0
    while process.poll() is None:
        # what a batch system does: a worker that died is replaced
        for worker in list(engine.workers):
            if worker.poll() is not None:
                engine.workers.remove(worker)
                engine.workers.append(engine.add_worker(f"spare{spare}"))
                spare += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    said = finish(case, process, code=1)
    assert "every Dask worker that had it died" in said
    assert spare >= 3


@pytest.mark.parametrize("case", [("Dask", "driver killed and restarted")], indirect=True)
def test_the_driver_killed(case: Case, dask: Callable[[int], Dask]) -> None:
    case.slides(hold=[7])
    engine = dask(2)
    process = begin(case, engine)
    wait_for(lambda: processed(case) >= 20, "20 records")
    process.kill()
    process.communicate()
    case.gate.touch()
    finish(case, begin(case, engine))


@pytest.mark.parametrize("case", [("Dask", "driver stopped (SIGTERM) and restarted")], indirect=True)
def test_the_driver_stopped(case: Case, dask: Callable[[int], Dask]) -> None:
    case.slides(hold=[7])
    engine = dask(2)
    process = begin(case, engine)
    wait_for(lambda: processed(case) >= 20, "20 records")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert not case.out.exists()
    case.gate.touch()
    finish(case, begin(case, engine))


def test_no_scheduler_is_one_line(tmp_path: Path) -> None:
    slides = write_slides(tmp_path / "slides", 2)
    port = free_ports(1)[0]
    done = run_driver(
        slides,
        "-o",
        tmp_path / "out.csv",
        "--cluster",
        f"tcp://127.0.0.1:{port}",
        code=2,
        DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="2s",
    )
    assert "no Dask scheduler answers there" in done.stderr


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_dask_workers_in_slurm_jobs(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue (the cluster extra)")
    slurm = Slurm(tmp_path_factory.mktemp("slurm") / "s", 2, wait_for)
    try:
        slides, out = write_slides(tmp_path / "slides"), tmp_path / "out.csv"
        run_driver(
            slides,
            "-o",
            out,
            "--cluster",
            "dask-slurm",
            "--gpus",
            2,
            "--sbatch",
            "-p gpu --time=10",
            **slurm.env,
            **QUIET,
        )
        assert out.read_bytes() == expected_csv(slides)
        wait_for(
            lambda: not slurm.ask("squeue", "-h", "-t", "PENDING,RUNNING"),
            "the Dask jobs to end with the driver",
        )
    finally:
        slurm.stop()
