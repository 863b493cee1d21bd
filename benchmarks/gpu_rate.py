"""Tiles per second of a session. Apart, since TensorRT 8.6's interpreter has numpy and nothing else."""

from __future__ import annotations

import time

from wsiseg.backends.base import Session


def tiles_per_second(session: Session, seconds: float) -> float:
    """Sustained tiles per second with every slot in flight, counted over at least `seconds`."""
    batch, slots = session.options.batch, session.options.slots
    for slot in range(slots):
        session.input(slot)[:] = slot
        session.start(slot, batch)
    started, done, slot = time.perf_counter(), 0, 0
    while time.perf_counter() - started < seconds:
        session.wait(slot)
        session.start(slot, batch)
        done += batch
        slot = (slot + 1) % slots
    elapsed = time.perf_counter() - started
    for _ in range(slots):
        session.wait(slot)
        slot = (slot + 1) % slots
    return done / elapsed
