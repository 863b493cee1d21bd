"""Thumbnails of whole slides, and contours that lie where the objects are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsiseg.errors import OutputError
from wsiseg.geometry import Rect, Size
from wsiseg.objects import find_objects
from wsiseg.outputs.geojson import ObjectClass, colour
from wsiseg.outputs.outlines import trace
from wsiseg.outputs.overlay import contour_points, draw_contours, jpeg, write_overlay
from wsiseg.outputs.thumbnail import Thumbnail, read_thumbnail, thumbnail_plan
from wsiseg.runs import Runs
from wsiseg.slide import open_slide
from wsiseg.synth import Scene, write_slide
from wsiseg.synth.work import shrunk

SIZE = Size(2100, 3000)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SIZE, seed=3, mpp=2.0, tissue=0.7)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for layout in ("tiled-deflate", "strip-lzw", "pyramid-deflate"):
        write_slide(folder / f"{layout}.tif", scene, layout)
    return folder


@pytest.mark.parametrize("layout", ["tiled-deflate", "strip-lzw", "pyramid-deflate"])
def test_a_thumbnail_is_the_mean_of_the_slide(slides: Path, scene: Scene, layout: str) -> None:
    with open_slide(slides / f"{layout}.tif") as slide:
        thumbnail = read_thumbnail(slide, 400)
    want = shrunk(scene.render(Rect(0, 0, SIZE.height, SIZE.width)), thumbnail.scale)
    assert max(thumbnail.image.shape) <= 400
    assert thumbnail.image.shape == want.shape
    # Of a pyramid it is a mean of means, each rounded.
    assert abs(thumbnail.image.astype(int) - want).max() <= (1 if "pyramid" in layout else 0)


def test_a_pyramid_is_used(slides: Path) -> None:
    with open_slide(slides / "pyramid-deflate.tif") as slide:
        assert thumbnail_plan(slide, 400).level > 0


def test_contours_lie_on_the_objects(scene: Scene) -> None:
    runs = scene.truth()
    scale = 6
    blank = Thumbnail(np.full((350, 500, 3), 255, np.uint8), scale)
    drawn = draw_contours(blank, [ObjectClass("g", runs)])
    tinted = (np.abs(drawn.astype(int) - colour(0)) < 40).all(2)
    mask = shrunk(np.repeat(runs.mask(Rect(0, 0, *SIZE_TUPLE))[:, :, None] * 255, 3, axis=2), scale)[:, :, 0]
    edge = cv2.dilate(mask, np.ones((5, 5))) != cv2.erode(mask, np.ones((5, 5)))
    assert len(scene.glomeruli) > 3
    assert tinted.sum() > 100
    assert edge[tinted].mean() > 0.98
    assert len(contour_points(trace(find_objects(runs)), 10_000)) == len(scene.glomeruli)


SIZE_TUPLE = (SIZE.height, SIZE.width)


def test_the_picture_and_its_legend(tmp_path: Path, slides: Path, scene: Scene) -> None:
    with open_slide(slides / "strip-lzw.tif") as slide:
        thumbnail = read_thumbnail(slide, 600)
        classes = [ObjectClass("glomerulus ż", scene.truth()), ObjectClass("none", Runs.empty(SIZE))]
        write_overlay(tmp_path / "o.png", thumbnail, classes, slide.mpp)
    picture = cv2.imread(str(tmp_path / "o.png"))[:, :, ::-1]
    assert picture.shape[0] > thumbnail.image.shape[0] + 50
    legend = picture[thumbnail.image.shape[0] :]
    assert (legend == colour(0)).all(2).any()
    assert (legend == colour(1)).all(2).any()
    with pytest.raises(OutputError, match="cannot be written"):
        write_overlay(tmp_path / "none" / "o.png", thumbnail, classes)


def test_jpegs_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3)).astype(np.uint8)
    data = jpeg(noise, 60_000)
    assert len(data) <= 60_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
