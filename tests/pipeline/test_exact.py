"""The streaming pipeline against plain numpy on whole arrays, and against itself in every other setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from tests import fixtures_models
from tests import whole_slide as whole
from wsiseg.geometry import Size
from wsiseg.memory import MemoryPlan
from wsiseg.pipeline.options import SlideResult
from wsiseg.pipeline.processor import Processor
from wsiseg.slide import open_slide
from wsiseg.synth.layouts import LAYOUTS
from wsiseg.synth.scene import Scene
from wsiseg.synth.write import write_slide
from wsiseg.tiling import TileGrid, stride_of

HEIGHT, WIDTH = 701, 930
RANDOM = fixtures_models.random_conv(3, tissue="none")


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same section in a layout, written once."""
    folder = tmp_path_factory.mktemp("layouts")

    def get(name: str) -> Path:
        path = folder / (f"{name}.zarr" if name == "zarr" else f"{name}.tif")
        if not path.exists():
            write_slide(path, Scene(Size(HEIGHT, WIDTH), seed=5, mpp=2.0, tissue=0.7), name)
        return path

    return get


def pixels_of(path: Path) -> npt.NDArray[np.uint8]:
    """What an independent reader makes of the full-size level."""
    if path.suffix == ".zarr":
        import zarr

        group = zarr.open_group(path, mode="r")
        array = np.asarray(group["0"]).squeeze()
    else:
        array = tifffile.imread(path, series=0, level=0).squeeze()
    return np.ascontiguousarray(np.moveaxis(array, 0, -1) if array.shape[0] == 3 else array)


def network_of(session) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:  # type: ignore[no-untyped-def]
    def network(tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        session.input(0)[0] = tile
        session.start(0, 1)
        return session.wait(0)[0].copy()

    return network


def expected(
    slide: npt.NDArray[np.uint8],
    session,
    scale: int,
    tile: int,
    overlap: float,
    threshold: float = 0.5,
    **how: object,
) -> list[npt.NDArray[np.bool_]]:  # type: ignore[no-untyped-def]
    """One mask per class, by whole-slide numpy."""
    planes = whole.probability(
        whole.shrink(slide, scale), network_of(session), tile, stride_of(tile, overlap), **how
    )  # type: ignore[arg-type]
    return [whole.full_size(p, scale, *slide.shape[:2]) > threshold for p in planes]


def differing(result: SlideResult, masks: list[npt.NDArray[np.bool_]]) -> int:
    """Pixels in which the runs differ from the masks."""
    assert isinstance(result, SlideResult), result
    height, width = masks[0].shape
    from wsiseg.geometry import Rect

    return sum(
        int((runs.mask(Rect(0, 0, height, width)) != mask).sum())
        for runs, mask in zip(result.runs, masks, strict=True)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_whole_slide_numpy(layout: str, layouts, segment, sessions) -> None:  # type: ignore[no-untyped-def]
    path, tile, scale, overlap = layouts(layout), 64, 3, 0.25
    slide = pixels_of(path)
    result = segment(path, RANDOM, tile, scale=scale, overlap=overlap)
    masks = expected(slide, sessions(RANDOM, tile), scale, tile, overlap)
    wrong = differing(result, masks)
    print(f"{layout}: {wrong} of {slide.shape[0] * slide.shape[1]} pixels differ")
    assert 0.2 < masks[0].mean() < 0.8, "the network must make a mask worth comparing"
    assert wrong <= slide.shape[0] * slide.shape[1] / 1e6
    assert result.runs[0].to_rle() == whole.runs(masks[0])


@pytest.mark.parametrize(
    ("height", "width", "scale", "tile", "overlap"),
    [
        (1, 1, 1, 16, 0.25), (1, 50, 2, 16, 0.5), (37, 1, 1, 16, 0.25), (16, 16, 1, 16, 0.0), (17, 33, 1, 16, 0.1),
        (130, 131, 4, 32, 0.5), (5, 300, 7, 32, 0.25), (257, 255, 8, 16, 0.75), (64, 65, 64, 16, 0.25),
    ],
)  # fmt: skip
def test_odd_sizes_equal_whole_slide_numpy(
    height, width, scale, tile, overlap, tmp_path, segment, sessions
) -> None:  # type: ignore[no-untyped-def]
    slide = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, slide, photometric="rgb", tile=(16, 16))
    result = segment(path, RANDOM, tile, scale=scale, overlap=overlap)
    masks = expected(slide, sessions(RANDOM, tile), scale, tile, overlap)
    assert differing(result, masks) == 0
    assert result.runs[0].to_rle() == whole.runs(masks[0])


@pytest.mark.parametrize("fill", ["reflect", "white", "black"])
def test_fill_and_classes_equal_whole_slide_numpy(fill: str, layouts, segment, sessions) -> None:  # type: ignore[no-untyped-def]
    graph = fixtures_models.random_conv(9, classes=2, fill=fill, tissue="none")
    path = layouts("tiled-raw")
    result = segment(path, graph, 48, scale=5, overlap=0.5, threshold=0.45)
    masks = expected(pixels_of(path), sessions(graph, 48), 5, 48, 0.5, 0.45, fill=fill)
    assert differing(result, masks) == 0


def test_skipped_tiles_count_as_zero_with_their_full_weight(layouts, segment, sessions) -> None:  # type: ignore[no-untyped-def]
    graph = fixtures_models.constant(0.9, tissue="auto")
    path = layouts("tiled-deflate")
    result = segment(path, graph, 32, scale=2, overlap=0.5)
    assert isinstance(result, SlideResult)
    assert result.stats["counts"]["empty tiles"] > 10
    assert result.stats["counts"]["tiles"] > 10
    masks = expected(pixels_of(path), sessions(graph, 32), 2, 32, 0.5, skip_empty=True)
    assert differing(result, masks) == 0


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("p", [0.5, 0.3, 0.7, 1.0])
def test_a_constant_model_gives_a_constant_mask(overlap: float, p: float, layouts, segment) -> None:  # type: ignore[no-untyped-def]
    path = layouts("tiled-raw")
    graph = fixtures_models.constant(p, tissue="none")
    # The finished probability is a multiple of 2**-20, so it is constant exactly when the mask is empty at that multiple
    # and full just below it.
    q = round(float(np.float32(p)) * 2**20) / 2**20
    at = segment(path, graph, 64, scale=2, overlap=overlap, threshold=min(q, 0.999999))
    below = segment(path, graph, 64, scale=2, overlap=overlap, threshold=q - 2**-21)
    assert isinstance(at, SlideResult)
    assert isinstance(below, SlideResult)
    assert at.runs[0].area == (0 if p < 1 else HEIGHT * WIDTH)
    assert below.runs[0].area == HEIGHT * WIDTH
    assert below.runs[0].to_rle() == f"1 {HEIGHT * WIDTH}"


@pytest.mark.parametrize("scale", [2, 3])
def test_same_bytes_for_every_lossless_layout(scale: int, layouts, segment) -> None:  # type: ignore[no-untyped-def]
    first = None
    for layout, about in LAYOUTS.items():
        if not about.lossless:
            continue
        result = segment(layouts(layout), RANDOM, 64, scale=scale, overlap=0.25, level="0")
        assert isinstance(result, SlideResult), result
        rle = result.runs[0].to_rle()
        first = first or rle
        assert rle == first, layout


def test_same_bytes_for_every_thread_count_batch_and_slot(layouts, segment) -> None:  # type: ignore[no-untyped-def]
    path = layouts("tiled-jpeg")
    whole_slide = segment(path, RANDOM, 64, scale=2, overlap=0.25).runs[0].to_rle()
    for threads in (1, 2, 3, 8):
        for batch, slots in ((1, 1), (1, 3), (4, 2), (7, 3)):
            result = segment(
                path, RANDOM, 64, scale=2, overlap=0.25, threads=threads, batch=batch, slots=slots
            )
            assert result.runs[0].to_rle() == whole_slide, (threads, batch, slots)


@pytest.mark.parametrize("count", [2, 3, 7, 465])
@pytest.mark.parametrize("layout", ["tiled-jpeg", "strip-one-row"])
def test_same_bytes_in_panels(count: int, layout: str, layouts, segment, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = layouts(layout)
    whole_slide = segment(path, RANDOM, 64, scale=2, overlap=0.25)
    plain = Processor.plan

    def in_panels(self: Processor, grid: TileGrid, *rest: object) -> MemoryPlan:
        return dataclasses.replace(plain(self, grid, *rest), panels=tuple(grid.panels(count)))  # type: ignore[arg-type]

    monkeypatch.setattr(Processor, "plan", in_panels)
    result = segment(path, RANDOM, 64, scale=2, overlap=0.25)
    assert result.stats["panels"] == count
    assert result.runs[0].to_rle() == whole_slide.runs[0].to_rle()


def test_pyramid_levels_are_used_when_they_divide_the_scale(layouts, segment, sessions) -> None:  # type: ignore[no-untyped-def]
    # Levels of this slide are exact means of 4 x 4, so at scale 4 the level's pixels are the network's.
    path = layouts("pyramid-deflate")
    result = segment(path, RANDOM, 64, scale=4, overlap=0.25)
    assert isinstance(result, SlideResult)
    with_level = open_slide(str(path)).plan(4).level
    assert with_level == 1
    masks = expected(pixels_of(path), sessions(RANDOM, 64), 4, 64, 0.25)
    assert differing(result, masks) <= HEIGHT * WIDTH / 1e6
