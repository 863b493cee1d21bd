"""The synthetic scene: the same pixels whatever window they are asked in, and a truth that is in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.objects import find_objects
from wsiseg.runs import Runs
from wsiseg.synth import Scene, paint

SIZE = Size(700, 900)


@pytest.fixture(scope="module")
def scene() -> Scene:
    # Coarse pixels, so that a small slide holds several glomeruli.
    return Scene(SIZE, seed=5, mpp=3.0, tissue=0.7)


@pytest.fixture(scope="module")
def whole(scene: Scene) -> np.ndarray:
    return scene.render(Rect(0, 0, SIZE.height, SIZE.width))


@pytest.mark.parametrize(
    "rect", [Rect(0, 0, 64, 64), Rect(13, 7, 200, 333), Rect(640, 850, 700, 900), Rect(5, 5, 6, 6)]
)
def test_a_pixel_does_not_depend_on_the_window(scene: Scene, whole: np.ndarray, rect: Rect) -> None:
    assert np.array_equal(scene.render(rect), whole[rect.y0 : rect.y1, rect.x0 : rect.x1])


def test_seeds_differ_and_repeat(whole: np.ndarray) -> None:
    rect = Rect(0, 0, SIZE.height, SIZE.width)
    assert np.array_equal(Scene(SIZE, seed=5, mpp=3.0, tissue=0.7).render(rect), whole)
    assert not np.array_equal(Scene(SIZE, seed=6, mpp=3.0, tissue=0.7).render(rect), whole)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_tissue_share_is_what_was_asked_for(share: float) -> None:
    pixels = (
        Scene(SIZE, seed=1, mpp=3.0, tissue=share).render(Rect(0, 0, SIZE.height, SIZE.width)).astype(int)
    )
    # Background is nearly gray; lumens and the tissue's pale parts are purple by more than that.
    background = (pixels.max(2) - pixels.min(2) <= 6) & (pixels.min(2) > 220)
    assert abs((~background).mean() - share) < 0.05


def test_background_windows_repeat_and_are_recognised() -> None:
    scene = Scene(Size(4096, 4096), seed=2, tissue=0.2)
    n = paint.NOISE
    rects = [Rect(y, x, y + n, x + n) for y in range(0, 4096, n) for x in range(0, 4096, n)]
    blank = [r for r in rects if scene.is_background(r)]
    assert 100 < len(blank) < len(rects)
    first = scene.render(blank[0])
    assert first.min() > 220
    assert all(np.array_equal(scene.render(r), first) for r in blank[1::20])


def test_truth_is_where_the_outlines_are(scene: Scene) -> None:
    runs = scene.truth()
    y, x = np.mgrid[: SIZE.height, : SIZE.width]
    mask = np.zeros((SIZE.height, SIZE.width), bool)
    for g in scene.glomeruli:
        angle, bend = np.arctan2(y - g[0], x - g[1]), 1.0
        for k, (a, b) in {2: g[3:5], 3: g[5:7], 5: g[7:9]}.items():
            bend = bend + a * np.cos(k * angle) + b * np.sin(k * angle)
        mask |= np.hypot(y - g[0], x - g[1]) <= g[2] * bend
    assert len(scene.glomeruli) >= 3
    assert runs == Runs.from_mask(mask)


def test_glomeruli_are_apart_of_the_right_size_and_dark(scene: Scene, whole: np.ndarray) -> None:
    large = Scene(Size(6000, 8000), seed=1, tissue=0.8)
    across = 2 * large.glomeruli[:, 2] * large.mpp
    assert len(across) > 20
    assert across.min() > 90
    assert across.max() < 360
    assert len(find_objects(large.truth())) == len(large.glomeruli)
    mask = scene.truth().mask(Rect(0, 0, SIZE.height, SIZE.width)) > 0
    tissue = ~mask & (np.ptp(whole, axis=2) > 8)
    assert whole[mask].mean() < whole[tissue].mean() - 5


@pytest.mark.parametrize("bad", [{"tissue": 1.1}, {"mpp": 0.0}, {"size": Size(0, 5)}])
def test_bad_parameters_are_refused(bad: dict) -> None:
    with pytest.raises(UsageError):
        Scene(**({"size": SIZE} | bad))
