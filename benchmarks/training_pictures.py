"""The pictures of the README's training section: what the four commands write, on synthetic slides.

    python -m benchmarks.training_pictures            # a few minutes; writes train/pictures/*.jpg and *.png

`prepare` with its report, `train --preview`, `train` (a small network and few steps, so that it takes a minute and not an
hour), `run` with its overlay and `evaluate`, as anybody would call them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks import tree

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "train" / "recipes" / "glomeruli.toml"
PICTURES = ROOT / "train" / "pictures"
SMALL = ("network.channels=[24, 48, 96, 96]", "network.decoder=[48, 32, 24]", "data.tile=128", "data.folds=3",
         "data.split=slide", "train.steps=240", "train.epoch=20", "train.warmup=10", "train.ema=0.95")  # fmt: skip


def wsiseg(*arguments: object) -> str:
    """What the command prints.

    Raises:
        SystemExit: with its own line, when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=tree.environment(),
    )
    if done.returncode:
        sys.exit((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout


def shrunk(source: Path, name: str, width: int = 900, rows: float = 1.0) -> None:
    """A picture of the README: the upper `rows` of `source`, at most `width` wide, as JPEG."""
    image = cv2.imread(str(source))
    image = image[: round(image.shape[0] * rows)]
    if image.shape[1] > width:
        size = (width, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(PICTURES / name), image, [cv2.IMWRITE_JPEG_QUALITY, 82])


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        slides, labels = root / "slides", root / "labels"
        slides.mkdir()
        labels.mkdir()
        for seed, name in enumerate(("one", "two", "three"), 1):
            wsiseg("synth", slides / f"{name}.tif", "--size", "3600x2800", "--mpp", 1, "--seed", seed, "--truth", labels / f"{name}.csv", "--quiet")  # fmt: skip
        stores, run = root / "stores", root / "run"
        print(wsiseg("prepare", slides, "--labels", labels, "--mpp", 4, "--classes", "glomerulus", "-o", stores, "--report", root / "report", "--folds", 3))  # fmt: skip
        changes = [t for change in (*SMALL, f'data.stores=["{stores}"]') for t in ("--set", change)]
        wsiseg("train", RECIPE, "-o", run, "--preview", root / "preview.png", *changes)
        print(wsiseg("train", RECIPE, "-o", run, *changes))
        held = held_out(stores)
        wsiseg(
            "run",
            slides / f"{held}.tif",
            "-o",
            root / "out.csv",
            "--model",
            run / "best.pt",
            "--save",
            "overlay",
        )
        print(wsiseg("evaluate", root / "out.csv", labels / f"{held}.csv"))
        shrunk(root / "report" / "tiles.png", "report.jpg")
        shrunk(root / "preview.png", "preview.jpg", rows=0.5)
        shrunk(next((root / "out.csv.outputs").glob("*overlay*")), "overlay.jpg")
        for name, source in (("curves.png", run), ("sizes.png", root / "report")):
            image = cv2.imread(str(source / name))
            cv2.imwrite(str(PICTURES / name), np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    for path in sorted(PICTURES.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def held_out(stores: Path) -> str:
    """The slide that fold 0 holds out."""
    from wsiseg_train.folds import split_stores
    from wsiseg_train.store import open_stores

    return split_stores(open_stores([stores]), 0, 3, "slide").held[0].store.info.id


if __name__ == "__main__":
    main()
