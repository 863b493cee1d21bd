"""`wsiseg import-model`: wrap a foreign network into our graph contract, check it on a tile, say what was found."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsiseg.errors import UsageError

HELP = (
    "Makes a wsiseg model of a foreign network: an ONNX file, or a state dict (.pt, .pth) whose architecture the spec names. "
    "A short TOML file says what it expects and gives; `--example` prints one. From then on it is a model like any other."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="the foreign .onnx, .pt or .pth")
    parser.add_argument("--spec", metavar="TOML", help="what the network expects and gives")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the model (default: NAME.onnx in this folder)"
    )
    parser.add_argument(
        "--slide",
        action="append",
        default=[],
        metavar="TIF",
        help="check it on a tile with tissue of this slide",
    )
    parser.add_argument("--example", action="store_true", help="print an example of the TOML file")


def main(args: argparse.Namespace) -> int:
    from wsiseg.backends.run import probabilities
    from wsiseg.engines import foreign, statedict, tiles
    from wsiseg.model import onnxio
    from wsiseg.model.load import from_graphs

    if args.example:
        print(foreign.EXAMPLE, end="")
        return 0
    if not args.network or not args.spec:
        raise UsageError(
            "a network and --spec SPEC.toml are needed; `wsiseg import-model --example` prints a spec"
        )
    source = Path(args.network)
    described = foreign.read_spec(Path(args.spec))
    if source.suffix in (".pt", ".pth", ".ckpt"):
        data, spec = statedict.to_onnx(source, described.spec), described.spec
    else:
        data, spec = foreign.import_onnx(source, described, print)
    pictures = (
        tiles.slide_tiles(args.slide, spec, spec.tile, 2)
        if args.slide
        else tiles.procedural_tiles(spec.tile, 2)
    )
    result, _ = probabilities(
        from_graphs([data], [str(source)]), pictures, "openvino", "fp32", batch=2, threads=1
    )
    for line in foreign.judge(result, described, str(source)):
        print(line)
    print(
        f"{float((result > spec.thresholds[0]).mean()):.1%} of {len(pictures)} {'' if args.slide else 'procedural '}test tiles is in the mask"
    )
    lacking = foreign.operators(onnxio.parse(data, str(source)), spec.tile, str(source))
    print(f"TensorRT engines: {'its operators are all supported' if not lacking else 'no: ' + lacking}")
    output = Path(args.output or f"{spec.name}.onnx")
    onnxio.write_atomic(output, data)
    print(
        f"{output}: model {spec.name!r}, {', '.join(spec.classes)}, tile {spec.tile}; run it with `wsiseg run SLIDES --model {output}`"
    )
    return 0
