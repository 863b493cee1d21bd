"""A corpus of broken and hostile files: each is refused with the message given here, or read as documented."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from slide_samples import patch_bytes, patch_tag, picture, plain_shrink, read_path, segments, write_tiff

from wsiseg.cli.main import main
from wsiseg.errors import BadSegment, SlideError, UnsupportedSlide
from wsiseg.slide import DecodePool, NetworkReader, open_slide

PICTURE = picture(128, 192)


def tiled(path: Path, **options: object) -> Path:
    return write_tiff(path, PICTURE, **{"tile": (64, 64), **options})


def truncated(path: Path) -> None:
    tiled(path)
    path.write_bytes(path.read_bytes()[:-5000])


def truncated_strip(path: Path) -> None:
    write_tiff(path, picture(600, 100), rowsperstrip=1 << 20)
    path.write_bytes(path.read_bytes()[:-150_000])


def truncated_header(path: Path) -> None:
    tiled(path)
    path.write_bytes(path.read_bytes()[:20])


def garbled_deflate(path: Path) -> None:
    tiled(path, compression="zlib")
    offset, count = segments(path)[4]
    patch_bytes(path, offset + 20, bytes(range(count - 40)) if count < 200 else b"\x55" * (count - 40))


def garbled_zstd(path: Path) -> None:
    tiled(path, compression="zstd")
    patch_bytes(path, segments(path)[4][0], b"\0" * 32)


def short_lzw(path: Path) -> None:
    write_tiff(path, PICTURE, rowsperstrip=32, compression="lzw")
    counts = [c for _, c in segments(path)]
    counts[1] //= 2
    patch_tag(
        path,
        279,
        value=struct.pack(f"<{len(counts)}I", *counts) if max(counts) > 65535 else _counts(path, counts),
    )


def _counts(path: Path, counts: list[int]) -> bytes:
    with tifffile.TiffFile(path) as tiff:
        tag = (tiff.pages[0].tags.get(325) or tiff.pages[0].tags[279]).dtype  # type: ignore[union-attr]
    return struct.pack(f"<{len(counts)}{'H' if int(tag) == 3 else 'I'}", *counts)


def cut_jpeg(path: Path) -> None:
    tiled(path, compression="jpeg")
    counts = [c for _, c in segments(path)]
    counts[2] -= 300
    patch_tag(path, 325, value=_counts(path, counts))


def zeroed_jpeg_end(path: Path) -> None:
    tiled(path, compression="jpeg")
    offset, count = segments(path)[2]
    patch_bytes(path, offset + count // 2, b"\0" * (count - count // 2))


def count_past_end(path: Path) -> None:
    tiled(path, compression="zlib")
    counts = [c for _, c in segments(path)]
    counts[5] = 60000
    patch_tag(path, 325, value=_counts(path, counts))


def short_table(path: Path) -> None:
    tiled(path)
    patch_tag(path, 324, count=4)


def huge_header(path: Path) -> None:
    tiled(path)
    patch_tag(path, 256, value=struct.pack("<I", 10**6)[:4])
    patch_tag(path, 257, value=struct.pack("<I", 10**6)[:4])


def huge_frame(path: Path) -> None:
    tiled(path, compression="jpeg")
    data = path.read_bytes()
    offset, count = segments(path)[3]
    at = data.index(b"\xff\xc0", offset, offset + count)
    patch_bytes(path, at + 5, struct.pack(">HH", 65500, 65500))


def huge_jpeg2000(path: Path) -> None:
    tiled(path, compression="jpeg2000")
    data = path.read_bytes()
    offset, count = segments(path)[3]
    at = data.index(b"\xff\x4f\xff\x51", offset, offset + count)
    patch_bytes(path, at + 8, struct.pack(">II", 2**31, 2**31))


def bomb(path: Path) -> None:
    zeros = imagecodecs.zlib_encode(bytes(300_000_000))
    tifffile.imwrite(
        path, iter([zeros] * 6), shape=PICTURE.shape, dtype="u1", photometric="rgb", tile=(64, 64), compression="zlib",
        metadata=None,
    )  # fmt: skip


def samples_65535(path: Path) -> None:
    tiled(path)
    patch_tag(path, 277, value=struct.pack("<H", 65535))


def huge_strip(path: Path) -> None:
    write_tiff(path, PICTURE, rowsperstrip=1 << 20, compression="lzw")
    patch_tag(path, 256, value=struct.pack("<I", 100_000))
    patch_tag(path, 257, value=struct.pack("<I", 100_000))
    patch_tag(path, 278, value=struct.pack("<I", 100_000))


def no_pages(path: Path) -> None:
    path.write_bytes(b"II*\0" + bytes(12))


def text(path: Path) -> None:
    path.write_text("not a slide at all\n" * 50)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def floats(path: Path) -> None:
    tifffile.imwrite(path, PICTURE.astype(np.float32), photometric="rgb", metadata=None)


def signed(path: Path) -> None:
    tifffile.imwrite(path, PICTURE.astype(np.int16), photometric="rgb", metadata=None)


def wide(path: Path) -> None:
    tifffile.imwrite(path, PICTURE.astype(np.uint32), photometric="rgb", metadata=None)


def complexes(path: Path) -> None:
    tifffile.imwrite(path, PICTURE[..., 0].astype(np.complex64), metadata=None)


def cielab(path: Path) -> None:
    tiled(path, photometric="cielab")


def unknown_compression(path: Path) -> None:
    tiled(path)
    patch_tag(path, 259, value=struct.pack("<H", 52479))


def lerc(path: Path) -> None:
    tiled(path, compression="lerc")


def stack(path: Path) -> None:
    tifffile.imwrite(path, np.stack([PICTURE] * 5), photometric="rgb", ome=True)


def two_channels(path: Path) -> None:
    tifffile.imwrite(path, np.stack([PICTURE[..., 0]] * 2), imagej=True)


def missing_channel(path: Path) -> None:
    write_tiff(path, PICTURE, planar=True, tile=(64, 64), compression="zlib")
    counts = [c for _, c in segments(path)]
    counts[7] = 0
    patch_tag(path, 325, value=_counts(path, counts))


def jpeg_bomb_file(path: Path) -> None:
    data = bytearray(imagecodecs.jpeg8_encode(PICTURE))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    path.write_bytes(data)


def png_bomb(path: Path) -> None:
    data = bytearray(imagecodecs.png_encode(PICTURE))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    path.write_bytes(data)


def cut_png(path: Path) -> None:
    data = imagecodecs.png_encode(PICTURE)
    path.write_bytes(data[: len(data) // 2])


def gray_stack(axes: str, **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        planes = np.ascontiguousarray(np.moveaxis(PICTURE, -1, 0))
        tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": axes}, **options)

    return make


def nothing_stored(path: Path) -> None:
    tiled(path)
    patch_tag(path, 325, value=bytes(4 * len(segments(path))))


def planar_ycbcr(path: Path) -> None:
    write_tiff(path, PICTURE, planar=True, tile=(64, 64), compression="jpeg")
    patch_tag(path, 262, value=b"\6\0")


def other_inks(path: Path) -> None:
    data = np.dstack([PICTURE, PICTURE[..., 1]])
    tifffile.imwrite(path, data, photometric="separated", extratags=[(332, 3, 1, 2, True)], metadata=None)


def lost_tag(path: Path) -> None:
    tiled(path, compression="lzw", predictor=True)
    patch_tag(path, 317, count=2**31 - 1)


WHERE = "tile row 0, column 2 of page 0 is damaged: "
REFUSALS: list[tuple[str, Callable[[Path], None], type[SlideError], str]] = [
    ("truncated file, tiles", truncated, BadSegment, r"tile row \d, column \d of page 0 is damaged: its 12288 bytes at \d+ lie outside the file of \d+ bytes"),
    ("truncated file, one strip", truncated_strip, BadSegment, r"strip at row \d+ of page 0 is damaged: its \d+ bytes at \d+ lie outside the file"),
    ("truncated in the header", truncated_header, SlideError, "its TIFF structure is damaged"),
    ("garbled deflate tile", garbled_deflate, BadSegment, "tile row 1, column 1 of page 0 is damaged: it cannot be decoded"),
    ("garbled zstd tile", garbled_zstd, BadSegment, "tile row 1, column 1 of page 0 is damaged: it cannot be decoded"),
    ("LZW strip cut short", short_lzw, BadSegment, r"strip at row 32 of page 0 is damaged: it decodes to \d+ of 18432 bytes"),
    ("JPEG scan cut", cut_jpeg, BadSegment, WHERE + "its JPEG scan is cut: the end marker is missing"),
    ("JPEG tile whose second half is zeros", zeroed_jpeg_end, BadSegment, WHERE + "its JPEG scan is cut: the end marker is missing"),
    ("byte count past the end", count_past_end, BadSegment, r"tile row 1, column 2 of page 0 is damaged: its 60000 bytes at \d+ lie outside the file"),
    ("offset table shorter than the grid", short_table, SlideError, "page 0 has 4 tile offsets; 6 tiles need one each"),
    ("header of 10^6 x 10^6", huge_header, UnsupportedSlide, "the header says 1000000 x 1000000 pixels; at most"),
    ("JPEG frame of 65500 x 65500", huge_frame, BadSegment, "its stream claims 65500 x 65500 pixels in a segment of 64 x 64"),
    ("JPEG 2000 frame of 2^31 x 2^31", huge_jpeg2000, BadSegment, "pixels in a segment of 64 x 64|JPEG 2000 header"),
    ("decompression bomb", bomb, BadSegment, "tile row 0, column 0 of page 0 is damaged"),
    ("65535 samples per pixel", samples_65535, UnsupportedSlide, "page 0 has 65535 samples per pixel; 1 to 4 are read"),
    ("one compressed strip of 28 GiB", huge_strip, UnsupportedSlide, "one strip decodes to 27.9 GiB; at most 512 MiB are held at once; convert the slide to tiles"),
    ("no pages", no_pages, SlideError, "its TIFF structure has no pages"),
    ("a text file", text, SlideError, "is not a TIFF, zarr, PNG or JPEG file"),
    ("an empty file", empty, SlideError, "is empty"),
    ("floating point", floats, UnsupportedSlide, "pixels are 32-bit floating point"),
    ("signed integers", signed, UnsupportedSlide, "pixels are signed 16-bit integers"),
    ("32-bit integers", wide, UnsupportedSlide, "pixels are 32-bit integers; at most 16 bits are read"),
    ("complex numbers", complexes, UnsupportedSlide, "complex"),
    ("CIELAB", cielab, UnsupportedSlide, "CIELAB pixels are not read"),
    ("a compression of no name", unknown_compression, UnsupportedSlide, "compression 52479 is not read"),
    ("LERC", lerc, UnsupportedSlide, "LERC compression is not read"),
    ("a stack of five planes", stack, UnsupportedSlide, r"it is a stack of planes \(5 along \w\)"),
    ("two channels", two_channels, UnsupportedSlide, r"it is a stack of planes \(2 along C\)"),
    ("a planar slide without one channel's tile", missing_channel, BadSegment, "tile row 0, column 1 of page 0 is damaged: channel 1 is missing"),
    ("a JPEG file of 65500 x 65500", jpeg_bomb_file, UnsupportedSlide, "a JPEG of 65500 x 65500 pixels is decoded whole"),
    ("a PNG file of 10^5 x 10^5", png_bomb, UnsupportedSlide, "a PNG of 100000 x 100000 pixels is decoded whole"),
    ("a PNG file cut short", cut_png, BadSegment, "the image is damaged"),
    ("no tile stored at all", nothing_stored, SlideError, r"none of its 6 tiles is in the file \(all byte counts are 0\)"),
    ("a tag that cannot be read", lost_tag, SlideError, r"page 0 has a predictor \(tag 317\) that cannot be read"),
    ("three planes along Z", gray_stack("ZYX", imagej=True), UnsupportedSlide, r"it is a stack of planes \(3 along Z\)"),
    ("three planes along T", gray_stack("TYX", ome=True), UnsupportedSlide, r"it is a stack of planes \(3 along T\)"),
    ("YCbCr in separate planes", planar_ycbcr, UnsupportedSlide, "YCbCr pixels in separate planes are not read"),
    ("inks other than CMYK", other_inks, UnsupportedSlide, r"page 0 has inks other than CMYK \(InkSet 2\)"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "message"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
def test_refused_by_name(
    tmp_path: Path, pool: DecodePool, make: Callable[[Path], None], kind: type[SlideError], message: str
) -> None:
    path = tmp_path / "slide.tif"
    make(path)
    tracemalloc.start()
    with pytest.raises(SlideError, match=message) as caught:
        read_path(path, 1, pool)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert peak < 32 * 2**20


def test_missing_tile_is_white(tmp_path: Path, pool: DecodePool) -> None:
    path = tiled(tmp_path / "s.tif", compression="zlib")
    counts = [c for _, c in segments(path)]
    counts[1] = 0
    patch_tag(path, 325, value=_counts(path, counts))
    want = PICTURE.copy()
    want[:64, 64:128] = 255
    np.testing.assert_array_equal(read_path(path, 1, pool), want)
    with open_slide(path) as slide:
        assert "1 of 6 tiles are missing (byte count 0); they are white" in slide.warnings


def test_bad_tiles_as_white_are_counted(tmp_path: Path, pool: DecodePool) -> None:
    path = tmp_path / "s.tif"
    cut_jpeg(path)
    with open_slide(path) as slide:
        plan = slide.plan(2)
        with NetworkReader(slide, plan, rows=64, pool=pool, on_bad_tile="white") as reader:
            reader.wait(64)
            assert (reader.ring[:32, 64:] == 255).all()
            assert not (reader.ring[:32, :64] == 255).all()
            assert (reader.stats.bad_segments, reader.stats.bad_pixels) == (1, 64 * 64)
            assert "tile row 0, column 2" in reader.stats.bad[0]


def test_loop_of_pages(tmp_path: Path, pool: DecodePool) -> None:
    path = tiled(tmp_path / "s.tif")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        end = page.offset + 2 + 12 * len(page.tags)  # type: ignore[union-attr]
        start = page.offset  # type: ignore[union-attr]
    patch_bytes(path, end, struct.pack("<I", start))
    np.testing.assert_array_equal(read_path(path, 1, pool), PICTURE)
    with open_slide(path) as slide:
        assert any("refers to itself" in w for w in slide.warnings)


def ome(path: Path) -> bytes:
    """An OME-TIFF of `PICTURE` with one lower resolution as a sub-image; its bytes."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(PICTURE, photometric="rgb", tile=(64, 64), subifds=1, metadata={"axes": "YXS"})
        tiff.write(np.ascontiguousarray(PICTURE[::2, ::2]), photometric="rgb", tile=(64, 64), subfiletype=1)
    return path.read_bytes()


def test_axes_that_cannot_be_read_are_told(
    tmp_path: Path, pool: DecodePool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.ome.tif"
    path.write_bytes(ome(path).replace(b'SizeX="192"', b'SizeX="1x2"'))
    np.testing.assert_array_equal(read_path(path, 1, pool), PICTURE)
    with open_slide(path) as slide:
        (warning,) = slide.warnings
        assert warning.startswith("what it says of its axes cannot be read (invalid literal")
        assert warning.endswith("its pages are taken as they are")
        assert len(slide.levels) == 2
    assert main(["info", str(path)]) == 0
    assert "what it says of its axes cannot be read" in capsys.readouterr().out


def test_sub_images_that_cannot_be_read_are_told(tmp_path: Path, pool: DecodePool) -> None:
    path = tmp_path / "s.ome.tif"
    ome(path)
    with tifffile.TiffFile(path) as tiff:
        (start,) = tiff.pages[0].tags[330].value  # type: ignore[union-attr]
    patch_bytes(path, start, b"\xff\xff")
    np.testing.assert_array_equal(read_path(path, 2, pool), plain_shrink(PICTURE, 2))
    with open_slide(path) as slide:
        wanted = "sub-images after 0 of page 0 cannot be read (suspicious number of tags 65535)"
        assert wanted in slide.warnings
        assert len(slide.levels) == 1


def test_a_hundred_thousand_pages(tmp_path: Path, pool: DecodePool) -> None:
    path = tiled(tmp_path / "s.tif")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].offset + 2 + 12 * len(tiff.pages[0].tags)  # type: ignore[union-attr]
    data[at : at + 4] = struct.pack("<I", len(data))
    for i in range(100_000):
        here = len(data)
        data += struct.pack("<HHHII", 1, 254, 4, 1, 1) + struct.pack("<I", here + 18 if i < 99_999 else 0)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_path(path, 1, pool), PICTURE)
    with open_slide(path) as slide:
        assert any("only the first 1000 pages" in w for w in slide.warnings)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="cannot be opened: No such file or directory"):
        open_slide(tmp_path / "none.tif")


def test_a_folder_that_is_no_zarr(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="is a folder but not a readable zarr"):
        open_slide(tmp_path)
