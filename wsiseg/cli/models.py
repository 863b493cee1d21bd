"""`wsiseg models`: the bundled models, and what their specs say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wsiseg.errors import ModelError
from wsiseg.model import load, onnxio
from wsiseg.model.enginefile import EngineFile
from wsiseg.model.spec import ModelSpec
from wsiseg.units import format_bytes

HELP = "List the bundled models, or tell what is in model files: .onnx, .pt and .engine."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="*", metavar="MODEL", help="model files or names (default: all bundled ones)"
    )
    parser.add_argument(
        "--json", action="store_true", help="everything as one JSON object on standard output"
    )


def main(args: argparse.Namespace) -> int:
    refs = args.model or list(load.bundled_names())
    specs = {ref: spec_of(ref) for ref in refs}
    if args.json:
        print(json.dumps({ref: spec.to_dict() for ref, spec in specs.items()}, indent=2, ensure_ascii=False))
        return 0
    if not refs:
        print(
            "no model is bundled with this installation; give a .onnx, .pt or .engine file to `wsiseg run --model`"
        )
        return 0
    console = Console(highlight=False)
    for ref, spec in specs.items():
        console.print(describe(ref, spec))
    return 0


def spec_of(ref: str) -> ModelSpec:
    """The spec of a model file or bundled name.

    Raises:
        ModelError: see `wsiseg.model.load`.
    """
    path = load.resolve(ref)
    if path.suffix == load.ENGINE_SUFFIX:
        return EngineFile.open(path).sidecar.spec
    return onnxio.spec_of(onnxio.parse(load.read_graph(path), ref), ref)


def describe(ref: str, spec: ModelSpec) -> Table:
    """The spec as a table of two columns, without the lines that say nothing."""
    table = Table(
        title=ref, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 2)
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    resolution = f"{spec.mpp:g} microns per network pixel" if spec.mpp else "no physical scale"
    thresholds = ", ".join(f"{t:g}" for t in spec.thresholds)
    area = "square microns" if spec.mpp else "pixels"
    rows = {
        "finds": ", ".join(spec.classes),
        "resolution": f"{resolution}; scale {spec.scale} where a slide has no mpp",
        "tile": f"{spec.tile} (multiples of {spec.tile_multiple}), overlap {spec.overlap:.0%}, outside {spec.fill}",
        "threshold": thresholds,
        "objects": f"from {spec.min_area:g} {area}, holes up to {spec.fill_holes:g} filled"
        if spec.min_area or spec.fill_holes
        else "",
        "network": ", ".join(f"{v}" if k == "name" else f"{k} {v}" for k, v in spec.network.items()),
        "trained on": spec.trained_on,
        "scores": ", ".join(f"{k} {v:g}" for k, v in spec.scores.items()),
        "licence": spec.licence,
        "note": spec.note,
        "file": _file(ref),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def _file(ref: str) -> str:
    try:
        path = load.resolve(ref)
        return (
            f"{path.name if path.parent == load.BUNDLED else path}, {format_bytes(Path(path).stat().st_size)}"
        )
    except (ModelError, OSError):
        return ""
