"""Does training wait for its tiles? Tiles per second of the input pipeline beside what the network takes, in one run.

    python -m benchmarks.loader                       # a minute or two; writes benchmarks/results/loader.{json,md}
    python -m benchmarks.loader --glomeruli stores/glomeruli --nuclei stores/nuclei      # your own training stores

For each bundled recipe: how many augmented tiles a core makes (in the training process, and in one worker with the copy
between the processes), how many the network trains on when a batch is always there (bf16, 1 and 2 threads), and how many
tiles a second go through training with tiles made in its process, or by a worker beside it. The better one over the network
alone is what the loader costs.
Without stores of your own, synthetic ones are made; what a tile costs hardly depends on what is on it.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.harness import Facts, facts, write
from wsiseg.geometry import Size
from wsiseg.synth import Scene, write_slide
from wsiseg_train.config import Recipe, read_recipe
from wsiseg_train.folds import split_stores
from wsiseg_train.losses import WeightedSum, deep_loss
from wsiseg_train.module import TileSet, outputs_of
from wsiseg_train.networks import build_network
from wsiseg_train.predict import normalise
from wsiseg_train.prepare import PrepareOptions, prepare_slide
from wsiseg_train.store import open_stores
from wsiseg_train.tiles import TileMaker

RECIPES = Path(__file__).resolve().parent.parent / "train" / "recipes"
COLUMNS = ("recipe", "tiles/s in process", "tiles/s of 1 worker", "network alone, 1 thread", "network alone, 2 threads",
           "training, 2 threads, tiles in process", "training, 2 threads and 1 worker", "best share of the network alone")  # fmt: skip
Batch = list[torch.Tensor]


def synthetic(folder: Path, name: str) -> Path:
    """Training stores of painted slides, as the recipe wants them."""
    out = folder / name
    if name == "glomeruli":
        slide = folder / "kidney.tif"
        write_slide(slide, Scene(Size(6000, 8000), seed=1, mpp=1.0), truth=folder / "kidney.csv")  # fmt: skip
        prepare_slide(slide, [folder / "kidney.csv"], out, PrepareOptions(mpp=4.0, classes=("glomerulus",)))
        return out
    rng = np.random.default_rng(0)
    for number in range(8):
        labels, image = np.zeros((400, 520), np.uint16), np.full((400, 520, 3), 235, np.uint8)
        for k in range(60):
            y, x, r = (int(rng.integers(a, b)) for a, b in ((10, 390), (10, 510), (5, 14)))
            cv2.circle(labels, (x, y), r, k + 1, -1)
        image[labels > 0] = (120, 50, 140)
        cv2.imwrite(str(folder / f"n{number}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / f"n{number}_labels.png"), labels)
        options = PrepareOptions(scale=1, classes=("nucleus", "core"), instances=True)
        prepare_slide(folder / f"n{number}.png", [folder / f"n{number}_labels.png"], out, options)
    return out


def batches(recipe: Recipe, maker: TileMaker, workers: int) -> Iterator[Batch]:
    """Endless batches, as `wsiseg train` loads them."""
    extra = {"prefetch_factor": 6} if workers else {}
    yield from DataLoader(
        TileSet(maker, 0, 1 << 30), batch_size=recipe.train.batch, num_workers=workers, **extra
    )  # type: ignore[arg-type]


class Trainer:
    """The recipe's network, losses and optimiser, a step at a time."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        net = build_network(recipe.spec.network, outputs_of(recipe))
        self.net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.loss = WeightedSum(recipe.losses[0].terms)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4)

    def step(self, batch: Batch) -> None:
        image, target, weight = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.train.precision == "bf16"):
            output = self.net(normalise(image, self.recipe.spec))
        weights = weight.float()[:, None] / 255
        value = deep_loss(self.loss, [output.float()], self.recipe.train.deep, target.float() / 255, weights)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer.step()


def rate(source: Iterator[Batch], trainer: Trainer | None, seconds: float, warm: int = 2) -> float:
    """Tiles per second that come out of `source`, and through the trainer where there is one."""
    for _ in range(warm):
        batch = next(source)
        if trainer is not None:
            trainer.step(batch)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        batch = next(source)
        if trainer is not None:
            trainer.step(batch)
        done += len(batch[0])
    return done / (time.perf_counter() - began)


def again(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def measure(name: str, stores: Path, seconds: float) -> tuple[str | float, ...]:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    mixture = dataclasses.replace(recipe.data.mixture, groups=())
    split = split_stores(open_stores([stores]), -1, recipe.data.folds)
    maker = TileMaker(split.train, mixture, recipe.augment, recipe.data.tile, 0)
    cv2.setNumThreads(1)  # a worker's share: torch gives its workers one thread too
    alone = rate(batches(recipe, maker, 0), None, seconds, warm=20)  # the first tiles find cold memory
    worker = rate(batches(recipe, maker, 1), None, seconds, warm=12)  # what was made ahead does not count
    trainer, batch = Trainer(recipe), next(batches(recipe, maker, 0))
    appetite = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        appetite.append(rate(again(batch), trainer, 2 * seconds))
    fed = [rate(batches(recipe, maker, n), trainer, 2 * seconds, warm=6) for n in (0, 1)]
    return name, alone, worker, *appetite, *fed, max(fed) / appetite[-1]


def run(glomeruli: Path | None, nuclei: Path | None, seconds: float) -> Facts:
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name, stores in (("glomeruli", glomeruli), ("nuclei", nuclei)):
            rows.append(measure(name, stores or synthetic(Path(folder), name), seconds))
    kind = "synthetic stores" if glomeruli is None and nuclei is None else "stores given"
    notes = (
        f"{kind}; tiles of 256, batch 8, bf16; tiles per second, 2 cores",
        "a step is forward, loss, backward and AdamW; on 2 cores a worker interrupts the network's 2 threads, which wait for each other, so `wsiseg train` makes the tiles in its own process there",
    )
    return facts("Does training wait for its tiles?", COLUMNS, rows, notes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glomeruli", type=Path, help="training stores of the glomeruli recipe")
    parser.add_argument("--nuclei", type=Path, help="training stores of the nuclei recipe")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    args = parser.parse_args()
    write("loader", [run(args.glomeruli, args.nuclei, args.seconds)], ["torch", "timm", "numpy", "opencv-python-headless"])  # fmt: skip


if __name__ == "__main__":
    main()
