"""Which network to bundle? Dice on a region that training did not see, against tiles per second, for each candidate.

    python -m benchmarks.model_choice --slide SLIDE.tif --truth MASK.png --truth SECOND.png --within COVERED.png \\
        --columns 0,9048 "compact U-Net=runs/compact/best.pt" "plain U-Net=runs/plain/best.pt"
    python -m benchmarks.model_choice --untrained          # also: the speed of networks that nobody trained here

Dice is of `wsiseg run` and `wsiseg evaluate`, against each truth (each annotator), in the columns that the checkpoints' fold
held out. Speed is of the CPU's default backend: OpenVINO, bf16 where the processor has it, one stream per core.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tree
from benchmarks.harness import Facts, facts, write
from wsiseg.model.load import load_models
from wsiseg.model.spec import ModelSpec

COMPACT = {"name": "compact-unet", "encoder": "resnet18", "depth": 4}
CANDIDATES: dict[str, dict[str, Any]] = {
    "compact 48-96-192": {**COMPACT, "channels": [48, 96, 192, 192], "decoder": [96, 64, 32]},
    "compact 32-64-128": {**COMPACT, "channels": [32, 64, 128, 128], "decoder": [64, 48, 32]},
    "compact 64-128-256": {**COMPACT, "channels": [64, 128, 256, 256], "decoder": [128, 64, 32]},
    "plain U-Net, 24 to 192": {"name": "plain-unet", "width": 24, "depth": 4},
    "U-Net, ResNet18": {"name": "unet", "encoder": "resnet18", "decoder": [256, 128, 64, 32, 16]},
    "U-Net, ResNet34": {"name": "unet", "encoder": "resnet34", "decoder": [256, 128, 64, 32, 16]},
}
SPEED = ("MB ONNX", "tiles/s", "slide Mpx/s")


def rate(data: bytes, tile: int, batch: int, seconds: float) -> float:
    """Tiles per second of an ONNX graph, with as many batches in flight as streams."""
    import openvino as ov

    core = ov.Core()
    hints = {"PERFORMANCE_HINT": "THROUGHPUT"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hints["INFERENCE_PRECISION_HINT"] = "bf16"
    queue = ov.AsyncInferQueue(core.compile_model(core.read_model(data), "CPU", hints))
    image = np.random.default_rng(0).integers(0, 256, (batch, tile, tile, 3), dtype=np.uint8)
    for _ in range(len(queue)):
        queue.start_async({0: image})
    queue.wait_all()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        queue.start_async({0: image})
        done += 1
    queue.wait_all()
    return done * batch / (time.perf_counter() - began)


def speed(data: bytes, spec: ModelSpec, seconds: float) -> tuple[float, float, float]:
    """(megabytes of ONNX, tiles per second, slide megapixels per second at the spec's scale and overlap)."""
    tiles = rate(data, spec.tile, 4, seconds)
    fresh = (spec.tile * (1 - spec.overlap) * spec.scale) ** 2  # slide pixels that a tile adds
    return len(data) / 1e6, tiles, tiles * fresh / 1e6


def wsiseg(*arguments: str) -> str:
    """What the command prints.

    Raises:
        SystemExit: with its own line, when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", *arguments], capture_output=True, text=True, env=tree.environment()
    )
    if done.returncode:
        sys.exit((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout


def dice(model: str, args: argparse.Namespace, folder: Path) -> list[float]:
    """Dice of a model on the slide against each truth, inside the region."""
    out = str(folder / f"{len(list(folder.iterdir()))}.csv")
    wsiseg("run", str(args.slide), "-o", out, "--model", model)
    region = ["--slide", str(args.slide)]
    region += ["--within", str(args.within)] if args.within else []
    region += ["--columns", args.columns] if args.columns else []
    tables = (wsiseg("evaluate", out, str(truth), *region) for truth in args.truth)
    return [float(list(csv.DictReader(table.splitlines()))[-1]["dice"]) for table in tables]


def trained(args: argparse.Namespace) -> Facts:
    """The table of the checkpoints."""
    rows: list[Sequence[str | float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for text in args.checkpoints:
            name, _, path = text.rpartition("=")
            model = load_models([path])
            found = dice(path, args, Path(folder))
            rows.append(
                (name or Path(path).parent.name, *found, *speed(model.onnx_bytes, model.spec, args.seconds))
            )
    titles = [f"Dice, {Path(t).stem}" for t in args.truth]
    notes = (
        f"Dice by `wsiseg run` and `wsiseg evaluate` on {args.slide.name}, columns {args.columns or 'all'}, which the fold held out",
        "batch 4 of the model's tile, the CPU's default backend; slide Mpx/s counts the new pixels of a tile at the model's overlap and scale",
    )
    return facts("Which network to bundle?", ("network", *titles, *SPEED), rows, notes)


def untrained(seconds: float) -> Facts:
    """Speed alone, of networks with random weights: it does not depend on them."""
    from wsiseg_train.export import export_onnx
    from wsiseg_train.networks import build_network

    rows: list[Sequence[str | float]] = []
    for name, network in CANDIDATES.items():
        net = build_network(network, 1).eval()
        spec = ModelSpec(name="choice", tile=512, scale=8, network=network)
        weights = sum(p.numel() for p in net.parameters()) / 1e6
        rows.append((name, weights, *speed(export_onnx(net, spec, tile=512), spec, seconds)))
        print(*rows[-1], flush=True)
    return facts("How quick are the candidates, untrained?", ("network", "M weights", *SPEED), rows, ("tiles of 512, scale 8, 25 % overlap",))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="*", metavar="NAME=CKPT", help="checkpoints or .onnx models")
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--truth", type=Path, action="append", default=[], help="again for each annotator")
    parser.add_argument("--within", type=Path, help="image: score only where it is not 0")
    parser.add_argument("--columns", metavar="X0,X1", help="slide columns that were held out")
    parser.add_argument(
        "--untrained", action="store_true", help="also the speed of networks that nobody trained"
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    if bool(args.checkpoints) != bool(args.slide and args.truth) or not (args.checkpoints or args.untrained):
        parser.error("give checkpoints with --slide and --truth, or --untrained, or both")
    tables = [trained(args)] if args.checkpoints else []
    tables += [untrained(args.seconds)] if args.untrained else []
    write("model_choice", tables, ["openvino", "torch", "timm", "onnx"])


if __name__ == "__main__":
    main()
