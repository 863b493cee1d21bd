"""`wsiseg build-engine` on the CPU: built, reported, loaded again, equal to the model; and its refusals."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests import fixtures_models as networks
from wsiseg.backends.run import probabilities
from wsiseg.cli import build_engine as command
from wsiseg.engines import build, openvino_build, parity, tiles
from wsiseg.engines.cuda_driver import probe
from wsiseg.errors import EngineError, OutputError, UsageError
from wsiseg.model.enginefile import EngineFile
from wsiseg.model.load import load_models


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(networks.redness(tile=64, tile_multiple=8))
    return path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(w) for w in words]))


def test_an_engine_gives_what_the_model_gives(
    tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for precision in ("fp32", "auto"):
        output = tmp_path / f"{precision}.engine"
        assert (
            run(model_file, "-o", output, "--backend", "openvino", "--precision", precision, "--threads", 1)
            == 0
        )
        told = capsys.readouterr().out
        assert "against fp32 on 8 procedural tiles" in told
        assert "add --slide" in told
        engine, model = load_models([str(output)]), load_models([str(model_file)])
        pictures = tiles.procedural_tiles(64, 3, seed=9)
        got, ran = probabilities(engine, pictures, "auto", "auto")
        assert np.array_equal(got, probabilities(model, pictures, "openvino", ran)[0])
        assert ran == "fp32" or precision == "auto"
        sidecar = EngineFile.open(output).sidecar
        assert sidecar.parity["tiles"] == 8
        assert sidecar.parity["disagreement"] == 0 or precision == "auto"
        assert sidecar.command.startswith("wsiseg build-engine ")


def test_it_is_not_built_twice(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "a.engine"
    words = (model_file, "-o", output, "--backend", "openvino", "--precision", "fp32", "--threads", 1)
    run(*words)
    before = output.stat().st_mtime_ns
    run(*words)
    assert "up to date" in capsys.readouterr().out
    assert output.stat().st_mtime_ns == before
    run(*words, "--force")
    assert output.stat().st_mtime_ns > before
    output.write_bytes(output.read_bytes()[:-1])  # a cut engine is built again, not called up to date
    run(*words)
    assert len(EngineFile.open(output).read_plan()) > 0
    model_file.write_bytes(networks.redness(tile=64, tile_multiple=8, level=50.0))
    capsys.readouterr()
    run(*words)
    assert "up to date" not in capsys.readouterr().out


def test_flips_and_ensembles_go_into_one_engine(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"{seed}.onnx").write_bytes(networks.random_conv(seed, tile=32))
    output = tmp_path / "both.engine"
    run(
        tmp_path / "1.onnx",
        tmp_path / "2.onnx",
        "--weights",
        "1,3",
        "--tta",
        "flips",
        "-o",
        output,
        "--backend",
        "openvino",
        "--precision",
        "fp32",
        "--threads",
        1,
    )
    engine = load_models([str(output)])
    assert (engine.tta, engine.copies) == ("flips", 4)
    model = load_models([str(tmp_path / "1.onnx"), str(tmp_path / "2.onnx")], (1, 3), "flips")
    pictures = tiles.procedural_tiles(32, 2)
    assert np.array_equal(
        probabilities(engine, pictures, "auto")[0], probabilities(model, pictures, "openvino", "fp32")[0]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "onnx"], "unknown engine backend 'onnx'; known: auto, tensorrt, openvino"),
        (["--precision", "fp16"], "unknown precision for a openvino engine 'fp16'; known: bf16, int8, fp32"),
        (["--precision", "int8"], "int8 is calibrated on your own slides: 0 tiles .* add --slide"),
        (["--tile", "60"], "--tile 60: .* multiple of 8"),
        (["--batch", "-1"], "--batch -1"),
        (["--optimization-level", "9"], "between 0 and 5"),
        (["--workspace", "lots"], "'lots' is not a size in bytes"),
        (["--weights", "a"], "could not convert"),
        (["--tta", "spin"], "unknown --tta 'spin'"),
        (["--tiles", "0"], "--tiles 0"),
    ],
)
def test_wrong_options(tmp_path: Path, model_file: Path, words: list[str], message: str) -> None:
    backend = [] if "--backend" in words else ["--backend", "openvino"]
    with pytest.raises(UsageError, match=message):
        run(model_file, "-o", tmp_path / "x.engine", *backend, *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx"]


def test_an_engine_of_an_engine(tmp_path: Path, model_file: Path) -> None:
    run(model_file, "-o", tmp_path / "a.engine", "--backend", "openvino", "--threads", 1)
    with pytest.raises(
        UsageError, match=r"already an engine; give the model it was built from \(.*net.onnx\)"
    ):
        run(tmp_path / "a.engine", "-o", tmp_path / "b.engine", "--backend", "openvino")


def test_an_unwritable_place_is_found_before_the_work(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run(model_file, "-o", tmp_path / "file" / "x.engine", "--backend", "openvino")


def test_without_a_gpu_it_says_what_is_missing(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if probe().gpus:
        pytest.skip("this machine has a GPU")
    with pytest.raises(
        EngineError, match=r"cannot build a tensorrt engine here: no NVIDIA driver .*--backend openvino"
    ):
        run(model_file, "--backend", "tensorrt", "-o", tmp_path / "x.engine")
    run(model_file, "-o", tmp_path / "x.engine", "--threads", 1)
    assert "building a CPU engine (tensorrt: no NVIDIA driver" in capsys.readouterr().out


def test_parity_counts_masks() -> None:
    expected = np.zeros((1, 2, 10, 10), np.float32)
    expected[0, 0, :5] = 0.9
    got = expected.copy()
    got[0, 0, 0] = 0.1
    report = parity.compare(expected, got, (0.5, 0.5), "int8", "slide")
    assert report.disagreement == 10 / 200
    assert report.foreground == 50 / 200
    assert report.dice == pytest.approx(80 / 90)
    assert report.max_difference == pytest.approx(0.8)
    assert not report.passed
    assert "ABOVE the limit of 0.300%" in report.line()
    assert parity.compare(expected * 0, expected * 0, (0.5, 0.5), "fp32", "slide").dice == 1.0


@pytest.mark.torch
@pytest.mark.slow
def test_int8(model_file: Path) -> None:
    if importlib.util.find_spec("nncf") is None:
        pytest.skip("needs nncf (pip install nncf)")
    model = load_models([str(model_file)])
    pictures = tiles.procedural_tiles(64, 12)
    request = build.Request(model, "int8", 64, 1, pictures, "slide")
    built = openvino_build.build(request)
    assert built.key["key"] == openvino_build.key(request)["key"]
    other = build.Request(model, "int8", 64, 1, tiles.procedural_tiles(64, 12, seed=1), "slide")
    assert openvino_build.key(other)["key"] != built.key["key"]


@pytest.mark.data
def test_tiles_of_a_real_slide(shared_data: Path) -> None:
    from wsiseg.model.spec import ModelSpec
    from wsiseg_kernels import cpu

    slide = str(shared_data / "glomeruli" / "26dc41664.tif")
    spec = ModelSpec("net", tile=256, mpp=4.0)
    first = tiles.slide_tiles([slide], spec, 256, 6)
    assert first.shape == (6, 256, 256, 3)
    assert np.array_equal(first, tiles.slide_tiles([slide], spec, 256, 6, threads=1))
    assert all(cpu.tissue_count(t, 256 * 256) >= 256 * 256 // 4 for t in first)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.0005), ("int8", 0.003)])
def test_the_bundled_model_on_the_real_slide(
    shared_data: Path, tmp_path: Path, precision: str, limit: float
) -> None:
    from wsiseg.model.load import bundled_names

    if not bundled_names():
        pytest.skip("no model is bundled")
    if precision == "int8" and importlib.util.find_spec("nncf") is None:
        pytest.skip("needs nncf (pip install nncf)")
    slide = shared_data / "glomeruli" / "26dc41664.tif"
    output = tmp_path / "g.engine"
    run(bundled_names()[0], "-o", output, "--backend", "openvino", "--precision", precision, "--slide", slide)
    found = EngineFile.open(output).sidecar.parity
    assert found["source"] == "slide"
    assert found["foreground"] > 0.001
    assert found["disagreement"] <= limit
