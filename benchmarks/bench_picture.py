"""`wsiseg bench` on this machine: its JSON, its table in the README, and a picture of table and bars.

python -m benchmarks.bench_picture                    # two minutes; writes benchmarks/results/bench.{json,svg} and the README
python -m benchmarks.bench_picture --from old.json    # draw an earlier --json instead of measuring
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from benchmarks import harness, tree
from wsiseg.bench.report import Report
from wsiseg.cli.bench_show import Show

WIDTH = 122
MARKS = "<!-- bench -->", "<!-- /bench -->"
PICTURE, BARS = "benchmarks/results/bench.svg", "    decode "
# The exporter names a font on somebody's server; a viewer has one of its own.
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def picture(report: Report) -> tuple[str, str]:
    """(SVG, plain text) of what `wsiseg bench` prints of a report."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    Show(console).report(report)
    text = console.export_text(clear=False)
    svg = console.export_svg(title="wsiseg bench", theme=DEFAULT_TERMINAL_THEME)
    return FONT_FACE.sub("", svg), "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def in_readme(readme: str, report: Report, text: str) -> str:
    """The README with another table between its marks."""
    begin, end = MARKS
    before, after = readme[: readme.index(begin)], readme[readme.index(end) :]
    machine = report.machine
    told = f"`python -m benchmarks.bench_picture` on {machine['processor']}, {report.cores} cores, commit {machine['commit']}:"
    table = text[: text.index(BARS)].strip() + "\n\n" + text[text.index("efficiency ") :].strip()
    return f"{before}{begin}\n\n{told}\n\n```\n{table}\n```\n\n![the bars]({PICTURE})\n\n{after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", metavar="FILE.json", help="draw this report")
    parser.add_argument("--seconds", default="60")
    args, others = parser.parse_known_args()
    folder = harness.RESULTS
    kept = folder / "bench.json"
    if not args.source:
        # Not `tree.measure`: nothing may look at the process while it is measured.
        command = tree.wsiseg("bench", "--seconds", args.seconds, "--json", kept, *others)
        subprocess.run(command, env=tree.environment(), cwd=tree.ROOT, check=True)
    report = Report.from_json(Path(args.source or kept).read_text(), str(args.source or kept))
    svg, text = picture(report)
    (folder / "bench.svg").write_text(svg)
    readme = tree.ROOT / "README.md"
    readme.write_text(in_readme(readme.read_text(), report, text))
    print(text)


if __name__ == "__main__":
    main()
