"""The GPU command and the TensorRT 8.6 script as far as they go without a GPU."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_steps

ROOT = Path(__file__).resolve().parents[2]


def test_the_steps_that_need_nothing_are_rehearsed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--dry-run", "--steps", "machine,tensorrt", "--output", str(tmp_path)]
    )
    torch = importlib.util.find_spec("torch") is not None
    state = "done" if torch else "missing"
    assert gpu.main() == 0  # what is missing is said, and no failure
    data = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert [s["state"] for s in data["steps"].values()] == ["done", state]
    assert f"| tensorrt | {state} |" in (tmp_path / "gpu-dry-run.md").read_text()
    if torch:
        assert all(row["clean"] for row in data["steps"]["tensorrt"]["result"]["simulated"])
    else:
        assert data["steps"]["tensorrt"]["reason"] == "not installed: torch"


def test_one_step_s_failure_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: gpu_steps.Context) -> dict:
        raise ValueError("broken on purpose")

    def gone(context: gpu_steps.Context) -> dict:
        gpu_steps.need("no_such_module")
        return {}

    monkeypatch.setattr(gpu_steps, "STEPS", {"broken": broken, "gone": gone, "machine": gpu_steps.machine})
    outcomes = gpu.run(gpu_steps.Context(False, tmp_path), ["broken", "gone", "machine"])
    assert [o["state"] for o in outcomes.values()] == ["failed", "missing", "done"]
    assert outcomes["broken"]["reason"] == "ValueError: broken on purpose"
    assert outcomes["gone"]["reason"] == "not installed: no_such_module"


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if gpu.cuda_driver.probe().gpus:
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 2
    assert "--dry-run" in capsys.readouterr().out


def test_a_slide_s_busy_share_ignores_its_ends() -> None:
    busy = gpu_steps.Busy()
    busy.shares, busy.memory = [0.0, 90.0, 100.0, 10.0], [100.0, 900.0]
    assert busy.summary() == {"busy share": 0.95, "peak device memory MiB": 900.0}
    assert gpu_steps.Busy().summary() == {"busy share": None, "peak device memory MiB": None}


def test_what_tensorrt_8_needs_of_us_parses_in_python_3_10() -> None:
    """Its pack brings CPython 3.10; our own code is for 3.11 and newer, but this path must still load there."""
    files = [
        *ROOT.glob("wsiseg/backends/*.py"),
        *ROOT.glob("wsiseg/engines/*.py"),
        *ROOT.glob("wsiseg/model/*.py"),
    ]
    files += [ROOT / "wsiseg" / n for n in ("errors.py", "units.py")] + [
        ROOT / "tests/gpu/tensorrt8.py",
        ROOT / "benchmarks/gpu_rate.py",
    ]
    for path in files:
        ast.parse(path.read_text(), feature_version=(3, 10))


@pytest.mark.data
def test_the_8_6_script_uses_names_of_8_6(shared_data: Path) -> None:
    from tests.engines.test_tensorrt_api import names_used, unknown

    path = shared_data.parent / "tools" / "tensorrt_api" / "8.6.0.json"
    if not path.exists():
        pytest.skip("no API list of TensorRT 8.6 in the shared folder")
    used = names_used((ROOT / "tests/gpu/tensorrt8.py").read_text())
    assert ("BuilderFlag", "FP16") in used
    assert unknown(used, json.loads(path.read_text())) == []
