"""The recipes of workflow engines: run where the engine is here, checked against the schema where it is not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import ROOT, environment, expected_csv, leftovers, write_slides

RECIPES = ROOT / "wsiseg" / "jobs" / "recipes"


@pytest.mark.cluster
@pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None, reason="needs Snakemake: pip install snakemake"
)
def test_snakemake(tmp_path: Path) -> None:
    slides = write_slides(tmp_path / "slides", 60, {17: f"once {tmp_path}/marker", 40: "fail no"})
    config = [
        f"slides={slides}",
        f"out={tmp_path}/out.csv",
        "shards=3",
        f"wsiseg={sys.executable} -m wsiseg",
        f"run={sys.executable} -m tests.jobs.driver",
    ]
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(RECIPES / "snakemake/Snakefile"),
        "--cores",
        "2",
        "--directory",
        str(tmp_path / "work"),
    ]
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path))
    done = subprocess.run(
        [*command, "--config", *config], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.csv").read_bytes() == expected_csv(slides, without=["s040"])
    assert leftovers(tmp_path) == []


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["job.yaml", "merge.yaml"])
def test_the_kubernetes_manifests_fit_their_schema(name: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="needs the schemas of Kubernetes: pip install kubernetes-validate"
    )
    data = manifest(name)
    version = validate.latest_version()
    validate.validate(data, version, strict=True)
    broken = {**data, "spec": {**data["spec"], "completion": 8}}
    with pytest.raises(Exception, match="completion"):
        validate.validate(broken, version, strict=True)


def test_the_indexed_job_has_as_many_shards_as_completions() -> None:
    pytest.importorskip("yaml", reason="needs PyYAML")
    spec = manifest("job.yaml")["spec"]
    command = spec["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--shards") + 1] == str(spec["completions"])
    assert spec["completionMode"] == "Indexed"


def manifest(name: str) -> dict[str, Any]:
    import yaml

    loaded = yaml.safe_load((RECIPES / "kubernetes" / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_every_recipe_uses_options_that_exist() -> None:
    import argparse

    from wsiseg.cli.job_options import add_job_arguments

    parser = argparse.ArgumentParser()
    add_job_arguments(parser)
    known = set(parser._option_string_actions) | {"--memory", "--partial"}
    for file in RECIPES.rglob("*"):
        if file.is_file() and file.name != "README.md":
            words = {
                w.strip("\"',[]{}")
                for line in file.read_text().splitlines()
                if "wsiseg run" in line or '"run"' in line or "{RUN}" in line
                for w in line.split()
            }
            used = {w for w in words if w.startswith("--") and len(w) > 2} - {"--config"}
            assert used <= known, f"{file}: {used - known}"
