"""The CUDA kernels: the reference's bytes in numba's simulator and on a GPU, and PTX for both data-centre families."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wsiseg_kernels
from wsiseg_kernels import reference

HERE = Path(__file__).parent
SOURCES = Path(wsiseg_kernels.__file__).parent.parent

cuda = pytest.importorskip("numba.cuda", reason="this numba has no CUDA target")


def in_its_own_process(script: str, *arguments: str, **environment: str) -> Any:
    """The JSON that a script of this folder prints last."""
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    env |= {"PYTHONPATH": str(SOURCES), **environment}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_no_failures(report: dict[str, Any]) -> None:
    assert report["cases"] > 100
    assert not report["failures"], f"{list(report['failures'])}\n{next(iter(report['failures'].values()))}"


def test_the_simulated_device_gives_the_bytes_of_the_reference() -> None:
    options = ("wsiseg_kernels.cuda", "thin", "resident")
    assert_no_failures(in_its_own_process("parity_matrix.py", *options, NUMBA_ENABLE_CUDASIM="1"))


@pytest.mark.gpu
def test_the_gpu_gives_the_bytes_of_the_reference() -> None:
    if not cuda.is_available():
        pytest.skip("no NVIDIA GPU that numba can use")
    assert_no_failures(in_its_own_process("parity_matrix.py", "wsiseg_kernels.cuda", "resident"))


def test_every_kernel_compiles_to_ptx_and_fuses_no_sum_with_a_product() -> None:
    texts = in_its_own_process("ptx_signatures.py", "8.0", "9.0")
    if "unavailable" in texts:
        pytest.skip(f"numba cannot compile for CUDA here: {texts['unavailable'][:120]}")
    for name, text in texts.items():
        assert f".target sm_{name[-3:].replace('.', '')}" in text
        assert not re.search(r"\bfma\.rn\.f32", text), f"{name} rounds a product and a sum once"
    assert len(texts) == 2 * 13


def test_the_cuda_form_has_the_reference_s_names_and_signatures() -> None:
    from wsiseg_kernels import cuda as form

    assert form.__all__ == reference.__all__
    for name in reference.__all__:
        assert inspect.signature(getattr(form, name)) == inspect.signature(getattr(reference, name)), name
