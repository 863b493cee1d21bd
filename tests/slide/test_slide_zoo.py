"""Every file of the zoo is read as an independent reader reads it, or is refused with the message given here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_samples import read_path

from wsiseg.errors import SlideError
from wsiseg.slide import DecodePool

FAX = r"CCITT (RLE|fax [34]) compression is not read"
OJPEG = "old-style JPEG compression is not read"
OUTSIDE = r"(tile|strip) .* of page 0 is damaged: its \d+ bytes at \d+ lie outside the file of \d+ bytes"
SIGNED = r"pixels are signed \d+-bit integers; unsigned ones are read"
REFUSALS: dict[str, str] = {
    "aperio/not_a_tiff_broken.svs": "is not a TIFF, zarr, PNG or JPEG file",
    "instanseg/Fluorescence_example.tif": r"it is a stack of planes \(2 along C\); one RGB or gray image is read",
    "libvips/multi-channel-z-series.ome.tif": r"it is a stack of planes \(3 along C, 5 along Z\)",
    "libvips/ojpeg-strip.tif": OJPEG,
    "libvips/ojpeg-tile.tif": OJPEG,
    "libvips/subsampled.tif": "YCbCr pixels without JPEG compression are not read",
    "openslide-python/unopenable.tiff": "compression 52479 is not read",
    "openslide-python/unreadable.svs": "tile row 0, column 0 of page 0 is damaged: its JPEG headers are garbled",
    "pillow/10ct_32bit_128.tiff": "pixels are 32-bit floating point; 8 and 16-bit integers are read",
    "pillow/16_bit_binary_pgm.tiff": SIGNED,
    "pillow/16bit.s.tif": SIGNED,
    "pillow/8bit.s.tif": SIGNED,
    "pillow/compression.tif": FAX,
    "pillow/crash-0c7e0e8e11ce787078f00b5b0ca409a167f070e0.tif": OUTSIDE,
    "pillow/crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": FAX,
    "pillow/crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": OUTSIDE,
    "pillow/crash-1152ec2d1a1a71395b6f2ce6721c38924d025bf3.tif": OUTSIDE,
    "pillow/crash-1185209cf7655b5aed8ae5e77784dfdd18ab59e9.tif": OUTSIDE,
    "pillow/crash-2020-10-test.tif": "page 0 has 2 strip offsets; 1536 strips need one each",
    "pillow/crash-338516dbd2f0e83caddb8ce256c22db3bd6dc40f.tif": OUTSIDE,
    "pillow/crash-4f085cc12ece8cde18758d42608bed6a2a2cfb1c.tif": OUTSIDE,
    "pillow/crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif": r"page 0 has a predictor \(tag 317\) that cannot be read",
    "pillow/crash-74d2a78403a5a59db1fb0a2b8735ac068a75f6e3.tif": FAX,
    "pillow/crash-86214e58da443d2b80820cff9677a38a33dcbbca.tif": r"page 0 has a JPEG table \(tag 347\) that cannot be read",
    "pillow/crash-f46f5b2f43c370fe65706c11449f567ecc345e74.tif": OUTSIDE,
    "pillow/g4-fillorder-test.tif": FAX,
    "pillow/g4-multi.tiff": FAX,
    **{f"pillow/g4_orientation_{i}.tif": FAX for i in range(1, 9)},
    "pillow/hopper.Lab.tif": "CIELAB pixels are not read",
    "pillow/hopper_g4.tif": FAX,
    "pillow/hopper_g4_500.tif": FAX,
    "pillow/hopper_unknown_pixel_mode.tif": "pixels are 32-bit integers; at most 16 bits are read",
    "pillow/lab-green.tif": "CIELAB pixels are not read",
    "pillow/lab-red.tif": "CIELAB pixels are not read",
    "pillow/lab.tif": "CIELAB pixels are not read",
    "pillow/libtiff_segfault.tif": "page 0 has 65535 samples per pixel; 1 to 4 are read",
    "pillow/old-style-jpeg-compression-no-samplesperpixel.tif": OJPEG,
    "pillow/old-style-jpeg-compression.tif": OJPEG,
    "pillow/oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": r"its TIFF structure is damaged \(corrupted IFD structure\)",
    "pillow/pport_g4.tif": FAX,
    "pillow/seek_too_large.tif": "its TIFF structure has no pages",
    "pillow/separate_planar_extra_samples.tiff": SIGNED,
    # Its strip table was made for strips of 29 rows, its header says one strip of them all.
    "pillow/tiff_overflow_rows_per_strip.tif": r"strip at row 0 of page 0 is damaged: it decodes to 8062 of 17792 bytes",
    "pillow/tiff_wrong_bits_per_sample.tiff": OUTSIDE,
    "pillow/total-pages-zero.tif": FAX,
}


def independent(path: Path) -> Iterator[np.ndarray]:
    """What other readers make of a file, as RGB on white; several when they differ in what they know."""
    with tifffile.TiffFile(path) as tiff:
        for source in (tiff.series[0], tiff.pages[0]):
            array = np.squeeze(source.asarray())
            if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
                array = np.moveaxis(array, 0, -1)
            if array.ndim == 2:
                array = np.repeat(array[..., None], 3, 2)
            if array.dtype == np.uint16:
                used = max(8, int(array.max()).bit_length())
                bits = tiff.pages[0].bitspersample  # type: ignore[union-attr]
                array = (array >> ((bits if bits in (10, 12, 14) else used) - 8)).astype(np.uint8)
            yield array
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(path) as image:
        if image.mode in ("RGBA", "LA", "PA"):
            white = image_module.new("RGBA", image.size, (255, 255, 255, 255))
            white.alpha_composite(image.convert("RGBA"))
            image = white
        yield np.asarray(image.convert("RGB"))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_every_file_of_the_zoo(shared_data: Path, pool: DecodePool) -> None:
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    zoo = shared_data / "tiff_zoo"
    files = sorted(p for p in zoo.rglob("*") if p.is_file())
    assert len(files) > 100
    read, wrong = 0, []
    for path in files:
        name = path.relative_to(zoo).as_posix()
        try:
            got = read_path(path, 1, pool).astype(int)
        except SlideError as error:
            line = str(error)
            if name not in REFUSALS or not re.search(REFUSALS[name], line) or "\n" in line:
                wrong.append(f"{name}: refused with {line}")
            continue
        if name in REFUSALS:
            wrong.append(f"{name}: read, but is to be refused with {REFUSALS[name]}")
            continue
        read += 1
        differences = []
        try:
            for other in independent(path):
                if other.shape == got.shape:
                    differences.append(int(np.abs(other - got).max()))
        except Exception as error:
            differences.append(-1)
            reason = repr(error)
        # One gray level: compositing on white through an 8-bit intermediate rounds twice.
        if not any(0 <= d <= 1 for d in differences):
            wrong.append(f"{name}: differs by {differences} ({reason if -1 in differences else ''})")
    assert not wrong, "\n".join(wrong)
    assert read == len(files) - len(REFUSALS)
