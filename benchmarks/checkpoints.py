"""What do checkpoints within a slide cost, and what does a kill repeat?

python -m benchmarks.checkpoints                        # about six minutes; writes benchmarks/results/checkpoints.{json,md}
python -m benchmarks.checkpoints --size 20000x12000 --kills 2 --dry

One large slide, every tile run: undisturbed without checkpoints, undisturbed with them, and with `kill -9` of the process
at random moments, started again each time. Tiles are counted where they are handed to the network, so what is repeated
holds whatever was on its way when the process died.
"""

from __future__ import annotations

import argparse
import mmap
import random
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness, tree
from wsiseg.geometry import Size
from wsiseg.units import parse_width_height

SIZE = "24000x36000"  # tall, so that a row of tiles is a small part of it
CSV = "out.csv"


@dataclass(frozen=True)
class Run:
    """One slide, through however many processes.

    Attributes:
        tiles: handed to the network, by all of them. seconds: on the clock, all of them.
        waited: seconds that the pipeline spent on saving. saving: seconds of the thread that saves. saves: how many.
            These three of the last process.
        slide: seconds of the slide in the last process. text: its row of the CSV.
    """

    tiles: int
    seconds: float
    waited: float
    saving: float
    saves: int
    slide: float
    text: bytes


def child(slide: str, folder: str, scale: int, threads: int, save: bool) -> None:
    """Segments one slide in this process, goes on where it was, and counts tiles in `folder`/count as it goes."""
    from wsiseg.jobs.folder import JobFolder
    from wsiseg.jobs.manifest import find_slides
    from wsiseg.jobs.merge import merge
    from wsiseg.jobs.segmenter import Segmenter
    from wsiseg.jobs.work import WorkerContext, run_local
    from wsiseg.pipeline.config import RunConfig
    from wsiseg.pipeline.options import RunOptions

    options = RunOptions(tile=512, overlap=0.25, scale=scale, level="0", tissue="none")
    job, manifest = JobFolder.beside(Path(folder) / CSV), find_slides([slide])
    context = WorkerContext(0, job)
    segmenter = Segmenter(RunConfig(memory=6 << 30, threads=threads, options=options), context)
    context.digest = job.claim(segmenter.identity)
    processor = segmenter._processor
    if not save:
        processor.checkpoints = None
    start = processor.session.start
    with open(Path(folder) / "count", "r+b") as file, mmap.mmap(file.fileno(), 8) as counter:

        def counted(slot: int, count: int) -> None:
            (before,) = struct.unpack("<q", counter[:])
            counter[:] = struct.pack("<q", before + count)
            start(slot, count)

        processor.session.start = counted  # type: ignore[method-assign]
        run_local(manifest, job, segmenter, segmenter.identity)
    merge(job, Path(folder) / CSV)


def tiles_of(folder: Path) -> int:
    return int(struct.unpack("<q", (folder / "count").read_bytes())[0])


def play(
    folder: Path, slide: Path, scale: int, threads: int, save: bool = True, kill_at: tuple[int, ...] = ()
) -> Run:
    """Runs the slide to its end; kills it each time this many tiles more were handed to the network."""
    from wsiseg.jobs.folder import JobFolder

    folder.mkdir()
    (folder / "count").write_bytes(struct.pack("<q", 0))
    command = [sys.executable, "-m", "benchmarks.checkpoints", "--child", str(folder), "--slide", str(slide)]
    command += ["--scale", str(scale), "--threads", str(threads), *(["--save"] if save else [])]
    began, pending = time.perf_counter(), list(kill_at)
    while True:
        target = tiles_of(folder) + pending[0] if pending else None
        process = subprocess.Popen(command, cwd=tree.ROOT, env=tree.environment())
        while process.poll() is None and (target is None or tiles_of(folder) < target):
            time.sleep(0.002)
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit(f"the slide's process ended with {process.returncode}")
            break
        process.kill()
        process.wait()
        pending.pop(0)
    seconds = time.perf_counter() - began
    job = JobFolder.beside(folder / CSV)
    manifest = job.manifest()
    assert manifest is not None
    record = job.header(manifest.slides[0])
    assert record is not None
    times, counts = record.stats["times"], record.stats["counts"]
    return Run(
        tiles_of(folder), seconds, times.get("checkpoint", 0.0), times.get("checkpoint, in the background", 0.0),
        counts.get("checkpoints", 0), record.seconds, (folder / CSV).read_bytes(),
    )  # fmt: skip


def table(size: str, scale: int, runs: dict[str, tuple[Run, int]]) -> harness.Facts:
    """A row per run; what is repeated is per kill."""
    plain = next(iter(runs.values()))[0]
    rows: list[tuple[str | float, ...]] = []
    for name, (run, kills) in runs.items():
        repeated = f"{(run.tiles - plain.tiles) / plain.tiles / kills:.1%}" if kills else "-"
        rows.append(
            (
                name,
                run.seconds,
                run.tiles,
                repeated,
                run.saves,
                f"{run.waited / run.slide:.3%}",
                f"{run.saving / run.slide:.3%}",
                "yes" if run.text == plain.text else "NO",
            )
        )
    columns = (
        "run", "seconds", "tiles run", "repeated per kill", "saves", "the pipeline's time for them",
        "their thread's time", "same bytes",
    )  # fmt: skip
    notes = [
        f"slide of {size} at scale {scale}, tile 512, overlap 25 %, every tile run; bundled model",
        "saves and their shares are those of the run's last process; the thread's time is mostly waiting for the disk",
        "seconds are on the clock, with the start of every process; on a shared machine they drift by more than saving takes",
    ]
    return harness.facts("What do checkpoints within a slide cost, and what does a kill repeat?", columns, rows, notes)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default=SIZE, metavar="WIDTHxHEIGHT")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2, help="separate runs that are killed once each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to work; default: the system's temporary folder")
    parser.add_argument("--slide", help="take this slide, and leave it there; default: a synthetic one")
    parser.add_argument("--dry", action="store_true", help="do not write the results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.slide, args.child, args.scale, args.threads, args.save)
        return 0
    from wsiseg.synth import Scene, write_slide

    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        slide = Path(args.slide).absolute() if args.slide else folder / "slide.tif"
        if not args.slide:
            write_slide(slide, Scene(Size(*parse_width_height(args.size)), 1), "tiled-jpeg")

        def run(what: str, save: bool = True, kill_at: tuple[int, ...] = ()) -> Run:
            print(what, flush=True)
            return play(folder / what, slide, args.scale, args.threads, save, kill_at)

        plain = run("without", save=False)
        runs = {"without checkpoints": (plain, 0), "with checkpoints": (run("with"), 0)}
        # spread over the slide, from a fifth on: what comes before is the time in which a new process does not save
        for i in range(args.kills):
            share = 0.2 + 0.75 * (i + dice.random()) / args.kills
            killed = run(f"killed{i}", kill_at=(int(share * plain.tiles),))
            runs[f"killed at {share:.0%}"] = (killed, 1)
        several = tuple(int((0.25 + 0.1 * dice.random()) * plain.tiles) for _ in range(3))
        runs["killed three times"] = (run("several", kill_at=several), 3)
    result = table(args.size, args.scale, runs)
    if not args.dry:
        harness.write("checkpoints", [result], ["numpy", "numba", "openvino"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
