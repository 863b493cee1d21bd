"""How fast are the precisions of one model on this CPU, and how far are their masks from float32?

python -m benchmarks.engines --slide SLIDE.tif        # some minutes; writes benchmarks/results/engines.{json,md}
python -m benchmarks.engines --quick                  # procedural tiles, nothing written
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import harness
from wsiseg.backends import SessionOptions, open_session
from wsiseg.backends.run import probabilities, run_tiles
from wsiseg.engines import build, tiles
from wsiseg.model.load import LoadedModel, bundled_names, load_models

PACKAGES = ("numpy", "openvino", "nncf", "onnx")


def engines(
    model: LoadedModel, pictures: np.ndarray, source: str, folder: Path, threads: int
) -> tuple[dict[str, LoadedModel], list[str]]:
    """Engines by precision, and what each one's parity report says."""
    found, notes = {}, []
    for precision in ("fp32", "bf16", "int8") if source == "slide" else ("fp32", "bf16"):
        request = build.Request(model, precision, pictures.shape[1], 1, pictures, source, threads)
        _, report = build.build_engine("openvino", request, folder / f"{precision}.engine", probabilities)
        found[precision] = load_models([str(folder / f"{precision}.engine")])
        notes.append(report.line())
    return found, notes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", action="append", default=[])
    parser.add_argument("--model", default=bundled_names()[0] if bundled_names() else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.model is None:
        parser.error("no model is bundled; give one with --model")
    model, threads = load_models([args.model]), len(os.sched_getaffinity(0))
    tile = model.spec.tile
    if args.slide:
        pictures, source = tiles.slide_tiles(args.slide, model.spec, tile, 32, threads=threads), "slide"
    else:
        pictures, source = tiles.procedural_tiles(tile, 4), "procedural"
    with tempfile.TemporaryDirectory() as name:
        built, notes = engines(model, pictures, source, Path(name), threads)
        sessions = {
            p: open_session(m, SessionOptions(tile, 1, threads + 2, threads)) for p, m in built.items()
        }
    batch = pictures[:8]
    variants: dict[str, Callable[[], object]] = {p: partial(run_tiles, s, batch) for p, s in sessions.items()}
    table = harness.compare(
        f"Tiles of {tile} per second of model {model.name}, OpenVINO, {threads} threads", variants, len(batch), "tiles",
        rounds=2 if args.quick else args.rounds, notes=notes,
    )  # fmt: skip
    for session in sessions.values():
        session.close()
    if not args.quick:
        harness.write("engines", [table], PACKAGES)


if __name__ == "__main__":
    main()
