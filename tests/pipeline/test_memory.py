"""The budget holds for the whole process tree, and memory does not grow with the height of a slide."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tree
from benchmarks.mosaic import write_mosaic
from tests import fixtures_models
from wsiseg.geometry import Size

BUDGET = 1 << 30
# 0.4 and 1.6 gigapixels of mostly tissue, 10 gigapixels of mostly background.
SLIDES = ((Size(20_000, 20_000), 0.7), (Size(40_000, 40_000), 0.7), (Size(250_000, 40_000), 0.01))


def _run(folder: Path, slide: Path, model: Path) -> tree.Measured:
    arguments = (
        "run",
        slide,
        "-o",
        folder / f"{slide.stem}.csv",
        "--model",
        model,
        "--memory",
        "1GiB",
        "--scale",
        "8",
    )
    return tree.checked(tree.wsiseg(*arguments))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_peak_stays_in_the_budget_and_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    model.write_bytes(fixtures_models.redness(tile=256, tile_multiple=1))
    # The first run of a checkout compiles the kernels, which takes memory that no later run needs.
    _run(tmp_path, write_mosaic(tmp_path / "small.tif", Size(2_000, 2_000), 1.0), model)
    peaks = []
    for size, tissue in SLIDES:
        slide = write_mosaic(tmp_path / f"w{size.width}h{size.height}.tif", size, tissue)
        peaks.append(_run(tmp_path, slide, model).peak)
        slide.unlink()
    print("peaks in MiB:", [peak >> 20 for peak in peaks])
    assert max(peaks) < BUDGET
    assert peaks[-1] <= 1.1 * peaks[0]
