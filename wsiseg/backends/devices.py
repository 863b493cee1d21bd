"""Names of devices, and one session over several of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session, SessionOptions
from wsiseg.backends.on_device import ResidentModel, device_models
from wsiseg.errors import UsageError
from wsiseg.model.spec import ModelSpec


def device_numbers(device: str, there: int) -> tuple[int, ...]:
    """The GPU numbers that "auto", "cuda", "cuda:1" or "cuda:0,1" mean on a machine with `there` GPUs.

    Raises:
        UsageError: for another word or a GPU that is not there.
    """
    if device in ("auto", "cuda"):
        return (0,)
    kind, _, rest = device.partition(":")
    words = rest.split(",")
    if kind != "cuda" or not all(word.isdecimal() for word in words):
        raise UsageError(f"--device {device}: write auto, cpu, cuda, cuda:0 or cuda:0,1")
    numbers = tuple(dict.fromkeys(int(word) for word in words))
    for number in numbers:
        if number >= there:
            raise UsageError(
                f"--device {device}: this machine has {there} GPU{'s' * (there != 1)}, numbered from 0"
            )
    return numbers


def over_devices(sessions: Sequence[Session]) -> Session:
    """One session of several equal ones: its slots go round the devices, so that batches do too."""
    return sessions[0] if len(sessions) == 1 else ManyDevices(sessions)


class ManyDevices:
    """Sessions of one model on several devices behind one protocol; slot i is on device i modulo their number."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = list(sessions)
        first = self._sessions[0]
        batch = min(session.options.batch for session in self._sessions)
        self.spec: ModelSpec = first.spec
        slots = min(session.options.slots for session in self._sessions) * len(self._sessions)
        self.options: SessionOptions = dataclasses.replace(first.options, slots=slots, batch=batch)
        self.precision = first.precision
        self.description = " and ".join(session.description for session in self._sessions)

    def _at(self, slot: int) -> tuple[Session, int]:
        return self._sessions[slot % len(self._sessions)], slot // len(self._sessions)

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        session, inner = self._at(slot)
        return session.input(inner)[: self.options.batch]

    def start(self, slot: int, count: int) -> None:
        session, inner = self._at(slot)
        session.start(inner, count)

    def wait(self, slot: int) -> npt.NDArray[np.float32]:
        session, inner = self._at(slot)
        return session.wait(inner)

    def device_models(self) -> list[tuple[int, Callable[[], ResidentModel]]]:
        """See `wsiseg.backends.on_device`."""
        return [model for session in self._sessions for model in device_models(session)]

    def close(self) -> None:
        for session in self._sessions:
            session.close()
