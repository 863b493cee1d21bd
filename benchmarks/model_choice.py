"""Which encoder is quick enough on this CPU to be bundled? Tiles per second of candidate networks, OpenVINO bf16.

    python -m benchmarks.model_choice [--seconds 3]

Untrained weights: speed does not depend on them. Dice is told for the network that was trained (its card says how).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.harness import facts, write
from wsiseg.model.spec import ModelSpec

COMPACT = {"name": "compact-unet", "encoder": "resnet18", "depth": 4}
CANDIDATES: dict[str, dict[str, Any]] = {
    "compact 48-96-192 (bundled)": {**COMPACT, "channels": [48, 96, 192, 192], "decoder": [96, 64, 32]},
    "compact 32-64-128": {**COMPACT, "channels": [32, 64, 128, 128], "decoder": [64, 48, 32]},
    "compact 64-128-256": {**COMPACT, "channels": [64, 128, 256, 256], "decoder": [128, 64, 32]},
    "plain U-Net, 24 to 192": {"name": "plain-unet", "width": 24, "depth": 4},
    "U-Net, ResNet18": {"name": "unet", "encoder": "resnet18", "decoder": [256, 128, 64, 32, 16]},
    "U-Net, ResNet34": {"name": "unet", "encoder": "resnet34", "decoder": [256, 128, 64, 32, 16]},
}


def rate(network: dict[str, Any], tile: int, batch: int, seconds: float) -> tuple[float, float, float]:
    """(tiles per second, million weights, megabytes of ONNX)."""
    import openvino as ov

    from wsiseg_train.export import export_onnx
    from wsiseg_train.networks import build_network

    net = build_network(network, 1).eval()
    spec = ModelSpec(name="choice", tile=tile, network=network)
    data = export_onnx(net, spec, tile=tile)
    core = ov.Core()
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "bf16"}
    model = core.compile_model(core.read_model(data), "CPU", hints)
    queue = ov.AsyncInferQueue(model)
    image = np.random.default_rng(0).integers(0, 256, (batch, tile, tile, 3), dtype=np.uint8)
    for _ in range(len(queue)):
        queue.start_async({0: image})
    queue.wait_all()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        queue.start_async({0: image})
        done += 1
    queue.wait_all()
    weights = sum(p.numel() for p in net.parameters()) / 1e6
    return done * batch / (time.perf_counter() - began), weights, len(data) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    rows = []
    for name, network in CANDIDATES.items():
        speed, weights, size = rate(network, 512, 4, args.seconds)
        area = speed * (512 * 0.75) ** 2 * 64 / 1e6  # new network pixels per tile at 25 % overlap, scale 8
        rows.append((name, weights, size, speed, area))
        print(*rows[-1], flush=True)
    columns = ("network", "M weights", "MB ONNX", "tiles/s", "slide Mpx/s at scale 8")
    notes = (
        "tiles of 512, batch 4, OpenVINO bf16, one stream per core; Mpx/s counts the new pixels of a tile at 25 % overlap",
        "the bundled network: Dice 0.877 on a quarter of the slide that it had not seen (annotators among themselves 0.869)",
    )
    table = facts("Which network is quick enough on a CPU to be bundled?", columns, rows, notes)
    write("model_choice", [table], ["openvino", "torch", "timm", "onnx"])


if __name__ == "__main__":
    main()
