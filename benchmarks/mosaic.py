"""Large slides for nothing: a few hundred JPEG tiles of tissue, painted once, repeated over as many gigapixels as wanted.

Reading one costs as much as reading any JPEG slide of its size; only writing it does not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from wsiseg.geometry import Size, ceil_div
from wsiseg.synth import Scene, write_slide

TILE, BLOCK = 256, 2048
QUALITY = 85


def write_mosaic(path: str | os.PathLike[str], size: Size, tissue: float, seed: int = 1) -> Path:
    """Write a slide of `size` at 0.5 microns per pixel: a square of tissue of this share in the middle, white around it.

    Memory bound: one block of 2048 x 2048 pixels and its tiles.
    """
    path = Path(path)
    block = path.with_name(path.stem + ".block.tif")
    write_slide(
        block, Scene(Size(BLOCK, BLOCK), seed, tissue=1.0), "tiled-raw", truth=block.with_suffix(".csv")
    )
    pixels = tifffile.imread(block)
    block.unlink()
    block.with_suffix(".csv").unlink()
    steps = range(0, BLOCK, TILE)
    painted = [[_encode(pixels[y : y + TILE, x : x + TILE]) for x in steps] for y in steps]
    white = _encode(np.full((TILE, TILE, 3), 244, np.uint8))
    rows, cols = ceil_div(size.height, TILE), ceil_div(size.width, TILE)
    side = math.sqrt(tissue)
    inside_y = range(round(rows * (1 - side) / 2), round(rows * (1 + side) / 2))
    inside_x = range(round(cols * (1 - side) / 2), round(cols * (1 + side) / 2))

    def tiles() -> Iterator[bytes]:
        for i in range(rows):
            for j in range(cols):
                yield painted[i % len(steps)][j % len(steps)] if i in inside_y and j in inside_x else white

    tifffile.imwrite(
        path, tiles(), shape=(size.height, size.width, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="ycbcr",
        subsampling=(2, 2), compression="jpeg", resolution=(20000, 20000), resolutionunit="CENTIMETER", bigtiff=True,
    )  # fmt: skip
    return path


def _encode(pixels: np.ndarray) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(pixels), QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
    )
