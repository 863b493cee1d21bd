"""How long until the first batch is submitted, and what does a slide cost beyond its inference in a folder of 1,000?

python -m benchmarks.startup                # a minute or two; writes benchmarks/results/startup.{json,md}
python -m benchmarks.startup --slides 100 --rounds 3

Targets: under 1 s from the command to the first batch; under 15 ms for each tiny slide beyond its inference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from benchmarks import harness, tree
from wsiseg.pipeline.config import DEFAULT_MODEL

FIRST_BATCH = """
import json, sys, time
import wsiseg.jobs.segmenter
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.start import start as start_processor
from wsiseg.pipeline.options import SlideTask
imported = time.perf_counter()
from wsiseg.backends import openvino
def start(self, slot, count, inner=openvino.OpenVinoSession.start):
    if STARTED: print(json.dumps([imported - BEGAN, STARTED[0] - BEGAN, time.perf_counter() - BEGAN, time.process_time()]), flush=True); import os; os._exit(0)
    inner(self, slot, count)
STARTED = []
openvino.OpenVinoSession.start = start
with start_processor(RunConfig(threads=2)) as started:
    STARTED.append(time.perf_counter())
    list(started.processor.process([SlideTask(0, "slide", sys.argv[1])]))
"""
PHASES = ("import", "model loaded and warm", "first batch", "CPU seconds by then")


def tiny(folder: Path, count: int, edge: int = 512) -> None:
    """`count` slides of edge x edge pixels of pink noise, 4 microns per pixel: one network grid of a single tile each."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(120, 230, (edge, edge, 3), dtype=np.uint8)
    pixels[..., 1] //= 2
    for index in range(count):
        tifffile.imwrite(
            folder / f"slide{index:04d}.tif", pixels, tile=(256, 256), compression="zlib", photometric="rgb",
            resolution=(2500, 2500), resolutionunit="CENTIMETER",
        )  # fmt: skip


def first_batch(slide: Path, rounds: int) -> harness.Facts:
    """A worker from nothing to its first batch, and the command around it."""
    script = "import time; BEGAN = time.perf_counter()\n" + FIRST_BATCH
    laps = []
    for _ in range(rounds + 1):
        done = tree.checked([sys.executable, "-c", script, str(slide)])
        laps.append(json.loads(done.output.strip().splitlines()[-1]))
    helps = [tree.checked(tree.wsiseg("--help")) for _ in range(rounds)]
    middle = [statistics.median(lap[k] for lap in laps[1:]) for k in range(len(PHASES))]
    rows: list[tuple[str | float, ...]] = [(name, value) for name, value in zip(PHASES, middle, strict=True)]
    rows.append(("wsiseg --help", statistics.median(m.wall for m in helps)))
    rows.append(("wsiseg --help, CPU seconds", statistics.median(m.cpu for m in helps)))
    notes = [
        "in the worker process, from the start of its first module; the kernels are compiled already",
        f"medians of {rounds}",
    ]
    return harness.facts("From nothing to the first batch", ("until", "seconds"), rows, notes)


def folder_of(count: int, folder: Path) -> harness.Facts:
    """`wsiseg run` on a folder of tiny slides, less a run on one of them, less bare inference."""
    from wsiseg.bench.run import opened
    from wsiseg.bench.stages import fill_slots, infer
    from wsiseg.limits import available_cores
    from wsiseg.pipeline.config import RunConfig
    from wsiseg.pipeline.start import start

    slides = folder / "slides"
    slides.mkdir()
    tiny(slides, count)
    first = slides / "slide0000.tif"
    one = tree.checked(tree.wsiseg("run", first, "-o", folder / "one.csv", "--quiet", "--fresh"))
    many = tree.checked(tree.wsiseg("run", slides, "-o", folder / "many.csv", "--quiet", "--fresh"))
    with start(RunConfig(threads=available_cores())) as started, opened(started.processor, str(first)) as job:
        fill_slots(started.processor, job)
        bare = infer(started.processor.session, 3.0)
        tiles = job.grid.count
    wall, cpu = (many.wall - one.wall) / (count - 1), (many.cpu - one.cpu) / (count - 1)
    network_wall, network_cpu = bare.wall / bare.amount * tiles, bare.cpu / bare.amount * tiles
    rows = [
        ("a slide", wall * 1e3, cpu * 1e3),
        (f"bare inference of its {tiles} tile(s)", network_wall * 1e3, network_cpu * 1e3),
        ("beyond inference", (wall - network_wall) * 1e3, (cpu - network_cpu) * 1e3),
        ("start-up: a run of one slide", one.wall * 1e3, one.cpu * 1e3),
    ]
    notes = [
        f"model {DEFAULT_MODEL}; each slide's record is flushed to the disk",
        "CPU time is of all processes and threads",
    ]
    return harness.facts(
        f"A folder of {count} slides of 512 x 512", ("what", "ms on the clock", "ms of CPU"), rows, notes
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny(folder, 1)
        tables = [first_batch(folder / "slide0000.tif", args.rounds), folder_of(args.slides, folder)]
    if args.slides >= 1000:
        harness.write("startup", tables, ["numpy", "numba", "openvino"])


if __name__ == "__main__":
    main()
