"""The README's tables of formats and of refusals, made from the tests' own lists by reading the slides that they make.

PYTHONPATH=.:kernels:tests/slide python tests/slide/tables.py              prints them
PYTHONPATH=.:kernels:tests/slide python tests/slide/tables.py README.md    puts them between the file's marks
    <!-- slide tables --> and <!-- /slide tables -->
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from slide_samples import LAYOUTS, LOSSLESS, picture, plain_shrink, read_path, write_tiff
from test_slide_broken import REFUSALS
from test_slide_pixels import KINDS

from wsiseg.errors import SlideError
from wsiseg.slide import DecodePool

BEGIN, END = "<!-- slide tables -->", "<!-- /slide tables -->"
CONTAINERS = [
    ("TIFF, BigTIFF", "either byte order, tiles and strips, contiguous and planar, pyramids in pages and sub-images"),
    ("OME-TIFF, ImageJ, 5-D `(1,1,3,H,W)`", "RGB pages, or three gray pages read as red, green and blue"),
    ("Aperio SVS, Hamamatsu NDPI, Leica SCN, Philips, Vectra QPTIFF", "as far as tifffile gives their tiles; labels and thumbnails are skipped"),
    ("OME-Zarr 0.4 and 0.5, zarr v2 and v3", "a chunk is a tile; the chunk's codecs are zarr's"),
    ("PNG, JPEG", "small images, decoded whole"),
]  # fmt: skip


def exact(folder: Path, compression: str, layout: str, pool: DecodePool) -> str:
    """Whether a slide of this kind comes back to the byte, at three scales, planar and not."""
    image, ok = picture(187, 213), []
    for planar in (False, True):
        if planar and compression == "WebP":
            continue
        path = write_tiff(folder / "s.tif", image, planar, **LAYOUTS[layout], **LOSSLESS[compression])
        ok += [np.array_equal(read_path(path, s, pool), plain_shrink(image, s)) for s in (1, 2, 7)]
    return "exact" if all(ok) else "WRONG"


def formats(folder: Path, pool: DecodePool) -> list[str]:
    out = ["| container | what is read |", "|---|---|", *(f"| {a} | {b} |" for a, b in CONTAINERS), ""]
    out += ["| lossless compression | " + " | ".join(LAYOUTS) + " |", "|---|" + "---|" * len(LAYOUTS)]
    for compression in LOSSLESS:
        cells = [exact(folder, compression, layout, pool) for layout in LAYOUTS]
        out.append(f"| {compression} | " + " | ".join(cells) + " |")
    out.append(
        "| JPEG (tables, RGB, YCbCr of every subsampling) | "
        + " | ".join(["as its decoder"] * len(LAYOUTS))
        + " |"
    )
    kinds = []
    for name, make in KINDS.items():
        path = folder / "k.tif"
        want = make(path).astype(np.uint8)
        if np.array_equal(read_path(path, 1, pool), want):
            kinds.append(name)
    return [*out, "", f"Pixels: 8-bit RGB; {'; '.join(kinds)}; the eight orientations.", ""]


def refusals(folder: Path, pool: DecodePool) -> list[str]:
    out = ["| defect | what is said after the file's name |", "|---|---|"]
    for name, make, _, _ in REFUSALS:
        path = folder / "slide.tif"
        make(path)
        try:
            read_path(path, 1, pool)
            said = "(read)"
        except SlideError as error:
            said = error.reason
        out.append(f"| {name} | {said.replace('|', chr(92) + '|')} |")
    return out


def tables() -> str:
    with tempfile.TemporaryDirectory() as folder, DecodePool(2) as pool:
        lines = [*formats(Path(folder), pool), *refusals(Path(folder), pool)]
    return "\n".join(lines)


def main() -> None:
    text = tables()
    if len(sys.argv) < 2:
        print(text)
        return
    target = Path(sys.argv[1])
    old = target.read_text()
    if BEGIN not in old or END not in old:
        sys.exit(f"{target} has no {BEGIN} ... {END}")
    head, rest = old.split(BEGIN, 1)
    target.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
