"""Masks as images, opened by independent readers at every level."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from wsiseg.errors import OutputError, UsageError
from wsiseg.geometry import Size
from wsiseg.outputs import masks
from wsiseg.outputs.planes import SMALLEST_LEVEL
from wsiseg.outputs.pyramid import halved, level_sizes
from wsiseg.runs import Runs


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width)), (0, 0), 9.0)
    return noise > np.quantile(noise, 0.7)


def half(mask: np.ndarray) -> np.ndarray:
    """One level up, plainly: set where at least half of the real pixels are."""
    h, w = -(-mask.shape[0] // 2), -(-mask.shape[1] // 2)
    out = np.empty((h, w), mask.dtype)
    for y in range(h):
        for x in range(w):
            block = mask[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] > 0
            out[y, x] = 255 * (2 * block.sum() >= block.size)
    return out


MASK = blobs(0, 1301, 2111)
RUNS = Runs.from_mask(MASK)
IMAGE = np.where(MASK, np.uint8(255), np.uint8(0))
LEVELS = [IMAGE]
while max(LEVELS[-1].shape) > SMALLEST_LEVEL:
    LEVELS.append(half(LEVELS[-1]))


@pytest.mark.parametrize("ome", [False, True])
def test_tiff_levels(tmp_path: Path, ome: bool) -> None:
    path = tmp_path / "m.ome.tif"
    masks.write_mask_tiff(path, [RUNS], 0.5, names=["glomerulus"], ome=ome)
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels if ome else tiff.pages
        assert tiff.is_ome == ome
        for k, (level, want) in enumerate(zip(levels, LEVELS, strict=True)):
            assert np.array_equal(level.asarray(), want)
            page = level.pages[0] if ome else level
            assert np.allclose(page.get_resolution("micrometer"), 2 / 2**k)
        if ome:
            assert 'PhysicalSizeX="0.5"' in tiff.ome_metadata
            assert "glomerulus" in tiff.ome_metadata


def test_zarr_levels(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    masks.write_mask_zarr(path, [RUNS], 0.5)
    group = zarr.open_group(path, mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    for k, (dataset, want) in enumerate(zip(image["datasets"], LEVELS, strict=True)):
        assert np.array_equal(np.asarray(group[dataset["path"]]), want)
        scale, shift = dataset["coordinateTransformations"]
        assert scale["scale"] == [0.5 * 2**k] * 2
        assert shift["translation"] == [0.25 * (2**k - 1)] * 2
    # The same name again replaces it; a folder with something else stays.
    masks.write_mask_zarr(path, [Runs.empty(RUNS.size)], None)
    assert not np.asarray(zarr.open_group(path, mode="r")["0"]).any()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("")
    with pytest.raises(OutputError, match="not a Zarr folder"):
        masks.write_mask_zarr(tmp_path / "other", [RUNS])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.zarr", "other"]


def test_several_classes_are_numbered(tmp_path: Path) -> None:
    other = blobs(1, *MASK.shape)
    masks.write_mask_tiff(tmp_path / "m.tif", [RUNS, Runs.from_mask(other)], names=["a", "b"])
    want = np.where(other, 2, MASK)
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        assert tiff.pages[0].description == "wsiseg mask: a 1, b 2"
        assert np.array_equal(tiff.pages[0].asarray(), want)
        assert np.array_equal(tiff.pages[1].asarray(), want[::2, ::2])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (5, 6), (511, 513)])
def test_halving(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8) * 255
    assert np.array_equal(halved(image, "half"), half(image))
    gray = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    want = np.empty_like(half(gray))
    for y, x in np.ndindex(*want.shape):
        block = gray[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        want[y, x] = int(np.floor(block.mean() + 0.5))
    assert np.array_equal(halved(gray, "mean"), want)


def test_level_sizes() -> None:
    assert level_sizes(Size(3000, 5001), 1024) == [
        Size(3000, 5001), Size(1500, 2501), Size(750, 1251), Size(375, 626)
    ]  # fmt: skip
    assert level_sizes(Size(1, 1), 1024) == [Size(1, 1)]


def test_downscaled_picture_of_classes(tmp_path: Path) -> None:
    other = blobs(1, *MASK.shape)
    got = masks.downscaled([RUNS, Runs.from_mask(other)], 5)
    want = np.where(other, 2, MASK)
    assert got.shape == (261, 423)
    assert got[100, 200] == want[502, 1002]
    assert got[260, 422] == want[1300, 2110]


def test_a_png_too_large_is_refused_with_what_would_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use --downscale 3"):
        masks.write_mask_png(tmp_path / "m.png", [Runs.empty(Size(40_000, 50_000))])


@pytest.mark.parametrize("write", [masks.write_mask_tiff, masks.write_mask_zarr, masks.write_mask_png])
def test_unwritable_is_one_line(tmp_path: Path, write: object) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "m", [RUNS])  # type: ignore[operator]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
