"""Every layout holds the scene's pixels, in the structure that its name promises, whatever the number of threads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from wsiseg.errors import OutputError, UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.outputs.submission import read_rows
from wsiseg.runs import Runs
from wsiseg.synth import LAYOUTS, Scene, write_slide
from wsiseg.synth.work import shrunk

SIZE = Size(530, 1300)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SIZE, seed=4, mpp=2.0, tissue=0.5)


@pytest.fixture(scope="module")
def pixels(scene: Scene) -> np.ndarray:
    return scene.render(Rect(0, 0, SIZE.height, SIZE.width))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    paths = {name: folder / f"{name}.{'zarr' if layout.zarr else 'tif'}" for name, layout in LAYOUTS.items()}
    for name, path in paths.items():
        write_slide(path, scene, name, threads=2)
    return paths


@pytest.mark.parametrize("name", LAYOUTS)
def test_pixels(name: str, written: dict[str, Path], pixels: np.ndarray) -> None:
    layout = LAYOUTS[name]
    if layout.zarr:
        got = np.asarray(zarr.open_group(written[name], mode="r")["0"]).transpose(1, 2, 0)
    else:
        with tifffile.TiffFile(written[name]) as tiff:
            if layout.planes == "pages":
                assert tiff.series[0].shape == (1, 1, 3, *pixels.shape[:2])
                got = np.stack([page.asarray() for page in tiff.pages], axis=2)
            else:
                got = tiff.pages[0].asarray()
                got = got.transpose(1, 2, 0) if layout.planes == "planar" else got
    if layout.lossless:
        assert np.array_equal(got, pixels)
    else:
        assert abs(got.astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("name", [n for n in LAYOUTS if n != "zarr"])
def test_structure(name: str, written: dict[str, Path]) -> None:
    layout = LAYOUTS[name]
    with tifffile.TiffFile(written[name]) as tiff:
        page = tiff.pages[0]
        assert tiff.byteorder == layout.byteorder
        assert tiff.is_bigtiff == layout.bigtiff
        assert page.is_tiled == (layout.rows == 0)
        if layout.rows:
            assert page.rowsperstrip == (SIZE.height if layout.rows == -1 else layout.rows)
        assert page.planarconfig == (2 if layout.planes == "planar" else 1)
        assert (page.jpegtables is not None) == layout.tables
        assert np.allclose(page.get_resolution("micrometer"), 0.5)
        assert (len(tiff.pages) > 1) == (layout.factor > 0 or layout.planes == "pages")


def test_levels_are_means(written: dict[str, Path], pixels: np.ndarray) -> None:
    with tifffile.TiffFile(written["pyramid-deflate"]) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == [(530, 1300), (133, 325)]
        assert np.array_equal(tiff.pages[1].asarray(), shrunk(pixels, 4))
        assert np.allclose(tiff.pages[1].get_resolution("micrometer"), 0.125)


def test_truth_is_written_beside(written: dict[str, Path], scene: Scene) -> None:
    rows = list(read_rows(written["strip-lzw"].with_name("strip-lzw.truth.csv")))
    assert [row.id for row in rows] == ["strip-lzw"]
    assert Runs.from_rle(rows[0].rle, SIZE) == scene.truth()


@pytest.mark.parametrize("name", ["tiled-jpeg", "strip-one-row", "pyramid-jpeg", "strip-huge"])
def test_bytes_do_not_depend_on_threads(
    name: str, tmp_path: Path, written: dict[str, Path], scene: Scene
) -> None:
    write_slide(tmp_path / "one.tif", scene, name, threads=1)
    assert (tmp_path / "one.tif").read_bytes() == written[name].read_bytes()


@pytest.mark.parametrize(
    "name", ["tiled-jpeg", "strip-raw", "strip-huge", "planar-5d", "pyramid-deflate", "zarr"]
)
@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 300), Size(257, 255)])
def test_tiny_slides(name: str, size: Size, tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    report = write_slide(path, Scene(size, tissue=1.0), name)
    assert report.file_bytes > 0
    if name != "zarr":
        with tifffile.TiffFile(path) as tiff:
            assert sum(p.asarray().size for p in tiff.pages if not p.is_reduced) == size.pixels * 3


def test_progress_counts_every_pixel(tmp_path: Path, scene: Scene) -> None:
    for name in ("tiled-jpeg", "planar-lzw", "strip-one-row", "strip-huge", "zarr"):
        done: list[int] = []
        write_slide(tmp_path / f"p.{name}", scene, name, progress=done.append)
        assert (
            abs(sum(done) - SIZE.pixels) < 100
        )  # thirds of pixels are dropped where planes are written apart


def test_failures_are_one_line_and_leave_nothing(tmp_path: Path, scene: Scene) -> None:
    with pytest.raises(UsageError, match="known: tiled-jpeg"):
        write_slide(tmp_path / "a.tif", scene, "tiled-jpg")
    with pytest.raises(OutputError, match="cannot be written"):
        write_slide(tmp_path / "none" / "a.tif", scene)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_slide(tmp_path / "folder", scene)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is not a file"):
        write_slide(tmp_path / "pipe", scene)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "pipe"]
