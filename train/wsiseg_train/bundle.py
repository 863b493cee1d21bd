"""Puts a trained checkpoint among the bundled models: NAME.pt in half the bytes, and NAME.onnx, which needs no torch to run.

    python -m wsiseg_train.bundle runs/ship/last.pt wsiseg/model/bundled/glomeruli --score held_out_dice=0.899

Both files hold the same weights, rounded to float16 (the graph keeps them as float32). The model's card, NAME.md, is
written by hand.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from wsiseg.model.onnxio import write_atomic
from wsiseg_train.checkpoint import read_checkpoint, save_checkpoint
from wsiseg_train.export import export_onnx

LIMIT = 10_000_000  # bytes of a file in the repository


def bundle(checkpoint: Path, target: Path, scores: dict[str, float]) -> list[Path]:
    """Writes `target`.pt and `target`.onnx; returns their paths.

    Args:
        scores: replace those in the checkpoint's spec.

    Raises:
        ModelError: a checkpoint that cannot be read, or weights that overflow float16.
        ValueError: a file of more than LIMIT bytes.
    """
    spec, state = read_checkpoint(checkpoint)
    spec = replace(spec, name=target.name, scores=dict(scores))
    small, graph = target.with_suffix(".pt"), target.with_suffix(".onnx")
    save_checkpoint(small, spec, state, half=True)
    write_atomic(graph, export_onnx(small))
    for path in (small, graph):
        if path.stat().st_size > LIMIT:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes; at most {LIMIT} are kept in the repository"
            )
    return [small, graph]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path, help="the bundled model's path without an ending")
    parser.add_argument(
        "--score", action="append", default=[], metavar="NAME=VALUE", help="into the model's spec"
    )
    args = parser.parse_args()
    pairs = (text.partition("=") for text in args.score)
    for path in bundle(args.checkpoint, args.target, {name: float(value) for name, _, value in pairs}):
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
