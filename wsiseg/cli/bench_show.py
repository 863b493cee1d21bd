"""What a person sees of `wsiseg bench`: a table, a bar chart of the ceilings, and sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsiseg.bench.report import DEVICE, Report
from wsiseg.units import format_bytes

if TYPE_CHECKING:
    from wsiseg.bench.sweep import Sweep

BAR = 44


class Show:
    """Prints to standard output; what is being measured goes to a status line on a terminal only."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = max(self._console.width, 130)

    @contextlib.contextmanager
    def working(self) -> Iterator[Callable[[str], None]]:
        """A function to be called with what is being done now."""
        errors = Console(stderr=True, highlight=False)
        if not errors.is_terminal:
            yield lambda line: None
            return
        with errors.status("") as status:
            yield lambda line: status.update(line)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False)

    def report(self, report: Report, old: Report | None = None) -> None:
        settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
        self.line(f"{report.session}; model {report.model}; {settings}")
        spared = f", {report.absent:.0f} without objects not decoded" if report.absent else ""
        self.line(
            f"{report.slide}: {report.tiles:.0f} tiles run, {report.empty:.0f} without tissue skipped{spared}"
        )
        self.line("")
        self._console.print(self._table(report, old))
        self.line("")
        self._bars(report)
        self.line("")
        for line in sentences(report):
            self.line(line)
        if old is not None:
            self.line(comparison(report, old))

    def _table(self, report: Report, old: Report | None) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("stage, alone")
        for name in ("CPU s/slide", "share", "cores", "Mpx/s"):
            table.add_column(name, justify="right")
        if old is not None:
            table.add_column("before", justify="right")
            table.add_column("times", justify="right")
        table.add_column("what")
        before = {stage.name: old.speed(stage.seconds) for stage in old.stages} if old else {}

        def row(
            name: str, cpu: str, share: str, cores: str, speed: float, what: str, style: str = ""
        ) -> None:
            cells = [name, cpu, share, cores, _speed(speed)]
            if old is not None:
                then = before.get(name)
                cells += [
                    _speed(then) if then else "",
                    f"{speed / then:.2f}" if then and then != float("inf") else "",
                ]
            table.add_row(*cells, what, style=style)

        for stage in report.stages:
            share = f"{stage.cpu / report.cpu:.0%}" if report.cpu else ""
            style = "bold" if stage.name == report.binding else ""
            cores = "device" if stage.bound == DEVICE else str(stage.threads)
            row(stage.name, f"{stage.cpu:.3f}", share, cores, report.speed(stage.seconds), stage.what, style)
        rest = report.cpu - sum(s.cpu for s in report.stages)
        table.add_row(
            "the rest",
            f"{rest:.3f}",
            f"{rest / report.cpu:.0%}" if report.cpu else "",
            *[""] * (2 + 2 * (old is not None)),
            "cutting tiles, waiting, the interpreter",
            style="dim",
        )
        if old is not None:
            before |= {"ideal": old.speed(old.ideal), "pipeline": old.speed(old.wall)}
        both = "device time" if report.on_device else "bare decode + bare inference, over all cores"
        row("ideal", "", "", str(report.cores), report.speed(report.ideal), both)
        row(
            "pipeline",
            f"{report.cpu:.3f}",
            "100%",
            str(report.cores),
            report.speed(report.wall),
            f"{report.slides:.1f} slides measured",
            "bold",
        )
        return table

    def _bars(self, report: Report) -> None:
        bars = [(s.name, report.speed(s.seconds)) for s in report.stages]
        bars = [(name, speed) for name, speed in bars if speed != float("inf")]
        bars += [("ideal", report.speed(report.ideal)), ("pipeline", report.speed(report.wall))]
        # Blending and encoding are a hundred times faster than a network; their bars end in an arrow.
        top = 4 * max(report.speed(report.ideal), report.speed(report.wall))
        for name, speed in bars:
            length = min(1.0, speed / top) * BAR
            bar = "█" * int(length) + ("▌" if length % 1 >= 0.5 else "")
            style = {"ideal": "green", "pipeline": "bold cyan"}.get(
                name, "yellow" if name == report.binding else "blue"
            )
            text = Text(f"{name:>10} ")
            text.append((bar or "▏") + ("▶" if speed > top else ""), style=style)
            text.append(f" {_speed(speed)} Mpx/s")
            self._console.print(text)

    def sweep(self, result: Sweep) -> None:
        """Every setting that was tried, the best first."""
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            title="bare stages by setting",
            title_justify="left",
        )
        for name in ("tile", "batch", "threads", "precision", "ideal Mpx/s", ""):
            table.add_column(name, justify="right" if name else "left")
        for trial in sorted(result.trials, key=lambda t: -t.speed):
            note = (
                "  chosen"
                if trial.setting == result.best
                else "  default"
                if trial.setting == result.first
                else ""
            )
            s = trial.setting
            table.add_row(str(s.tile), str(s.batch), str(s.threads), s.precision, _speed(trial.speed), note)
        self._console.print(table)
        for line in result.notes:
            self.line(line)


def sentences(report: Report) -> list[str]:
    """What the figures say."""
    lines = [
        f"efficiency {report.efficiency:.0%} of the ideal on the clock, {report.cpu_efficiency:.0%} of its CPU time; "
        f"limited by {report.binding}; {'the device' if report.on_device else 'the cores'} idle {report.idle:.0%} of the time",
        f"{report.slides_per_hour:,.0f} such slides an hour, {3600 * report.speed(report.wall) / 1e3:,.0f} Gpx an hour: "
        f"a gigapixel takes {1e3 / report.speed(report.wall):.0f} s",
        f"peak memory {format_bytes(report.peak)}, planned {format_bytes(report.planned)}, allowed {format_bytes(report.budget)}",
        report.advice(),
    ]
    return lines


def comparison(new: Report, old: Report) -> str:
    """One line about the whole, and a warning when two different things are compared."""
    text = f"against {old.machine.get('commit') or old.machine.get('wsiseg', '')} of {old.machine.get('date', '')}: {old.wall / new.wall:.2f} times as fast on the clock, {old.cpu / new.cpu:.2f} in CPU time"
    differing = [what for what, a, b in (
        ("the processor", new.machine.get("processor"), old.machine.get("processor")), ("the cores", new.cores, old.cores),
        ("the slide", new.slide, old.slide), ("the model", new.model, old.model), ("the settings", new.settings, old.settings),
    ) if a != b]  # fmt: skip
    return text + (f"; not the same: {', '.join(differing)}" if differing else "")


def _speed(speed: float) -> str:
    return "-" if speed == float("inf") else f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
