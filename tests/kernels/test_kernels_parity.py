"""The CPU kernels give the reference's bytes over the whole parity matrix, and every form has the same names."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import parity_matrix
import pytest

import wsiseg_kernels
from wsiseg_kernels import cpu, reference


@pytest.mark.parametrize("name", parity_matrix.CASES)
def test_cpu_gives_the_bytes_of_the_reference(name: str) -> None:
    parity_matrix.check(name, cpu)


@pytest.mark.parametrize("module", [cpu, wsiseg_kernels], ids=["cpu", "package"])
def test_every_form_has_the_reference_s_names_and_signatures(module: ModuleType) -> None:
    assert module.__all__ == reference.__all__
    for name in reference.__all__:
        assert inspect.signature(getattr(module, name)) == inspect.signature(getattr(reference, name)), name


def test_an_unknown_kernel_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'shrinc'"):
        wsiseg_kernels.shrinc  # noqa: B018


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, wsiseg_kernels, wsiseg_kernels.reference; sys.exit('numba' in sys.modules)"
    paths = [str(p) for p in wsiseg_kernels.__path__]
    env_path = paths[0].rsplit("/", 1)[0]
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": env_path}).returncode == 0


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsiseg_kernels.cpu import jit

    njit = jit.numba.njit

    def without_a_folder(*arguments: Any, **options: Any) -> Any:  # numba itself calls it with arguments
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(jit.numba, "njit", without_a_folder)
    doubled = jit.kernel(lambda value: 2 * value)
    assert doubled(21) == 42
    halved = jit.kernel_for("int64(int64)")(lambda value: value // 2)
    assert [halved(84), halved(7)] == [42, 3]


def test_a_kernel_with_a_signature_has_one_form() -> None:
    from wsiseg_kernels.cpu import jit

    first = jit.kernel_for("uint8(Array(uint8, 2, 'A', readonly=True))")(lambda pixels: pixels[0, 0])
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    windows = [
        pixels[1:, 2:],
        np.asfortranarray(pixels)[1:],
        np.frombuffer(bytes(range(8)), np.uint8).reshape(2, 4),
    ]
    assert [first(w) for w in (pixels, *windows)] == [0, 6, 4, 0]
    assert len(first.inner.signatures) == 1


def test_kernels_that_others_call_keep_one_form() -> None:
    # In a process of its own: what is compiled first must not matter.
    code = """
import numpy as np
from wsiseg_kernels.cpu import files, shrink
from wsiseg_kernels.cpu.shrink import copy_block, shrink_block
files.read_plain._compile()
block = np.zeros((4, 4, 3), np.uint8)
for scale in (1, 2):
    for src in (block, np.zeros((4, 8, 3), np.uint8)[:, 2:6], np.frombuffer(bytes(48), np.uint8).reshape(4, 4, 3)):
        for out in (block[::scale].copy()[:, : 4 // scale], np.zeros((4 // scale, 4 // scale, 3), np.uint8)):
            shrink(src, scale, out)
print([len(k.inner.signatures) for k in (copy_block, shrink_block)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[1, 1]", done.stderr
