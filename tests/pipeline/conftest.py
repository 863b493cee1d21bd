"""Sessions and a plain runner for the pipeline's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fixtures_models
from wsiseg.backends.base import SessionOptions
from wsiseg.backends.openvino import OpenVinoSession
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideResult, SlideTask
from wsiseg.pipeline.processor import Processor

Outcome = SlideResult | SlideFailure
Segment = Callable[..., Outcome]


@pytest.fixture(scope="session")
def sessions() -> Iterator[Callable[..., OpenVinoSession]]:
    """(graph bytes, tile, batch, slots, threads) -> a session, kept until the tests end."""
    kept: dict[tuple[object, ...], OpenVinoSession] = {}

    def get(graph: bytes, tile: int, batch: int = 1, slots: int = 3, threads: int = 2) -> OpenVinoSession:
        key = (graph, tile, batch, slots, threads)
        if key not in kept:
            options = SessionOptions(tile, batch, slots, threads, precision="fp32")
            kept[key] = OpenVinoSession(fixtures_models.load(graph), options)
        return kept[key]

    yield get
    for session in kept.values():
        session.close()


@pytest.fixture
def segment(sessions: Callable[..., OpenVinoSession]) -> Segment:
    """(path or paths, graph, tile, memory=..., threads=..., batch=..., **RunOptions) -> outcome or outcomes."""

    def run(
        slides: Path | list[Path],
        graph: bytes,
        tile: int,
        *,
        memory: int = 4 << 30,
        threads: int = 2,
        batch: int = 1,
        slots: int = 3,
        **options: object,
    ) -> Outcome | list[Outcome]:
        session = sessions(graph, tile, batch, slots)
        processor = Processor(session, RunOptions(tile=tile, **options), memory=memory, threads=threads)  # type: ignore[arg-type]
        paths = slides if isinstance(slides, list) else [slides]
        outcomes = list(processor.process([SlideTask(i, p.stem, str(p)) for i, p in enumerate(paths)]))
        return outcomes if isinstance(slides, list) else outcomes[0]

    return run  # type: ignore[return-value]
