"""The README's tables of speed, from the committed results of `benchmarks.reader` and `benchmarks.pipeline`.

python -m benchmarks.readme_tables               # a moment; run it after either of them
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks import harness, tree

SCALES = (1, 2, 4)


def first_table(name: str) -> tuple[dict[str, Any], str]:
    """The first table of a result, and on what it was measured."""
    data = json.loads((harness.RESULTS / f"{name}.json").read_text())
    machine = data["machine"]
    return data["tables"][0], f"{machine['processor'].split(' avx')[0]}, commit {machine['commit']}"


def reader() -> str:
    """Layouts, and how much of two bare decoders' speed is reached."""
    table, where = first_table("reader")
    lines = [
        f"`python -m benchmarks.reader` on {where}:",
        "",
        "| layout | bare decoder, Mpx/s | scale 1 | scale 2 | scale 4 | two threads |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in table["rows"]:
        found = dict(zip(table["columns"], row, strict=True))
        shares = [
            f"{found[f'reader / bare, scale {s}']:.2f} ({found[f'reader / bare and rows, scale {s}']:.2f})"
            for s in SCALES
        ]
        gains = [found[f"2 threads / 1: reader, scale {s}"] for s in SCALES]
        cells = [
            found["layout"],
            f"{found['bare Mpx/s']:,.0f}",
            *shares,
            f"{min(gains):.2f} to {max(gains):.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pipeline() -> str:
    """Networks, the ideal, what was seen."""
    table, where = first_table("pipeline")
    lines = [
        f"`python -m benchmarks.pipeline` on {where}:",
        "",
        "| network | ideal | wsiseg | ratio | in CPU time | target |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table["rows"]:
        found = dict(zip(table["columns"], row, strict=True))
        lines.append(
            f"| {found['case']} | {found['ideal s']:.2f} s | {found['pipeline s']:.2f} s | {found['times ideal']:.2f} "
            f"| {found['times ideal in CPU']:.2f} | {found['target']:.2f} |"
        )
    return "\n".join(lines)


SECTIONS = {"reader": reader, "pipeline": pipeline}


def filled(readme: str) -> str:
    """The README with today's tables between their marks."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = readme.split(begin)
        readme = f"{before}{begin}\n\n{make()}\n\n{end}{rest.split(end)[1]}"
    return readme


def main() -> None:
    path = tree.ROOT / "README.md"
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
