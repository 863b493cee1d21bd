"""All targets of speed in one table, from the results that the other scripts wrote: benchmarks/results/targets.md.

python -m benchmarks.targets                # a second; run it after any other script
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import harness

Row = dict[str, Any]
# Where the time goes, for what may miss; it is printed only when it does.
WHY = {
    "efficiency": "the rest is our own threads: cutting and handing over tiles, and the interpreter's share of each JPEG tile",
    "notebook": "both run their convolutions at the processor's speed: without AMX, OpenVINO's bf16 is 1.3 times torch's, "
    "with AMX 2.8 times; wsiseg also runs the tiles of a margin around the slide, 130 against 108 here, and starts in 1 s",
    "start": "numba's import and its registries (0.35 s of CPU, of one thread), OpenVINO's, and four tiles of warm-up that "
    "make the memory plan exact (0.2 s)",
    "tiny": "opening, planning and decoding a TIFF (4 ms of CPU), nine or more tiles cut and blended, and a flushed record",
    "blend": "it runs at the speed of memory: adding a tile to the sums without any weights takes as long",
    "reader": "what is read must also be written into the ring, and shrunk; beside a bare decoder that does this too, see reader.md",
    "threads": "both write their pixels to memory; and a call of 0.1 s has a beginning and an end with one thread",
    "decode": "decoding is the JPEG library's own time; without it our own work is the second figure",
    "presence": "the encoder is most of the work of this network, and its feature maps are handed over once",
}


@dataclass(frozen=True)
class Target:
    """One line: what is wanted, the script that measures it, how to find it there, and whether it is met."""

    name: str
    script: str
    find: Callable[[list[Row]], tuple[str, bool]]
    why: str = ""


def cell(tables: list[Row], question: str, row: str, column: str) -> float:
    """A figure of a table: the first whose question and row begin like that."""
    table = next(t for t in tables if t["question"].startswith(question))
    if "columns" in table:
        found = next(r for r in table["rows"] if str(r[0]).startswith(row))
        return float(found[table["columns"].index(column)])
    return float(next(r for r in table["rows"] if r["variant"].startswith(row))[column])


def limited(
    wanted: Callable[[float, float], bool], limit: float, form: str, question: str, row: str, column: str
) -> Callable[[list[Row]], tuple[str, bool]]:
    def find(tables: list[Row]) -> tuple[str, bool]:
        value = cell(tables, question, row, column)
        return form.format(value), wanted(value, limit)

    return find


at_least, at_most, below = (partial(limited, wanted) for wanted in (operator.ge, operator.le, operator.lt))


def worst_layout(limit: float, columns: str) -> Callable[[list[Row]], tuple[str, bool]]:
    """The least figure of the reader's columns that begin like that, over all layouts that are compressed."""

    def find(tables: list[Row]) -> tuple[str, bool]:
        table = next(t for t in tables if t["question"].startswith("How much of the bare decoder"))
        found = [
            (float(value), f"{row[0]}, {column.split(', ')[-1]}")
            for row in table["rows"]
            for column, value in zip(table["columns"], row, strict=True)
            if column.startswith(columns) and "uncompressed" not in str(row[0])
        ]
        least, where = min(found)
        misses = sum(value < limit for value, _ in found)
        return f"{least:.2f} at worst ({where}); {misses} of {len(found)} below", misses == 0

    return find


def efficiency(case: str) -> Callable[[list[Row]], tuple[str, bool]]:
    def find(tables: list[Row]) -> tuple[str, bool]:
        clock = 1 / cell(tables, "Pipeline against ideal", case, "times ideal")
        cpu = 1 / cell(tables, "Pipeline against ideal", case, "times ideal in CPU")
        return f"{clock:.2f} ({cpu:.2f} in CPU time)", clock >= 0.95

    return find


def beside_inference(tables: list[Row]) -> tuple[str, bool]:
    table = next(t for t in tables if t["question"].startswith("Where the CPU time goes: U-Net"))
    shares = {str(r[0]): float(str(r[2]).rstrip("%")) for r in table["rows"]}
    decode = shares["decode"]
    own = sum(share for name, share in shares.items() if name not in ("decode", "inference"))
    return f"{own + decode:.1f} %, without decoding {own:.1f} %", own + decode < 10


def memory_share(tables: list[Row]) -> tuple[str, bool]:
    question, column = "wsiseg beside", "peak MiB"
    theirs, ours = (cell(tables, question, f"{who} at 0.4 Gpx", column) for who in ("notebook", "wsiseg"))
    return f"{ours:,.0f} of {theirs:,.0f} MiB, 1/{theirs / ours:.0f}", ours * 10 <= theirs


def spared(tables: list[Row]) -> tuple[str, bool]:
    question = "A tile of 512 with a classification head"
    whole, decoded, not_decoded = (
        cell(tables, question, row, "seconds")
        for row in ("the whole", "cut in two, decoded", "cut in two, not")
    )
    return (
        f"a tile without objects takes {not_decoded / whole:.0%} of the time, one with objects {decoded / whole:.0%}",
        not_decoded < whole,
    )


TARGETS = (
    Target(
        "at most 1.10 times the ideal, U-Net of ResNet34's size", "pipeline",
        at_most(1.1, "{:.2f} times", "Pipeline against ideal", "U-Net", "times ideal"), "efficiency",
    ),
    Target(
        "at most 1.20 times the ideal where decoding is the limit", "pipeline",
        at_most(1.2, "{:.2f} times", "Pipeline against ideal", "two conv", "times ideal"), "efficiency",
    ),
    Target(
        "0.9 of the bare decoder on every compressed layout", "reader", worst_layout(0.9, "reader / bare, "), "reader"
    ),
    Target(
        "two threads read 1.7 times as fast on every compressed layout", "reader",
        worst_layout(1.7, "2 threads / 1: reader"), "threads",
    ),
    Target("efficiency at least 0.95, U-Net of ResNet34's size", "pipeline", efficiency("U-Net"), "efficiency"),
    Target("as much with the bundled network", "pipeline", efficiency("bundled"), "efficiency"),
    Target("as much where decoding is the limit", "pipeline", efficiency("two conv"), "efficiency"),
    Target("reading, blending, finishing and encoding below 10 % of the time", "pipeline", beside_inference, "decode"),
    Target(
        "5 times the notebook in FP32 torch", "notebook_baseline",
        at_least(5, "{:.1f} times", "wsiseg beside", "notebook, torch fp32", "times wsiseg's"), "notebook",
    ),
    Target(
        "2 times the notebook in bf16 torch", "notebook_baseline",
        at_least(2, "{:.1f} times", "wsiseg beside", "notebook, torch bf16", "times wsiseg's"), "notebook",
    ),
    Target("a tenth of the notebook's peak memory at 0.4 gigapixels", "notebook_baseline", memory_share),
    Target(
        "a tiny slide of 1,000 below 15 ms beyond inference", "startup",
        below(15, "{:.1f} ms", "A folder of 1000", "beyond inference", "ms on the clock"), "tiny",
    ),
    Target(
        "first batch within 1 s of the command", "startup",
        below(1, "{:.2f} s", "From nothing", "`wsiseg run`: its first batch", "seconds"), "start",
    ),
    Target("--help below 0.3 s", "startup", below(0.3, "{:.2f} s", "From nothing", "wsiseg --help", "seconds")),
    Target("a classification head spares the decoder", "presence", spared, "presence"),
    Target(
        "run kernel 20 times OpenCV and numpy at scale 4", "kernels",
        at_least(20, "{:.0f} times", "Probabilities to run-length text at scale 4", "run kernel", "ratio"),
    ),
    Target("blend 4 times numpy", "kernels", at_least(4, "{:.1f} times", "Blending", "accumulate", "ratio"), "blend"),
)  # fmt: skip
RESULT_OF = {"notebook_baseline": "notebook"}


def main() -> None:
    lines = [
        "# targets",
        "",
        "| target | seen | met | command | processor and commit |",
        "| --- | --- | --- | --- | --- |",
    ]
    missed = []
    for target in TARGETS:
        path = harness.RESULTS / f"{RESULT_OF.get(target.script, target.script)}.json"
        seen, met, where = "not measured", "", ""
        if path.exists():
            data = json.loads(path.read_text())
            try:
                seen, fine = target.find(data["tables"])
            except (StopIteration, KeyError, ValueError):
                seen = "not in the results"
            else:
                met = "yes" if fine else "no"
                if not fine and target.why:
                    missed.append(f"- {target.name}: {WHY[target.why]}.")
            where = f"{data['machine']['processor']}, {data['machine']['commit']}"
        lines.append(f"| {target.name} | {seen} | {met} | `python -m benchmarks.{target.script}` | {where} |")
    if missed:
        lines += ["", "Where the time goes in what misses:", "", *missed]
    text = "\n".join(lines) + "\n"
    (harness.RESULTS / "targets.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
