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
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks import harness, networks, tree
from wsiseg.pipeline.config import DEFAULT_MODEL

# Both scripts are given the time at which they were started, so that Python's own start counts.
FIRST_BATCH = """
import os, sys, time
began = float(sys.argv[2])
from wsiseg.jobs.segmenter import make
from wsiseg.jobs.work import WorkerContext
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.options import SlideTask
import dataclasses, json
from wsiseg.backends import openvino
def start(self, slot, count, inner=openvino.OpenVinoSession.start):
    if ready:
        print(json.dumps([*ready, time.time() - began, time.process_time()]), flush=True)
        os._exit(0)
    inner(self, slot, count)
ready = []
openvino.OpenVinoSession.start = start
imported = time.time() - began
segmenter = make(dataclasses.asdict(RunConfig(threads=2)), WorkerContext(0, None))
segmenter._processor.checkpoints = None
ready += [imported, time.time() - began]
list(segmenter.process([SlideTask(0, "slide", sys.argv[1])]))
"""
COMMAND = """
import os, sys, time
began = float(sys.argv[2])
from wsiseg.cli.main import main
from wsiseg.jobs.pool import Pool
def hear(self, child, message, inner=Pool._hear):
    if message["type"] == "ready":
        print(time.time() - began, flush=True)
    inner(self, child, message)
Pool._hear = hear
main(["run", sys.argv[1], "-o", sys.argv[1] + ".csv", "--fresh", "--quiet", "--threads", "2"])
"""
PHASES = (
    "a worker has imported everything",
    "its model is loaded and warm",
    "its first batch",
    "CPU seconds by then",
)


def tiny(folder: Path, count: int, size: tuple[int, int] = (512, 512), mpp: float | None = 4.0) -> None:
    """`count` slides of (height, width) pixels of pink noise, in tiles of JPEG or, with microns per pixel, deflate."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(120, 230, (*size, 3), dtype=np.uint8)
    pixels[..., 1] //= 2
    kind: dict[str, Any] = {"compression": "jpeg"}
    if mpp:
        kind = {"compression": "zlib", "resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    for index in range(count):
        tifffile.imwrite(folder / f"slide{index:04d}.tif", pixels, tile=(256, 256), photometric="rgb", **kind)


def first_batch(slide: Path, rounds: int) -> harness.Facts:
    """A worker from nothing to its first batch, and the command around it."""
    laps, commands, helps = [], [], []
    for _ in range(rounds + 1):
        done = tree.checked([sys.executable, "-c", FIRST_BATCH, str(slide), str(time.time())])
        laps.append(json.loads(done.output.strip().splitlines()[-1]))
        done = tree.checked([sys.executable, "-c", COMMAND, str(slide), str(time.time())])
        commands.append(float(done.output.split()[0]))
        helps.append(tree.checked(tree.wsiseg("--help")))
    middle = [statistics.median(lap[k] for lap in laps[1:]) for k in range(len(PHASES))]
    rows: list[tuple[str | float, ...]] = [(name, value) for name, value in zip(PHASES, middle, strict=True)]
    ready = statistics.median(commands[1:])
    rows += [
        ("`wsiseg run`: its worker is ready", ready),
        (
            "`wsiseg run`: its first batch (ready, and what a worker takes from there)",
            ready + middle[2] - middle[1],
        ),
        ("wsiseg --help", statistics.median(m.wall for m in helps[1:])),
        ("wsiseg --help, CPU seconds", statistics.median(m.cpu for m in helps[1:])),
    ]
    notes = ["from the start of Python; the kernels are compiled already", f"medians of {rounds}"]
    return harness.facts("From nothing to the first batch", ("until", "seconds"), rows, notes)


def folder_of(
    count: int, folder: Path, model: str | Path, size: tuple[int, int], mpp: float | None
) -> harness.Facts:
    """`wsiseg run` on a folder of tiny slides, less a run on one of them, less bare inference."""
    from wsiseg.bench.run import opened
    from wsiseg.bench.stages import fill_slots, infer
    from wsiseg.limits import available_cores
    from wsiseg.pipeline.config import RunConfig
    from wsiseg.pipeline.start import start

    slides = folder / "slides"
    slides.mkdir(parents=True)
    tiny(slides, count, size, mpp)
    first = slides / "slide0000.tif"
    options = ("--model", model, "--quiet", "--fresh")
    one = tree.checked(tree.wsiseg("run", first, "-o", folder / "one.csv", *options))
    many = tree.checked(tree.wsiseg("run", slides, "-o", folder / "many.csv", *options))
    config = RunConfig(models=(str(model),), threads=available_cores())
    with start(config) as started, opened(started.processor, str(first)) as job:
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
        f"model {Path(model).stem}; each slide's record is flushed to the disk",
        "CPU time is of all processes and threads",
    ]
    return harness.facts(
        f"A folder of {count} slides of {size[1]} x {size[0]}",
        ("what", "ms on the clock", "ms of CPU"),
        rows,
        notes,
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
        light = folder / "light.onnx"
        # Tiles of a network that takes next to nothing, so that two large numbers are not subtracted from each other.
        light.write_bytes(networks.onnx_model(networks.light(), "light", tile=512))
        tables = [
            first_batch(folder / "slide0000.tif", args.rounds),
            folder_of(args.slides, folder / "light", light, (400, 600), None),
            folder_of(max(2, args.slides // 10), folder / "bundled", DEFAULT_MODEL, (512, 512), 4.0),
        ]
    if args.slides >= 1000:
        harness.write("startup", tables, ["numpy", "numba", "openvino"])


if __name__ == "__main__":
    main()
