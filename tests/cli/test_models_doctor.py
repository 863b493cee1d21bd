"""`wsiseg models` and `wsiseg doctor`: what they say, and that nothing missing makes them fail."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests import fixtures_models as networks
from wsiseg.backends import registry
from wsiseg.cli import doctor, models
from wsiseg.errors import ModelError
from wsiseg.model import load


def run(command: ModuleType, *words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.main(parser.parse_args([str(w) for w in words])))


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = networks.with_spec(
        networks.redness(), mpp=2.0, scale=4, licence="CC0", trained_on="drawn discs", scores={"dice": 0.91}
    )
    (tmp_path / "discs.onnx").write_bytes(data)
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    return tmp_path


def test_models_tells_what_the_spec_says(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(models) == 0
    told = capsys.readouterr().out
    for words in ("discs", "2 microns per network pixel", "CC0", "drawn discs", "dice 0.91", "threshold"):
        assert words in told
    assert run(models, "--json") == 0
    assert json.loads(capsys.readouterr().out)["discs"]["scale"] == 4
    with pytest.raises(ModelError, match="unknown model 'nett'; known: discs"):
        run(models, "nett")


def test_no_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    assert run(models) == 0
    assert "no model is bundled" in capsys.readouterr().out
    assert doctor.would_run().startswith("nothing")


def test_doctor(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(doctor) == 0
    told = capsys.readouterr().out
    for words in ("cores", "memory", "openvino", "tensorrt", "would run", "discs"):
        assert words in told
    assert run(doctor, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"]
    assert found["backends"]["openvino"]["usable"]
    assert found["cores"]["count"] >= 1
    assert found["would_run"] == "openvino with model discs" or found["gpu"]["gpus"]


def test_doctor_without_any_runtime(
    bundled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in registry.BACKENDS:
        monkeypatch.setitem(registry.BACKENDS, name, f"wsiseg.backends.no_{name}")
    monkeypatch.setattr(doctor, "would_run", lambda: "nothing: no backend")
    assert run(doctor) == 1
    assert "no_openvino" in capsys.readouterr().out


def test_the_cpu_s_features(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 amx_bf16\n")
    assert doctor.cpu(info) == {"name": "Some CPU", "features": ["avx2", "amx_bf16"]}
    assert doctor.cpu(tmp_path / "none")["features"] == []
