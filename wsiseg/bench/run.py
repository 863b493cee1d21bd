"""Measures everything: stages alone and the pipeline take turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.backends.base import Session
from wsiseg.bench import stages
from wsiseg.bench.clock import Cost, median
from wsiseg.bench.machine import machine
from wsiseg.bench.report import CLOCK, CPU, DEVICE, Report, Stage
from wsiseg.bench.whole import Progress, Whole, run_whole
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.options import SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.pipeline.start import start
from wsiseg.runs import Runs

ROUNDS = 3
# Shares of the time. The small stages need little of it; the pipeline and the network are what matters.
SHARES = {
    "decode": 0.12,
    "shrink": 0.04,
    "inference": 0.24,
    "blend": 0.05,
    "encode": 0.02,
    "write": 0.03,
    "pipeline": 0.5,
}
DESCRIPTIONS = {
    "decode": "segments to pixels",
    "shrink": "slide pixels to network pixels",
    "inference": "tiles ready in memory, all requests in flight",
    "blend": "weighted sums, one thread",
    "runs": "where the mask begins and ends at full size, one thread",
    "encode": "runs to digits, one thread",
    "write": "the CSV, flushed to the disk",
}


@dataclass
class _Figures:
    """What the rounds measured, by stage."""

    costs: dict[str, list[Cost]] = field(default_factory=dict)
    wholes: list[Whole] = field(default_factory=list)

    def add(self, name: str, cost: Cost) -> None:
        self.costs.setdefault(name, []).append(cost)


def on_device(session: Session) -> bool:
    """Whether the session computes on something else than the CPU, by what it says of itself."""
    return "cpu" not in session.description.lower()


@contextlib.contextmanager
def opened(processor: Processor, path: str) -> Iterator[SlideJob]:
    """The slide, opened and planned.

    Raises:
        SlideError: when it cannot be read.
    """
    job = processor.prepare(SlideTask(0, Path(path).stem, path))
    try:
        yield job
    finally:
        job.slide.close()


def measure(
    config: RunConfig,
    path: str,
    seconds: float,
    rounds: int = ROUNDS,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Everything about one slide in about `seconds`, start-up not included.

    Args:
        tell: called with what is being measured.

    Raises:
        ModelError, UsageError, BudgetError: as `wsiseg.pipeline.start.start`. SlideError: for the slide.
    """
    progress = Progress()
    tell("loading the model")
    with start(config, progress.note) as started:
        processor = started.processor
        figures = _Figures()
        # The first call compiles what is not compiled yet and fills the page cache; it does not count.
        tell("warming up")
        run_whole(processor, progress, path, min(2.0, seconds / 10))
        with opened(processor, path) as job:
            stages.fill_slots(processor, job)
            text_of: tuple[Runs, str] | None = None
            for number in range(rounds):
                tell(f"measuring, round {number + 1} of {rounds}")
                text_of = _round(processor, progress, job, path, seconds / rounds, figures)
                # The pipeline has used the slots for its own tiles.
                stages.fill_slots(processor, job)
            assert text_of is not None
            return _report(config, started.model.name, processor, job, path, figures, text_of)


def _round(
    processor: Processor, progress: Progress, job: SlideJob, path: str, seconds: float, figures: _Figures
) -> tuple[Runs, str]:
    """Every stage once, then the pipeline; returns runs and text of what was blended."""
    session = processor.session
    part = {name: share * seconds for name, share in SHARES.items()}
    figures.add("decode", stages.decode(job, processor.threads, part["decode"]))
    figures.add("shrink", stages.shrink(job, processor.threads, part["shrink"]))
    figures.add("inference", stages.infer(session, part["inference"]))
    # The sums are given back before the pipeline runs, which has its own.
    blend, rows, runs = stages.BlendAndRuns(processor, job, stages.probabilities(session)).run(part["blend"])
    figures.add("blend", blend)
    figures.add("runs", rows)
    cost, text = stages.encode(runs, part["encode"])
    figures.add("encode", cost)
    figures.add("write", stages.write(text, part["write"]))
    figures.wholes.append(run_whole(processor, progress, path, part["pipeline"]))
    return runs, text


def _report(
    config: RunConfig, model: str, processor: Processor, job: SlideJob, path: str, figures: _Figures, last: tuple[Runs, str]
) -> Report:  # fmt: skip
    wholes, session = figures.wholes, processor.session
    slides = sum(w.slides for w in wholes)
    tiles, empty, absent, pixels = (
        sum(getattr(w, name) for w in wholes) / slides for name in ("tiles", "empty", "absent", "pixels")
    )
    walls = median([Cost(w.wall, w.cpu, w.slides) for w in wholes], 1.0)
    classes = len(session.spec.classes)
    # Runs were extracted from one panel's rows; a slide has all of its rows in every panel, each class by itself.
    height = job.grid.size.height * classes * len(job.memory.panels)
    rows = figures.costs["runs"][-1].amount
    runs_of_slide = len(last[0].starts) * height / rows if rows else 0.0
    amounts = {
        "decode": pixels,
        "shrink": pixels,
        "inference": tiles,
        "blend": tiles,
        "runs": height,
        "encode": runs_of_slide,
        "write": 1.0,
    }
    device = on_device(session)
    found = []
    for name, amount in amounts.items():
        cost = median(figures.costs[name], amount)
        threads = config.threads if name in ("decode", "shrink", "inference") else 1
        bound = CLOCK if name == "write" else DEVICE if device and name == "inference" else CPU
        found.append(Stage(name, DESCRIPTIONS[name], threads, cost.wall, cost.cpu, bound))
    infer = next(s for s in found if s.name == "inference")
    quiet = 1.0 if device or not infer.wall else min(1.0, infer.cpu / infer.wall / config.threads)
    settings = {
        "tile": processor.settings.tile, "stride": processor.settings.stride, "batch": session.options.batch,
        "slots": session.options.slots, "threads": config.threads, "scale": job.settings.scale, "panels": len(job.memory.panels),
    }  # fmt: skip
    return Report(
        slide=f"{Path(path).name}, {job.size}, {job.slide.compression}", pixels=job.size.pixels, tiles=tiles, empty=empty,
        model=model, session=session.description, settings=settings, cores=config.threads, stages=tuple(found),
        wall=walls.wall, cpu=walls.cpu, slides=slides,
        waits={name: sum(w.waits.get(name, 0.0) for w in wholes) / slides for name in wholes[0].waits},
        peak=max(w.peak for w in wholes), planned=max(w.planned for w in wholes), budget=config.memory,
        quiet=quiet, absent=absent, machine=machine(),
    )  # fmt: skip
