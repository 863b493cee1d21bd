"""`wsiseg bench` on a small slide and a tiny network: what it prints and writes, and what it refuses."""

from __future__ import annotations

import tomllib
import types
from pathlib import Path

import pytest

from benchmarks import networks
from tests import fixtures_models
from wsiseg.bench import sweep
from wsiseg.bench.report import Report
from wsiseg.cli.main import main
from wsiseg.cli.user_config import keep
from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.synth import Scene, write_slide


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WSISEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """The arguments of a bench of a few seconds."""
    model, slide = tmp_path / "tiny.onnx", tmp_path / "slide.tif"
    model.write_bytes(fixtures_models.redness(tile=64, tile_multiple=1))
    write_slide(slide, Scene(Size(700, 900), 1, tissue=1.0), "tiled-jpeg")
    return [
        "bench",
        "--slide",
        str(slide),
        "--model",
        str(model),
        "--scale",
        "2",
        "--seconds",
        "3",
        "--threads",
        "2",
        "--memory",
        "2GiB",
    ]


def test_bench_prints_every_stage_and_its_json_compares(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "old.json"
    assert main([*small, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    for name in (
        "decode",
        "shrink",
        "inference",
        "blend",
        "runs",
        "encode",
        "write",
        "ideal",
        "pipeline",
        "peak memory",
        "efficiency",
    ):
        assert name in text
    found = Report.from_json(out.read_text(), str(out))
    assert found.slides >= 1
    assert found.settings["scale"] == 2
    # Every tile of the grid was run or skipped, in every pass over the slide; on a slow machine the last pass is stopped in
    # the midst of a row of tiles, and is counted by its share of rows.
    assert found.tiles + found.empty == pytest.approx(
        ((350 + 64 - 48 - 1) // 48 + 1) * ((450 + 64 - 48 - 1) // 48 + 1), rel=0.05
    )
    assert [stage.name for stage in found.stages] == [
        "decode",
        "shrink",
        "inference",
        "blend",
        "runs",
        "encode",
        "write",
    ]
    assert found.ideal > 0
    assert main([*small, "--compare", str(out)]) == 0
    again = capsys.readouterr().out
    assert "before" in again
    assert "times as fast" in again


def test_sweep_writes_what_is_faster_and_nothing_else(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config" / "wsiseg" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("min_area = 3\nthreshold = 0.25\n")
    # A tile costs the less the more of them are in a batch, whatever the rest.
    monkeypatch.setattr(
        sweep, "_infer", lambda model, setting, *rest: (10 / setting.batch, 10 / setting.batch)
    )
    # However slow the machine, the time for trying is not over.
    monkeypatch.setattr(sweep, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    assert main([*small, "--sweep", "--tile", "64"]) == 0
    assert "chosen" in capsys.readouterr().out
    assert tomllib.loads(config.read_text()) == {"min_area": 3, "threshold": 0.25, "batch": 4}
    assert main([*small, "--sweep", "--tile", "64"]) == 0
    assert "nothing was written" in capsys.readouterr().out


def test_strings_survive_the_configuration_file(tmp_path: Path) -> None:
    values = {"model": ['a "b"', "c\\d", "é\n"], "fast_jpeg": True, "overlap": 0.25}
    assert tomllib.loads(Path(keep(values)).read_text()) == values


def test_a_broken_configuration_file_is_not_overwritten(tmp_path: Path) -> None:
    path = Path(keep({"tile": 64}))
    path.write_text("tile =")
    with pytest.raises(UsageError, match=r"config\.toml: cannot be read"):
        keep({"tile": 128})
    assert path.read_text() == "tile ="


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--seconds", "1"], "--seconds 1: must be between 3 and 3600"),
        (["--layout", "zarr"], "--slide goes without"),
        (["--compare", "no.json"], "no.json: cannot be read"),
        (["--slide", "no.tif"], "no.tif"),
    ],
)
def test_bad_input_is_one_line(
    small: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small, *extra]) != 0
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_the_synthetic_slide_is_painted_once(tmp_path: Path) -> None:
    from wsiseg.cli.bench import synthetic_slide

    told: list[str] = []
    first = synthetic_slide("300x200", "tiled-raw", 1, told.append)
    assert synthetic_slide("300x200", "tiled-raw", 1, told.append) == first
    assert len(told) == 1
    with pytest.raises(UsageError, match="--synthetic"):
        synthetic_slide("300", "tiled-raw", 1, told.append)


def test_the_benchmark_network_has_the_size_of_the_one_it_stands_for() -> None:
    # segmentation_models_pytorch's Unet("resnet34") has 24,436,369 parameters, batch norm included.
    held = networks.weights(networks.unet_resnet34())
    assert sum(value.size for value in held.values()) == pytest.approx(24_436_369, rel=0.002)
