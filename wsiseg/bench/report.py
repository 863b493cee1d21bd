"""From measurements to what a person wants to know: the ideal, how close we are, what binds, what to change. Pure."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from wsiseg.errors import UsageError

FORMAT = 1
CPU, DEVICE, CLOCK = "cpu", "device", "clock"
BUSY = 0.85  # bare inference that gets less of its cores than this was disturbed


@dataclass(frozen=True)
class Stage:
    """One stage alone, for one slide.

    Attributes:
        name: as in the table. what: one line for people.
        threads: cores that it can use.
        wall, cpu: seconds on the clock (all threads at work) and CPU seconds.
        bound: what its ceiling follows from: "cpu" (CPU seconds over threads), "device" or "clock" (seconds as measured).
    """

    name: str
    what: str
    threads: int
    wall: float
    cpu: float
    bound: str = CPU

    @property
    def seconds(self) -> float:
        """The least time on the clock for one slide, when nothing else runs."""
        return self.cpu / self.threads if self.bound == CPU else self.wall


@dataclass(frozen=True)
class Report:
    """Everything that `wsiseg bench` measured, per slide.

    Attributes:
        slide, pixels: what was segmented, and its size in pixels. tiles, empty, absent: of one slide, run, without tissue, and run but not decoded.
        model, session: what ran. settings: tile, stride, batch, slots, threads, scale.
        cores: CPU threads of the run. stages: alone, in the pipeline's order.
        wall, cpu: the whole pipeline, seconds per slide. slides: how many were measured.
        waits: seconds per slide that the feeder waited, by what for.
        peak, planned, budget: bytes.
        quiet: share of its cores that bare inference got; below 1 other programs were running.
        machine: processor, versions, commit.
    """

    slide: str
    pixels: int
    tiles: float
    empty: float
    model: str
    session: str
    settings: dict[str, int]
    cores: int
    stages: tuple[Stage, ...]
    wall: float
    cpu: float
    slides: float
    waits: dict[str, float]
    peak: int
    planned: int
    budget: int
    quiet: float = 1.0
    absent: float = 0.0
    machine: dict[str, str] = field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        return next(s for s in self.stages if s.name == name)

    @property
    def on_device(self) -> bool:
        """Whether the network runs on something else than the CPU."""
        return self.stage("inference").bound == DEVICE

    @property
    def ideal(self) -> float:
        """Seconds per slide if only bare decoding and bare inference took any time, perfectly spread."""
        decode, infer = self.stage("decode"), self.stage("inference")
        both = (decode.cpu + infer.cpu) / self.cores
        return max(infer.wall, both) if self.on_device else both

    @property
    def efficiency(self) -> float:
        """Ideal over actual time on the clock; what other programs took counts against it."""
        return self.ideal / self.wall if self.wall else 0.0

    @property
    def cpu_efficiency(self) -> float:
        """CPU seconds of the ideal over those of the pipeline: the same without the waiting and without other programs."""
        return (self.stage("decode").cpu + self.stage("inference").cpu) / self.cpu if self.cpu else 0.0

    @property
    def idle(self) -> float:
        """Share of the time that the device that computes the network stood still."""
        busy = self.stage("inference").wall if self.on_device else self.cpu / self.cores
        return max(0.0, 1 - busy / self.wall) if self.wall else 0.0

    @property
    def binding(self) -> str:
        """The stage that holds the pipeline back."""
        infer = self.stage("inference")
        if self.on_device:
            others = [s for s in self.stages if s is not infer]
            if infer.wall >= sum(s.cpu for s in others) / self.cores:
                return infer.name
            return max(others, key=lambda s: s.cpu).name
        return max(self.stages, key=lambda s: s.cpu).name

    @property
    def slides_per_hour(self) -> float:
        return 3600 / self.wall if self.wall else 0.0

    def speed(self, seconds: float) -> float:
        """Slide megapixels per second when a slide takes `seconds`."""
        return self.pixels / seconds / 1e6 if seconds else float("inf")

    def advice(self) -> str:
        """One or two sentences: what to change first."""
        if self.quiet < BUSY:
            busy = f"Other programs took {1 - self.quiet:.0%} of the cores while this was measured; close them and measure again. "
        else:
            busy = ""
        return busy + self._advice()

    def _advice(self) -> str:
        binding = self.binding
        if binding == "inference":
            if self.on_device:
                if self.idle > 0.15:
                    return "The device waits for single batches: try a larger --batch."
                return (
                    "The network is the limit, as it should be; int8 or a lighter model is the way to more."
                )
            if self.efficiency < 0.85 and self.quiet >= BUSY:
                return "The network is the limit but its cores are not always busy; try --sweep for batch and threads."
            return "The network is the limit, as it should be; an int8 engine (wsiseg build-engine --precision int8), a lighter model or a GPU is the way to more."
        if binding in ("decode", "shrink"):
            return (
                "Reading is the limit: more --threads, or slides with a pyramid level at the network's scale."
            )
        return f"{binding.capitalize()} is the limit, which is unusual: compare with another slide (--slide) or a larger --tile."

    def to_json(self) -> str:
        data = dataclasses.asdict(self)
        figures = ("ideal", "efficiency", "cpu_efficiency", "idle", "binding", "slides_per_hour")
        data["figures"] = {name: getattr(self, name) for name in figures}
        return json.dumps({"format": FORMAT, **data}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Report:
        """Raises UsageError for anything but a report that `wsiseg bench --json` wrote."""
        try:
            data: dict[str, Any] = json.loads(text)
            if data.pop("format") != FORMAT:
                raise ValueError("another format")
            data.pop("figures", None)
            data["stages"] = tuple(Stage(**stage) for stage in data["stages"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{where}: not a report of `wsiseg bench --json` of this version") from error
