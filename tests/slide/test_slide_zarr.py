"""Zarr slides: OME-Zarr 0.4 and 0.5, plain arrays of v2 and v3, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from slide_samples import picture, plain_shrink, read_path, read_slide

from wsiseg.errors import BadSegment, SlideError, UnsupportedSlide
from wsiseg.slide import DecodePool, open_slide

PICTURE = picture(187, 213)


def plain(path: Path, array: np.ndarray, version: int, chunks: tuple[int, ...], **options: Any) -> Path:
    made = zarr.create_array(
        path, shape=array.shape, chunks=chunks, dtype=array.dtype, zarr_format=version, **options
    )
    made[...] = array
    return path


def ome(path: Path, version: str, levels: list[np.ndarray], axes: str, unit: str = "micrometer") -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for i, level in enumerate(levels):
        chunks = tuple(50 if a in "yx" else n for a, n in zip(axes, level.shape, strict=True))
        group.create_array(str(i), shape=level.shape, chunks=chunks, dtype=level.dtype)[...] = level
    kinds = {"y": "space", "x": "space", "z": "space", "c": "channel", "t": "time"}
    image = {
        "version": version,
        "axes": [{"name": a, "type": kinds[a], **({"unit": unit} if a in "yxz" else {})} for a in axes],
        "datasets": [
            {
                "path": str(i),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [0.5 * 2**i if a in "yx" else 1.0 for a in axes]}
                ],
            }
            for i in range(len(levels))
        ],
    }
    if version == "0.4":
        group.attrs["multiscales"] = [image]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["yxc", "cyx", "tczyx"])
def test_plain_arrays(tmp_path: Path, pool: DecodePool, version: int, order: str) -> None:
    array, chunks = {
        "yxc": (PICTURE, (64, 50, 3)),
        "cyx": (np.moveaxis(PICTURE, -1, 0), (1, 64, 50)),
        "tczyx": (np.moveaxis(PICTURE, -1, 0)[None, :, None], (1, 3, 1, 64, 50)),
    }[order]
    path = plain(tmp_path / "s.zarr", array, version, chunks)
    for scale in (1, 2, 7):
        np.testing.assert_array_equal(read_path(path, scale, pool), plain_shrink(PICTURE, scale))


@pytest.mark.parametrize("codec", ["zstd", "gzip", "zlib", "blosc", "lz4", "none"])
@pytest.mark.parametrize("version", [2, 3])
def test_codecs_and_orders(tmp_path: Path, pool: DecodePool, version: int, codec: str) -> None:
    import numcodecs

    old = {"zstd": numcodecs.Zstd(), "gzip": numcodecs.GZip(), "zlib": numcodecs.Zlib(), "blosc": numcodecs.Blosc(),
           "lz4": numcodecs.LZ4(), "none": None}[codec]  # fmt: skip
    new = {
        "zstd": zarr.codecs.ZstdCodec(),
        "gzip": zarr.codecs.GzipCodec(),
        "blosc": zarr.codecs.BloscCodec(),
        "none": None,
    }
    if version == 3 and codec not in new:
        pytest.skip(f"zarr v3 has no {codec}")
    full = PICTURE.astype(">u2") * 257
    for order in ("C", "F") if version == 2 else ("C",):
        path = tmp_path / f"{order}.zarr"
        how = {"order": order} if version == 2 else {}
        plain(path, full, version, (50, 64, 3), compressors=old if version == 2 else new[codec], **how)
        np.testing.assert_array_equal(read_path(path, 1, pool), PICTURE)
        np.testing.assert_array_equal(
            read_path(path, 3, pool, columns=(5, 40)), plain_shrink(PICTURE, 3)[:, 5:40]
        )


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_that_is_a_bomb(tmp_path: Path, pool: DecodePool, version: int) -> None:
    import imagecodecs

    path = plain(tmp_path / "s.zarr", PICTURE, version, (64, 50, 3))
    chunk = path / ("0.0.0" if version == 2 else "c/0/0/0")
    chunk.write_bytes(imagecodecs.zstd_encode(bytes(200_000_000)))
    with pytest.raises(BadSegment, match="chunk row 0, column 0 of level 0 is damaged"):
        read_path(path, 1, pool)


def test_gray_sixteen_bits_and_shards(tmp_path: Path, pool: DecodePool) -> None:
    gray = PICTURE[..., 0].astype(np.uint16) << 4
    gray[0, 0] = 4095
    path = plain(tmp_path / "s.zarr", gray, 3, (32, 32), shards=(64, 64))
    want = np.repeat((gray >> 4).astype(np.uint8)[..., None], 3, 2)
    np.testing.assert_array_equal(read_path(path, 1, pool), want)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "tczyx"])
def test_ome_zarr_pyramid(tmp_path: Path, pool: DecodePool, version: str, axes: str) -> None:
    levels = [PICTURE, plain_shrink(PICTURE, 2)]
    stored = [np.moveaxis(x, -1, 0) for x in levels]
    if axes == "tczyx":
        stored = [x[None, :, None] for x in stored]
    path = ome(tmp_path / "s.ome.zarr", version, stored, axes)
    with open_slide(path) as slide:
        assert slide.mpp == 0.5
        assert slide.format == f"OME-Zarr {version}"
        assert slide.plan(2).level == 1
        np.testing.assert_array_equal(read_slide(slide, 2, pool), levels[1])
        np.testing.assert_array_equal(read_slide(slide, 3, pool), plain_shrink(PICTURE, 3))


def test_a_size_on_disc_that_cannot_be_told_is_said(
    tmp_path: Path, pool: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain(tmp_path / "s.zarr", PICTURE, 3, (32, 32, 3))

    def refuse(array: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zarr.Array, "nbytes_stored", refuse)
    with open_slide(path) as slide:
        assert (slide.plan(1).stored, slide.plan(2).stored) == (0, 0)
        wanted = "how many bytes level 0 takes cannot be told ([Errno 13] Permission denied)"
        assert slide.warnings == (wanted,)
        np.testing.assert_array_equal(read_slide(slide, 1, pool), PICTURE)


def test_units_are_converted(tmp_path: Path) -> None:
    path = ome(tmp_path / "s.zarr", "0.4", [np.moveaxis(PICTURE, -1, 0)], "cyx", unit="millimeter")
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert "500 x 500 microns per pixel is not plausible" in slide.warnings[0]


def test_refusals(tmp_path: Path) -> None:
    stack = plain(tmp_path / "a.zarr", np.zeros((5, 20, 20, 3), np.uint8), 2, (1, 20, 20, 3))
    with pytest.raises(
        UnsupportedSlide, match=r"a zarr array of shape \(5, 20, 20, 3\) is not an RGB or gray image"
    ):
        open_slide(stack)
    floats = plain(tmp_path / "b.zarr", np.zeros((20, 20, 3), np.float32), 3, (20, 20, 3))
    with pytest.raises(UnsupportedSlide, match="32-bit floating point"):
        open_slide(floats)
    zarr.open_group(tmp_path / "c.zarr", mode="w")
    with pytest.raises(UnsupportedSlide, match="is not an OME-Zarr image"):
        open_slide(tmp_path / "c.zarr")
    huge = zarr.create_array(
        tmp_path / "d.zarr", shape=(40_000, 40_000, 3), chunks=(40_000, 40_000, 3), dtype="u1"
    )
    assert huge.nbytes > 2**31
    with pytest.raises(UnsupportedSlide, match=r"one chunk decodes to 4\.47 GiB; at most 512 MiB"):
        open_slide(tmp_path / "d.zarr")
    (tmp_path / "e.zarr").mkdir()
    (tmp_path / "e.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"')
    with pytest.raises(SlideError, match="is a folder but not a readable zarr"):
        open_slide(tmp_path / "e.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_a_damaged_chunk_is_named(tmp_path: Path, pool: DecodePool, version: int) -> None:
    path = plain(tmp_path / "s.zarr", PICTURE, version, (64, 50, 3))
    chunk = path / ("1.2.0" if version == 2 else "c/1/2/0")
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(BadSegment, match="chunk row 1, column 2 of level 0 is damaged"):
        read_path(path, 1, pool)


def test_a_missing_chunk_has_the_fill_value(tmp_path: Path, pool: DecodePool) -> None:
    path = plain(tmp_path / "s.zarr", PICTURE, 2, (64, 50, 3), fill_value=255)
    (path / "0.0.0").unlink()
    want = PICTURE.copy()
    want[:64, :50] = 255
    np.testing.assert_array_equal(read_path(path, 1, pool), want)
