"""How fast slides are read through the ring, beside the bare decoder on the same files in the same run.

    python -m benchmarks.reader [--size 8192] [LAYOUT ...]     # six minutes; writes benchmarks/results/reader.{json,md}

"tifffile" is what one writes without this project: `os.pread` and tifffile's `page.decode` for every segment, and the
pixels dropped. The bare decoder is the least that can be done: `preadv` and imagecodecs into buffers that it uses again.
"Bare decoder and rows" also does what cannot be left out: it shrinks each segment (copies it, at scale 1) into network
rows that are used again, as the ring's are. The reader does all of that while a consumer waits for bands of 512 slide
rows and gives them back, and looks for damage. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile

from benchmarks.harness import Facts, Table, compare, facts, write
from wsiseg.slide import DecodePool, NetworkReader, Slide, open_slide
from wsiseg.slide.level import U8, Scratch
from wsiseg_kernels.cpu import shrink

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
BAND = 512
SCALES = (1, 2, 4)
# Slow codecs are measured on the first rows of the picture.
PARTS = {"LZW": 4, "deflate": 4, "2000": 4}
PIECE = 64  # rows of a huge strip that are read at once, as any reader has to
RING = (
    1024  # slide rows that the bare decoder's network rows stand for; whole tiles and strips of every layout
)


def picture(size: int) -> np.ndarray:
    """uint8 [size, size, 3] with the statistics of a stained slide, roughly: smooth colours and fine grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    base = np.stack([200 + 40 * np.sin(y / (50 + 9 * c)) * np.cos(x / (37 + 5 * c)) for c in range(3)], -1)
    return np.clip(
        base + rng.normal(0, 5, (size, size, 1)) + rng.normal(0, 2, (size, size, 3)), 0, 255
    ).astype(np.uint8)


@dataclass
class Usual:
    """`os.pread` and tifffile's decoder for every segment of a TIFF's first page, by one or two threads."""

    path: Path

    def __post_init__(self) -> None:
        self.tiff = tifffile.TiffFile(self.path)
        page = self.tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        self.page, self.fd = page, self.tiff.filehandle.fileno()
        self.segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))

    def run(self, threads: int) -> None:
        def part(first: int) -> None:
            for at in range(first, len(self.segments), threads):
                offset, count = self.segments[at]
                self.page.decode(os.pread(self.fd, count, offset), at, jpegtables=self.page.jpegtables)

        spread(part, threads)


def spread(part: Callable[[int], None], threads: int) -> None:
    """Call `part(k)` for k below `threads`, each in a thread of its own if there are several."""
    if threads == 1:
        part(0)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, range(threads)))


@dataclass
class Bare:
    """pread and decode of every segment of a TIFF's first page, by one or two threads."""

    path: Path

    def __post_init__(self) -> None:
        with tifffile.TiffFile(self.path) as tiff:
            page = tiff.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            self.code, self.tables, self.predictor = (
                int(page.compression),
                page.jpegtables,
                int(page.predictor),
            )
            width, rows = int(page.imagewidth), int(page.imagelength)
            self.height = int(page.tilelength if page.is_tiled else min(page.rowsperstrip, rows))
            self.width = int(page.tilewidth) if page.is_tiled else width
            self.planes = 3 if int(page.planarconfig) == 2 else 1
        self.fd = os.open(self.path, os.O_RDONLY)
        if self.code == 1 and len(segments) == 1:
            (offset, _), self.height = segments[0], PIECE
            line = width * 3
            segments = [(offset + y * line, min(PIECE, rows - y) * line) for y in range(0, rows, PIECE)]
        self.across = -(-width // self.width)
        # One entry for each place: the stored parts of it, one for each plane.
        places = len(segments) // self.planes
        self.places = [segments[i::places] for i in range(places)]

    def decode(self, part: tuple[int, int], slot: int, scratch: Scratch) -> U8:
        """One stored segment as [h, w, samples]."""
        offset, count = part
        data = scratch.take("stored", count)
        os.preadv(self.fd, [data], offset)
        if self.code == 1:
            return data.reshape(-1, self.width, 3)
        samples = 3 // self.planes
        flat = scratch.take(f"decoded{slot}", self.height * self.width * samples)
        out = flat.reshape(self.height, self.width, samples)
        if self.code == 7:
            imagecodecs.jpeg8_decode(data, tables=self.tables, outcolorspace=2, out=out)
        elif self.code == 34712:
            imagecodecs.jpeg2k_decode(data, out=out)
        else:
            names = {5: imagecodecs.lzw_decode, 8: imagecodecs.deflate_decode, 50000: imagecodecs.zstd_decode}
            got = names[self.code](data, out=flat)
            out = np.frombuffer(got, np.uint8).reshape(-1, self.width, samples)
            if self.predictor == 2:
                imagecodecs.delta_decode(out, axis=1, out=out)
        return out

    def run(self, threads: int, scale: int = 0) -> None:
        """Every segment; at a scale of 1 or more also into network rows."""
        ring = np.empty((RING // max(1, scale), self.across * self.width // max(1, scale), 3), np.uint8)

        def part(first: int) -> None:
            scratch = Scratch()
            for at in range(first, len(self.places), threads):
                planes = [self.decode(p, k, scratch) for k, p in enumerate(self.places[at])]
                if scale:
                    self.place(planes, at, scale, ring, scratch)

        spread(part, threads)

    def place(self, planes: list[U8], at: int, scale: int, ring: U8, scratch: Scratch) -> None:
        """Shrink the decoded segment number `at` into the ring."""
        whole = planes[0]
        if len(planes) > 1:
            whole = scratch.take("rgb", whole.size * 3).reshape(*whole.shape[:2], 3)
            cv2.merge(planes, whole)
        y, x = (at // self.across * self.height) % RING // scale, at % self.across * self.width // scale
        high, wide = -(-whole.shape[0] // scale), -(-whole.shape[1] // scale)
        shrink(whole, scale, ring[y : y + high, x : x + wide])


def read(slide: Slide, scale: int, pool: DecodePool) -> None:
    """Every network row through the ring."""
    plan = slide.plan(scale, "0")
    band = max(1, BAND // scale)
    rows = plan.ring_rows(band) + plan.unit
    with NetworkReader(slide, plan, rows=rows, pool=pool) as reader:
        for y in range(0, plan.network.height, band):
            reader.wait(y + band)
            reader.release(y + band)


def threads_text(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def layout_table(
    name: str, options: dict[str, object], image: np.ndarray, folder: Path, rounds: int
) -> Table:
    """Every variant on one layout."""
    path = folder / "slide.tif"
    data = (
        image
        if options.get("planarconfig") != "separate"
        else np.ascontiguousarray(np.moveaxis(image, -1, 0))
    )
    tifffile.imwrite(path, data, photometric="rgb", metadata=None, **options)
    bare, usual = Bare(path), Usual(path)
    megapixels = image.shape[0] * image.shape[1] / 1e6
    with open_slide(path) as slide, DecodePool(1) as one, DecodePool(2) as two:
        variants: dict[str, Callable[[], None]] = {}
        for threads, pool in ((1, one), (2, two)):
            text = threads_text(threads)
            variants[f"tifffile, {text}"] = lambda n=threads: usual.run(n)  # type: ignore[misc]
            variants[f"bare decoder, {text}"] = lambda n=threads: bare.run(n)  # type: ignore[misc]
            for scale in SCALES:
                variants[f"bare decoder and rows, scale {scale}, {text}"] = (
                    lambda n=threads, s=scale: bare.run(n, s)  # type: ignore[misc]
                )
                variants[f"reader, scale {scale}, {text}"] = lambda p=pool, s=scale: read(slide, s, p)  # type: ignore[misc]
        table = compare(f"How fast is {name} read?", variants, megapixels, rounds=rounds)
    os.close(bare.fd)
    usual.tiff.close()
    return table


def summary(tables: dict[str, Table]) -> Facts:
    """The layouts in one table: shares of the bare decoder's speed, and what a second thread brings."""
    first, second = threads_text(1), threads_text(2)
    bases = {"tifffile": "tifffile", "bare": "bare decoder"}
    columns = ["layout", "bare Mpx/s"]
    columns += [f"reader / {base}, scale {s}" for base in (*bases, "bare and rows") for s in SCALES]
    columns += [f"2 threads / 1: {what}" for what in (*bases, *(f"reader, scale {s}" for s in SCALES))]
    rows = []
    for name, table in tables.items():
        rate = {row.variant: row.rate for row in table.rows}
        reader = {s: rate[f"reader, scale {s}, {first}"] for s in SCALES}
        row: list[str | float] = [name, rate[f"bare decoder, {first}"]]
        row += [reader[s] / rate[f"{base}, {first}"] for base in bases.values() for s in SCALES]
        row += [reader[s] / rate[f"bare decoder and rows, scale {s}, {first}"] for s in SCALES]
        row += [rate[f"{base}, {second}"] / rate[f"{base}, {first}"] for base in bases.values()]
        row += [rate[f"reader, scale {s}, {second}"] / reader[s] for s in SCALES]
        rows.append(row)
    notes = [
        "tifffile: os.pread and page.decode; bare: preadv and imagecodecs into reused buffers; bare and rows: that, and shrinking (copying, at scale 1) into network rows",
        "the reader also checks every segment for damage and hands the rows to a consumer",
        "uncompressed pixels are not decoded at all: there the bare decoder reads into a buffer that stays in the processor's cache, and any use of the pixels costs as much again",
    ]
    return facts("How much of the bare decoder's speed does the reader reach?", columns, rows, notes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="*", metavar="LAYOUT", help=f"of: {', '.join(LAYOUTS)}")
    parser.add_argument("--size", type=int, default=8192, help="side of the square slide (default 8192)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where the files are written (default: a temporary folder)")
    args = parser.parse_args()
    chosen = args.layouts or list(LAYOUTS)
    unknown = [x for x in chosen if x not in LAYOUTS]
    if unknown:
        parser.error(f"unknown layout {unknown[0]!r}; known: {', '.join(LAYOUTS)}")
    image = picture(args.size)
    tables: dict[str, Table] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in chosen:
            part = next((n for word, n in PARTS.items() if word in name), 1)
            pixels = np.ascontiguousarray(image[: max(256, args.size // part)])
            tables[name] = layout_table(name, LAYOUTS[name], pixels, Path(folder), args.rounds)
    found = summary(tables)
    if not args.layouts:
        write("reader", [found, *tables.values()], ("numpy", "numba", "imagecodecs", "tifffile"))


if __name__ == "__main__":
    main()
