"""Every layout x compression x byte order x BigTIFF x scale is read to the byte; lossy ones equal their decoder."""

from __future__ import annotations

import itertools
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from slide_samples import LAYOUTS, LOSSLESS, picture, plain_shrink, read_slide, write_tiff

from wsiseg.slide import DecodePool, open_slide

PICTURE = picture(91, 101)
SCALES = (1, 2, 3, 4, 7, 30)
EXPECTED = {s: plain_shrink(PICTURE, s) for s in SCALES}
NO_PLANAR = {"WebP"}


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lossless_equals_the_source(tmp_path: Path, pool: DecodePool, layout: str, compression: str) -> None:
    for planar, order, big in itertools.product((False, True), "<>", (False, True)):
        if planar and compression in NO_PLANAR:
            continue
        path = tmp_path / "slide.tif"
        write_tiff(
            path, PICTURE, planar, byteorder=order, bigtiff=big, **LAYOUTS[layout], **LOSSLESS[compression]
        )
        with open_slide(path) as slide:
            assert (slide.size.height, slide.size.width) == PICTURE.shape[:2]
            for scale in SCALES:
                got = read_slide(slide, scale, pool)
                np.testing.assert_array_equal(
                    got, EXPECTED[scale], f"planar {planar} {order} big {big} 1/{scale}"
                )


@pytest.mark.parametrize("sampling", [(1, 1), (2, 1), (2, 2), (4, 1)], ids=str)
@pytest.mark.parametrize("layout", ["tiles 64x48", "tiles 16x16", "strips of 16", "one strip"])
def test_jpeg_equals_its_decoder(
    tmp_path: Path, pool: DecodePool, layout: str, sampling: tuple[int, int]
) -> None:
    path = tmp_path / "slide.tif"
    how = {"rowsperstrip": 16} if layout == "strips of 16" else LAYOUTS[layout]
    if how.get("tile", (64, 64))[0] % (8 * sampling[1]) or how.get("tile", (64, 64))[1] % (8 * sampling[0]):
        pytest.skip(f"tiles of {how['tile']} do not hold whole blocks of {sampling}")
    write_tiff(path, PICTURE, compression="jpeg", subsampling=sampling, **how)
    decoded = tifffile.imread(path)
    with open_slide(path) as slide:
        for scale in SCALES:
            np.testing.assert_array_equal(read_slide(slide, scale, pool), plain_shrink(decoded, scale))


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_jpeg_stored_as_rgb_or_ycbcr(tmp_path: Path, pool: DecodePool, photometric: str) -> None:
    """The colour space is told by the TIFF tag: Aperio stores RGB in JPEG streams without a marker that says so."""
    clean = picture(128, 192, noise=4)
    stored = "RGB" if photometric == "rgb" else "YCBCR"
    tiles = [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(clean[y : y + 64, x : x + 64]),
            level=98,
            colorspace="RGB",
            outcolorspace=stored,
        )
        for y in (0, 64)
        for x in (0, 64, 128)
    ]
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, iter(tiles), shape=clean.shape, dtype="u1", photometric=photometric, tile=(64, 64), compression="jpeg",
        subsampling=(1, 1) if photometric == "rgb" else (2, 2), metadata=None,
    )  # fmt: skip
    with open_slide(path) as slide:
        got = read_slide(slide, 1, pool)
    np.testing.assert_array_equal(got, tifffile.imread(path))
    assert np.abs(got.astype(int) - clean).mean() < 4


def test_jpeg_with_shared_tables(tmp_path: Path, pool: DecodePool) -> None:
    plain = write_tiff(tmp_path / "plain.tif", PICTURE, compression="jpeg", tile=(64, 64), subsampling=(2, 2))
    whole = tifffile.imread(plain)
    with tifffile.TiffFile(plain) as tiff:
        page = tiff.pages[0]
        tiles = []
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            tiff.filehandle.seek(offset)
            tiles.append(tiff.filehandle.read(count))
    stripped, tables = [], b""
    for tile in tiles:
        at, kept, shared = 2, b"", b""
        while tile[at + 1] != 0xDA:
            size = int.from_bytes(tile[at + 2 : at + 4], "big") + 2
            if tile[at + 1] in (0xDB, 0xC4):
                shared += tile[at : at + size]
            else:
                kept += tile[at : at + size]
            at += size
        stripped.append(b"\xff\xd8" + kept + tile[at:])
        tables = b"\xff\xd8" + shared + b"\xff\xd9"
    path = tmp_path / "tables.tif"
    tifffile.imwrite(
        path, iter(stripped), shape=PICTURE.shape, dtype="u1", photometric="ycbcr", tile=(64, 64), compression="jpeg",
        subsampling=(2, 2), jpegtables=tables, metadata=None,
    )  # fmt: skip
    with pytest.raises(imagecodecs.Jpeg8Error):
        imagecodecs.jpeg8_decode(stripped[0])
    with open_slide(path) as slide:
        for scale in (1, 2, 3):
            np.testing.assert_array_equal(read_slide(slide, scale, pool), plain_shrink(whole, scale))


@pytest.mark.parametrize("writer", ["pages", "shaped", "imagej", "ome"])
@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["strips", "tiles"])
def test_five_axes(tmp_path: Path, pool: DecodePool, writer: str, tile: tuple[int, int] | None) -> None:
    stack = np.ascontiguousarray(np.moveaxis(PICTURE, -1, 0))[None, None]
    options = {"pages": {"metadata": None}, "shaped": {}, "imagej": {"imagej": True}, "ome": {"ome": True}}[
        writer
    ]
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, stack, tile=tile, photometric="minisblack", **options)
    with open_slide(path) as slide:
        for scale in (1, 3):
            np.testing.assert_array_equal(read_slide(slide, scale, pool), EXPECTED[scale])


def test_square_planes_are_not_mistaken_for_channels(tmp_path: Path, pool: DecodePool) -> None:
    square = picture(96, 96)
    for planar in (False, True):
        path = write_tiff(tmp_path / f"{planar}.tif", square, planar, tile=(32, 32))
        with open_slide(path) as slide:
            np.testing.assert_array_equal(read_slide(slide, 1, pool), square)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3), (16, 16), (65, 49)], ids=str)
def test_small_slides(tmp_path: Path, pool: DecodePool, size: tuple[int, int]) -> None:
    small = picture(*size)
    for name, how in LAYOUTS.items():
        path = write_tiff(tmp_path / "slide.tif", small, **how)
        with open_slide(path) as slide:
            for scale in (1, 2, 5, 100):
                np.testing.assert_array_equal(
                    read_slide(slide, scale, pool), plain_shrink(small, scale), name
                )
