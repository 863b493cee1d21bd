"""`wsiseg build-engine`: compile a model for this machine, compare it with the float32 graph, write plan and sidecar."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from wsiseg.errors import UsageError
from wsiseg.units import format_bytes, parse_bytes

HELP = (
    "Compiles one model (or an ensemble: several, with flips) into one engine file: TensorRT on an NVIDIA GPU, OpenVINO on the "
    "CPU. Beside it goes a sidecar JSON that says what it was built from; both files belong together. `wsiseg run --model "
    "FILE.engine` runs it. A parity report tells how far its masks are from the float32 network's."
)
TILES = 64  # to calibrate and compare with
WITHOUT_SLIDE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="+", metavar="MODEL", help="bundled name, .onnx or .pt; several form an ensemble"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the engine (default: NAME.engine in this folder)"
    )
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="tensorrt, openvino, or auto (default): TensorRT where it can",
    )
    parser.add_argument(
        "--tile", type=int, metavar="T", help="tile edge in network pixels (default: the model's)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=None,
        metavar="B",
        help="largest batch (default: 16 on a GPU, 1 on a CPU)",
    )
    parser.add_argument(
        "--tta",
        default="none",
        metavar="KIND",
        help="test-time flips inside the engine: none (default), flips, d4",
    )
    parser.add_argument("--weights", metavar="W,W", help="the members' weights in an ensemble")
    parser.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="tensorrt: fp16 (default), bf16, fp32; openvino: bf16 (default), int8, fp32",
    )
    parser.add_argument(
        "--slide",
        action="append",
        default=[],
        metavar="TIF",
        help="your slide, to compare (and for int8 to calibrate) on; may be repeated",
    )
    parser.add_argument(
        "--tiles",
        type=int,
        default=TILES,
        metavar="N",
        help=f"tiles to take from the slides (default {TILES})",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the cores granted)")
    parser.add_argument(
        "--force", action="store_true", help="build even if the output is this very engine already"
    )
    group = parser.add_argument_group("TensorRT only")
    group.add_argument(
        "--workspace",
        default="0",
        metavar="BYTES",
        help="scratch the builder may use, like 4GiB (default: its own limit)",
    )
    group.add_argument(
        "--optimization-level",
        type=int,
        default=3,
        metavar="0-5",
        help="how long to search for kernels (default 3)",
    )
    group.add_argument(
        "--timing-cache",
        metavar="FILE",
        help="measured kernel times (default: one per version and GPU in the user's cache)",
    )
    group.add_argument(
        "--refit", action="store_true", help="let weights be exchanged later, at some cost in speed"
    )


def main(args: argparse.Namespace) -> int:
    from wsiseg.backends.run import probabilities
    from wsiseg.engines import build, tiles
    from wsiseg.limits import available_cores
    from wsiseg.model.load import load_models

    runtime, why = build.choose_builder(args.backend)
    if why:
        print(f"building a CPU engine ({why})")
    precision = build.choose_precision(runtime, args.precision)
    if not 0 <= args.optimization_level <= 5:
        raise UsageError(f"--optimization-level {args.optimization_level}: must be between 0 and 5")
    if args.tiles < 1:
        raise UsageError(f"--tiles {args.tiles}: must be at least 1")
    try:
        workspace = parse_bytes(args.workspace)
        weights = [float(w) for w in args.weights.split(",")] if args.weights else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    model = load_models(args.model, weights, args.tta)
    if model.engine is not None:
        raise UsageError(
            f"{args.model[0]}: already an engine; give the model it was built from ({', '.join(model.engine.sidecar.model_refs)})"
        )
    tile = args.tile or model.spec.tile
    batch = args.batch or (16 if runtime == "tensorrt" else 1)
    if tile % model.spec.tile_multiple or tile < 1:
        raise UsageError(
            f"--tile {tile}: model {model.name!r} needs a multiple of {model.spec.tile_multiple}"
        )
    if batch < 1:
        raise UsageError(f"--batch {batch}: must be at least 1")
    threads = args.threads or available_cores()
    if args.slide:
        pictures, source = (
            tiles.slide_tiles(args.slide, model.spec, tile, args.tiles, threads=threads),
            "slide",
        )
    else:
        pictures, source = tiles.procedural_tiles(tile, min(args.tiles, WITHOUT_SLIDE)), "procedural"
    output = Path(args.output or f"{model.name}.engine")
    request = build.Request(
        model=model, precision=precision, tile=tile, batch=batch, tiles=pictures, tiles_from=source, threads=threads,
        workspace=workspace, optimization_level=args.optimization_level, timing_cache=args.timing_cache or "", refit=args.refit,
        command=_command(args), tell=print,
    )  # fmt: skip
    kept = None if args.force else build.up_to_date(output, runtime, request)
    if kept is not None:
        print(
            f"{output}: up to date ({runtime} {kept.sidecar.runtime_version}, {kept.sidecar.precision}); --force builds it again"
        )
        return 0
    engine, report = build.build_engine(runtime, request, output, probabilities)
    print(report.line())
    if source == "procedural":
        print("the tiles were procedural; add --slide SLIDE.tif to compare on your own tissue")
    if not report.passed:
        print(
            f"wsiseg: warning: {output}: masks differ more than {report.limit:.3%}; try another --precision, or more --tiles",
            file=sys.stderr,
        )
    sidecar = engine.sidecar
    sizes = f", tile {sidecar.tile}, batch up to {sidecar.batch}" if sidecar.tile else ", any tile and batch"
    print(
        f"{output}: {runtime} {sidecar.runtime_version} {sidecar.precision}{sizes}, {format_bytes(sidecar.plan_bytes)}; run it with `wsiseg run SLIDES --model {output}`"
    )
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command that builds this engine again, from this folder."""
    words = ["wsiseg", "build-engine", *args.model]
    for option in ("output", "backend", "tile", "batch", "tta", "weights", "precision"):
        value = getattr(args, option)
        if value not in (None, "auto", "none"):
            words += [f"--{option}", str(value)]
    for slide in args.slide:
        words += ["--slide", slide]
    return shlex.join(words + ["--refit"] * args.refit)
