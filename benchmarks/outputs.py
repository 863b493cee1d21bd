"""What does each output of a finished slide cost, in seconds and in memory?

    python -m benchmarks.outputs [--size 40000x40000] [--folder DIR]

Writes a synthetic slide (60 % tissue, JPEG pyramid), takes its ground truth as the result, and writes every output of
`--save` in a process of its own, so that each has its own peak. The first row is a process that only holds the runs;
the plan is what `save_bytes` says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import facts, write
from wsiseg.geometry import Size
from wsiseg.outputs.save import KINDS
from wsiseg.synth import Scene, write_slide
from wsiseg.units import parse_width_height

CHILD = """
import json, sys, time
from wsiseg.geometry import Size
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.save import SlideOutputs, save_outputs, save_bytes
from wsiseg.outputs.submission import read_row
from wsiseg.runs import Runs
from wsiseg.slide import open_slide
path, csv, folder, height, width, kind = sys.argv[1:]
size = Size(int(height), int(width))
runs = Runs.from_rle(read_row(csv, "slide").rle, size)
kinds = [] if kind == "none" else [kind]
if kind not in ("none", "overlay"):  # compile first
    small = ObjectClass("x", Runs.from_rle("1 2 9 4", Size(8, 8)))
    save_outputs(folder + "/warm", kinds, SlideOutputs("w", [small], 0.5, lambda: None))
began, cpu = time.perf_counter(), time.process_time()
save_outputs(folder, kinds, SlideOutputs("slide", [ObjectClass("x", runs)], 0.5, lambda: open_slide(path)))
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
# Linux's own record of this process; the one of getrusage begins with the parent's.
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(json.dumps([kind, seconds, cpu, peak, save_bytes(kinds, size, len(runs)) / 2**20]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="40000x40000")
    parser.add_argument("--folder", help="where the slide and the outputs go (default: a temporary folder)")
    args = parser.parse_args()
    size = Size(*parse_width_height(args.size))
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "slide.tif"
        began, cpu = time.perf_counter(), time.process_time()
        report = write_slide(path, Scene(size, 1), "pyramid-jpeg")
        synth = f"writing the slide: {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of one core"
        for kind in ("none", *KINDS):
            words = [str(path), str(report.truth), folder, str(size.height), str(size.width), kind]
            done = subprocess.run(
                [sys.executable, "-c", CHILD, *words], check=True, capture_output=True, text=True
            )
            rows.append(json.loads(done.stdout))
    table = facts(
        f"What does each output of a slide of {size} with {report.glomeruli} objects cost?",
        ("output", "seconds", "CPU seconds", "peak MiB of the process", "planned MiB"),
        rows,
        [synth],
    )
    write("outputs", [table], ["numpy", "numba", "tifffile", "zarr"])


if __name__ == "__main__":
    main()
