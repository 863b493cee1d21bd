"""Which tile, batch, threads and precision are the fastest on this machine: one axis after the other, bare stages only.

Each setting is judged by the ideal that follows from it, slide pixels per second of bare decoding and bare inference;
the pipeline comes within a few per cent of that and would take too long to try.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace

from wsiseg.backends import registry
from wsiseg.backends.base import SessionOptions
from wsiseg.bench import stages
from wsiseg.bench.run import on_device, opened
from wsiseg.errors import ModelError, UsageError
from wsiseg.model.load import LoadedModel
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.start import start

TILES = (256, 384, 512, 768, 1024)
CPU_BATCHES, DEVICE_BATCHES = (1, 2, 4), (4, 8, 16, 32)
PRECISIONS = ("fp32", "bf16", "fp16")
GAIN = (
    1.05  # another setting is taken only when it is this much faster: tile and precision change a few pixels
)
LEAST = 0.4  # seconds for one trial at the least


@dataclass(frozen=True)
class Setting:
    """What is tried; the names are those of the options."""

    tile: int
    batch: int
    threads: int
    precision: str


@dataclass(frozen=True)
class Trial:
    """A setting and its ideal, slide Mpx/s without skipped tiles."""

    setting: Setting
    speed: float


@dataclass(frozen=True)
class Sweep:
    """Everything that was tried; `first` is the default, `notes` are for people."""

    trials: tuple[Trial, ...]
    first: Setting
    best: Setting
    notes: tuple[str, ...]

    def changes(self) -> dict[str, int | str]:
        """What the best setting has otherwise than the first, for the configuration file."""
        before = asdict(self.first)
        return {name: value for name, value in asdict(self.best).items() if value != before[name]}


def sweep(
    config: RunConfig,
    path: str,
    seconds: float,
    fixed: Collection[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Try settings for about `seconds`; those in `fixed` stay as the configuration has them.

    Raises:
        as `wsiseg.bench.run.measure`.
    """
    began = time.perf_counter()
    model = config.load()
    with start(config) as started, opened(started.processor, path) as job:
        session, processor = started.processor.session, started.processor
        device, backend = on_device(session), started.identity["backend"]
        first = Setting(processor.settings.tile, session.options.batch, config.threads, session.precision)
        slots, scale = session.options.slots, job.settings.scale
        overlap = 1 - processor.settings.stride / processor.settings.tile
        decode_cost = stages.decode(job, config.threads, max(LEAST, seconds / 20))
        decode = (
            decode_cost.cpu / decode_cost.amount * job.read.pixels / job.size.pixels
        )  # CPU seconds per slide pixel
    trials: dict[Setting, float] = {}
    notes: list[str] = []

    def speed(setting: Setting) -> float:
        """Slide Mpx/s of the ideal, 0 when the setting is not possible here."""
        if setting not in trials:
            tell(
                f"trying tile {setting.tile}, batch {setting.batch}, threads {setting.threads}, {setting.precision}"
            )
            try:
                seconds_per_tile, cpu_per_tile = _infer(
                    model, setting, slots, backend, config, max(LEAST, seconds / 24)
                )
            except (ModelError, UsageError, MemoryError) as error:
                notes.append(f"not possible: {setting}: {error}")
                trials[setting] = 0.0
                return 0.0
            stride = max(1, round(setting.tile * (1 - overlap)))
            pixels = (stride * scale) ** 2
            cpu = decode + (0.0 if device else cpu_per_tile / pixels)
            trials[setting] = 1e-6 / max(cpu / setting.threads, seconds_per_tile / pixels if device else 0.0)
        return trials[setting]

    best = first
    speed(first)
    multiple = model.spec.tile_multiple
    axes: list[tuple[str, Iterable[int | str]]] = [
        ("batch", DEVICE_BATCHES if device else CPU_BATCHES),
        ("tile", () if model.engine else [t for t in TILES if t % multiple == 0]),
        ("threads", sorted({max(1, config.threads // 2), config.threads})),
        ("precision", () if model.engine else PRECISIONS),
    ]
    for axis, values in axes:
        for value in () if axis in fixed else values:
            if time.perf_counter() - began > seconds:
                notes.append("the time was over before every setting was tried; give more --seconds")
                break
            setting = replace(best, **{axis: value})  # type: ignore[arg-type]
            if speed(setting) > GAIN * trials[best]:
                best = setting
    if best.precision != first.precision or best.tile != first.tile:
        notes.append(
            "another tile or precision changes a few pixels of the masks; `wsiseg rle diff` counts them"
        )
    return Sweep(tuple(Trial(s, v) for s, v in trials.items()), first, best, tuple(dict.fromkeys(notes)))


def _infer(
    model: LoadedModel, setting: Setting, slots: int, backend: str, config: RunConfig, seconds: float
) -> tuple[float, float]:
    """(seconds on the clock, CPU seconds) of one tile in bare inference."""
    options = SessionOptions(
        setting.tile,
        setting.batch,
        slots,
        setting.threads,
        setting.precision,
        config.device,
        config.device_memory,
    )
    session = registry.open_session(model, options, backend)
    try:
        cost = stages.infer(session, seconds)
    finally:
        session.close()
    return cost.wall / cost.amount, cost.cpu / cost.amount
