"""Curves as PNG, with matplotlib where it is installed."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path


def plot_lines(
    path: Path, lines: dict[str, tuple[Sequence[float], Sequence[float]]], x: str, log_x: bool = False
) -> bool:
    """One panel per line (name -> xs, ys), one above the other; False where matplotlib is missing or there is no line."""
    if not lines or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.2 * len(lines)), layout="constrained")
    for axis, (name, (xs, ys)) in zip(
        figure.subplots(len(lines), 1, squeeze=False)[:, 0], lines.items(), strict=True
    ):
        axis.plot(xs, ys)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        if log_x:
            axis.set_xscale("log")
    axis.set_xlabel(x)
    figure.savefig(path, dpi=110)
    return True


def plot_curves(table: Path, picture: Path) -> bool:
    """Every column of a curves.csv against its step."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = {}
    for name in dict.fromkeys(k for row in rows for k in row):
        points = [(float(r["step"]), float(r[name])) for r in rows if r.get(name)]
        if name != "step" and points:
            xs, ys = zip(*points, strict=True)
            lines[name] = (xs, ys)
    return plot_lines(picture, lines, "step")
