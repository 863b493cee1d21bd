"""`wsiseg prepare`: slides and labels become training stores."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsiseg.cli.train_extra import numbers, pairs, training
from wsiseg.errors import UsageError, WsisegError

HELP = (
    "Turn slides and their labels into training stores (zarr), at the scale that the network will see. Labels are an RLE CSV "
    "(also a submission, as pseudo-labels), QuPath GeoJSON, mask images or instance images."
)
SLIDES = (".tif", ".tiff", ".svs", ".ome.tif", ".png", ".jpg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slides", nargs="+", type=Path, help="slides, or folders of slides")
    parser.add_argument("--labels", action="append", type=Path, required=True, metavar="PATH",
                        help="a label file, or a folder with one file per slide; again for each further annotator")  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the stores")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--mpp", type=float, help="microns per network pixel")
    scale.add_argument("--scale", type=int, help="slide pixels per network pixel")
    parser.add_argument(
        "--slide-mpp", type=float, help="microns per slide pixel, where the files do not say or are wrong"
    )
    parser.add_argument(
        "--classes",
        default=None,
        help="class names, comma-separated (default: object; nucleus,core with --instances)",
    )
    parser.add_argument("--instances", action="store_true", help="label images hold one number per object")
    parser.add_argument(
        "--label-scale", default="1,1", metavar="X,Y", help="factors from polygon coordinates to slide pixels"
    )
    parser.add_argument(
        "--label-weights", default="", metavar="A,B", help="shares of several annotators in a soft label"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=1.0,
        help="weight of these labels in the loss, 0 to 1 (pseudo-labels)",
    )
    parser.add_argument(
        "--mend-polygons", action="store_true", help="accept polygons that cross themselves (even-odd rule)"
    )
    parser.add_argument(
        "--coverage",
        type=Path,
        help="image of any size, or a folder of them: where it is 0 nothing is learned or scored",
    )
    parser.add_argument(
        "--anatomy", type=Path, help="GeoJSON of structures, or a folder: sets the sampling density"
    )
    parser.add_argument("--anatomy-weights", action="append", default=[], metavar="NAME=WEIGHT",
                        help="weight of a structure (default cortex=0.5, medulla=0.16, background=0.01)")  # fmt: skip
    parser.add_argument(
        "--group-by", choices=("none", "colour"), default="none", help="kinds of images, for stratified folds"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="write what to look at before training, by fold: report.md, report.json, sizes.png, sheets of tiles",
    )
    parser.add_argument("--folds", type=int, default=4, metavar="N", help="folds of the report (default 4)")


def main(args: argparse.Namespace) -> int:
    prepare = training("prepare", "zarr")
    options = _options(args, prepare)
    slides = find_slides(args.slides)
    if len(slides) == 1:
        print(
            "wsiseg: one slide: its folds are regions; tiles drawn at random from it would leak between folds"
        )
    made, failed = [], 0
    for number, slide in enumerate(slides, 1):
        try:
            labels = [label_of(place, slide) for place in args.labels]
            coverage = None if args.coverage is None else label_of(args.coverage, slide)
            anatomy = None if args.anatomy is None else label_of(args.anatomy, slide)
            made.append(
                prepare.prepare_slide(slide, labels, args.out, options, coverage=coverage, anatomy=anatomy)
            )
        except WsisegError as error:
            if len(slides) == 1:
                raise
            failed += 1
            print(f"wsiseg: {error}")
        if number % 100 == 0 or number == len(slides):
            print(f"{number} of {len(slides)} slides, {failed} failed")
    if args.report is not None and made:
        training("report", "zarr").write_report([str(p) for p in made], args.report, args.folds)
        print(f"report in {args.report}")
    return 1 if failed else 0


def _options(args: argparse.Namespace, prepare: object) -> object:
    scale_x_y = numbers(args.label_scale, "--label-scale")
    if len(scale_x_y) != 2:
        raise UsageError(f"--label-scale {args.label_scale}: give two factors, X,Y")
    if not 0 < args.confidence <= 1:
        raise UsageError(f"--confidence {args.confidence}: must be above 0 and at most 1")
    weights = dict(prepare.ANATOMY)  # type: ignore[attr-defined]
    weights.update(
        {
            k: numbers(v, "--anatomy-weights")[0]
            for k, v in pairs(args.anatomy_weights, "--anatomy-weights").items()
        }
    )
    default = "nucleus,core" if args.instances else "object"
    return prepare.PrepareOptions(  # type: ignore[attr-defined]
        mpp=args.mpp, scale=args.scale, slide_mpp=args.slide_mpp, classes=tuple((args.classes or default).split(",")),
        instances=args.instances, label_scale=scale_x_y,
        label_weights=numbers(args.label_weights, "--label-weights") if args.label_weights else (),
        confidence=args.confidence, mend=args.mend_polygons, anatomy=tuple(weights.items()), group_by=args.group_by,
    )  # fmt: skip


def find_slides(paths: list[Path]) -> list[Path]:
    """Slides of files and folders, by name.

    Raises:
        UsageError: nothing is there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not path.name.endswith(".zarr"):
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in SLIDES)
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such slide")
    if not found:
        raise UsageError(f"no slides in {', '.join(map(str, paths))}")
    return found


def label_of(place: Path, slide: Path) -> Path:
    """The label file of a slide: the file itself, or the one of the slide's name in a folder.

    Raises:
        UsageError: a folder without one.
    """
    if not place.is_dir():
        return place
    from wsiseg.slide import slide_id

    name = slide_id(slide)
    found = [p for p in sorted(place.iterdir()) if slide_id(p) == name]
    if not found:
        raise UsageError(f"{place}: no labels for slide {name}")
    return found[0]
