"""wsiseg beside a typical competition notebook: the same network, tiles, blending weights and slide.

python -m benchmarks.notebook_baseline            # four minutes; needs torch; writes results/notebook.{json,md}
python -m benchmarks.notebook_baseline --size 4096x3072 --only fp32

The notebook: windows with overlap read from the file (tifffile's zarr store), shrunk with OpenCV, batches of 4 through
torch on the CPU, probabilities resized to a full-size canvas of sums and one of weights, then a mask, then the numpy
one-liner. `fp32` is eager torch; `bf16` is autocast with channels_last, its best setting without compiling. Each run is
a process of its own. The peak on a slide of 0.4 gigapixels follows from the canvas and is measured by `--memory-only`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import harness, networks, tree
from benchmarks.mosaic import write_mosaic
from wsiseg.geometry import Size
from wsiseg.units import parse_width_height

TILE, OVERLAP, BATCH = 512, 0.25, 4
SCALE = 2


def notebook(slide: str, precision: str, scale: int, memory_only: bool) -> dict[str, float | str]:
    """What the notebook does; its runs as text and their pixels."""
    import cv2
    import tifffile
    import torch
    import zarr

    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    net = networks.torch_module(networks.unet_resnet34())
    if precision == "bf16":
        net = net.to(memory_format=torch.channels_last)
    store = zarr.open(tifffile.imread(slide, aszarr=True), mode="r")
    height, width, _ = store.shape
    total, weight = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    g = np.exp(-((np.arange(TILE * scale) - (TILE * scale - 1) / 2) ** 2) / (2 * (TILE * scale / 8) ** 2))
    window = np.maximum(np.outer(g, g), 1e-6).astype(np.float32)
    step, edge = round(TILE * (1 - OVERLAP)) * scale, TILE * scale
    places = [(y, x) for y in range(0, height, step) for x in range(0, width, step)]
    if memory_only:
        places = places[:: max(1, len(places) // 12)]
    for at in range(0, len(places), BATCH):
        batch = []
        for y, x in places[at : at + BATCH]:
            pixels = np.asarray(store[y : y + edge, x : x + edge])
            pad = ((0, edge - pixels.shape[0]), (0, edge - pixels.shape[1]), (0, 0))
            pixels = np.pad(pixels, pad, mode="reflect" if min(pixels.shape[:2]) > edge // 2 else "edge")
            batch.append(cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA))
        image = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float()
        image = (image - networks.MEAN) / networks.STD
        if precision == "bf16":
            image = image.to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            result = torch.sigmoid(net(image)).float().numpy()[:, 0]
        for (y, x), probability in zip(places[at : at + BATCH], result, strict=True):
            h, w = min(edge, height - y), min(edge, width - x)
            big = cv2.resize(probability, (edge, edge), interpolation=cv2.INTER_LINEAR)
            total[y : y + h, x : x + w] += (big * window)[:h, :w]
            weight[y : y + h, x : x + w] += window[:h, :w]
    mask = (total / np.maximum(weight, 1e-6)) > 0.5
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return {"rle": " ".join(str(x) for x in runs), "tiles": float(len(places))}


def run_notebook(
    slide: Path, precision: str, scale: int, folder: Path, memory_only: bool = False
) -> tuple[tree.Measured, str, float]:
    out = folder / f"{precision}.json"
    flag = ["--memory-only"] if memory_only else []
    argv = [
        sys.executable,
        "-m",
        "benchmarks.notebook_baseline",
        "--child",
        str(slide),
        str(out),
        "--only",
        precision,
        "--scale",
        str(scale),
        *flag,
    ]
    done = tree.checked(argv)
    data = json.loads(out.read_text())
    return done, str(data["rle"]), float(data["tiles"])


def run_wsiseg(
    slide: Path, model: Path, precision: str, scale: int, folder: Path
) -> tuple[tree.Measured, str]:
    out = folder / f"wsiseg-{precision}.csv"
    argv = tree.wsiseg(
        "run", slide, "-o", out, "--model", model, "--precision", precision, "--scale", scale, "--tissue", "none",
        "--level", "0", "--memory", "2GiB", "--overlap", OVERLAP, "--quiet", "--fresh",
    )  # fmt: skip
    done = tree.checked([str(a) for a in argv])
    return done, out.read_text().splitlines()[1].partition(",")[2]


def agreement(a: str, b: str, size: Size) -> float:
    """Dice of two masks, on their runs."""
    from wsiseg.runs import Runs

    return Runs.from_rle(a, size).dice(Runs.from_rle(b, size))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="9216x6912", help="WIDTHxHEIGHT of the slide that is timed")
    parser.add_argument("--scale", type=int, default=SCALE)
    parser.add_argument("--only", choices=("fp32", "bf16"))
    parser.add_argument("--memory-only", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        Path(args.child[1]).write_text(
            json.dumps(notebook(args.child[0], args.only, args.scale, args.memory_only))
        )
        return
    size = Size(*parse_width_height(args.size))
    precisions = [args.only] if args.only else ["fp32", "bf16"]
    rows: list[tuple[str | float, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "resnet34.onnx"
        model.write_bytes(networks.onnx_model(networks.unet_resnet34(), "resnet34", tile=TILE))
        slide = write_mosaic(folder / "slide.tif", size, 0.8)
        best, own = run_wsiseg(slide, model, "auto", args.scale, folder)
        network = size.over(args.scale)
        stride = round(TILE * (1 - OVERLAP))
        tiles = math.prod(math.ceil((n + TILE - stride) / stride) for n in (network.height, network.width))
        rows.append(
            ("wsiseg, its default precision", best.wall, 1.0, best.cpu, best.peak / 2**20, tiles, 1.0)
        )
        exact, exact_rle = run_wsiseg(slide, model, "fp32", args.scale, folder)
        rows.append(
            (
                "wsiseg, fp32",
                exact.wall,
                exact.wall / best.wall,
                exact.cpu,
                exact.peak / 2**20,
                tiles,
                agreement(exact_rle, own, size),
            )
        )
        for precision in precisions:
            done, rle, count = run_notebook(slide, precision, args.scale, folder)
            rows.append(
                (
                    f"notebook, torch {precision}",
                    done.wall,
                    done.wall / best.wall,
                    done.cpu,
                    done.peak / 2**20,
                    count,
                    agreement(rle, exact_rle if precision == "fp32" else own, size),
                )
            )
        if not args.only:
            large = write_mosaic(folder / "large.tif", Size(20_000, 20_000), 0.7)
            huge, _, _ = run_notebook(large, "bf16", args.scale, folder, memory_only=True)
            ours, _ = run_wsiseg(large, Path("glomeruli"), "auto", 8, folder)
            rows.append(
                (
                    "notebook at 0.4 Gpx: a dozen tiles and the canvas, for its memory",
                    huge.wall,
                    "",
                    huge.cpu,
                    huge.peak / 2**20,
                    12.0,
                    "",
                )
            )
            rows.append(
                (
                    "wsiseg at 0.4 Gpx, bundled network, for its memory",
                    ours.wall,
                    "",
                    ours.cpu,
                    ours.peak / 2**20,
                    "",
                    "",
                )
            )
    columns = ("what", "seconds", "times wsiseg's", "CPU s", "peak MiB", "tiles", "Dice")
    notes = [
        f"slide of {size}, scale {args.scale}, tile {TILE}, overlap {OVERLAP}, U-Net of ResNet34's size with random weights, start-up included",
        "Dice of the masks: of fp32 notebooks with wsiseg in fp32, of all others with wsiseg's default precision",
        "random weights amplify rounding, so the Dice here is a lower bound; trained networks agree to 0.04 % of the pixels",
        "the notebook lays its first tile at the corner and wsiseg a margin further out, so wsiseg runs a few more tiles",
    ]
    table = harness.facts("wsiseg beside a competition notebook", columns, rows, notes)
    if not args.only:
        harness.write("notebook", [table], ["numpy", "torch", "openvino", "zarr", "tifffile"])


if __name__ == "__main__":
    main()
