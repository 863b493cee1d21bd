"""Run a model on tiles that are in memory already: parity reports, calibration, checks. Slides go through the pipeline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.registry import open_session
from wsiseg.model.load import LoadedModel


def run_tiles(session: Session, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, C, T, T] of uint8 [N, T, T, 3], with all the session's slots in flight."""
    batch, slots = session.options.batch, session.options.slots
    starts = list(range(0, len(tiles), batch))
    results: list[npt.NDArray[np.float32]] = []
    for index in range(len(starts) + slots):
        slot = index % slots
        if 0 <= index - slots < len(starts):
            results.append(session.wait(slot).copy())
        if index < len(starts):
            chunk = tiles[starts[index] : starts[index] + batch]
            session.input(slot)[: len(chunk)] = chunk
            session.start(slot, len(chunk))
    return np.concatenate(results)


def probabilities(
    model: LoadedModel,
    tiles: npt.NDArray[np.uint8],
    backend: str,
    precision: str = "auto",
    batch: int = 1,
    threads: int = 1,
) -> tuple[npt.NDArray[np.float32], str]:
    """(float32 [N, C, T, T], the precision that ran) of uint8 [N, T, T, 3] in a session of its own.

    Raises:
        WsisegError: as `open_session`.
    """
    options = SessionOptions(tiles.shape[1], batch, max(2, threads), threads, precision)
    session = open_session(model, options, backend)
    try:
        return run_tiles(session, tiles), session.precision
    finally:
        session.close()
