"""Job arrays on a real Slurm: whatever happens to them, the CSV is complete and the bytes are the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.conftest import (
    ROOT,
    Case,
    count_records,
    driver,
    environment,
    run_driver,
    wait_for,
    write_slides,
)
from tests.jobs.slurm_engine import Slurm, missing, processes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    engine = Slurm(tmp_path_factory.mktemp("slurm") / "s", 2, wait_for)
    yield engine
    engine.stop()


def submit(slurm: Slurm, case: Case, *options: object) -> tuple[str, str]:
    """Submits the case's slides; returns the ids of the array and of the merge job."""
    done = run_driver(
        case.dir / "slides", "-o", case.out, "--cluster", "slurm", "--gpus", 4, "--overhead", 300, *options,
        **slurm.env, WSISEG_TEST_LOG=str(case.log),
    )  # fmt: skip
    match = re.search(r"submitted array (\d+): .* merge job (\d+)", done.stderr)
    assert match, done.stderr
    return match[1], match[2]


def held(case: Case, count: int) -> None:
    """Waits until all slides have a record except those that wait for the gate and what is queued behind them."""
    wait_for(lambda: count_records(case.out) >= count, f"{count} records")


def programs(case: Case) -> list[int]:
    """Process ids of the case's programs in Slurm jobs (the supervisors, not their workers)."""
    found = []
    for pid, environ in processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            b"tests.jobs.driver" in command
            and str(case.out).encode() in command
            and "SLURM_JOB_ID=" in environ
        ):
            found.append(pid)
    return found


def finish(slurm: Slurm, case: Case, merge_id: str) -> None:
    """Opens the gate and waits for the end of the merge job."""
    case.gate.touch()
    wait_for(
        lambda: slurm.state(merge_id) in ("COMPLETED", "FAILED"), f"the merge job ({slurm.ask('squeue')})"
    )
    logs = "\n".join(path.read_text() for path in sorted(Path(f"{case.out}.wsiseg").glob("slurm/*/logs/*")))
    assert slurm.state(merge_id) == "COMPLETED" or case.without, logs
    case.check()


def restarts(slurm: Slurm, array: str) -> int:
    """How often elements of an array were started again."""
    return sum(map(int, re.findall(r"Restarts=(\d+)", slurm.ask("scontrol", "show", "job", array))))


@pytest.mark.parametrize("case", [("Slurm", "none (plain array)")], indirect=True)
def test_a_plain_array(slurm: Slurm, case: Case) -> None:
    case.slides()
    _, merge_id = submit(slurm, case)
    finish(slurm, case, merge_id)
    again = run_driver(case.dir / "slides", "-o", case.out, "--cluster", "slurm", **slurm.env)
    assert "60 of 60 slides were done before" in again.stderr
    assert "submitted" not in again.stderr
    other = run_driver(
        case.dir / "slides", "-o", case.out, "--cluster", "slurm", "--options", "x", code=2, **slurm.env
    )
    assert "options , now x" in other.stderr


@pytest.mark.parametrize("case", [("Slurm", "worker killed (SIGKILL, 3 slides)")], indirect=True)
def test_a_worker_killed(slurm: Slurm, case: Case) -> None:
    case.slides({i: f"once {case.dir}/marker{i}" for i in (5, 30, 59)})
    _, merge_id = submit(slurm, case)
    finish(slurm, case, merge_id)


@pytest.mark.parametrize("case", [("Slurm", "program killed (SIGKILL)")], indirect=True)
def test_the_program_killed(slurm: Slurm, case: Case) -> None:
    case.slides(hold=[20, 21])
    array, merge_id = submit(slurm, case)
    held(case, 30)
    for pid in programs(case):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: restarts(slurm, array) >= 1, "the requeue")
    finish(slurm, case, merge_id)


@pytest.mark.parametrize("case", [("Slurm", "node killed")], indirect=True)
def test_a_node_killed(slurm: Slurm, case: Case) -> None:
    # held slides keep two jobs on each of the nodes
    case.slides(hold=range(0, 60, 7))
    array, merge_id = submit(slurm, case)
    wait_for(lambda: len(programs(case)) >= 4, "four running jobs")
    slurm.kill_node(slurm.nodes[0])
    wait_for(
        lambda: "DOWN" in slurm.ask("scontrol", "show", "node", slurm.nodes[0]), "the node to be seen as down"
    )
    wait_for(lambda: restarts(slurm, array) >= 1, "the requeue")
    slurm.start_node(slurm.nodes[0])
    finish(slurm, case, merge_id)
    slurm.wait_idle()


@pytest.mark.parametrize("case", [("Slurm", "preempted")], indirect=True)
def test_preemption(slurm: Slurm, case: Case) -> None:
    case.slides(hold=[3, 33])
    array, merge_id = submit(slurm, case)
    held(case, 30)
    urgent = slurm.ask(
        "sbatch", "--parsable", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "exit 0"
    ).strip()
    wait_for(lambda: slurm.state(urgent) == "COMPLETED", f"the urgent job ({slurm.state(urgent)})")
    wait_for(lambda: restarts(slurm, array) >= 1, "the requeue")
    finish(slurm, case, merge_id)


@pytest.mark.parametrize("case", [("Slurm", "time limit (USR1 before it)")], indirect=True)
def test_the_time_limit(slurm: Slurm, case: Case) -> None:
    case.slides(hold=[10])
    array, merge_id = submit(slurm, case, "--sbatch", "--time=2")
    held(case, 45)
    wait_for(lambda: restarts(slurm, array) >= 1, "the requeue")
    logs = "".join(path.read_text() for path in Path(f"{case.out}.wsiseg").glob("slurm/*/logs/*.log"))
    assert "stopped by SIGUSR1" in logs
    finish(slurm, case, merge_id)


@pytest.mark.parametrize("case", [("Slurm", "controller killed and restarted")], indirect=True)
def test_the_controller_killed(slurm: Slurm, case: Case) -> None:
    case.slides(hold=[15, 45])
    _, merge_id = submit(slurm, case)
    held(case, 20)
    # the controller saves its state every few seconds; a job younger than that dies with it
    wait_for(
        lambda: slurm.has_saved(f"{case.out}.wsiseg/slurm/0001/logs/merge.log"),
        "the controller to save its state",
    )
    slurm.kill_controller()
    case.gate.touch()
    wait_for(lambda: not programs(case), "the running jobs to end without a controller")
    slurm.start_controller()
    finish(slurm, case, merge_id)


@pytest.mark.parametrize("case", [("Slurm", "poison slide (SIGSEGV)")], indirect=True)
def test_a_poison_slide(slurm: Slurm, case: Case) -> None:
    case.slides({31: "segv"})
    case.without = ("s031",)
    _, merge_id = submit(slurm, case)
    finish(slurm, case, merge_id)


@pytest.mark.parametrize(
    "case", [("Slurm", "submitting program killed, run again; array cancelled, run again")], indirect=True
)
def test_submitting_again(slurm: Slurm, case: Case) -> None:
    slides = case.slides(hold=[12])
    arguments = driver(slides, "-o", case.out, "--cluster", "slurm", "--gpus", 4, "--overhead", 300)
    env = environment(**slurm.env, WSISEG_TEST_LOG=str(case.log))
    process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(Path(f"{case.out}.wsiseg").glob("slurm/0001/array.sh")), "the script")
    process.kill()
    process.wait()
    for job in slurm.ask("squeue", "-h", "-o", "%A").split():
        slurm.ask("scancel", job)
    array, _ = submit(slurm, case)
    held(case, 45)
    busy = run_driver(slides, "-o", case.out, "--cluster", "slurm", **slurm.env)
    assert f"are in array {array}" in busy.stderr
    slurm.ask("scancel", array)
    wait_for(lambda: not slurm.ask("squeue", "-h", "-j", array), "the cancelled array's end")
    done = count_records(case.out)
    _, merge_id = submit(slurm, case)
    plans = sorted(Path(f"{case.out}.wsiseg").glob("slurm/*/plan.json"))
    assert sum(line.count('"') // 2 for line in plans[-1].read_text().splitlines()) == 60 - done
    finish(slurm, case, merge_id)


def test_a_dry_run_writes_and_does_not_submit(slurm: Slurm, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    slides = write_slides(tmp_path / "slides")
    before = slurm.ask("squeue", "-h")
    done = run_driver(
        slides,
        "-o",
        out,
        "--cluster",
        "slurm",
        "--gpus",
        3,
        "--sbatch",
        "-p gpu --gres=gpu:2 --time=5",
        "--dry-run",
        **slurm.env,
    )
    assert slurm.ask("squeue", "-h") == before
    assert "array=$(sbatch --parsable -p gpu --gres=gpu:2 --time=5 " in done.stderr
    assert "sbatch --parsable -p gpu --time=5 --dependency=afterany:$array" in done.stderr
    script = (tmp_path / "out.csv.wsiseg/slurm/0001/array.sh").read_text()
    assert "--cluster" not in script
    assert "--shard auto" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_what_sbatch_refuses_is_one_line(slurm: Slurm, tmp_path: Path) -> None:
    slides = write_slides(tmp_path / "slides", 3)
    done = run_driver(
        slides,
        "-o",
        tmp_path / "out.csv",
        "--cluster",
        "slurm",
        "--sbatch",
        "-p nowhere",
        code=2,
        **slurm.env,
    )
    assert "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
