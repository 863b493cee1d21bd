"""`--fast-jpeg`: near the exact mean, never the default, and said so when it can't be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slide_samples import picture, read_slide, write_tiff

from wsiseg.errors import BadSegment, UsageError
from wsiseg.slide import DecodePool, fastjpeg, open_slide

PICTURE = picture(331, 447, noise=6)


def jpeg(path: Path, **options: object) -> Path:
    how = {"tile": (64, 64), "compression": "jpeg", "subsampling": (2, 2), **options}
    return write_tiff(path, PICTURE, **how)


def test_without_simplejpeg_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastjpeg, "available", lambda: False)
    with pytest.raises(UsageError, match="--fast-jpeg needs the package simplejpeg"):
        open_slide(jpeg(tmp_path / "s.tif"), fast_jpeg=True)


@pytest.mark.skipif(not fastjpeg.available(), reason="simplejpeg is not installed (an optional package)")
@pytest.mark.parametrize("how", [{}, {"tile": None, "rowsperstrip": 16}], ids=["tiles", "strips"])
def test_near_the_exact_mean(tmp_path: Path, pool: DecodePool, how: dict[str, object]) -> None:
    path = jpeg(tmp_path / "s.tif", **how)
    with open_slide(path) as exact, open_slide(path, fast_jpeg=True) as fast:
        assert [x.exact for x in exact.levels] == [True]
        for scale in (1, 2, 3, 4, 6, 8, 16):
            plan = fast.plan(scale)
            assert plan.downsample == {1: 1, 2: 2, 3: 1, 4: 4, 6: 2, 8: 8, 16: 8}[scale]
            got, want = read_slide(fast, scale, pool), read_slide(exact, scale, pool)
            assert got.shape == want.shape
            difference = np.abs(got.astype(int) - want)
            assert difference.mean() < 3
            assert np.array_equal(got, want) == (plan.downsample == 1)


@pytest.mark.skipif(not fastjpeg.available(), reason="simplejpeg is not installed (an optional package)")
def test_damage_is_named_as_ever(tmp_path: Path, pool: DecodePool) -> None:
    path = jpeg(tmp_path / "s.tif")
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) * 3 // 4])
    with (
        open_slide(path, fast_jpeg=True) as slide,
        pytest.raises(BadSegment, match="of page 0 is damaged: its"),
    ):
        read_slide(slide, 4, pool)


def test_other_compressions_are_read_as_ever(tmp_path: Path) -> None:
    if not fastjpeg.available():
        pytest.skip("simplejpeg is not installed (an optional package)")
    path = write_tiff(tmp_path / "s.tif", PICTURE, tile=(64, 64), compression="zlib")
    with open_slide(path, fast_jpeg=True) as slide:
        assert len(slide.levels) == 1
