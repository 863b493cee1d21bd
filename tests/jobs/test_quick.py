"""A worker's start leaves out optional parts of libraries, and only while it loads them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wsiseg.jobs.quick import hidden

SCRIPT = """
import sys
from wsiseg.jobs.quick import load_quickly
load_quickly("auto")
assert "openvino" in sys.modules and "numba.np.arraymath" in sys.modules
assert not [name for name in sys.modules if name.split(".")[0] == "scipy" or name.startswith("openvino.tools")]
import openvino
assert openvino.Core().available_devices
"""


def test_the_libraries_work_without_their_optional_parts() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_a_hidden_module_is_there_again_afterwards() -> None:
    sys.modules.pop("colorsys", None)
    with hidden("colorsys"), pytest.raises(ImportError):
        import colorsys
    import colorsys

    with hidden("colorsys"):  # loaded already: whoever loaded it keeps it
        assert sys.modules["colorsys"] is colorsys
