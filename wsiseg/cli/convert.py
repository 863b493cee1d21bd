"""`wsiseg convert IN... -o OUT`: masks between RLE CSV, GeoJSON, COCO RLE and mask images, both ways."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsiseg.geometry import Size
    from wsiseg.outputs.coco import SlideMasks

HELP = "convert masks between RLE CSV, GeoJSON, COCO RLE, and mask images (TIFF, Zarr, PNG)"

_IMAGES = (".tif", ".tiff", ".png", ".zarr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="IN", help=".csv (RLE), .geojson, .json (COCO), .tif, .zarr or .png"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the format follows from the name: .csv, .json (COCO), .geojson, .tif, .ome.tif, .zarr, .png; "
        "for several slides put {id} into the name of a format that holds one",
    )
    parser.add_argument("--id", action="append", metavar="ID", help="only these slides; may be repeated")
    parser.add_argument(
        "--sizes", metavar="SIZES.csv", help="columns id,height,width; for .csv and .geojson inputs"
    )
    parser.add_argument(
        "--slides", action="append", metavar="SLIDE", help="slides or folders of them, instead of --sizes"
    )
    parser.add_argument(
        "--mpp", type=float, metavar="UM", help="microns per pixel, written where the format has it"
    )
    parser.add_argument(
        "--class",
        dest="label",
        default="",
        metavar="NAME",
        help="only this class; or its name where none is given",
    )
    parser.add_argument(
        "--simplify",
        type=float,
        default=0.0,
        metavar="PX",
        help="GeoJSON outlines may be this many pixels off",
    )
    parser.add_argument("--instances", action="store_true", help="COCO: one annotation per object")


def main(args: argparse.Namespace) -> int:
    from wsiseg.errors import UsageError
    from wsiseg.outputs.sizes import read_sizes, slide_sizes

    if args.mpp is not None and not 0.05 <= args.mpp <= 20:
        raise UsageError(f"--mpp must lie between 0.05 and 20 microns, not {args.mpp:g}")
    if args.simplify < 0:
        raise UsageError(f"--simplify must not be negative, not {args.simplify:g}")
    kind = _format(args.output)
    sizes = read_sizes(args.sizes) if args.sizes else slide_sizes(args.slides) if args.slides else {}
    slides = _read(args, sizes)
    if kind in (".csv", ".json"):
        count = _write_together(args, kind, slides)
    else:
        count = _write_each(args, kind, slides)
    print(f"{args.output}: {count} slide{'' if count == 1 else 's'}")
    return 0


def _format(name: str) -> str:
    from wsiseg.errors import UsageError

    suffix = Path(name).suffix.lower()
    if suffix not in (".csv", ".json", ".geojson", *_IMAGES):
        raise UsageError(
            f"{name}: the format must follow from the extension: .csv .json .geojson {' '.join(_IMAGES)}"
        )
    return suffix


def _read(args: argparse.Namespace, sizes: dict[str, Size]) -> Iterator[SlideMasks]:
    """The masks of all inputs, slide by slide, restricted to what --id and --class ask for.

    Raises:
        UsageError: an input that is wrong, a slide of unknown size, the same slide twice, or one of --id missing.
    """
    from wsiseg.errors import UsageError
    from wsiseg.outputs.coco import SlideMasks

    wanted, seen = set(args.id or []), set()
    for path in args.inputs:
        for slide in _read_one(path, args, sizes, wanted):
            if slide.id in seen:
                raise UsageError(f"{path}: the slide {slide.id!r} occurs twice among the inputs")
            seen.add(slide.id)
            classes = {name or args.label or "mask": runs for name, runs in slide.classes.items()}
            if args.label and len(classes) > 1:
                classes = {name: runs for name, runs in classes.items() if name == args.label}
            yield SlideMasks(slide.id, slide.size, classes, slide.file_name)
    if wanted - seen:
        raise UsageError(f"no mask with the id {sorted(wanted - seen)[0]!r} in {', '.join(args.inputs[:3])}")


def _read_one(
    path: str, args: argparse.Namespace, sizes: dict[str, Size], wanted: set[str]
) -> Iterator[SlideMasks]:
    from wsiseg.errors import UsageError
    from wsiseg.outputs.coco import SlideMasks, read_coco
    from wsiseg.outputs.geojson import read_geojson
    from wsiseg.outputs.images import read_mask
    from wsiseg.outputs.submission import read_rows
    from wsiseg.runs import Runs

    def size_of(name: str) -> Size:
        if name not in sizes:
            raise UsageError(f"{path}: the size of the slide {name!r} is not known; give --sizes or --slides")
        return sizes[name]

    kind = _format(path)
    if kind == ".csv":
        for row in read_rows(path):
            if wanted and row.id not in wanted:
                continue
            try:
                runs = Runs.from_rle(row.rle, size_of(row.id))
            except UsageError as error:
                raise UsageError(f"{path}: line {row.line}, id {row.id!r}: {error}") from None
            yield SlideMasks(row.id, runs.size, {"": runs})
        return
    if kind == ".json":
        yield from (slide for slide in read_coco(path) if not wanted or slide.id in wanted)
        return
    name = Path(path).name[: -len(kind)].removesuffix(".ome")
    if wanted and name not in wanted:
        return
    if kind == ".geojson":
        size = size_of(name)
        yield SlideMasks(name, size, read_geojson(path, size) or {"": Runs.empty(size)})
    else:
        runs = read_mask(path)
        yield SlideMasks(name, runs.size, {"": runs})


def _write_together(args: argparse.Namespace, kind: str, slides: Iterator[SlideMasks]) -> int:
    """A file that holds many slides."""
    from wsiseg.outputs.coco import write_coco
    from wsiseg.outputs.submission import write_submission

    if kind == ".csv":
        return write_submission(args.output, ((s.id, _single(s).to_rle()) for s in slides))
    found = list(slides)
    write_coco(args.output, found, instances=args.instances)
    return len(found)


def _single(slide: SlideMasks):  # type: ignore[no-untyped-def]
    """The only class of a slide."""
    from wsiseg.errors import UsageError
    from wsiseg.runs import Runs

    if len(slide.classes) > 1:
        names = ", ".join(slide.classes)
        raise UsageError(
            f"{slide.id}: a CSV row holds one class, and there are several ({names}); choose with --class"
        )
    return next(iter(slide.classes.values()), Runs.empty(slide.size))


def _write_each(args: argparse.Namespace, kind: str, slides: Iterator[SlideMasks]) -> int:
    """A file for each slide."""
    from wsiseg.errors import UsageError
    from wsiseg.outputs.files import safe_name
    from wsiseg.outputs.geojson import ObjectClass, write_geojson
    from wsiseg.outputs.masks import write_mask_png, write_mask_tiff, write_mask_zarr
    from wsiseg.runs import Runs

    count = 0
    for slide in slides:
        count += 1
        if count > 1 and "{id}" not in args.output:
            raise UsageError(
                f"-o {args.output}: holds one slide, and there are several: put {{id}} into the name"
            )
        path = args.output.replace("{id}", safe_name(slide.id))
        names, masks = list(slide.classes), list(slide.classes.values()) or [Runs.empty(slide.size)]
        if kind == ".geojson":
            classes = [ObjectClass(name, runs) for name, runs in slide.classes.items()]
            write_geojson(path, slide.id, classes, args.mpp, tolerance=args.simplify)
        elif kind == ".zarr":
            write_mask_zarr(path, masks, args.mpp, names=names)
        elif kind == ".png":
            write_mask_png(path, masks)
        else:
            write_mask_tiff(
                path, masks, args.mpp, names=names, ome=path.lower().endswith((".ome.tif", ".ome.tiff"))
            )
    return count
