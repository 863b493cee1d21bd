"""How good is `nuclei` on images that it was not trained on, by the road that every slide takes?

    python -m benchmarks.nuclei_scores nuclei/images nuclei/labels        # writes benchmarks/results/nuclei_scores.*

Images are the held-out fifth of the model's training (`train/recipes/nuclei.toml`, fold 0), split by kind as `wsiseg
prepare --group-by colour` tells them apart. Masks and objects are of `wsiseg run --instances`, scores of `wsiseg evaluate`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2

from benchmarks.harness import facts, write
from wsiseg_train.folds import stratified
from wsiseg_train.prepare import image_kind

NAMES = {"fluorescence": "fluorescence", "colour": "stained tissue", "bright": "bright gray"}


@dataclass(frozen=True)
class Score:
    """Of one image: Dice of the mask, and of the objects the average precision and F1."""

    dice: float
    precision: float
    f1: float


def held_out(images: Path, folds: int = 5) -> dict[Path, str]:
    """The images of fold 0 and the kind of each."""
    kinds = {}
    for path in sorted(images.glob("*.png")):
        kinds[path] = image_kind(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
    chosen = stratified(list(kinds.values()), 0, folds, 0)
    return {path: kind for i, (path, kind) in enumerate(kinds.items()) if i in chosen}


def wsiseg(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def table_of(text: str) -> dict[str, dict[str, str]]:
    """The rows of a CSV by their id."""
    return {row["id"]: row for row in csv.DictReader(text.splitlines())}


def scores(paths: list[Path], labels: Path, model: str) -> dict[str, Score]:
    """Scores by the images' names, from the commands."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "nuclei.csv")
        wsiseg("run", *map(str, paths), "-o", out, "--model", model, "--instances", "--quiet")
        masks = table_of(wsiseg("evaluate", out, str(labels), "--class", "nucleus"))
        objects = table_of(
            wsiseg("evaluate", out.replace(".csv", ".instances.csv"), str(labels), "--instances")
        )
    return {
        p.stem: Score(
            float(masks[p.stem]["dice"]), float(objects[p.stem]["ap"]), float(objects[p.stem]["f1"])
        )
        for p in paths
    }


def row(name: str, found: list[Score]) -> tuple[str | float, ...]:
    means = (statistics.fmean(getattr(s, key) for s in found) for key in ("dice", "precision", "f1"))
    return (name, float(len(found)), *means)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", default="nuclei")
    args = parser.parse_args()
    kinds = held_out(args.images)
    found = scores(list(kinds), args.labels, args.model)
    rows = [
        row(title, [found[path.stem] for path, kind in kinds.items() if kind == name])
        for name, title in NAMES.items()
    ]
    rows.append(row("all", list(found.values())))
    columns = ("kind", "images", "Dice", "average precision, IoU 0.5 to 0.95", "F1 at 0.5")
    table = facts(f"How good is {args.model} on the held-out fifth?", columns, rows, ("means over images",))
    write("nuclei_scores", [table], ["openvino"])


if __name__ == "__main__":
    main()
