"""How fast are the kernels against what one would write without them? One core.

python -m benchmarks.kernels            # a few minutes; writes benchmarks/results/kernels.{json,md}
python -m benchmarks.kernels --quick    # small sizes, nothing written
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from benchmarks import harness
from wsiseg_kernels import cpu

TILE, STRIDE = 512, 384

# Everything here runs on the calling thread, OpenCV included (`run` tells it so): count that thread's time.
compare = partial(harness.compare, clock=time.thread_time)


def blobs(h: int, w: int, seed: int = 0) -> np.ndarray:
    """A probability field [h, w] with soft round bodies on a twentieth of it, quantised as `finish` does."""
    rng = np.random.default_rng(seed)
    field = np.zeros((h, w), np.float32)
    reach = min(60, min(h, w) // 2 - 1)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    for _ in range(max(1, h * w // 50_000)):
        cy, cx = rng.integers(reach, h - reach), rng.integers(reach, w - reach)
        body = 1 / (1 + np.exp((np.hypot(y, x * rng.uniform(0.7, 1.3)) - rng.uniform(0.2, 0.6) * reach) / 2))
        window = field[cy - reach : cy + reach + 1, cx - reach : cx + reach + 1]
        np.maximum(window, body, out=window)
    return (np.rint(field * 2**20) / 2**20).astype(np.float32)


def usual_mask(field: np.ndarray, scale: int) -> np.ndarray:
    return cv2.resize(field, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) > 0.5


def usual_runs(mask: np.ndarray) -> str:
    """The encoder of the competition's notebooks."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


class RunKernel:
    """Bands of STRIDE network rows to text, as the pipeline does it."""

    def __init__(self, field: np.ndarray, scale: int) -> None:
        self.field, self.scale = field, scale
        self.height, self.width = field.shape[0] * scale, field.shape[1] * scale
        self.inside, self.prev = np.zeros(self.width, np.uint8), np.zeros(field.shape[1], np.float32)
        self.x, self.y = np.empty(4_000_000, np.int32), np.empty(4_000_000, np.int32)

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        count = 0
        for row in range(0, len(self.field), STRIDE):
            band = self.field[row : row + STRIDE]
            count = cpu.find_transitions(
                band, row, 0, self.scale, self.height, self.width, 0, self.width, 0.5,
                self.inside, self.prev, self.x, self.y, count,
            )  # fmt: skip
        count = cpu.close_transitions(self.inside, 0, self.height, self.x, self.y, count)
        return cpu.transitions_to_runs(self.x[:count], self.y[:count], 0, self.width, self.height)

    def text(self) -> bytes:
        return cpu.encode_runs(*self.runs())


def runs_table(scale: int, pixels: int, rounds: int) -> harness.Table:
    h = int((pixels / 1.25) ** 0.5) // scale
    w = pixels // (h * scale * scale)
    field = blobs(h, w)
    kernel = RunKernel(field, scale)
    mask = np.empty((h * scale, w * scale), np.uint8)
    starts, lengths = kernel.runs()
    cpu.runs_to_mask(starts, lengths, h * scale, 0, 0, mask)
    differ = int((mask != usual_mask(field, scale)).sum())
    return compare(
        f"Probabilities to run-length text at scale {scale}, full-size pixels",
        {
            "cv2.resize + numpy one-liner": lambda: usual_runs(usual_mask(field, scale)),
            "run kernel": kernel.text,
        },
        mask.size / 1e6,
        rounds=rounds,
        notes=(f"{len(starts):,} runs; {differ} of {mask.size:,} pixels differ between the two",),
    )


def blend_table(tiles: int, rounds: int) -> harness.Table:
    width = (tiles - 1) * STRIDE + TILE
    weights = cpu.gaussian_weights(TILE)
    plane = np.outer(weights, weights)
    batch = np.random.default_rng(0).random((4, 1, TILE, TILE), dtype=np.float32)
    # As they come from a session: batches of 4 in the same place.
    probs = [batch[k % 4] for k in range(tiles)]
    acc = np.zeros((1, TILE + STRIDE, width), np.float32)
    votes = np.zeros((TILE + STRIDE, width), np.float32)
    ring = np.zeros_like(acc)

    def numpy() -> None:
        for k, prob in enumerate(probs):
            place = slice(0, TILE), slice(k * STRIDE, k * STRIDE + TILE)
            acc[:, place[0], place[1]] += prob * plane
            votes[place] += plane

    def kernel() -> None:
        for k, prob in enumerate(probs):
            cpu.accumulate(ring, prob, weights, 0, k * STRIDE, 10**6)

    return compare(
        "Blending one row of tiles of 512, network pixels",
        {"numpy with a plane of weights and one of denominators": numpy, "accumulate": kernel},
        tiles * TILE * TILE / 1e6,
        rounds=rounds,
    )


def shrink_table(scale: int, side: int, rounds: int) -> harness.Table:
    block = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    out = np.empty((-(-side // scale), -(-side // scale), 3), np.uint8)
    sums = np.zeros((*out.shape[:1], out.shape[1] + 1, 3), np.uint32)
    size = (out.shape[1], out.shape[0])
    return compare(
        f"Shrinking a block of {side} x {side} by {scale}, slide pixels",
        {
            "cv2 INTER_AREA": lambda: cv2.resize(block, size, interpolation=cv2.INTER_AREA),
            "shrink": lambda: cpu.shrink(block, scale, out),
            "shrink_add (unaligned)": lambda: cpu.shrink_add(block, 0, 1, scale, sums),
        },
        side * side / 1e6,
        rounds=rounds,
    )


def tile_tables(rounds: int) -> list[harness.Table]:
    ring = np.random.default_rng(0).integers(0, 256, (TILE + STRIDE, 8 * TILE, 3), np.uint8)
    out = np.empty((TILE, TILE, 3), np.uint8)
    blank = np.full((TILE, TILE, 3), 243, np.uint8)

    def usual_tissue() -> int:
        hi, lo = blank.max(2), blank.min(2)
        return int(((hi >= 20) & (((hi - lo >= 12) & (lo <= 235)) | (lo <= 200))).sum())

    def gather(y: int, x: int) -> Callable[[], None]:
        return lambda: cpu.gather_tile(ring, y, x, 100_000, 8 * TILE, 0, 0, 0, out)

    work = TILE * TILE / 1e6
    return [
        compare(
            "A tile of 512 out of the ring",
            {
                "numpy copy": lambda: np.copyto(out, ring[100 : 100 + TILE, 700 : 700 + TILE]),
                "gather_tile": gather(100, 700),
                "gather_tile, a quarter mirrored": gather(-64, -64),
            },
            work,
            rounds=rounds,
        ),
        compare(
            "Is there tissue on a blank tile of 512?",
            {"numpy": usual_tissue, "tissue_count": lambda: cpu.tissue_count(blank, 1000)},
            work,
            rounds=rounds,
        ),
    ]


def run(quick: bool = False) -> list[harness.Table]:
    """All tables; `quick` for a look at whether they run at all."""
    cv2.setNumThreads(1)
    rounds, pixels = (3, 200_000) if quick else (11, 48_000_000)
    tables = [runs_table(scale, pixels, rounds) for scale in (1, 2, 4, 8)]
    tables.append(blend_table(2 if quick else 16, rounds))
    tables += [shrink_table(scale, 64 if quick else 512, 5 * rounds) for scale in (2, 3, 4, 8)]
    return tables + tile_tables(5 * rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    quick = parser.parse_args().quick
    tables = run(quick)
    if not quick:
        harness.write("kernels", tables, ("numpy", "numba", "opencv-python-headless"))


if __name__ == "__main__":
    main()
