"""Many slides through one processor: order, failures, stops, and nothing left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests import fixtures_models
from wsiseg.errors import BudgetError, Interrupted, ModelError, UsageError
from wsiseg.memory import OutputCost
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideResult, SlideTask
from wsiseg.pipeline.processor import RESERVE_LEAST, RESERVE_SHARE, Processor
from wsiseg.resident import resident_bytes, trim

GRAPH = fixtures_models.random_conv(1, tissue="none")


def write(path: Path, height: int, width: int, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="deflate")
    return path


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    sizes = [(70, 300), (1, 1), (500, 40), (64, 64), (333, 222), (20, 900), (90, 90)]
    return [write(tmp_path / f"s{i}.tif", h, w, i) for i, (h, w) in enumerate(sizes)]


def threads_of_ours() -> list[str]:
    return [
        t.name
        for t in threading.enumerate()
        if t.name.startswith(("wsiseg-feeder", "wsiseg-collector", "wsiseg-open", "wsiseg-finish", "decode-"))
    ]


def test_results_come_in_order_and_equal_single_runs(slides, segment) -> None:  # type: ignore[no-untyped-def]
    together = segment(slides, GRAPH, 32, overlap=0.25, batch=5, slots=2)
    assert [o.task.id for o in together] == [p.stem for p in slides]
    for path, outcome in zip(slides, together, strict=True):
        alone = segment(path, GRAPH, 32, overlap=0.25)
        assert isinstance(outcome, SlideResult)
        assert outcome.runs[0].to_rle() == alone.runs[0].to_rle()
    assert threads_of_ours() == []


def test_a_bad_slide_is_reported_and_the_others_go_on(slides, segment, tmp_path) -> None:  # type: ignore[no-untyped-def]
    text = tmp_path / "text.tif"
    text.write_text("this is not a slide")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(slides[4].read_bytes()[:-3000])
    missing = tmp_path / "missing.tif"
    order = [text, slides[0], cut, slides[1], slides[2], missing]
    outcomes = segment(order, GRAPH, 32, overlap=0.25, batch=3)
    kinds = [isinstance(o, SlideResult) for o in outcomes]
    assert kinds == [False, True, False, True, True, False]
    for path, outcome in zip(order, outcomes, strict=True):
        if isinstance(outcome, SlideFailure):
            assert outcome.error.startswith(str(path))
            assert "\n" not in outcome.error
        else:
            assert outcome.runs[0].to_rle() == segment(path, GRAPH, 32, overlap=0.25).runs[0].to_rle()
    assert threads_of_ours() == []


def test_too_many_runs_fail_the_slide_with_its_numbers(tmp_path, sessions) -> None:  # type: ignore[no-untyped-def]
    noise, small = write(tmp_path / "noise.tif", 200, 200, 1), write(tmp_path / "small.tif", 3, 3, 2)
    session = sessions(fixtures_models.redness(1, 1.0, 0.0, tissue="none"), 32)
    processor = Processor(
        session,
        RunOptions(tile=32, scale=1),
        memory=_little(),
        threads=2,
        output_cost=lambda size, network: OutputCost(per_run=1 << 18),
    )
    outcomes = list(processor.process([SlideTask(0, "noise", str(noise)), SlideTask(1, "small", str(small))]))
    assert isinstance(outcomes[0], SlideFailure)
    assert "runs" in outcomes[0].error
    assert "--memory" in outcomes[0].error
    assert isinstance(outcomes[1], SlideResult)


def _little(spare: int = 64) -> int:
    """A budget that leaves about `spare` MiB for slides, whatever this process holds by now."""
    trim()
    return int((resident_bytes() + RESERVE_LEAST + (spare << 20)) / (1 - RESERVE_SHARE))


def test_a_budget_without_room_for_the_model_is_refused_at_once(slides, segment) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BudgetError, match=r"--memory is 100 MiB; give --memory \d+MB or more"):
        segment(slides[0], GRAPH, 32, memory=100 << 20)


def test_a_slide_that_does_not_fit_is_one_line_with_what_would(slides, segment, tmp_path) -> None:  # type: ignore[no-untyped-def]
    # A strip of JPEG is decoded whole, and no panel makes it smaller.
    wide = tmp_path / "wide.tif"
    tifffile.imwrite(
        wide, np.zeros((64, 60000, 3), np.uint8), photometric="rgb", compression="jpeg", rowsperstrip=64
    )
    outcomes = segment([wide, slides[0]], GRAPH, 32, memory=_little(26))
    assert isinstance(outcomes[0], SlideFailure)
    assert outcomes[0].error.count("\n") == 0
    assert "give --memory" in outcomes[0].error
    assert isinstance(outcomes[1], SlideResult)


def test_stop_ends_it_and_leaves_no_thread(slides, sessions) -> None:  # type: ignore[no-untyped-def]
    processor = Processor(sessions(GRAPH, 32), RunOptions(tile=32), memory=4 << 30, threads=2)
    stop = threading.Event()
    tasks = [SlideTask(i, str(i), str(slides[i % len(slides)])) for i in range(1000)]
    got = 0
    with pytest.raises(Interrupted):
        for _ in processor.process(tasks, stop):
            got += 1
            if got == 3:
                stop.set()
    assert 3 <= got < 1000
    assert threads_of_ours() == []


def test_closing_the_generator_half_way_leaves_no_thread(slides, sessions) -> None:  # type: ignore[no-untyped-def]
    processor = Processor(sessions(GRAPH, 32), RunOptions(tile=32), memory=4 << 30, threads=2)
    outcomes = processor.process([SlideTask(i, p.stem, str(p)) for i, p in enumerate(slides)])
    next(outcomes)
    outcomes.close()
    assert threads_of_ours() == []


def test_a_failing_session_ends_the_run_with_its_cause(slides, sessions) -> None:  # type: ignore[no-untyped-def]
    class Broken:
        def __init__(self, inner: object) -> None:
            self._inner, self._left = inner, 5

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def wait(self, slot: int) -> object:
            self._left -= 1
            result = self._inner.wait(slot)  # type: ignore[attr-defined]
            if self._left < 0:
                raise ModelError("the device is gone")
            return result

    processor = Processor(Broken(sessions(GRAPH, 32)), RunOptions(tile=32), memory=4 << 30, threads=2)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="the device is gone"):
        list(processor.process([SlideTask(i, p.stem, str(p)) for i, p in enumerate(slides)]))
    assert threads_of_ours() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [({"overlap": 0.9}, "--overlap 0.9"), ({"threshold": 1.5}, "--threshold 1.5")],
)
def test_options_that_do_not_fit_are_named(options: dict[str, float], words: str, sessions) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words):
        Processor(sessions(GRAPH, 32), RunOptions(tile=32, **options), memory=4 << 30, threads=1)  # type: ignore[arg-type]


def test_no_tissue_is_said(tmp_path, segment) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, np.full((200, 200, 3), 255, np.uint8), photometric="rgb", tile=(64, 64))
    outcome = segment(path, fixtures_models.constant(0.9, tissue="auto"), 32)
    assert isinstance(outcome, SlideResult)
    assert not outcome.runs[0]
    assert any("no tissue" in w for w in outcome.warnings)
