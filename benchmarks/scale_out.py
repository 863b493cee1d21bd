"""What do several worker processes on one machine gain, and are the bytes the same?

python -m benchmarks.scale_out          # a minute or two; writes benchmarks/results/scale_out.{json,md}

On a machine whose one worker keeps every core busy, more workers gain nothing; what they cost is seen in the CPU time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks import harness, tree
from benchmarks.mosaic import write_mosaic
from wsiseg.geometry import Size
from wsiseg.limits import available_cores

SIZE, TISSUE = Size(8_000, 10_000), 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=12)
    args = parser.parse_args()
    cores = available_cores()
    counts = sorted({1, 2, cores})
    rows: list[tuple[str | float, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = folder / "slides"
        slides.mkdir()
        first = write_mosaic(slides / "slide00.tif", SIZE, TISSUE)
        for index in range(1, args.slides):
            os.link(first, slides / f"slide{index:02d}.tif")
        tree.checked(tree.wsiseg("run", first, "-o", folder / "warm.csv", "--quiet"))
        base, same = 0.0, set()
        for workers in counts:
            out = folder / f"w{workers}.csv"
            done = tree.checked(tree.wsiseg("run", slides, "-o", out, "--workers", str(workers), "--quiet"))
            same.add(out.read_bytes())
            base = base or done.wall
            pixels = SIZE.pixels * args.slides
            rows.append(
                (
                    f"{workers} worker(s)",
                    done.wall,
                    base / done.wall,
                    done.cpu,
                    pixels / done.wall / 1e6,
                    done.peak / 2**20,
                )
            )
    columns = ("processes", "seconds", "times as fast", "CPU s", "Mpx/s", "peak MiB")
    notes = [
        f"{args.slides} slides of {SIZE}, the cores shared out to the workers; the CSVs are {'the same bytes' if len(same) == 1 else 'DIFFERENT'}"
    ]
    table = harness.facts(f"Workers on one machine of {cores} cores", columns, rows, notes)
    harness.write("scale_out", [table], ["numpy", "numba", "openvino"])


if __name__ == "__main__":
    main()
