"""`wsiseg evaluate`: scores of a submission, or a threshold sweep of a model on its held-out fold."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsiseg.cli.train_extra import numbers, pairs, training
from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.outputs.files import safe_name
from wsiseg.units import parse_width_height

HELP = (
    "Score a submission against the truth: Dice per image and its mean (two empty masks count 1), IoU, precision, recall. "
    "With --instances, one row per object: average precision over IoU 0.5 to 0.95. With --recipe, sweep a checkpoint's threshold."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predicted",
        type=Path,
        help="submission CSV (id,predicted or ImageId,EncodedPixels), or a checkpoint with --recipe",
    )
    parser.add_argument(
        "truth",
        type=Path,
        nargs="*",
        help="CSV, a mask image, or a folder of mask or instance images; several for several annotators",
    )
    parser.add_argument(
        "--instances", action="store_true", help="one row per object (the 2018 Data Science Bowl's format)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", metavar="WIDTHxHEIGHT", help="size of the slide, to check runs against it")
    size.add_argument(
        "--slide", type=Path, help="the slide, for its size and its picture, or a folder of slides for theirs"
    )
    parser.add_argument(
        "--within", type=Path, metavar="IMAGE", help="score only where this image (of any size) is not 0"
    )
    parser.add_argument(
        "--columns", metavar="X0,X1", help="score only these columns of the slide: a region that was held out"
    )
    parser.add_argument(
        "--class",
        dest="label",
        metavar="NAME",
        help="score this class of a submission whose rows are ID:CLASS",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png|DIR",
        help="also draw found, false and missed objects over the slide (--slide FILE, or a folder of slides); a folder gets "
        "ID.compare.png for each image",
    )
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument(
        "--recipe", type=Path, help="sweep the threshold of a checkpoint on the recipe's held-out fold"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a setting of the recipe",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the best threshold into the checkpoint's spec"
    )


def main(args: argparse.Namespace) -> int:
    if args.recipe is not None:
        recipe = training("config").read_recipe(args.recipe, pairs(args.set, "--set"))
        table = training("sweep", "torch", "timm").sweep_checkpoint(args.predicted, recipe, write=args.write)
        _print(table, args.csv)
        return 0
    if not args.truth:
        raise UsageError("give the truth to score against, or --recipe to sweep a checkpoint's threshold")
    table = []
    for truth in args.truth:
        named = {"truth": truth.name} if len(args.truth) > 1 else {}
        table += [{**named, **row} for row in _score(args, truth)]
    _print(table, args.csv)
    return 0


def _score(args: argparse.Namespace, truth: Path) -> list[dict[str, Any]]:
    """The scores of every image against one truth, and their mean."""
    evaluate = training("evaluate")
    if args.instances:
        scores = evaluate.score_instances(args.predicted, truth)
    else:
        columns = None if args.columns is None else numbers(args.columns, "--columns")
        if columns is not None and len(columns) != 2:
            raise UsageError(f"--columns {args.columns}: give two numbers, X0,X1")
        scores = evaluate.score_masks(
            args.predicted,
            truth,
            size=_size(args),
            within=args.within,
            columns=columns,
            label=args.label,
        )
    if not scores:
        raise UsageError(f"{args.predicted}: no image to score")
    rows = [dataclasses.asdict(score) for score in scores]
    if args.picture is not None:
        _pictures(args, truth, [score.id for score in scores])
    mean = {k: sum(r[k] for r in rows) / len(rows) for k in rows[0] if k != "id"}
    return [*rows, {"id": "mean", **mean}]


def _pictures(args: argparse.Namespace, truth: Path, ids: Sequence[str]) -> None:
    """Draws each image's comparison with the truth.

    Raises:
        UsageError: what does not go together. OutputError, SlideError: a file cannot be written or read.
    """
    if args.slide is None:
        raise UsageError("--picture draws over the slide: give it with --slide, or a folder of slides")
    if args.instances or args.within is not None or args.columns is not None:
        raise UsageError("--picture compares whole masks; leave out --instances, --within and --columns")
    if len(args.truth) > 1:
        raise UsageError("--picture compares with one truth; give one")
    from wsiseg.outputs.compare import write_comparison
    from wsiseg.slide import open_slide

    evaluate, folder = training("evaluate"), args.slide.is_dir()
    if args.picture.suffix.lower() != ".png" or args.picture.is_dir():
        args.picture.mkdir(parents=True, exist_ok=True)
    elif len(ids) > 1:
        raise UsageError(f"--picture {args.picture}: {len(ids)} images need a folder")
    for name in ids:
        path = _slide_of(args.slide, name) if folder else args.slide
        target = args.picture / f"{safe_name(name)}.compare.png" if args.picture.is_dir() else args.picture
        with open_slide(path) as slide:
            masks = evaluate.masks_of(args.predicted, truth, name, slide.size, label=args.label)
            counts = write_comparison(target, slide, *masks)
        found, false, missed = counts
        print(f"{target}: {found} found, {false} false, {missed} missed", file=sys.stderr)


def _slide_of(folder: Path, name: str) -> Path:
    from wsiseg.outputs.sizes import SLIDE_SUFFIXES

    for suffix in SLIDE_SUFFIXES:
        if (folder / f"{name}{suffix}").exists():
            return folder / f"{name}{suffix}"
    raise UsageError(f"{folder}: no slide named {name} ({', '.join(SLIDE_SUFFIXES)})")


def _size(args: argparse.Namespace) -> Size | None:
    if args.slide is not None and not args.slide.is_dir():
        from wsiseg.slide import open_slide

        with open_slide(args.slide) as slide:
            return slide.size
    if args.size is None:
        return None
    try:
        return Size(*parse_width_height(args.size))
    except ValueError as error:
        raise UsageError(f"--size: {error}") from error


def _print(rows: Sequence[dict[str, Any]], path: Path | None) -> None:
    names = list(rows[0])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in row.values()])
    if path is not None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerows([names, *[[r[n] for n in names] for r in rows]])
