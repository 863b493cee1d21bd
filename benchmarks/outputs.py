"""What does each output of a slide cost in a real run, in seconds and in memory?

    python -m benchmarks.outputs [--size 40000x40000] [--memory 1GiB] [--folder DIR] [--only-slide]

Writes a synthetic slide (60 % tissue, JPEG pyramid) and runs `wsiseg run` on it once without outputs, once for each of
`--save`, once with `--report`, and once with everything switched on, all under the same budget. Peaks are of the whole process
tree, over all of the run; seconds of outputs are the worker's own, from the slide's record. With --folder the slide stays there
and is used again, so that it can be written beforehand (`--only-slide`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.harness import facts, write
from benchmarks.tree import checked, wsiseg
from wsiseg.geometry import Size
from wsiseg.outputs.kinds import KINDS
from wsiseg.synth import Scene, write_slide
from wsiseg.units import format_bytes, parse_bytes, parse_width_height

EVERYTHING = ("--save", ",".join(KINDS), "--instances", "--report", "{}.html")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="40000x40000")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--folder", help="where the slide is kept (default: a temporary folder)")
    parser.add_argument("--only-slide", action="store_true", help="write the slide and stop")
    args = parser.parse_args()
    size = Size(*parse_width_height(args.size))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"synthetic-{size.width}x{size.height}.tif"
        if not path.exists():
            write_slide(path, Scene(size, 1), "pyramid-jpeg")
        if not args.only_slide:
            measure(path, size, args.memory, folder)


def measure(path: Path, size: Size, memory: str, folder: Path) -> None:
    """The table, printed and written."""
    cases: dict[str, tuple[str, ...]] = {"none": ()}
    cases |= {f"--save {kind}": ("--save", kind) for kind in KINDS}
    cases |= {"--report": ("--report", "{}.html"), "everything": EVERYTHING}
    rows, objects = [], 0
    work = folder / "runs"
    # The first run fills caches, and is not counted.
    for name, words in [("warm", ()), *cases.items()]:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        out = work / "out.csv"
        words = tuple(word.format(out) for word in words)
        done = checked(wsiseg("run", path, "-o", out, "--memory", memory, *words))
        (header,) = [
            json.loads(record.open("rb").readline())
            for record in out.with_name("out.csv.wsiseg").rglob("records/*/*.txt")
        ]
        times = header["stats"]["times"]
        if name == "warm":
            continue
        if name == "everything":
            objects = sum(1 for _ in (work / "out.csv.outputs" / f"{path.stem}.objects.csv").open()) - 1
        written = sum(f.stat().st_size for f in work.rglob("*") if f.is_file() and ".wsiseg" not in str(f))
        rows.append(
            (name, done.wall, done.wall - rows[0][1] if rows else 0.0, done.cpu, times.get("probabilities", 0.0),
             times.get("outputs", 0.0), written / 2**20, done.peak / 2**20)
        )  # fmt: skip
        print(rows[-1], flush=True)
        if done.peak > parse_bytes(memory):
            print(f"over the budget of {memory}: {format_bytes(done.peak)}", flush=True)
    shutil.rmtree(work)
    table = facts(
        f"What does each output of a slide of {size} with {objects} objects cost, under --memory {memory}?",
        ("output", "run, s", "added, s", "CPU s", "keeping probabilities, s", "writing outputs, s", "MiB written", "peak MiB of the tree"),
        rows,
        [
            f"`wsiseg run` with the bundled model glomeruli; the budget is {parse_bytes(memory) / 2**20:,.0f} MiB",
            "the report is made after the workers have ended; its time is only in the first columns",
        ],
    )  # fmt: skip
    write("outputs", [table], ["numpy", "numba", "tifffile", "zarr", "openvino"])


if __name__ == "__main__":
    main()
