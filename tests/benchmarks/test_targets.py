"""The table of targets says what was measured, what was not, and why something misses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_picture, harness, targets
from tests.bench.test_report import report


def test_the_table_says_what_is_met_missed_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    rows = [
        {"variant": name, "seconds": 1.0, "rate": 1.0, "ratio": ratio, "spread": 1.0}
        for name, ratio in (("numpy", 1.0), ("run kernel", 30.0), ("accumulate", 3.0))
    ]
    tables = [
        {"question": name, "rows": rows}
        for name in ("Probabilities to run-length text at scale 4", "Blending")
    ]
    machine = {"processor": "a CPU", "commit": "abc"}
    (tmp_path / "kernels.json").write_text(json.dumps({"machine": machine, "tables": tables}))
    targets.main()
    lines = (tmp_path / "targets.md").read_text().splitlines()
    assert any("run kernel 20 times" in line and "| 30 times | yes |" in line for line in lines)
    assert any("blend 4 times numpy | 3.0 times | no |" in line and "a CPU, abc" in line for line in lines)
    assert any(line.startswith("- blend 4 times numpy: it runs at the speed of memory") for line in lines)
    assert sum("not measured" in line for line in lines) == len(targets.TARGETS) - 2


def test_the_readme_gets_the_table_between_its_marks() -> None:
    found = report(machine={"processor": "a CPU", "commit": "abc"})
    svg, text = bench_picture.picture(found)
    assert svg.startswith("<svg")
    assert "font-face" not in svg
    begin, end = bench_picture.MARKS
    readme = bench_picture.in_readme(f"before\n{begin}\nold\n{end}\nafter\n", found, text)
    assert readme.startswith(f"before\n{begin}\n")
    assert readme.endswith(f"{end}\nafter\n")
    assert "old" not in readme
    assert "a CPU, 2 cores, commit abc" in readme
    assert "stage, alone" in readme
    assert "efficiency" in readme
