"""From plain settings to a processor that is ready: loads the model, opens a session, measures what is resident."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from wsiseg.backends import registry
from wsiseg.backends.base import SessionOptions
from wsiseg.backends.on_device import device_models
from wsiseg.engines.cuda_driver import probe
from wsiseg.geometry import Size
from wsiseg.memory import BYTES_PER_RUN, OutputCost, Share
from wsiseg.model.load import LoadedModel
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.device_processor import DeviceProcessor
from wsiseg.pipeline.job import BandSink, Checkpoint, SlideJob
from wsiseg.pipeline.processor import Processor
from wsiseg.pipeline.settings import model_settings, presence_limit
from wsiseg.pipeline.streams import open_fitting
from wsiseg.pipeline.warm import warming

GPU_BATCH = 16


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


def output_cost(kinds: tuple[str, ...], probabilities: bool, size: Size, network: Size) -> OutputCost:
    """What writing these outputs of a slide needs, beside its runs and for each of them."""
    if not kinds and not probabilities:
        return OutputCost()
    from wsiseg.outputs.save import save_bytes

    # Means of objects are computed wherever probabilities are kept, as for this table.
    wanted = (*kinds, "objects") if probabilities else kinds
    fixed = save_bytes(wanted, size, 0, network)
    # What `save_bytes` asks for a run more; it is the same for every run.
    per_run = (save_bytes(wanted, size, 1 << 24, network) - save_bytes(wanted, size, 1 << 23, network)) >> 23
    return OutputCost(BYTES_PER_RUN + per_run, fixed, probabilities)


def _decodes_all(model: LoadedModel, backend: str, on_cpu: bool) -> str:
    """Why no tile can be left out by a classification head here; "" when it can."""
    if model.engine is not None:
        return "an engine decodes every tile"
    return "" if on_cpu and backend in ("openvino", "torch") else "on a GPU every tile is decoded"


@contextmanager
def start(
    config: RunConfig,
    progress: Callable[[SlideJob, float], None] = _no_progress,
    checkpoints: Callable[[Any], Checkpoint] | None = None,
    sinks: Callable[[Any, Size], BandSink] | None = None,
) -> Iterator[Started]:
    """A processor for `config`, closed at the end.

    Args:
        progress, checkpoints, sinks: see `Processor`.

    Raises:
        ModelError, UsageError, BudgetError.
    """
    with warming():
        model = config.load()
        settings = model_settings(model.spec, config.options)
        backend = config.backend
        options = SessionOptions(
            settings.tile, 1, 1, config.threads, config.precision, config.device, config.device_memory
        )
        if backend == "auto":
            backend = registry.choose(model, options)
        on_cpu = backend == "openvino" or not config.device.startswith(("auto", "cuda")) or not probe().gpus
        # On a CPU a batch of one per stream is as fast as larger ones and takes the least memory; one slot more than there
        # are streams is being filled while they work.
        batch = config.options.batch or (1 if on_cpu else GPU_BATCH)
        slots = config.threads + 2 if on_cpu else 3
        limit = presence_limit(model.spec, config.options, _decodes_all(model, backend, on_cpu))
        options = dataclasses.replace(options, batch=batch, slots=slots, presence=limit)
        share = Share(config.memory, config.workers, config.apart)
        session = open_fitting(model, options, backend, share)
    try:
        settings_of = {
            "memory": share,
            "threads": config.threads,
            "progress": progress,
            "checkpoints": checkpoints,
            "output_cost": partial(output_cost, config.save, config.probabilities),
            "sinks": sinks,
        }
        # On a GPU, rows and bands stay there when the kernels can run (numba-cuda is installed).
        models = device_models(session)
        processor = (
            DeviceProcessor(session, config.options, models, **settings_of)
            if models
            else Processor(session, config.options, **settings_of)  # type: ignore[arg-type]
        )
        yield Started(
            processor, model, config.identity(model, backend, session.precision, session.options.presence)
        )
    finally:
        session.close()
