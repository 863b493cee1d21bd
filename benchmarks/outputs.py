"""What does each output of a slide cost in a real run, in seconds and in memory?

    python -m benchmarks.outputs [--size 40000x40000] [--memory 1GiB] [--folder DIR] [--only-slide] [--peaks]

Writes a synthetic slide (60 % tissue, JPEG pyramid) and runs `wsiseg run` on it without outputs and with everything switched on,
under the same budget. Peaks are of the whole process tree, over all of the run; seconds of each output are the worker's own, from
the slide's record. `--peaks` adds a run for each output alone, for its own peak. With --folder the
slide stays there and is used again, so that it can be written beforehand (`--only-slide`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.harness import Facts, facts, write
from benchmarks.tree import Measured, checked, wsiseg
from wsiseg.geometry import Size
from wsiseg.outputs.kinds import KINDS
from wsiseg.synth import Scene, write_slide
from wsiseg.units import parse_bytes, parse_width_height

EVERYTHING = ("--save", ",".join(KINDS), "--instances", "--report", "{}.html")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="40000x40000")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--folder", help="where the slide is kept (default: a temporary folder)")
    parser.add_argument("--only-slide", action="store_true", help="write the slide and stop")
    parser.add_argument("--peaks", action="store_true", help="also run each output alone")
    args = parser.parse_args()
    size = Size(*parse_width_height(args.size))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"synthetic-{size.width}x{size.height}.tif"
        if not path.exists():
            write_slide(path, Scene(size, 1), "pyramid-jpeg")
        if args.only_slide:
            return
        tables = [measure(path, size, args.memory, folder)]
        if args.peaks:
            tables.append(alone(path, args.memory, folder))
        shutil.rmtree(folder / "runs", ignore_errors=True)
    write("outputs", tables, ["numpy", "numba", "tifffile", "zarr", "openvino"])


def run(path: Path, work: Path, memory: str, words: tuple[str, ...]) -> tuple[Measured, dict[str, float]]:
    """One run into an empty folder: what it took, and the seconds of its stages."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    out = work / "out.csv"
    done = checked(wsiseg("run", path, "-o", out, "--memory", memory, *(word.format(out) for word in words)))
    (record,) = out.with_name("out.csv.wsiseg").rglob("records/*/*.txt")
    with record.open("rb") as file:
        return done, json.loads(file.readline())["stats"]["times"]


def measure(path: Path, size: Size, memory: str, folder: Path) -> Facts:
    """What each output adds."""
    work = folder / "runs"
    run(path, work, memory, ())  # fills caches, and is not counted
    plain, _ = run(path, work, memory, ())
    full, times = run(path, work, memory, EVERYTHING)
    rows: list[tuple[str | float, ...]] = [
        ("run without outputs", plain.wall, plain.cpu, plain.peak / 2**20),
        ("keeping probabilities", times["probabilities"], "", ""),
    ]
    rows += [(f"--save {kind}", times[f"save {kind}"], "", "") for kind in KINDS]
    rest = times["outputs"] - sum(times[f"save {kind}"] for kind in KINDS)
    rows.append(("mean probability per object", rest, "", ""))
    rows.append(("run with everything, report included", full.wall, full.cpu, full.peak / 2**20))
    table = work / "out.csv.outputs" / f"{path.stem}.objects.csv"
    objects = len(table.read_text().splitlines()) - 1
    return facts(
        f"What does each output of a slide of {size} with {objects} objects cost, under --memory {memory}?",
        ("what", "s", "CPU s", "peak MiB of the tree"),
        rows,
        [
            f"`wsiseg run` with the bundled model glomeruli; the budget is {parse_bytes(memory) / 2**20:,.0f} MiB"
        ],
    )


def alone(path: Path, memory: str, folder: Path) -> Facts:
    """The peak of each output by itself."""
    cases = {f"--save {kind}": ("--save", kind) for kind in KINDS} | {"--report": ("--report", "{}.html")}
    rows = [
        (name, run(path, folder / "runs", memory, words)[0].peak / 2**20) for name, words in cases.items()
    ]
    return facts(
        "What is the peak of a run with this output alone?", ("output", "peak MiB of the tree"), rows
    )


if __name__ == "__main__":
    main()
