"""Mutates small valid slides and reads them, in a process of its own so that a native crash is counted, not fatal.

    python fuzz_worker.py FOLDER FIRST COUNT     reads mutants FIRST..FIRST+COUNT, one JSON line each on standard output

A mutant is a function of its number only, so any of them can be had again: `python fuzz_worker.py FOLDER N 1`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from slide_samples import picture, plain_shrink, write_tiff

from wsiseg.errors import WsisegError
from wsiseg.slide import DecodePool, NetworkReader, open_slide

PICTURE = picture(96, 112, noise=8)
INTERESTING = [0, 1, 2, 3, 7, 8, 16, 63, 255, 256, 4095, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1]


def pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path, ome=False) as writer:
        how = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib", "metadata": None}
        writer.write(PICTURE, subifds=2, **how)
        for down in (2, 4):
            writer.write(plain_shrink(PICTURE, down), subfiletype=1, **how)


def palette(path: Path) -> None:
    colours = np.arange(768, dtype=np.uint16).reshape(3, 256) * 85
    tifffile.imwrite(
        path, PICTURE[..., 0], photometric="palette", colormap=colours, compression="lzw", metadata=None
    )


def deep(path: Path) -> None:
    tifffile.imwrite(path, PICTURE.astype(np.uint16) * 16, photometric="rgb", rowsperstrip=8, compression="zlib",
                     predictor=True, byteorder=">", metadata=None)  # fmt: skip


def planes(path: Path) -> None:
    tifffile.imwrite(path, np.ascontiguousarray(np.moveaxis(PICTURE, -1, 0)), imagej=True)


SEEDS: dict[str, Callable[[Path], object]] = {
    "jpeg tiles": lambda p: write_tiff(p, PICTURE, tile=(32, 32), compression="jpeg"),
    "jpeg strips": lambda p: write_tiff(p, PICTURE, rowsperstrip=16, compression="jpeg"),
    "lzw": lambda p: write_tiff(p, PICTURE, tile=(32, 48), compression="lzw", predictor=True),
    "deflate, BigTIFF": lambda p: write_tiff(p, PICTURE, rowsperstrip=7, compression="zlib", bigtiff=True),
    "zstd, planar": lambda p: write_tiff(p, PICTURE, planar=True, tile=(48, 32), compression="zstd"),
    "packbits, big-endian": lambda p: write_tiff(
        p, PICTURE, rowsperstrip=9, compression="packbits", byteorder=">"
    ),
    "lzma": lambda p: write_tiff(p, PICTURE, tile=(64, 64), compression="lzma"),
    "webp": lambda p: write_tiff(p, PICTURE, tile=(64, 64), compression="webp"),
    "jpeg 2000": lambda p: write_tiff(p, PICTURE, tile=(64, 64), compression="jpeg2000"),
    "jpeg xl": lambda p: write_tiff(p, PICTURE, tile=(64, 64), compression="jpegxl"),
    "raw strip": lambda p: write_tiff(p, picture(400, 20), rowsperstrip=1 << 20),
    "raw tiles, turned": lambda p: write_tiff(p, PICTURE, tile=(32, 32), extratags=[(274, 3, 1, 6, True)]),
    "pyramid": pyramid,
    "palette": palette,
    "16 bits": deep,
    "three planes": planes,
    "OME": lambda p: tifffile.imwrite(
        p, PICTURE, photometric="rgb", ome=True, tile=(32, 32), compression="zlib"
    ),
    "PNG": lambda p: p.write_bytes(imagecodecs.png_encode(PICTURE)),
    "JPEG": lambda p: p.write_bytes(imagecodecs.jpeg8_encode(PICTURE)),
}


def entries(data: bytes) -> list[tuple[int, int, str]]:
    """(offset, size, byte order) of the IFD entries of a TIFF, of the first page and what follows it."""
    order = {b"II": "little", b"MM": "big"}.get(data[:2])
    if order is None:
        return []
    big = int.from_bytes(data[2:4], order) == 43  # type: ignore[arg-type]
    width, head, entry = (8, 8, 20) if big else (4, 2, 12)
    at = int.from_bytes(data[8:16] if big else data[4:8], order)  # type: ignore[arg-type]
    found: list[tuple[int, int, str]] = []
    while at and len(found) < 400 and at + head <= len(data):
        count = int.from_bytes(data[at : at + head], order)  # type: ignore[arg-type]
        found += [(at + head + i * entry, entry, order) for i in range(count)]
        end = at + head + count * entry
        at = int.from_bytes(data[end : end + width], order)  # type: ignore[arg-type]
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four mutations: bytes anywhere or near the start, fields of IFD entries, blocks, truncation."""
    mutant = bytearray(data)
    tags = entries(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.random()
        size = len(mutant)
        if size < 16:
            break
        if kind < 0.4 and tags:
            at, length, order = rng.choice(tags)
            wide = length == 20
            start, width = rng.choice(
                [(0, 2), (2, 2), (4, 8), (12, 8)] if wide else [(0, 2), (2, 2), (4, 4), (8, 4), (8, 2)]
            )
            value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.getrandbits(32)
            field = (value & ((1 << 8 * width) - 1)).to_bytes(width, order)  # type: ignore[arg-type]
            mutant[at + start : at + start + width] = field
        elif kind < 0.7:
            for _ in range(rng.choice((1, 2, 8))):
                at = rng.randrange(min(size, 512)) if rng.random() < 0.5 else rng.randrange(size)
                mutant[at] = rng.choice((0, 255, mutant[at] ^ (1 << rng.randrange(8)), rng.randrange(256)))
        elif kind < 0.8:
            at, length = rng.randrange(size), rng.randrange(1, 64)
            mutant[at : at + length] = bytes(rng.choice((0, 255)) for _ in range(1)) * min(length, size - at)
        elif kind < 0.9:
            a, b, length = rng.randrange(size), rng.randrange(size), rng.randrange(1, 200)
            mutant[a : a + length] = mutant[b : b + length]
        else:
            del mutant[rng.randrange(size) :]
    return bytes(mutant)


def read(path: Path, scale: int, pool: DecodePool) -> None:
    """Open a mutant and read up to a few megapixels of it, as a run would."""
    with open_slide(path) as slide:
        plan = slide.plan(scale)
        width = min(plan.network.width, max(1, 1_000_000 // max(1, plan.unit)))
        rows = plan.ring_rows(16)
        if rows * width * 3 > 64 * 2**20:
            return  # a run would say that the budget is too small
        with NetworkReader(slide, plan, columns=(0, width), rows=rows, pool=pool) as reader:
            for y in range(0, min(plan.network.height, 4_000_000 // width + 1), 16):
                reader.wait(y + 16)
                reader.release(y + 16)


def main(folder: Path, first: int, count: int) -> None:
    names = list(SEEDS)
    originals = []
    for i, name in enumerate(names):
        path = folder / f"seed-{os.getpid()}-{i}"
        SEEDS[name](path)
        originals.append(path.read_bytes())
        path.unlink()
    target = folder / f"mutant-{os.getpid()}.tif"
    with DecodePool(1) as pool:
        for data in originals:  # what is loaded and compiled on first use is no mutant's doing
            target.write_bytes(data)
            for scale in (1, 3):
                read(target, scale, pool)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, first + count):
            rng = random.Random(number)
            which = rng.randrange(len(names))
            target.write_bytes(mutate(originals[which], rng))
            print(json.dumps({"n": number, "seed": names[which]}), flush=True)
            began, outcome, detail = time.monotonic(), "read", ""
            try:
                read(target, rng.choice((1, 2, 3)), pool)
            except WsisegError as error:
                outcome, detail = "refused", str(error)
                if "reading failed:" in detail or "\n" in detail or not detail.startswith(f"{target}: "):
                    outcome = "wrong error"
            except BaseException as error:
                outcome, detail = "wrong error", repr(error)
            seconds = time.monotonic() - began
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            print(json.dumps({"n": number, "outcome": outcome, "detail": detail[:300], "seconds": round(seconds, 3),
                              "grown": grown * 1024}), flush=True)  # fmt: skip
    target.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
