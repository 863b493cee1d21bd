"""`wsiseg bench`: how fast this machine could be, how fast it is, which stage holds it back, and what to change."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from wsiseg.cli.options import add_model_options, run_config, settle
from wsiseg.errors import OutputError, UsageError

HELP = """Measure each stage of the pipeline alone and then all of it, on one slide: the ideal for this machine, how close to it
`wsiseg run` comes, what holds it back, and what to change. Takes a minute; two with --sweep."""

SECONDS, LEAST_SECONDS = 40.0, 3.0
SYNTHETIC = "12288x8192"
SEED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("slide")
    source.add_argument("--slide", metavar="FILE", help="a slide of your own (default: a synthetic one)")
    source.add_argument(
        "--synthetic", metavar="WIDTHxHEIGHT", help=f"size of the synthetic slide (default: {SYNTHETIC})"
    )
    source.add_argument(
        "--layout",
        metavar="NAME",
        help="of the synthetic slide; `wsiseg synth --layout list` lists them (default: tiled-jpeg)",
    )
    add_model_options(parser)
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"how long to measure (default: {SECONDS:.0f})"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write every figure there, with machine, versions and commit"
    )
    parser.add_argument(
        "--compare", metavar="OLD.json", help="show the figures beside those of an earlier --json"
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        default=None,
        help="try tile, batch, threads and precision, and write the best for this machine to the user's config",
    )


def main(args: argparse.Namespace) -> int:
    # What the command line says is not swept; what an earlier sweep wrote is where this one begins.
    fixed = {name for name in ("tile", "batch", "threads", "precision") if getattr(args, name) is not None}
    settle(args)
    seconds = SECONDS if args.seconds is None else args.seconds
    if not LEAST_SECONDS <= seconds <= 3600:
        raise UsageError(f"--seconds {seconds:g}: must be between {LEAST_SECONDS:g} and 3600")
    if args.slide and (args.synthetic or args.layout):
        raise UsageError("--slide goes without --synthetic and --layout, which make a slide")
    config = run_config(args)
    from wsiseg.bench.report import Report
    from wsiseg.bench.run import measure
    from wsiseg.cli.bench_show import Show

    old = None
    if args.compare:
        try:
            old = Report.from_json(Path(args.compare).read_text(), args.compare)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--compare {args.compare}: cannot be read ({error})") from error
    show = Show()
    with show.working() as tell:
        path = args.slide or synthetic_slide(
            args.synthetic or SYNTHETIC, args.layout or "tiled-jpeg", config.threads, tell
        )
        chosen: dict[str, int | str] = {}
        if args.sweep:
            from wsiseg.bench.sweep import sweep

            result = sweep(config, path, seconds, fixed, tell)
            chosen = result.changes()
            config = replace(
                config, threads=result.best.threads, precision=result.best.precision,
                options=replace(config.options, tile=result.best.tile, batch=result.best.batch),
            )  # fmt: skip
        report = measure(config, path, seconds, tell=tell)
    if args.sweep:
        from wsiseg.cli.user_config import keep

        show.sweep(result)
        if chosen:
            show.line(f"written to {keep(chosen)}; `wsiseg run` on this machine uses it from now on")
        else:
            show.line("nothing is faster by 5 % than what is set already; nothing was written")
    show.report(report, old)
    if args.json:
        from wsiseg.outputs.files import write_atomically

        write_atomically(args.json, report.to_json().encode())
        show.line(f"every figure: {args.json}")
    return 0


def synthetic_slide(size: str, layout: str, threads: int, tell) -> str:  # type: ignore[no-untyped-def]
    """The path of a synthetic slide, from the user's cache or made now.

    Raises:
        UsageError: for a size or layout that cannot be. OutputError: when it cannot be written.
    """
    from wsiseg.geometry import Size
    from wsiseg.model import cache
    from wsiseg.synth import Scene, write_slide
    from wsiseg.synth.layouts import layout_named
    from wsiseg.units import parse_width_height

    try:
        height, width = parse_width_height(size)
    except ValueError as error:
        raise UsageError(f"--synthetic: {error}") from error
    layout_named(layout)
    folder = cache.folder() / "bench"
    path = folder / f"synthetic-{width}x{height}-{SEED}-{layout}.{'zarr' if layout == 'zarr' else 'tif'}"
    if not path.exists():
        tell(f"painting a synthetic slide of {width} x {height}, once")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error
        write_slide(path, Scene(Size(height, width), SEED), layout, threads=threads)
    return str(path)
