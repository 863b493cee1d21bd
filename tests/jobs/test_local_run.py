"""Local runs end to end, in worker processes: resume, refusal, failures, crashes, signals."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import (
    ROOT,
    count_records,
    differences,
    driver,
    environment,
    expected_csv,
    leftovers,
    note_event,
    run_driver,
    wait_for,
    write_slides,
)
from tests.jobs.driver import FACTORY
from tests.jobs.fake import FakeProcessor
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import find_slides
from wsiseg.jobs.pool import GRACE, Pool, WorkerSpec
from wsiseg.jobs.work import run_local


def test_a_run_gives_every_slide_once_and_leaves_nothing_half_written(tmp_path: Path, slides: Path) -> None:
    out = tmp_path / "out.csv"
    run_driver(slides, "-o", out)
    assert out.read_bytes() == expected_csv(slides)
    assert leftovers(tmp_path) == []


def test_several_workers_give_the_same_bytes(tmp_path: Path, slides: Path) -> None:
    out = tmp_path / "out.csv"
    run_driver(slides, "-o", out, "--workers", 3)
    assert out.read_bytes() == expected_csv(slides)


def test_run_local_without_processes_gives_the_same_bytes(tmp_path: Path, slides: Path) -> None:
    from wsiseg.jobs.merge import merge

    folder, manifest = JobFolder.beside(tmp_path / "out.csv"), find_slides([slides])
    processor = FakeProcessor({})
    summary = run_local(manifest, folder, processor, processor.identity)
    assert (summary.done, summary.exit_code) == (60, 0)
    merge(folder, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == expected_csv(slides)
    assert run_local(manifest, folder, processor, processor.identity).skipped == 60


def test_a_second_run_does_only_new_and_changed_slides(tmp_path: Path, slides: Path) -> None:
    out = tmp_path / "out.csv"
    run_driver(slides, "-o", out)
    before = {path: path.stat().st_mtime_ns for path in Path(f"{out}.wsiseg").glob("records/*/*")}
    (slides / "new.tif").write_text("new")
    (slides / "s007.tif").write_text("changed")
    (slides / "s008.tif").unlink()
    done = run_driver(slides, "-o", out)
    assert "58 of 60 slides were done before" in done.stderr
    assert out.read_bytes() == expected_csv(slides)
    changed = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert len(changed) == 1


def test_other_options_are_refused_by_name_and_fresh_starts_over(tmp_path: Path, slides: Path) -> None:
    out = tmp_path / "out.csv"
    run_driver(slides, "-o", out)
    refused = run_driver(slides, "-o", out, "--options", "other", code=2)
    assert "options , now other" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert out.read_bytes() == expected_csv(slides)
    run_driver(slides, "-o", out, "--options", "other", "--fresh")
    assert out.read_bytes() == expected_csv(slides, "other")


def test_bad_slides_have_reasons_and_the_others_rows(tmp_path: Path) -> None:
    special = {3: "fail cut short", 40: "segv", 41: "kill", 59: "fail not a TIFF"}
    slides, out = write_slides(tmp_path / "slides", 60, special), tmp_path / "out.csv"
    done = run_driver(slides, "-o", out, "--workers", 2, code=1)
    bad = ["s003", "s040", "s041", "s059"]
    assert out.read_bytes() == expected_csv(slides, without=bad)
    for name, reason in zip(
        bad,
        ["cut short", "died 3 times on it: SIGSEGV", "died 3 times on it: SIGKILL", "not a TIFF"],
        strict=True,
    ):
        assert any(f"failed: {name}: " in line and reason in line for line in done.stderr.splitlines())
    (slides / "s040.tif").write_text("repaired")
    run_driver(slides, "-o", out, code=1)
    assert out.read_bytes() == expected_csv(slides, without=["s003", "s041", "s059"])


def test_an_error_of_the_processor_is_one_line_and_takes_one_slide(tmp_path: Path) -> None:
    slides, out = write_slides(tmp_path / "slides", 60, {20: "raise"}), tmp_path / "out.csv"
    done = run_driver(slides, "-o", out, code=1)
    assert out.read_bytes() == expected_csv(slides, without=["s020"])
    assert "RuntimeError: the runtime lost its device" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(Path(f"{out}.wsiseg/logs").glob("crash-*.txt"))) == 3


def test_a_slide_that_kills_its_worker_once_costs_nothing(tmp_path: Path) -> None:
    slides = write_slides(tmp_path / "slides", 60, {i: f"once {tmp_path}/marker{i}" for i in (0, 1, 30)})
    run_driver(slides, "-o", tmp_path / "out.csv", "--workers", 2)
    assert (tmp_path / "out.csv").read_bytes() == expected_csv(slides)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_with_75_and_the_next_run_gives_the_rest(
    tmp_path: Path, number: signal.Signals
) -> None:
    gate, out = tmp_path / "gate", tmp_path / "out.csv"
    slides = write_slides(tmp_path / "slides", 60, {25: f"hold {gate}"})
    process = subprocess.Popen(
        driver(slides, "-o", out), env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: count_records(out) >= 24, "24 records")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert f"stopped by {number.name}" in errors
    assert not out.exists()
    assert leftovers(tmp_path) == []
    gate.touch()
    assert "were done before" in run_driver(slides, "-o", out).stderr
    assert out.read_bytes() == expected_csv(slides)


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    slides = write_slides(tmp_path / "slides", 60, {25: f"deaf {tmp_path}/gate"})
    process = subprocess.Popen(
        driver(slides, "-o", out), env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: count_records(out) >= 24, "24 records")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("Ctrl-C again ends at once" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(children) == 1
    wait_for(lambda: not is_running(int(children[0])), "the worker to end with its parent")
    (tmp_path / "gate").touch()
    run_driver(slides, "-o", out)
    assert out.read_bytes() == expected_csv(slides)


def test_a_worker_that_does_not_heed_a_stop_is_ended_in_time(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    slides = write_slides(tmp_path / "slides", 6, {3: f"deaf {tmp_path}/gate"})
    folder, manifest, stop = JobFolder.beside(out), find_slides([slides]), threading.Event()
    folder.write_manifest(manifest)
    deaf: list[int] = []

    def heed(event: Mapping[str, Any]) -> None:
        if event["type"] == "ready":
            deaf.append(event["about"]["pid"])
        if event["type"] == "record" and event["record"].id == "s002":
            stop.set()
            pool.wake()

    assert GRACE <= 25  # whoever asked waits 30 s, and what is left of them is for the end of the program
    with Pool(folder, WorkerSpec(FACTORY), on_event=heed, grace=0.2) as pool:
        digest = folder.claim(pool.identity() or {})
        records = pool.run(manifest.slides, digest, stop)
    assert [record.id for record in records] == ["s000", "s001", "s002"]
    assert len(deaf) == 1
    assert not is_running(deaf[0])
    (tmp_path / "gate").touch()
    run_driver(slides, "-o", out)
    assert out.read_bytes() == expected_csv(slides)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    slides = write_slides(tmp_path / "slides", 60, {25: f"hold {tmp_path}/gate"})
    process = subprocess.Popen(
        driver(slides, "-o", out), env=environment(), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: count_records(out) >= 24, "24 records")
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    process.wait()
    wait_for(lambda: not is_running(child), "the worker to end with its parent")
    (tmp_path / "gate").touch()
    run_driver(slides, "-o", out)
    assert out.read_bytes() == expected_csv(slides)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_kill_at_random_moments_then_resume_gives_the_same_bytes(tmp_path: Path, seed: int) -> None:
    """`kill -9` of a run after a random number of new records, or while it starts or ends, and the run again.

    The eight slow ones make 200 kills.
    """
    moments = 25 if seed else 12
    slides = write_slides(tmp_path / "slides")
    with ThreadPoolExecutor(2) as pool:
        shares = [moments // 2, moments - moments // 2]
        found = list(
            pool.map(lambda i: kill_again_and_again(tmp_path, slides, 2 * seed + i, shares[i]), range(2))
        )
    killed, csvs = sum(count for count, _ in found), [csv for _, csvs in found for csv in csvs]
    expected = expected_csv(slides)
    off = sum((differences(csv, expected) for csv in csvs), Counter(lost=0, twice=0, wrong=0))
    if seed:
        event = f"`kill -9` at {killed} random moments, run again each time"
        counts = {name: off[name] for name in ("lost", "twice", "wrong")}
        note_event(engine="one machine", event=event, slides=60, **counts, again="-", failed=0)
    assert killed == moments
    assert csvs
    assert set(csvs) == {expected}
    assert leftovers(tmp_path) == []


def kill_again_and_again(folder: Path, slides: Path, seed: int, moments: int) -> tuple[int, list[bytes]]:
    """Runs to the end, each time through several kills, until there were `moments` of them.

    Returns how many there were, and every CSV that was there after a kill or at the end.
    """
    dice = random.Random(seed)
    csvs: list[bytes] = []
    killed = rounds = 0
    while killed < moments:
        out = folder / f"out{seed}.{rounds}.csv"
        rounds += 1
        while killed < moments:
            arguments = driver(slides, "-o", out, "--seconds", 0.002)
            process = subprocess.Popen(arguments, env=environment(), cwd=ROOT, stderr=subprocess.DEVNULL)
            target = count_records(out) + dice.randint(0, 25)
            # a third of the kills comes at any time after the last record: while it merges, cleans or ends
            spread = 0.3 if dice.random() < 0.3 else 0.004
            while count_records(out) < target and process.poll() is None:
                time.sleep(0.001)
            try:
                process.wait(dice.random() * spread)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
                csvs += [out.read_bytes()] if out.exists() else []
                continue
            assert process.returncode == 0
            break
        run_driver(slides, "-o", out)
        csvs.append(out.read_bytes())
    return killed, csvs


def test_the_parent_loads_no_runtime() -> None:
    code = (
        "import sys, wsiseg.jobs.launch, wsiseg.jobs.pool, wsiseg.jobs.merge, wsiseg.jobs.status;"
        "print(sorted(set(sys.modules) & {'numpy', 'numba', 'openvino', 'torch', 'cv2', 'tifffile', 'zarr', 'distributed'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
