"""`wsiseg synth OUT.tif`: write a synthetic kidney-like slide with its ground truth."""

from __future__ import annotations

import argparse

HELP = "write a synthetic kidney-like slide of any size, with its ground truth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "output", metavar="OUT.tif", help="the slide to write (a folder OUT.zarr for --layout zarr)"
    )
    parser.add_argument(
        "--size", default="12000x9000", metavar="WIDTHxHEIGHT", help="pixels (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which section (default %(default)s)"
    )
    parser.add_argument(
        "--layout",
        default="tiled-jpeg",
        metavar="NAME",
        help="how the pixels lie in the file (default %(default)s); `--layout list` lists them",
    )
    parser.add_argument(
        "--tissue",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="share of tissue, 0 to 1 (default %(default)s)",
    )
    parser.add_argument(
        "--mpp", type=float, default=0.5, metavar="UM", help="microns per pixel (default %(default)s)"
    )
    parser.add_argument(
        "--truth",
        metavar="FILE.csv",
        help="where the ground truth goes (default: beside the slide, .truth.csv)",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default: as many as allowed")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def main(args: argparse.Namespace) -> int:
    from wsiseg.synth.layouts import LAYOUTS

    if args.layout == "list":
        for layout in LAYOUTS.values():
            print(f"{layout.name:16} {layout.what}")
        return 0
    from wsiseg.errors import UsageError
    from wsiseg.geometry import Size
    from wsiseg.synth import Scene, write_slide
    from wsiseg.synth.layouts import layout_named
    from wsiseg.units import format_bytes, format_duration, format_megapixels, parse_width_height

    try:
        size = Size(*parse_width_height(args.size))
    except ValueError as error:
        raise UsageError(f"--size: {error}") from None
    if args.threads < 0:
        raise UsageError(f"--threads must be at least 1, not {args.threads}")
    layout_named(args.layout)
    scene = Scene(size, args.seed, args.mpp, args.tissue)
    if args.quiet:
        write_slide(args.output, scene, args.layout, threads=args.threads, truth=args.truth)
        return 0
    from wsiseg.cli.progress import pixel_progress

    with pixel_progress(f"writing {args.output}", size.pixels) as advance:
        report = write_slide(
            args.output, scene, args.layout, threads=args.threads, truth=args.truth, progress=advance
        )
    print(
        f"{report.path}: {size}, {args.mpp:g} um per pixel, {args.layout}, {format_bytes(report.file_bytes)}, "
        f"{report.glomeruli} glomeruli, in {format_duration(report.seconds)} "
        f"({format_megapixels(size.pixels / max(report.seconds, 1e-9))}/s)"
    )
    print(f"{report.truth}: the ground truth, {report.mask_pixels} mask pixels")
    return 0
