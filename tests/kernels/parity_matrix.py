"""The matrix of cases over which an implementation of the kernels must give the reference's bytes.

`python tests/kernels/parity_matrix.py MODULE [thin] [resident]` runs
the matrix over an implementation in a process of its own (the CUDA simulator needs one) and prints what failed as JSON;
"thin" leaves out what only repeats, "resident" runs cases again with arrays that lie on the device.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from parity_cases import (
    Case,
    blend,
    gather,
    objects,
    outside,
    run_lists,
    shrinking,
    tissue,
    transitions,
)

CASES: dict[str, Case] = {}
for _c, _t, _s, _h, _w in (
    (1, 8, 4, 19, 23),
    (2, 6, 6, 7, 5),
    (1, 9, 7, 1, 1),
    (3, 5, 2, 4, 12),
    (1, 7, 3, 16, 2),
):
    CASES[f"blend-{_c}-{_t}-{_s}-{_h}-{_w}"] = blend(_c, _t, _s, _h, _w)
for _s in range(1, 9):
    for _h, _w in ((1, 1), (4 * _s, 3 * _s), (2 * _s + 1, 4 * _s - 1)):
        CASES[f"shrink-{_s}-{_h}-{_w}"] = shrinking(_s, _h, _w)
    CASES[f"outside-{_s}"] = outside(_s)
CASES["shrink-100"] = shrinking(100, 130, 201)
# Rows of several vectors, with a rest; every prime factor.
for _s in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17):
    CASES[f"shrink-{_s}-wide"] = shrinking(_s, _s + 1, 31 * _s - 1)
for _fill in (0, 1):
    for _h, _w, _t, _c, _held in ((20, 30, 6, 0, 30), (1, 1, 8, 0, 1), (3, 2, 9, 0, 2), (20, 30, 5, 4, 17)):
        CASES[f"gather-{_fill}-{_h}-{_w}-{_t}-{_c}-{_held}"] = gather(_h, _w, _t, _c, _held, _fill)
for _h, _w, _low, _high in (
    (1, 1, 0, 256),
    (9, 13, 0, 256),
    (64, 64, 225, 245),
    (5, 70, 0, 30),
    (9, 9, 195, 210),
    (4, 4, 255, 256),
):
    CASES[f"tissue-{_h}-{_w}-{_low}-{_high}"] = tissue(_h, _w, _low, _high)
for _kind in ("noise", "threshold", "smooth", "dots", "empty", "full"):
    for _s in range(1, 9):
        CASES[f"transitions-{_kind}-{_s}"] = transitions(_s, 7, 9, (1, 2), _kind, 0.5)
for _h, _w in ((1, 1), (1, 5), (6, 1), (2, 2)):
    for _s in (1, 2, 3, 8):
        CASES[f"transitions-{_h}-{_w}-{_s}"] = transitions(_s, _h, _w, (_s - 1, 0), "noise", 0.5)
for _threshold in (-0.5, 0.0, 0.3, 1.0, 1.5):
    for _s in (1, 4, 5):
        CASES[f"transitions-{_threshold}-{_s}"] = transitions(_s, 5, 6, (0, 1), "noise", _threshold)
CASES["transitions-noise-97"] = transitions(97, 3, 3, (40, 96), "noise", 0.45)
CASES["transitions-noise-256"] = transitions(256, 2, 3, (0, 0), "noise", 0.55)
for _h, _w in ((1, 1), (1, 9), (9, 1), (12, 17), (15, 8)):
    for _density in (0.0, 0.15, 0.5, 0.9):
        CASES[f"runs-{_h}-{_w}-{_density}"] = run_lists(_h, _w, _density)
        CASES[f"objects-{_h}-{_w}-{_density}"] = objects(_h, _w, _density)


def check(name: str, k: Any) -> None:
    """Run one case of the matrix; raises AssertionError where it differs from the reference."""
    CASES[name](k, np.random.default_rng(list(name.encode())))


def thin(name: str) -> bool:
    """Whether the simulator runs the case: it starts a Python thread for each CUDA thread, and columns are many."""
    kind, *rest = name.split("-")
    return (
        kind != "transitions"
        or rest[0] in ("noise", "1", "0.3")
        or (rest[0] == "threshold" and rest[1] in "14")
    )


class Resident:
    """An implementation that is given device arrays wherever a case gives host arrays."""

    def __init__(self, k: Any, to_device: Callable[[np.ndarray], Any]) -> None:
        self.k, self.to_device = k, to_device

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.k, name)
        if function.__module__.split(".")[1] != "cuda":  # a kernel of run lists, which are the host's
            return function

        def called(*arguments: Any) -> Any:
            arrays = [isinstance(a, np.ndarray) for a in arguments]
            there = [
                self.to_device(np.ascontiguousarray(a)) if is_array else a
                for a, is_array in zip(arguments, arrays, strict=True)
            ]
            result = function(*there)
            for host, copy, is_array in zip(arguments, there, arrays, strict=True):
                if is_array and host.flags.writeable:
                    host[...] = copy.copy_to_host()
            return result

        return called


def main(module: str, *options: str) -> None:
    k = importlib.import_module(module)
    runs = {name: k for name in CASES if "thin" not in options or thin(name)}
    if "resident" in options:
        from numba import cuda

        few = [name for name in runs if not name.startswith("transitions") or name.endswith("noise-3")]
        runs |= {f"resident {name}": Resident(k, cuda.to_device) for name in few}
    failures = {}
    for name, implementation in runs.items():
        try:
            check(name.removeprefix("resident "), implementation)
        except Exception:
            failures[name] = traceback.format_exc(limit=-4)
    print(json.dumps({"cases": len(runs), "failures": failures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
