"""Does memory grow with the slide? The peak of the whole process tree for 0.4, 1.6 and 10 gigapixels under one budget.

python -m benchmarks.memory             # two to three minutes; writes benchmarks/results/memory.{json,md}
python -m benchmarks.memory --memory 700MB

Memory follows the width of a slide as long as a full-width band fits the budget (then come panels), never its height.
So the largest slide comes twice: with the width of the second one, and as a square.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import harness, tree
from benchmarks.mosaic import write_mosaic
from wsiseg.geometry import Size
from wsiseg.units import format_megapixels, parse_bytes

# Size, share of tissue.
SLIDES = (
    (Size(20_000, 20_000), 0.7),
    (Size(40_000, 40_000), 0.7),
    (Size(250_000, 40_000), 0.01),
    (Size(100_000, 100_000), 0.01),
)


def peak(folder: Path, size: Size, tissue: float, memory: str, *more: str) -> tree.Measured:
    """`wsiseg run` on a slide made for it."""
    slide = write_mosaic(folder / f"w{size.width}h{size.height}.tif", size, tissue)
    try:
        return tree.checked(
            tree.wsiseg("run", slide, "-o", folder / "out.csv", "--memory", memory, "--fresh", *more)
        )
    finally:
        slide.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", default="1GiB")
    args = parser.parse_args()
    budget = parse_bytes(args.memory)
    rows: list[tuple[str | float, ...]] = []
    first = 0
    with tempfile.TemporaryDirectory() as folder:
        for size, tissue in SLIDES:
            done = peak(Path(folder), size, tissue, args.memory)
            first = first or done.peak
            rows.append((
                f"{size}, {format_megapixels(size.pixels)}, {tissue:.0%} tissue", done.peak / 2**20, done.peak / budget,
                done.peak / first, done.wall, done.cpu,
            ))  # fmt: skip
            print(rows[-1], flush=True)
    columns = ("slide", "peak MiB", "of the budget", "times the first", "seconds", "CPU s")
    notes = [
        "the bundled model at its own scale, its kernels compiled before; parent and worker together, each process's own peak (VmHWM) added up"
    ]
    table = harness.facts(
        f"Peak memory of the process tree under --memory {args.memory}", columns, rows, notes
    )
    harness.write("memory", [table], ["numpy", "numba", "openvino"])


if __name__ == "__main__":
    main()
