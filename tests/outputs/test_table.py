"""The table of objects against the plain mask, read by pandas."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from wsiseg.errors import UsageError
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.table import COLUMNS, SlideObjects, write_objects
from wsiseg.runs import Runs


def discs() -> np.ndarray:
    mask = np.zeros((200, 300), np.uint8)
    cv2.circle(mask, (60, 80), 40, 1, -1)
    cv2.rectangle(mask, (150, 20), (269, 49), 1, -1)
    return mask


def test_measures(tmp_path: Path) -> None:
    mask = discs()
    slides = [
        SlideObjects("a,b", [ObjectClass("g", Runs.from_mask(mask), np.array([0.75, 0.5]))], 0.5),
        SlideObjects("none", [ObjectClass("g", Runs.empty(Runs.from_mask(mask).size))], 0.5),
        SlideObjects("c", [ObjectClass("g", Runs.from_mask(mask[:, 150:]))]),
    ]
    assert write_objects(tmp_path / "o.csv", slides) == 3
    table = pd.read_csv(tmp_path / "o.csv")
    assert tuple(table.columns) == COLUMNS
    disc, bar, alone = table.itertuples(index=False)
    assert (disc.slide, disc.object, bar.object, alone.slide) == ("a,b", 1, 2, "c")
    area = int(mask[:, :120].sum())
    assert (disc.x0, disc.y0, disc.x1, disc.y1, disc.area_px) == (20, 40, 101, 121, area)
    assert (disc.centroid_x, disc.centroid_y) == (60.5, 80.5)
    assert disc.area_um2 == area / 4
    assert disc.equivalent_diameter_um == pytest.approx(np.sqrt(area / np.pi), abs=1e-3)
    assert disc.circularity == pytest.approx(1, abs=0.03)
    assert bar.area_px == 120 * 30
    assert bar.circularity < 0.85
    assert (disc.mean_probability, bar.mean_probability) == (0.75, 0.5)
    assert np.isnan([alone.area_um2, alone.mean_probability]).all()


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    slides = [SlideObjects("a", [ObjectClass("g", Runs.from_mask(discs()))], 0.5)]
    write_objects(tmp_path / "o.csv", slides)
    write_objects(tmp_path / "o.parquet", slides)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "o.parquet"), pd.read_csv(tmp_path / "o.csv"), check_dtype=False
    )


def test_other_extensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        write_objects(tmp_path / "o.xlsx", [])
