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


def plot_histograms(path: Path, groups: dict[str, Sequence[float]], x: str) -> bool:
    """One histogram per group over common bins; False where matplotlib is missing or there is nothing to count."""
    values = [v for group in groups.values() for v in group]
    if not values or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    low, high = min(values), max(values)
    edges = [low + (high - low + 1e-9) * i / 24 for i in range(25)]
    figure = Figure(figsize=(7, 1.3 * len(groups) + 0.6), layout="constrained")
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, group) in zip(axes, groups.items(), strict=True):
        axis.hist(group, bins=edges)
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(f"{name}\n{len(group)} objects")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel(x)
    figure.savefig(path, dpi=110)
    return True


def plot_curves(table: Path, picture: Path) -> bool:
    """Every column of a curves.csv against its step; the Dice of an only class is the Dice, and not drawn twice."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = {}
    for name in dict.fromkeys(k for row in rows for k in row):
        points = [(float(r["step"]), float(r[name])) for r in rows if r.get(name)]
        if name != "step" and points:
            xs, ys = zip(*points, strict=True)
            lines[name] = (xs, ys)
    classes = [name for name in lines if name.startswith("dice_")]
    if len(classes) == 1 and "dice" in lines:
        del lines[classes[0]]
    return plot_lines(picture, lines, "step")
