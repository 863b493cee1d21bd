"""From plain settings to a processor that is ready: loads the model, opens a session, measures what is resident.

`RunConfig` is plain data, so that a job can send it to another process or node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wsiseg.backends import registry
from wsiseg.backends.base import SessionOptions
from wsiseg.model.load import LoadedModel, load_models
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.options import RunOptions
from wsiseg.pipeline.processor import Processor
from wsiseg.pipeline.settings import model_settings

DEFAULT_MODEL = "glomeruli"
GPU_BATCH = 16


@dataclass(frozen=True)
class RunConfig:
    """Everything a process needs to segment slides.

    Attributes:
        models: bundled names or files; several form an ensemble. weights: their shares, or () for equal ones.
        tta: "none", "flips" or "d4". backend, device, precision: "auto" or a name.
        memory: bytes for the process. threads: prefetch threads, and CPU threads of the runtime.
        device_memory: bytes of GPU memory, or None.
        options: what one slide depends on.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    weights: tuple[float, ...] = ()
    tta: str = "none"
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    memory: int = 2 << 30
    threads: int = 1
    device_memory: int | None = None
    options: RunOptions = field(default_factory=RunOptions)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunConfig:
        values = {**data, "options": RunOptions(**data["options"])}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def load(self) -> LoadedModel:
        """The model, flips and members inside.

        Raises:
            ModelError, UsageError: see `wsiseg.model.load.load_models`.
        """
        return load_models(self.models, self.weights or None, self.tta)

    def identity(self, model: LoadedModel, backend: str, precision: str) -> dict[str, Any]:
        """Plain data of everything that the bytes of a result depend on, with names that people know."""
        settings = model_settings(model.spec, self.options)
        return {
            "model": model.name,
            "model digest": model.digest,
            "tta": self.tta,
            "backend": backend,
            "precision": precision,
            **self.options.identity(),
            "tile": settings.tile,
            "stride": settings.stride,
            "threshold": list(settings.thresholds),
            "tissue": "auto" if settings.tissue else "none",
        }


@dataclass(frozen=True)
class Started:
    """A processor, the model it runs, and what its results depend on."""

    processor: Processor
    model: LoadedModel
    identity: dict[str, Any]

    @property
    def description(self) -> str:
        return self.processor.session.description


def _no_progress(job: SlideJob, share: float) -> None:
    """Nobody wants to know."""


@contextmanager
def start(config: RunConfig, progress: Callable[[SlideJob, float], None] = _no_progress) -> Iterator[Started]:
    """A processor for `config`, closed at the end.

    Raises:
        ModelError, UsageError, BudgetError.
    """
    model = config.load()
    settings = model_settings(model.spec, config.options)
    backend = config.backend
    options = SessionOptions(settings.tile, 1, 1, config.threads, config.precision, config.device, config.device_memory)
    if backend == "auto":
        backend = registry.choose(model, options)
    on_cpu = backend == "openvino" or not config.device.startswith(("auto", "cuda"))
    # On a CPU a batch of one per stream is as fast as larger ones and takes the least memory; one slot more than there
    # are streams is being filled while they work.
    batch = config.options.batch or (1 if on_cpu else GPU_BATCH)
    slots = config.threads + 2 if on_cpu else 3
    options = dataclasses.replace(options, batch=batch, slots=slots)
    session = registry.open_session(model, options, backend)
    try:
        processor = Processor(session, config.options, memory=config.memory, threads=config.threads, progress=progress)
        yield Started(processor, model, config.identity(model, backend, session.precision))
    finally:
        session.close()
