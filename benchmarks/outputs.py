"""What does each output of a finished slide cost, in seconds and in memory?

    python benchmarks/outputs.py [--size 40000x40000] [--folder DIR]

Writes a synthetic slide (60 % tissue, JPEG pyramid), takes its ground truth as the result, and writes every output of
`--save` in a process of its own, so that each has its own peak. The peak of a process that only imports and holds the
runs is printed first; the plan is what `save_bytes` says.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
# Compile first: a small slide of the same kind.
small = Runs.from_rle("1 2 9 4", Size(8, 8))
if kind != "none":
    if kind != "overlay":
        save_outputs(folder + "/warm", [kind], SlideOutputs("w", [ObjectClass("x", small)], 0.5, lambda: None))
    began, cpu = time.perf_counter(), time.process_time()
    save_outputs(folder, [kind], SlideOutputs("slide", [ObjectClass("x", runs)], 0.5, lambda: open_slide(path)))
seconds = time.perf_counter() - began if kind != "none" else 0
cpu = time.process_time() - cpu if kind != "none" else 0
# Linux's own record of this process; the one of getrusage begins with the parent's.
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(json.dumps({"kind": kind, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mib": round(peak), "runs": len(runs),
                  "plan_mib": round(save_bytes([kind] if kind != "none" else [], size, len(runs)) / 2**20)}))
"""


def main() -> None:
    from wsiseg.geometry import Size
    from wsiseg.outputs.save import KINDS
    from wsiseg.synth import Scene, write_slide
    from wsiseg.units import parse_width_height

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="40000x40000")
    parser.add_argument("--folder", help="where the slide and the outputs go (default: a temporary folder)")
    args = parser.parse_args()
    size = Size(*parse_width_height(args.size))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "slide.tif"
        began = time.perf_counter()
        report = write_slide(path, Scene(size, 1), "pyramid-jpeg")
        print(
            json.dumps(
                {
                    "machine": platform.processor() or platform.machine(),
                    "python": platform.python_version(),
                    "size": str(size),
                    "glomeruli": report.glomeruli,
                    "synth_seconds": round(time.perf_counter() - began, 1),
                }
            )
        )
        for kind in ("none", *KINDS):
            words = [str(path), str(report.truth), folder, str(size.height), str(size.width), kind]
            subprocess.run([sys.executable, "-c", CHILD, *words], check=True)


if __name__ == "__main__":
    main()
