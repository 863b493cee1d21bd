"""Which pyramid level is read, and that a level of other pixels is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_samples import picture, plain_shrink, read_slide

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.slide import DecodePool, open_slide
from wsiseg.slide.level import whole_downsample

PICTURE = picture(301, 418, noise=20)


def pyramid(path: Path, levels: list[np.ndarray], sub: bool = True, **options: object) -> Path:
    how = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "metadata": None, **options}
    with tifffile.TiffWriter(path, ome=False) as writer:
        writer.write(levels[0], subifds=len(levels) - 1 if sub else None, **how)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **how)
    return path


def reduced(array: np.ndarray, down: int, ceil: bool) -> np.ndarray:
    small = plain_shrink(array, down)
    return small if ceil else np.ascontiguousarray(small[: array.shape[0] // down, : array.shape[1] // down])


@pytest.mark.parametrize("sub", [False, True], ids=["pages", "sub-images"])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
def test_level_is_chosen_and_its_missing_edge_repeated(
    tmp_path: Path, pool: DecodePool, sub: bool, ceil: bool
) -> None:
    lower = [reduced(PICTURE, d, ceil) for d in (2, 4)]
    path = pyramid(tmp_path / "s.tif", [PICTURE, *lower], sub)
    with open_slide(path) as slide:
        assert [x.downsample for x in slide.levels] == [1, 2, 4]
        assert [slide.plan(s).level for s in (1, 2, 3, 4, 6, 8, 12)] == [0, 1, 0, 2, 1, 2, 2]
        assert slide.plan(4, level="0").level == 0
        for scale in (2, 4, 6, 8):
            plan = slide.plan(scale)
            assert plan.network == Size(*PICTURE.shape[:2]).over(scale)
            want = plain_shrink(lower[plan.level - 1], plan.remaining)
            missing = (plan.network.height - want.shape[0], plan.network.width - want.shape[1])
            want = np.pad(want, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
            np.testing.assert_array_equal(read_slide(slide, scale, pool), want)
            last = plan.network.width
            for columns in ((0, 5), (last - 1, last), (last - 7, last), (3, last)):
                got = read_slide(slide, scale, pool, columns=columns)
                np.testing.assert_array_equal(got, want[:, slice(*columns)])
        np.testing.assert_array_equal(read_slide(slide, 4, pool, level="0"), plain_shrink(PICTURE, 4))


@pytest.mark.parametrize("other", ["black", "white", "another picture", "negative", "flipped"])
def test_level_of_other_pixels_is_not_used(tmp_path: Path, pool: DecodePool, other: str) -> None:
    true = plain_shrink(PICTURE, 2)
    wrong = {
        "black": np.zeros_like(true),
        "white": np.full_like(true, 255),
        "another picture": picture(*true.shape[:2], seed=9, noise=90),
        "negative": 255 - true,
        "flipped": np.ascontiguousarray(true[::-1]),
    }[other]
    path = pyramid(tmp_path / "s.tif", [PICTURE, wrong, plain_shrink(PICTURE, 4)])
    with open_slide(path) as slide:
        assert slide.plan(2).level == 0
        assert slide.plan(4).level == 2
        assert any(w.startswith("level 1 (209 x 151) is not used: its pixels differ") for w in slide.warnings)
        np.testing.assert_array_equal(read_slide(slide, 2, pool), true)


@pytest.mark.parametrize("way", ["mean", "picked", "jpeg"])
def test_honest_levels_are_used(tmp_path: Path, way: str) -> None:
    small = plain_shrink(PICTURE, 4) if way != "picked" else np.ascontiguousarray(PICTURE[2:-1:4, 2::4])
    path = pyramid(tmp_path / "s.tif", [PICTURE, small], compression="jpeg" if way == "jpeg" else "zlib")
    with open_slide(path) as slide:
        assert slide.plan(4).level == 1, slide.warnings


def test_a_level_in_another_ratio_is_left_alone(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "s.tif", [PICTURE, np.ascontiguousarray(PICTURE[:200, :200])], sub=False)
    with open_slide(path) as slide:
        assert [x.downsample for x in slide.levels] == [1]


def test_unknown_level_and_scale(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "s.tif", [PICTURE])
    with open_slide(path) as slide:
        with pytest.raises(UsageError, match="unknown level '7'; known: auto, 0"):
            slide.plan(2, level="7")
        with pytest.raises(UsageError, match="scale 0 is not possible"):
            slide.plan(0)


@pytest.mark.parametrize(
    ("full", "part", "down"),
    [
        ((3567, 4443), (1783, 2221), 2),
        ((3567, 4443), (1784, 2222), 2),
        ((3567, 4443), (1784, 2221), 2),
        ((3567, 4443), (1780, 2221), 0),
        ((100, 100), (100, 100), 1),
        ((1000, 1000), (768, 768), 0),
        ((40_000, 3), (10_000, 1), 4),
    ],
)
def test_whole_downsample(full: tuple[int, int], part: tuple[int, int], down: int) -> None:
    assert whole_downsample(Size(*full), Size(*part)) == down
