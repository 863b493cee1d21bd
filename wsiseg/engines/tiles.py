"""Tiles to calibrate and compare with: from the user's own slides where given, else procedural tissue.

A slide is streamed once, top to bottom, through the same ring of network rows that `wsiseg run` uses, and tiles with
tissue are drawn by reservoir sampling: any slide, constant memory, the same tiles for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsiseg.errors import SlideError
from wsiseg.model.spec import ModelSpec


def slide_tiles(
    paths: Sequence[str], spec: ModelSpec, tile: int, count: int, seed: int = 0, threads: int = 2
) -> npt.NDArray[np.uint8]:
    """Up to `count` tiles uint8 [n, T, T, 3] with tissue, at the model's resolution, evenly from the slides.

    Raises:
        SlideError: for a slide that cannot be read or shows no tissue.
    """
    rng = np.random.default_rng(seed)
    share = -(-count // len(paths))
    found = [_from_one(path, spec, tile, share, rng, threads) for path in paths]
    return np.concatenate(found)[:count]


def _from_one(
    path: str, spec: ModelSpec, tile: int, count: int, rng: np.random.Generator, threads: int
) -> npt.NDArray[np.uint8]:
    from wsiseg.slide import DecodePool, NetworkReader, open_slide
    from wsiseg_kernels import cpu

    slide = open_slide(path)
    pool = DecodePool(threads)
    kept: list[npt.NDArray[np.uint8]] = []
    try:
        scale = spec.scale
        if slide.mpp and spec.mpp:
            scale = max(1, round(spec.mpp / slide.mpp))
        plan = slide.plan(scale)
        height, width = plan.network.height, plan.network.width
        if height < tile or width < tile:
            raise SlideError(
                path,
                f"{width} x {height} network pixels, smaller than a tile of {tile}",
                "give a larger slide with --slide",
            )
        rows = tile + max(tile, plan.unit)
        reader = NetworkReader(slide, plan, columns=(0, width), rows=rows, pool=pool)
        try:
            reader.start()
            seen = 0
            for y in range(0, height - tile + 1, tile):
                reader.wait(y + tile)
                index = np.arange(y, y + tile) % reader.ring.shape[0]
                for x in range(0, width - tile + 1, tile):
                    window = np.ascontiguousarray(reader.ring[index, x : x + tile])
                    if cpu.tissue_count(window, tile * tile // 4) < tile * tile // 4:
                        continue
                    seen += 1
                    if len(kept) < count:
                        kept.append(window)
                    elif (place := int(rng.integers(seen))) < count:
                        kept[place] = window
                reader.release(y + tile)
        finally:
            reader.close()
    finally:
        pool.close()
        slide.close()
    if not kept:
        raise SlideError(path, f"no tile of {tile} with tissue in it", "give another slide with --slide")
    return np.stack(kept)


def procedural_tiles(tile: int, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """`count` tiles uint8 [n, T, T, 3] of stained-looking blobs on pale ground. They calibrate nothing: parity only."""
    import cv2

    rng = np.random.default_rng(seed)
    tiles = np.empty((count, tile, tile, 3), np.uint8)
    for out in tiles:
        field = np.zeros((tile, tile), np.float32)
        for size in (4, 16, 64):
            coarse = rng.standard_normal((size + 1, size + 1)).astype(np.float32)
            field += cv2.resize(coarse, (tile, tile), interpolation=cv2.INTER_CUBIC) / np.float32(size) ** 0.5
        mix = 1 / (1 + np.exp(-3 * field))[..., None]
        stain = np.array([168.0, 92.0, 150.0]) + rng.normal(0, 12, 3)
        ground = np.array([226.0, 200.0, 222.0]) + rng.normal(0, 6, 3)
        noise = rng.normal(0, 5, (tile, tile, 3))
        out[:] = np.clip(mix * stain + (1 - mix) * ground + noise, 0, 255).astype(np.uint8)
    return tiles
