"""How fast slides are read through the ring, beside the bare decoder on the same files in the same run.

    python -m benchmarks.reader [--size 4096] [LAYOUT ...]

The bare decoder preads each segment and decodes it with imagecodecs, nothing else. The reader does that too, shrinks,
and writes network rows into the ring while a consumer waits for and releases bands of 128 rows. Two threads are compared
with one of the same kind. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from benchmarks.harness import Table, compare, write
from wsiseg.slide import DecodePool, NetworkReader, Slide, open_slide

LAYOUTS: dict[str, dict[str, object]] = {
    "JPEG tiles 256": {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": 85}},
    "JPEG tiles 512": {"tile": (512, 512), "compression": "jpeg", "compressionargs": {"level": 85}},
    "LZW + predictor tiles": {"tile": (256, 256), "compression": "lzw", "predictor": True},
    "deflate tiles": {"tile": (256, 256), "compression": "zlib"},
    "zstd tiles": {"tile": (256, 256), "compression": "zstd"},
    "uncompressed tiles": {"tile": (256, 256)},
    "uncompressed strips": {"rowsperstrip": 16},
    "one uncompressed strip": {"rowsperstrip": 1 << 30},
    "LZW strips": {"rowsperstrip": 8, "compression": "lzw"},
    "planar LZW tiles": {"tile": (256, 256), "compression": "lzw", "planarconfig": "separate"},
    "JPEG 2000 tiles": {"tile": (256, 256), "compression": "jpeg2000", "compressionargs": {"level": 30}},
}
BAND = 128


def picture(size: int) -> np.ndarray:
    """uint8 [size, size, 3] with the statistics of a stained slide, roughly: smooth colours and fine grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    base = np.stack([200 + 40 * np.sin(y / (50 + 9 * c)) * np.cos(x / (37 + 5 * c)) for c in range(3)], -1)
    return np.clip(
        base + rng.normal(0, 5, (size, size, 1)) + rng.normal(0, 2, (size, size, 3)), 0, 255
    ).astype(np.uint8)


@dataclass
class Bare:
    """pread and decode of every segment of a TIFF's first page, by one or two threads."""

    path: Path

    def __post_init__(self) -> None:
        with tifffile.TiffFile(self.path) as tiff:
            page = tiff.pages[0]
            self.segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            code, tables, predictor = int(page.compression), page.jpegtables, int(page.predictor)  # type: ignore[union-attr]
            width = page.tilewidth if page.is_tiled else page.imagewidth  # type: ignore[union-attr]
            samples = 1 if int(page.planarconfig) == 2 else 3  # type: ignore[union-attr]
        self.fd = os.open(self.path, os.O_RDONLY)
        plain: dict[int, Callable[[bytes], object]] = {
            1: lambda d: np.frombuffer(d, np.uint8),
            5: imagecodecs.lzw_decode,
            8: imagecodecs.zlib_decode,
            50000: imagecodecs.zstd_decode,
            34712: imagecodecs.jpeg2k_decode,
            7: lambda d: imagecodecs.jpeg8_decode(d, tables=tables, outcolorspace=2),
        }
        decode = plain[code]
        if predictor == 2:
            inner = decode

            def decode(data: bytes) -> object:
                flat = np.frombuffer(inner(data), np.uint8).reshape(-1, width, samples)
                return imagecodecs.delta_decode(flat, axis=1)

        self.decode = decode
        if code == 1 and len(self.segments) == 1:  # one strip is read in pieces, as any reader has to
            (offset, count), piece = self.segments[0], 1 << 20
            self.segments = [(offset + i, min(piece, count - i)) for i in range(0, count, piece)]

    def run(self, threads: int) -> None:
        def part(first: int) -> None:
            for offset, count in self.segments[first::threads]:
                self.decode(os.pread(self.fd, count, offset))

        if threads == 1:
            part(0)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))


def read(slide: Slide, scale: int, pool: DecodePool) -> None:
    """Every network row through the ring."""
    plan = slide.plan(scale, "0")
    band = max(1, BAND // scale)
    rows = plan.ring_rows(band) + plan.unit
    with NetworkReader(slide, plan, rows=rows, pool=pool) as reader:
        for y in range(0, plan.network.height, band):
            reader.wait(y + band)
            reader.release(y + band)


def layout_table(
    name: str, options: dict[str, object], image: np.ndarray, folder: Path, rounds: int
) -> Table:
    path = folder / "slide.tif"
    data = (
        image
        if options.get("planarconfig") != "separate"
        else np.ascontiguousarray(np.moveaxis(image, -1, 0))
    )
    tifffile.imwrite(path, data, photometric="rgb", metadata=None, **options)
    bare = Bare(path)
    megapixels = image.shape[0] * image.shape[1] / 1e6
    with open_slide(path) as slide, DecodePool(1) as one, DecodePool(2) as two:
        variants = {
            "bare decoder, 1 thread": lambda: bare.run(1),
            "reader, scale 1, 1 thread": lambda: read(slide, 1, one),
            "reader, scale 2, 1 thread": lambda: read(slide, 2, one),
            "reader, scale 4, 1 thread": lambda: read(slide, 4, one),
            "bare decoder, 2 threads": lambda: bare.run(2),
            "reader, scale 1, 2 threads": lambda: read(slide, 1, two),
            "reader, scale 2, 2 threads": lambda: read(slide, 2, two),
            "reader, scale 4, 2 threads": lambda: read(slide, 4, two),
        }
        table = compare(f"How fast is {name} read?", variants, megapixels, rounds=rounds)
    os.close(bare.fd)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="*", metavar="LAYOUT", help=f"of: {', '.join(LAYOUTS)}")
    parser.add_argument("--size", type=int, default=4096, help="side of the square slide (default 4096)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where the files are written (default: a temporary folder)")
    args = parser.parse_args()
    chosen = args.layouts or list(LAYOUTS)
    unknown = [x for x in chosen if x not in LAYOUTS]
    if unknown:
        parser.error(f"unknown layout {unknown[0]!r}; known: {', '.join(LAYOUTS)}")
    image = picture(args.size)
    tables = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in chosen:
            slow = any(word in name for word in ("LZW", "2000"))
            part = image[: args.size // 3, : args.size] if slow else image
            tables.append(
                layout_table(name, LAYOUTS[name], np.ascontiguousarray(part), Path(folder), args.rounds)
            )
    if not args.layouts:
        write("reader", tables, ("numpy", "numba", "imagecodecs", "tifffile"))


if __name__ == "__main__":
    main()
