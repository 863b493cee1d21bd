"""Mask images of every kind give the runs of their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from wsiseg.errors import UsageError
from wsiseg.outputs import masks
from wsiseg.outputs.images import read_mask
from wsiseg.runs import Runs

MASK = cv2.GaussianBlur(np.random.default_rng(0).random((533, 1291)), (0, 0), 4) > 0.5
RUNS = Runs.from_mask(MASK)


def test_what_we_write_comes_back(tmp_path: Path) -> None:
    masks.write_mask_tiff(tmp_path / "a.tif", [RUNS])
    masks.write_mask_tiff(tmp_path / "a.ome.tif", [RUNS], 0.5, ome=True)
    masks.write_mask_zarr(tmp_path / "a.zarr", [RUNS])
    masks.write_mask_png(tmp_path / "a.png", [RUNS])
    for name in ("a.tif", "a.ome.tif", "a.zarr", "a.png"):
        assert read_mask(tmp_path / name) == RUNS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (64, 128)},
        {"rowsperstrip": 7, "compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"byteorder": ">"},
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "bool"])
def test_foreign_tiffs(tmp_path: Path, options: dict, dtype: str) -> None:
    if dtype == "bool" and "predictor" in options:
        options = {"compression": "zlib"}
    order = {"byteorder": options["byteorder"]} if "byteorder" in options else {}
    rest = {k: v for k, v in options.items() if k != "byteorder"}
    with tifffile.TiffWriter(tmp_path / "m.tif", **order) as tiff:
        tiff.write(MASK.astype(dtype) * (1 if dtype == "bool" else 200), photometric="minisblack", **rest)
    assert read_mask(tmp_path / "m.tif") == RUNS


def test_one_label_of_several(tmp_path: Path) -> None:
    labels = MASK * np.where(np.arange(1291) % 2, 3, 5)
    tifffile.imwrite(tmp_path / "l.tif", labels.astype(np.uint16), tile=(256, 256))
    assert read_mask(tmp_path / "l.tif", 3) == Runs.from_mask(labels == 3)
    array = zarr.create_array(
        tmp_path / "l.zarr", shape=(1, *MASK.shape), chunks=(1, 100, 300), dtype="int32"
    )
    array[0] = labels
    assert read_mask(tmp_path / "l.zarr", 5) == Runs.from_mask(labels == 5)


def test_bad_images_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no")
    (tmp_path / "text.png").write_text("no")
    (tmp_path / "folder").mkdir()
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((5, 6, 3), np.uint8), photometric="rgb")
    for name, words in {
        "none.tif": "no such file",
        "text.tif": "cannot be read as a mask",
        "text.png": "not an image",
        "folder": "cannot be read as a mask",
        "rgb.tif": "one channel",
    }.items():
        with pytest.raises(UsageError, match=words):
            read_mask(tmp_path / name)
