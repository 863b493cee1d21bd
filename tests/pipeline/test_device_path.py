"""The CUDA path: in numba's simulator here, on the device where there is one; always in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsiseg.engines.cuda_driver import probe

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install numba-cuda")


def run_script(**environment: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    env |= {"PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "train")), **environment}
    script = ROOT / "tests" / "pipeline" / "device_simulated.py"
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=280, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "equal"


def test_the_simulated_device_gives_the_cpu_s_runs() -> None:
    run_script(NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.gpu
def test_the_gpu_gives_the_cpu_s_runs() -> None:
    driver = probe()
    if not driver.gpus:
        pytest.skip(f"needs an NVIDIA GPU: {driver.reason}")
    run_script()
