"""What does a classification head spare? A tile that is decoded against one that is not, and against the whole graph.

python -m benchmarks.presence               # half a minute; writes benchmarks/results/presence.{json,md}

U-Net of ResNet34's size with a head on its encoder, in OpenVINO, one thread; the tiles are the same, the limit decides.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmarks import harness, networks
from wsiseg.backends import SessionOptions, open_session
from wsiseg.model.load import from_graphs

TILE = 512
# What is run, and the limit on a presence of 0.5 that makes it so; 0 is the whole graph as one.
CASES = {"the whole graph": 0.0, "cut in two, decoded": 0.1, "cut in two, not decoded": 0.9}


def tables(rounds: int) -> list[harness.Table]:
    graph = networks.onnx_model(networks.unet_resnet34(), "resnet34", tile=TILE, has_classifier=True)
    model = from_graphs([graph], ["resnet34"])
    image = np.random.default_rng(0).integers(0, 256, (1, TILE, TILE, 3), np.uint8)
    found = []
    for precision in ("auto", "fp32"):
        runs: dict[str, Callable[[], object]] = {}
        described = ""
        for name, limit in CASES.items():
            session = open_session(
                model, SessionOptions(TILE, 1, 1, 1, precision, "cpu", presence=limit), "openvino"
            )
            session.input(0)[:] = image
            described = session.description

            def run(session=session) -> None:  # type: ignore[no-untyped-def]
                session.start(0, 1)
                session.wait(0)

            runs[name] = run
        title = f"A tile of {TILE} with a classification head, {described}"
        found.append(harness.compare(title, runs, TILE * TILE / 1e6, rounds=rounds, clock=time.process_time))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    results = tables(rounds)
    if rounds >= 5:
        harness.write("presence", results, ("numpy", "openvino"))


if __name__ == "__main__":
    main()
