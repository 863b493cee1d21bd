"""COCO RLE against COCO's own code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.outputs import coco
from wsiseg.runs import Runs


def plain_compress(counts: list[int]) -> str:
    """rleToString of maskApi.c, line by line."""
    text = []
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text.append(chr((c | 0x20 if more else c) + 48))
    return "".join(text)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_any_mask_goes_both_ways(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = Runs.from_mask(rng.random((height, width)) < rng.random())
    counts = coco.to_counts(runs)
    assert counts.sum() == height * width
    assert coco.compress(counts) == plain_compress(counts.tolist())
    assert coco.decode(coco.encode(runs)) == runs
    assert coco.decode({"size": [height, width], "counts": counts.tolist()}) == runs


@given(st.lists(st.integers(0, 2**32 - 1), max_size=12))
def test_any_counts_are_compressed_as_cocos_code_does(counts: list[int]) -> None:
    text = coco.compress(np.array(counts, np.int64))
    assert text == plain_compress(counts)
    assert coco.expand(text).tolist() == counts


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools itself
def test_pycocotools_reads_it() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (37, 53), (400, 300)):
        image = np.asfortranarray(rng.random(shape) < 0.3, np.uint8)
        runs = Runs.from_mask(image)
        mine = coco.encode(runs)
        assert np.array_equal(mask.decode(mine), image)
        theirs = mask.encode(image)
        assert theirs["counts"].decode() == mine["counts"]
        assert coco.decode({**theirs, "counts": theirs["counts"].decode()}) == runs


@pytest.mark.parametrize("instances", [False, True])
def test_files_go_both_ways(tmp_path: Path, instances: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = Runs.from_mask(rng.random((20, 30)) < 0.2), Runs.from_mask(rng.random((9, 8)) < 0.5)
    slides = [
        coco.SlideMasks("a", a.size, {"x": a, "y": Runs.from_mask(rng.random((20, 30)) < 0.1)}, "a.tif"),
        coco.SlideMasks("<script>", b.size, {"x": b}, "<script>.tif"),
        coco.SlideMasks("empty", b.size, {"x": Runs.empty(b.size)}, "empty.tif"),
    ]
    count = coco.write_coco(tmp_path / "c.json", slides, instances=instances)
    assert (count == 4) == (not instances)
    back = coco.read_coco(tmp_path / "c.json")
    assert [s.id for s in back] == ["a", "<script>", "empty"]
    assert back[:2] == slides[:2]
    data = json.loads((tmp_path / "c.json").read_text())
    assert sum(x["area"] for x in data["annotations"] if x["image_id"] == 2) == b.area


def test_polygons_are_filled(tmp_path: Path) -> None:
    data = {
        "images": [{"id": 7, "file_name": "s.png", "height": 6, "width": 9}],
        "categories": [{"id": 3, "name": "k"}],
        "annotations": [{"image_id": 7, "category_id": 3, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]}],
    }
    (tmp_path / "c.json").write_text(json.dumps(data))
    mask = np.zeros((6, 9))
    mask[1:4, 2:5] = 1
    assert coco.read_coco(tmp_path / "c.json") == [
        coco.SlideMasks("s", Size(6, 9), {"k": Runs.from_mask(mask)}, "s.png")
    ]


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "sum to 3"),
        ({"size": [2, 2], "counts": [5, -1]}, "sum to"),
        ({"size": [0, 2], "counts": []}, "no pixels"),
        ({"size": [2, 2], "counts": "\x01"}, "not a compressed"),
        ({"size": [2, 2], "counts": "é"}, "not a compressed"),
        ({"size": [2, 2], "counts": "o" * 12}, "not a compressed"),
        ({"size": [2, 2], "counts": ["a"]}, "neither text nor whole numbers"),
        ({"counts": "1"}, "needs size and counts"),
        ([1], "needs size and counts"),
    ],
)
def test_bad_encodings_are_one_line(rle: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        coco.decode(rle)


def test_what_cocos_32_bits_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fit COCO's RLE"):
        coco.encode(Runs.empty(Size(100_000, 100_000)))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"images":[],"annotations":[{}]}', '{"images":1,"annotations":[]}']
)
def test_bad_files_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError, match=r"c\.json"):
        coco.read_coco(tmp_path / "c.json")
