"""The benchmark of the kernels runs, and its two sides agree; no test asserts on its times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks import kernels as benchmark


def test_the_run_kernel_writes_what_the_usual_way_writes() -> None:
    field = benchmark.blobs(150, 170)
    for scale in (1, 4):
        usual = benchmark.usual_runs(benchmark.usual_mask(field, scale))
        assert benchmark.RunKernel(field, scale).text().decode() == usual
        assert len(usual) > 100


def test_results_name_the_machine_and_the_commit(tmp_path: Path) -> None:
    tables = benchmark.run(quick=True)
    harness.write("kernels", tables, ("numpy", "no-such-package"), tmp_path)
    data = json.loads((tmp_path / "kernels.json").read_text())
    assert data["machine"]["numpy"] == np.__version__
    assert data["machine"]["no-such-package"] == "not installed"
    assert len(data["machine"]["commit"]) > 5
    assert len(data["tables"]) == len(tables)
    text = (tmp_path / "kernels.md").read_text()
    assert all(f"## {table.question}\n" in text for table in tables)
    assert "0 of" in text


def test_the_first_variant_is_the_measure_of_the_others() -> None:
    called: list[str] = []
    table = harness.compare(
        "order?", {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 1, rounds=3
    )
    assert called == ["a", "b"] * 4
    assert [row.variant for row in table.rows] == ["a", "b"]
    assert table.rows[0].ratio == 1
