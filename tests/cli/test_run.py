"""`wsiseg run` as a person meets it: a child process, its lines, its exit code, its files."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests import fixtures_models

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "train"))
    return {**os.environ, "PYTHONPATH": paths, "XDG_CONFIG_HOME": str(home / "config")}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "wsiseg", *map(str, words)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*words: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            env=environment(tmp_path),
            cwd=tmp_path,
            timeout=200,
            **kwargs,
        )  # type: ignore[call-overload,no-any-return]

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "noise.onnx"
    path.write_bytes(fixtures_models.random_conv(2, tissue="none", tile=64))
    return path


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (90 + i, 130, 3), np.uint8)
        tifffile.imwrite(
            folder / f"slide {i} ü.tif", pixels, photometric="rgb", tile=(64, 64), compression="deflate"
        )
    return folder


def rows(path: Path) -> dict[str, str]:
    csv.field_size_limit(1 << 30)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        assert next(reader) == ["id", "predicted"]
        return dict(reader)  # type: ignore[arg-type]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what was said; there is never a traceback."""
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_folder_becomes_one_row_per_slide(run: Run, slides: Path, model: Path, tmp_path: Path) -> None:
    done = run("run", slides, "-o", "out.csv", "--model", model, "--memory", "1GiB", "--threads", 2)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out.csv")
    assert list(found) == [f"slide {i} ü" for i in range(4)]
    assert all(found.values())
    assert "peak memory" in one_line(done)
    checked = run("rle", "check", "out.csv", *sorted(slides.iterdir()))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    again = run("run", slides, "-o", "out.csv", "--model", model, "--memory", "1GiB", "--threads", 2)
    assert again.returncode == 0
    assert "4 done before" in again.stderr
    assert rows(tmp_path / "out.csv") == found
    two = run(
        "run", slides, "-o", "two.csv", "--model", model, "--memory", "2GiB", "--threads", 2, "--workers", 2
    )
    assert two.returncode == 0, two.stderr
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_bad_slides_fail_alone(run: Run, slides: Path, model: Path, tmp_path: Path) -> None:
    (slides / "text.tif").write_text("not a slide")
    (slides / "empty.tif").write_bytes(b"")
    cut = slides / "cut.tif"
    cut.write_bytes((slides / "slide 0 ü.tif").read_bytes()[:-900])
    done = run("run", slides, "-o", "out.csv", "--model", model, "--memory", "1GiB")
    assert done.returncode == 1
    assert list(rows(tmp_path / "out.csv")) == [f"slide {i} ü" for i in range(4)]
    for name in ("text", "empty", "cut"):
        lines = [line for line in done.stderr.splitlines() if f"{name}: FAILED" in line]
        assert len(lines) == 1, done.stderr
        assert str(slides / f"{name}.tif") in lines[0]
    assert "3 of 7 slides failed" in one_line(done)


def test_a_batch_of_ten_of_which_four_are_broken(run: Run, slides: Path, model: Path, tmp_path: Path) -> None:
    """Each broken in another way, among good ones of other layouts; the good ones come out as if they were alone."""

    def write(name: str, **options: object) -> Path:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (200, 150, 3), np.uint8)
        tifffile.imwrite(slides / f"{name}.tif", pixels, photometric="rgb", **{"tile": (64, 64), **options})
        return slides / f"{name}.tif"

    good = [*sorted(slides.iterdir()), write("lzw", compression="lzw"), write("strips", tile=None)]
    garbled = write("garbled", compression="deflate")
    with tifffile.TiffFile(garbled) as tiff:
        start = tiff.pages[0].dataoffsets[4]
    with open(garbled, "r+b") as file:
        file.seek(start)
        file.write(bytes(16))
    truncated = write("truncated")
    truncated.write_bytes(truncated.read_bytes()[:-5000])
    tifffile.imwrite(slides / "floating.tif", np.zeros((64, 64), np.float32), tile=(64, 64))
    (slides / "notes.tif").write_text("not a slide at all")
    reasons = {
        "garbled": "tile row 1, column 1 of page 0 is damaged: ",
        "truncated": "tile row 3, column 2 of page 0 is damaged: its 12288 bytes at ",
        "floating": "pixels are 32-bit floating point",
        "notes": "is not a TIFF, zarr, PNG or JPEG file",
    }
    done = run("run", slides, "-o", "out.csv", "--model", model, "--memory", "1GiB", "--threads", 2)
    assert done.returncode == 1, done.stderr
    assert "4 of 10 slides failed" in one_line(done)
    for name, reason in reasons.items():
        lines = [line for line in done.stderr.splitlines() if f"{name}: FAILED" in line]
        assert len(lines) == 1, done.stderr
        assert f"{slides / name}.tif: {reason}" in lines[0]
    found = rows(tmp_path / "out.csv")
    assert set(found) == {path.stem for path in good}
    assert all(found.values())
    (tmp_path / "alone").mkdir()
    for path in good:
        alone = run("run", path, "-o", f"alone/{path.stem}.csv", "--model", model, "--memory", "1GiB")
        assert alone.returncode == 0, alone.stderr
        assert rows(tmp_path / f"alone/{path.stem}.csv") == {path.stem: found[path.stem]}


def test_usage_errors_are_one_line_and_exit_2(run: Run, slides: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "slide 0 ü.tif").write_bytes((slides / "slide 0 ü.tif").read_bytes())
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    config = tmp_path / "bad.toml"
    config.write_text("tiel = 3\n")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "nothing.tif",), "no such file"),
        ((tmp_path / "empty",), "no slides in it"),
        ((slides, other), "slide 0 ü"),  # two slides with one id
        ((slides, "--model", "nope"), "unknown model 'nope'; known: glomeruli"),
        ((slides, "--model", tmp_path / "no.onnx"), "no such model file"),
        ((slides, "--model", broken), str(broken)),
        ((slides, "--model", model, "--tile", 64, "--overlap", 0.9), "--overlap 0.9"),
        ((slides, "--model", "glomeruli", "--tile", 100), "--tile 100"),
        ((slides, "--model", model, "--memory", "80MB"), "--memory"),
        ((slides, "--model", model, "--memory", "200MB"), "give --memory"),
        ((slides, "--model", model, "--threads", 0), "--threads 0"),
        ((slides, "--model", model, "--backend", "abacus"), "unknown backend 'abacus'"),
        ((slides, "--model", model, "--config", config), "unknown option 'tiel'"),
        ((slides, "--model", model, "--weights", "a,b"), "--weights a,b"),
    ]
    for words, expected in cases:
        done = run("run", "-o", "out.csv", *words)
        assert done.returncode == 2, (words, done.stderr)
        assert expected in one_line(done), (words, done.stderr)
        assert not (tmp_path / "out.csv").exists()


def test_other_options_than_the_records_are_refused_by_name(run: Run, slides: Path, model: Path) -> None:
    assert run("run", slides, "-o", "out.csv", "--model", model).returncode == 0
    done = run("run", slides, "-o", "out.csv", "--model", model, "--threshold", 0.7)
    assert done.returncode == 2
    assert "threshold" in one_line(done)
    assert "--fresh" in one_line(done)
    assert (
        run("run", slides, "-o", "out.csv", "--model", model, "--threshold", 0.7, "--fresh").returncode == 0
    )


def test_a_config_file_gives_options_and_the_command_line_goes_before_it(
    run: Run, slides: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text(f'model = "{model}"\nthreshold = 0.6\nmemory = "1GiB"\n')
    assert run("run", slides, "-o", "a.csv", "--config", "my.toml").returncode == 0
    assert run("run", slides, "-o", "b.csv", "--model", model, "--threshold", 0.6).returncode == 0
    assert run("run", slides, "-o", "c.csv", "--config", "my.toml", "--threshold", 0.5).returncode == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() != (tmp_path / "c.csv").read_bytes()


def test_an_output_that_cannot_be_written_is_said(
    run: Run, slides: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run("run", slides, "-o", "file/out.csv", "--model", model)
    assert done.returncode == 2
    assert "file/out.csv" in one_line(done)


def test_mpp_can_come_from_a_csv(run: Run, slides: Path, model: Path, tmp_path: Path) -> None:
    scaled = tmp_path / "scaled.onnx"
    scaled.write_bytes(fixtures_models.with_spec(model.read_bytes(), mpp=4.0, scale=1))
    (tmp_path / "mpp.csv").write_text("id,mpp\nslide 1 ü,2.0\nslide 2 ü,4.0\n", encoding="utf-8")
    done = run("run", slides, "-o", "out.csv", "--model", scaled, "--mpp", "mpp.csv", "--dry-run")
    assert done.returncode == 0, done.stderr
    plans = {line.split(":")[0]: line for line in done.stdout.splitlines() if ", scale " in line}
    assert "scale 2" in plans["slide 1 ü"]
    assert "scale 1" in plans["slide 2 ü"]
    assert "scale 1" in plans["slide 3 ü"]  # its file says nothing, so the model's own scale is taken
    assert "no microns per pixel in the file" in done.stdout
    wrong = run("run", slides, "-o", "out.csv", "--model", scaled, "--mpp", "none.csv")
    assert wrong.returncode == 2
    assert "none.csv" in one_line(wrong)


def test_a_full_disk_is_said_and_the_run_goes_on_later(
    run: Run, slides: Path, model: Path, tmp_path: Path
) -> None:
    def no_more_than_1_kb() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = run("run", slides, "-o", "out.csv", "--model", model, preexec_fn=no_more_than_1_kb)
    assert done.returncode == 2, done.stderr
    assert "write" in one_line(done)
    assert not (tmp_path / "out.csv").exists()
    again = run("run", slides, "-o", "out.csv", "--model", model)
    assert again.returncode == 0, again.stderr
    assert len(rows(tmp_path / "out.csv")) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_with_75_and_the_same_command_goes_on(
    number: signal.Signals, slides: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    words = ("run", slides, "-o", "out.csv", "--model", model, "--memory", "1GiB")
    for i in range(4, 40):
        (slides / f"more{i}.tif").write_bytes((slides / "slide 1 ü.tif").read_bytes())
    undisturbed = run("run", slides, "-o", "all.csv", "--model", model, "--memory", "1GiB")
    assert undisturbed.returncode == 0
    with subprocess.Popen(
        command(*words), env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[2/"):
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(60) == 75, rest
    assert "Traceback" not in rest
    assert not (tmp_path / "out.csv").exists()
    again = run(*words)
    assert again.returncode == 0, again.stderr
    assert "done before" in again.stderr
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()
    left = [p for p in (tmp_path / "out.csv.wsiseg").rglob("*") if "tmp" in p.name and p.is_file()]
    assert left == []


def test_dry_run_prints_the_plan_and_writes_nothing(
    run: Run, slides: Path, model: Path, tmp_path: Path
) -> None:
    done = run("run", slides, "-o", "out.csv", "--model", model, "--memory", "1GiB", "--dry-run")
    assert done.returncode == 0, done.stderr
    for word in ("ring of network rows", "accumulator", "resident", "total"):
        assert word in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slides"]


def test_no_traceback_when_the_reader_of_our_output_goes_away(run: Run, slides: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        command("run", "--help"), env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) in (0, 120)
