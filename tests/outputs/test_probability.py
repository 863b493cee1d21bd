"""Probability planes: kept in a file while a slide is in progress, written as images, averaged over objects."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from wsiseg.errors import OutputError
from wsiseg.geometry import Rect, Size
from wsiseg.objects import find_objects
from wsiseg.outputs.probability import object_means, write_probability
from wsiseg.outputs.pyramid import halved
from wsiseg.outputs.spool import ProbabilitySpool, spool_path
from wsiseg.runs import Runs

SIZE = Size(1100, 1301)


def planes(classes: int = 2, size: Size = SIZE) -> np.ndarray:
    """Smooth probabilities with large parts of exactly 0: float32 [C, h, w]."""
    noise = np.random.default_rng(7).random((classes, size.height, size.width)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 9.0) for plane in noise])
    low, high = smooth.min(), smooth.max()
    return np.clip((smooth - low) / (high - low) * 1.5 - 0.3, 0, 1).astype(np.float32)


def filled(path: Path, p: np.ndarray, cuts: tuple[int, ...] = (), rows: int = 64) -> ProbabilitySpool:
    """A spool that took `p` in bands of panels."""
    spool = ProbabilitySpool(path, len(p), Size(*p.shape[1:]))
    spool.begin(False)
    edges = [0, *cuts, p.shape[2]]
    for x0, x1 in itertools.pairwise(edges):
        for y in range(0, p.shape[1], rows):
            spool.add(p[:, y : y + rows, x0:x1], y, x0)
    return spool


@pytest.mark.parametrize("cuts", [(), (400, 401, 900)])
def test_the_spool_gives_back_what_it_took(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    p = planes()
    spool = filled(tmp_path / "deep" / "s", p, cuts, 100)
    want = np.floor(p * 255 + 0.5).astype(np.uint8)
    for index in range(2):
        assert np.array_equal(spool.band(index, 0, SIZE.height), want[index])
        part = Rect(17, 33, 900, 1280)
        assert np.array_equal(spool.window(index, part), want[index, 17:900, 33:1280])
    spool.discard()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_spool_goes_on_only_where_it_stopped(tmp_path: Path) -> None:
    p = planes()
    first = ProbabilitySpool(tmp_path / "s", 2, SIZE)
    assert first.token == ""
    first.begin(False)
    first.add(p[:, :500], 0, 0)
    first.sync()
    first.close()
    again = ProbabilitySpool(tmp_path / "s", 2, SIZE)
    assert again.token == first.token != ""
    again.begin(True)
    again.add(p[:, 500:], 500, 0)
    assert np.array_equal(again.band(1, 0, SIZE.height), np.floor(p[1] * 255 + 0.5))
    # Planes of other sizes, and a file of something else, are not gone on with.
    assert ProbabilitySpool(tmp_path / "s", 1, SIZE).token == ""
    (tmp_path / "other").write_text("thesis")
    assert ProbabilitySpool(tmp_path / "other", 2, SIZE).token == ""
    fresh = ProbabilitySpool(tmp_path / "s", 2, SIZE)
    fresh.begin(False)
    assert fresh.token != first.token
    assert not fresh.band(0, 0, 10).any()
    # The earlier owner still has its own.
    assert again.band(0, 0, SIZE.height).any()


def test_a_spool_that_cannot_be_written_is_one_line_and_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ProbabilitySpool(tmp_path / "file" / "s", 1, SIZE).begin(False)
    assert spool_path(tmp_path, "x" * 300).name.endswith(".probability.spool")


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("mpp", [0.5, None])
def test_images_at_every_level(tmp_path: Path, classes: int, mpp: float | None) -> None:
    p = planes(classes)
    spool = filled(tmp_path / "s", p, (700,))
    names = ["nucleus", "core"][:classes]
    write_probability(tmp_path / "p.ome.tif", spool, names, 4, mpp)
    write_probability(tmp_path / "p.zarr", spool, names, 4, mpp)
    levels = [np.floor(p * 255 + 0.5).astype(np.uint8)]
    while max(levels[-1].shape) > 1024:
        levels.append(np.stack([halved(plane, "mean") for plane in levels[-1]]))
    assert len(levels) == 2
    with tifffile.TiffFile(tmp_path / "p.ome.tif") as tiff:
        assert tiff.is_ome
        (series,) = tiff.series
        for k, (level, want) in enumerate(zip(series.levels, levels, strict=True)):
            assert np.array_equal(level.asarray().reshape(want.shape), want)
            if mpp:
                assert np.allclose(level.pages[0].get_resolution("micrometer"), 0.5 / 2**k)
        text = tiff.ome_metadata
        assert all(f'Name="{name}"' in text for name in names)
        assert "one pixel is 4 slide pixels wide" in text
        assert ('PhysicalSizeX="2.0"' in text) == (mpp is not None)
    group = zarr.open_group(tmp_path / "p.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [c["label"] for c in group.attrs["ome"]["omero"]["channels"]] == names
    pixel = (mpp or 1) * 4
    for k, (dataset, want) in enumerate(zip(image["datasets"], levels, strict=True)):
        assert np.array_equal(np.asarray(group[dataset["path"]]), want)
        steps = dataset["coordinateTransformations"]
        assert steps[0]["scale"] == [1.0, pixel * 2**k, pixel * 2**k]
        # The middle of the first pixel, from the middle of the slide's first pixel.
        assert steps[1]["translation"] == pytest.approx([0.0] + [(4 * 2**k - 1) / 2 * (mpp or 1)] * 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.ome.tif", "p.zarr", "s"]


@pytest.mark.parametrize("scale", [1, 3, 4])
@pytest.mark.parametrize("cuts", [(), (200, 450)])
def test_means_are_those_of_the_whole_plane(tmp_path: Path, scale: int, cuts: tuple[int, ...]) -> None:
    p = planes(2, Size(613, 700))
    full = Size(613 * scale - (scale - 1), 700 * scale - (scale // 2))
    spool = filled(tmp_path / "s", p, cuts)
    large = np.repeat(np.repeat(np.floor(p * 255 + 0.5), scale, 1), scale, 2)[:, : full.height, : full.width]
    mask = cv2.GaussianBlur(np.random.default_rng(scale).random((full.height, full.width)), (0, 0), 8) > 0.505
    runs = Runs.from_mask(mask)
    objects = find_objects(runs)
    assert len(objects) > 10
    label = np.full(full.pixels, -1)
    for start, length, number in zip(objects.starts, objects.lengths, objects.labels, strict=True):
        label[start : start + length] = number
    label = label.reshape(full.width, full.height).T
    for index in range(2):
        sums = np.bincount(label[label >= 0], weights=large[index][label >= 0])
        want = sums / np.bincount(label[label >= 0]) / 255
        assert object_means(runs, spool, index, scale) == pytest.approx(want, abs=1e-12)
    assert len(object_means(Runs.empty(full), spool, 0, scale)) == 0
