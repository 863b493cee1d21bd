"""Microns per pixel: every place where it is found, its order, and what is not believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tifffile
from slide_samples import picture

from wsiseg.errors import UsageError
from wsiseg.slide import open_slide
from wsiseg.slide.mpp import from_aperio, from_ome, from_resolution, pick_mpp
from wsiseg.slide.overrides import parse_mpp

PICTURE = picture(40, 50)


def ome_xml(size: str, unit: str) -> bytes:
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="50" SizeY="40" SizeC="3" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="{size}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{size}" PhysicalSizeYUnit="{unit}">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
    ).encode()


@pytest.mark.parametrize(
    ("options", "mpp", "source"),
    [
        ({"description": ome_xml("0.25", "µm")}, 0.25, "OME PhysicalSize"),
        ({"description": ome_xml("0.25", "&#181;m")}, 0.25, "OME PhysicalSize"),
        ({"description": ome_xml("250", "nm")}, 0.25, "OME PhysicalSize"),
        ({"description": ome_xml("0.00025", "mm")}, 0.25, "OME PhysicalSize"),
        (
            {"description": ome_xml("0.25", "µm"), "resolution": (20_000, 20_000), "resolutionunit": 3},
            0.25,
            "OME PhysicalSize",
        ),
        ({"description": "Aperio Image Library v1\n50x40|AppMag = 20|MPP = 0.4990"}, 0.499, "Aperio MPP"),
        ({"resolution": (20_000, 20_000), "resolutionunit": 3}, 0.5, "resolution tags"),
        ({"resolution": (50_800, 50_800), "resolutionunit": 2}, 0.5, "resolution tags"),
        ({"resolution": (20_000, 20_000), "resolutionunit": 1}, None, "unknown"),
        ({"resolution": (72, 72), "resolutionunit": 2}, None, "unknown"),
        ({}, None, "unknown"),
    ],
)
def test_sources(tmp_path: Path, options: dict[str, Any], mpp: float | None, source: str) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, **options)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(mpp) if mpp else slide.mpp is None
        assert slide.mpp_source == source
    with open_slide(path, mpp=0.7) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.7, "--mpp")


def test_imagej_resolution(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, PICTURE, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    with open_slide(path) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.25, "ImageJ resolution")


def test_what_is_not_believed() -> None:
    picked = pick_mpp([("A", 352.8, 352.8), ("B", 0.5, 0.5)], None)
    assert (picked.value, picked.source) == (0.5, "B")
    assert picked.warnings == ("A: 352.8 x 352.8 microns per pixel is not plausible (0.05 to 20); not used",)
    assert pick_mpp([("A", float("nan"), 0.5)], None).value is None
    slanted = pick_mpp([("A", 0.4, 0.6)], None)
    assert slanted.value == pytest.approx(0.5)
    assert "not square" in slanted.warnings[0]


def test_odd_texts_are_survived() -> None:
    assert from_ome("<Pixels PhysicalSizeX='broken") == []
    assert from_ome('<Pixels PhysicalSizeX="abc" PhysicalSizeY="0.5">') == [("OME PhysicalSize", 0.5, 0.5)]
    assert from_ome('<Pixels PhysicalSizeX="1" PhysicalSizeXUnit="parsec">') == []
    assert from_aperio("|MPP = x|") == []
    assert from_resolution(0.0, 1.0, 3) == []
    assert from_resolution(None, None, 3) == []


def test_overrides(tmp_path: Path) -> None:
    assert parse_mpp(None).of("a") is None
    assert parse_mpp("0.5").of("a") == 0.5
    table = tmp_path / "mpp.csv"
    table.write_text("id,mpp,note\na,0.25,x\nb,0.5,y\n")
    given = parse_mpp(str(table))
    assert (given.of("a"), given.of("b"), given.of("c")) == (0.25, 0.5, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,value\na,1\n", "needs the columns id and mpp; it has id, value"),
        ("id,mpp\na,abc\n", "line 2: 'abc' is not a number"),
        ("id,mpp\na,900\n", "line 2: 900 microns per pixel is not plausible"),
        ("id,mpp\na,1\na,2\n", "line 3: the id 'a' is twice there"),
        ("id,mpp\n,1\n", "line 2: the id '' is empty"),
    ],
)
def test_wrong_overrides(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "mpp.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse_mpp(str(table))


def test_wrong_mpp_options() -> None:
    with pytest.raises(UsageError, match="neither a number of microns per pixel nor a CSV file"):
        parse_mpp("half")
    with pytest.raises(UsageError, match="--mpp: 0 microns per pixel is not plausible"):
        parse_mpp("0")
