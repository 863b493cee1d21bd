"""Valid but unusual files that other readers differ about: read as most do, with a notice, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from slide_samples import patch_tag, picture, read_path, segments

from wsiseg.errors import SlideError, UnsupportedSlide
from wsiseg.slide import DecodePool, open_slide

PICTURE = picture(160, 192)
GRAY = PICTURE[..., 1]
TILE = {"tile": (64, 64), "photometric": "rgb", "metadata": None}


def pages(path: Path, *arrays: np.ndarray, **options: Any) -> Path:
    """One page per array; `flags`: their subfile types."""
    flags = options.pop("flags", [0] * len(arrays))
    with tifffile.TiffWriter(path) as writer:
        for array, flag in zip(arrays, flags, strict=True):
            writer.write(np.ascontiguousarray(array), subfiletype=flag, **{**TILE, **options})
    return path


def test_a_pyramid_stored_smallest_first(tmp_path: Path, pool: DecodePool) -> None:
    path = pages(tmp_path / "s.tif", PICTURE[::4, ::4], PICTURE[::2, ::2], PICTURE)
    with open_slide(path) as slide:
        assert [str(x.size) for x in slide.levels] == ["192 x 160", "96 x 80", "48 x 40"]
        assert "page 2 is the slide; page 0 is a lower resolution of it" in slide.warnings
    assert np.array_equal(read_path(path, 1, pool, level="0"), PICTURE)


@pytest.mark.parametrize("layout", [{}, {"tile": None, "rowsperstrip": 20}])
def test_a_first_page_that_says_it_is_reduced(
    tmp_path: Path, pool: DecodePool, layout: dict[str, Any]
) -> None:
    path = pages(tmp_path / "s.tif", PICTURE[:90, :70], PICTURE, flags=[1, 0], **layout)
    with open_slide(path) as slide:
        assert "page 1 is the slide; page 0 says that it is a reduced picture" in slide.warnings
    assert np.array_equal(read_path(path, 1, pool), PICTURE)


def test_pages_that_are_not_read_are_told(tmp_path: Path) -> None:
    with open_slide(pages(tmp_path / "a.tif", PICTURE, 255 - PICTURE, PICTURE[::-1])) as slide:
        assert slide.warnings == ("2 more pages of its size are not read, from page 1 on",)
    with open_slide(pages(tmp_path / "b.tif", PICTURE[:90, :70], PICTURE)) as slide:
        assert slide.warnings == ("page 1 is larger (192 x 160); page 0 is read",)
    with open_slide(pages(tmp_path / "c.tif", PICTURE, PICTURE[::2, ::2], flags=[0, 1])) as slide:
        assert slide.warnings == ()
        assert len(slide.levels) == 2
    masked = pages(tmp_path / "d.tif", PICTURE, PICTURE, flags=[1, 1])
    patch_tag(masked, 254, value=b"\0\0\0\0")
    patch_tag(masked, 254, value=b"\4\0\0\0", page=1)
    with open_slide(masked) as slide:
        assert slide.warnings == ("page 1 is a transparency mask; it is not used",)


def test_a_colour_map_of_eight_bits(tmp_path: Path, pool: DecodePool) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, GRAY, photometric="palette", colormap=colours, metadata=None)
    with open_slide(path) as slide:
        assert slide.warnings == ("its colour map has 8-bit values; taken as such",)
    assert np.array_equal(read_path(path, 1, pool), colours.astype(np.uint8).T[GRAY])


def test_webp_with_its_bits_turned(tmp_path: Path, pool: DecodePool) -> None:
    path, extra = tmp_path / "s.tif", [(65000, 3, 1, 2, True)]
    options = {"compression": "webp", "compressionargs": {"lossless": True}, "extratags": extra}
    tifffile.imwrite(path, PICTURE, **TILE, **options)
    data = bytearray(path.read_bytes())
    for offset, count in segments(path):
        data[offset : offset + count] = imagecodecs.bitorder_decode(bytes(data[offset : offset + count]))
    # tifffile does not write FillOrder; a private tag becomes it.
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags[65000].offset  # type: ignore[union-attr]
    data[at : at + 2] = (266).to_bytes(2, "little")
    path.write_bytes(data)
    assert np.array_equal(read_path(path, 1, pool), PICTURE)


def test_jpeg_2000_of_an_ambiguous_number(tmp_path: Path, pool: DecodePool) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, PICTURE, compression=33004, **TILE)
    with open_slide(path) as slide:
        assert "libvips stores YCbCr" in slide.warnings[0]
    assert np.array_equal(read_path(path, 1, pool), PICTURE)


def test_four_channels_of_a_zarr_array_are_told(tmp_path: Path) -> None:
    data = np.dstack([PICTURE, GRAY])
    array = zarr.create_array(tmp_path / "s.zarr", shape=data.shape, chunks=(64, 64, 4), dtype="u1")
    array[:] = data
    with open_slide(tmp_path / "s.zarr") as slide:
        assert "its fourth channel is taken as transparency and put on white" in slide.warnings


@pytest.mark.parametrize(("code", "named"), [(258, "number of bits"), (317, "predictor"), (284, "planar")])
def test_a_tag_that_cannot_be_read_is_not_replaced_by_its_default(
    tmp_path: Path, code: int, named: str
) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, PICTURE, compression="lzw", predictor=True, **TILE)
    patch_tag(path, code, count=2**31 - 1)
    with pytest.raises(SlideError, match=f"page 0 has a {named}.* .tag {code}. that cannot be read"):
        open_slide(path)


def test_a_chunk_that_is_a_pipe_does_not_hang(tmp_path: Path, pool: DecodePool) -> None:
    array = zarr.create_array(tmp_path / "s.zarr", shape=PICTURE.shape, chunks=(64, 64, 3), dtype="u1")
    array[:] = PICTURE
    chunk = tmp_path / "s.zarr" / "c" / "0" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(SlideError, match="chunk row 0, column 0 of level 0 is damaged: it is not a regular"):
        read_path(tmp_path / "s.zarr", 1, pool)


def test_an_array_without_a_single_chunk(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "s.zarr", shape=PICTURE.shape, chunks=(64, 64, 3), dtype="u1")
    with pytest.raises(SlideError, match="none of its chunks is there"):
        open_slide(tmp_path / "s.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_first_image_of_a_collection(tmp_path: Path, pool: DecodePool, version: str) -> None:
    old = version == "0.4"
    root = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2 if old else 3)
    image = root.create_group("0")
    planes = np.moveaxis(PICTURE, -1, 0)
    array = image.create_array("0", shape=planes.shape, chunks=(1, 64, 64), dtype="u1")
    array[:] = planes
    scales = [{"version": version, "axes": [{"name": n} for n in "cyx"], "datasets": [{"path": "0"}]}]
    if old:
        root.attrs["bioformats2raw.layout"] = 3
        image.attrs["multiscales"] = scales
    else:
        root.attrs["ome"] = {"version": version, "bioformats2raw.layout": 3}
        image.attrs["ome"] = {"version": version, "multiscales": scales}
    with open_slide(tmp_path / "s.zarr") as slide:
        assert slide.warnings == ("it is a collection of images; the first is read",)
    assert np.array_equal(read_path(tmp_path / "s.zarr", 1, pool), PICTURE)


def test_a_line_feed_in_a_name_does_not_break_the_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb.tif").write_bytes(b"")
    with pytest.raises(SlideError) as refused:
        open_slide(tmp_path / "a\nb.tif")
    assert str(refused.value) == f"{tmp_path}/a\\nb.tif: is empty"


def test_a_jpeg_file_of_several_pictures(tmp_path: Path) -> None:
    data = imagecodecs.jpeg8_encode(PICTURE)
    note = b"\xff\xe2\0\x0aMPF\0" + b"...."
    path = tmp_path / "s.jpg"
    path.write_bytes(data[:2] + note + data[2:] + data)
    with pytest.raises(UnsupportedSlide, match="a JPEG file of several pictures"):
        open_slide(path)


def test_more_tiles_than_the_size_needs_are_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", PICTURE, **TILE)
    patch_tag(tmp_path / "s.tif", 257, value=b"\x40\0")
    with open_slide(tmp_path / "s.tif") as slide:
        assert slide.warnings == ("page 0 lists 9 tiles, its size needs 3; the first ones are read",)


@pytest.mark.parametrize("where", [".", "0"])
def test_zarr_metadata_that_is_a_pipe_is_refused(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "s.zarr"
    zarr.save_array(folder / "0", PICTURE)
    metadata = folder / where / "zarr.json"
    metadata.unlink(missing_ok=True)
    os.mkfifo(metadata)
    with pytest.raises(SlideError, match=f"{metadata.relative_to(folder)} is not a regular file"):
        open_slide(folder)
