"""Which slides are found, under which ids and keys, and what is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Manifest, find_slides, slide_id


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)


def test_files_folders_and_globs_give_one_sorted_list(tmp_path: Path) -> None:
    touch(
        tmp_path / "a/z.tif",
        tmp_path / "a/deep/b.SVS",
        tmp_path / "a/notes.txt",
        tmp_path / "c/m.tiff",
        tmp_path / "k.bin",
    )
    manifest = find_slides([tmp_path / "a", str(tmp_path / "c/*.tiff"), tmp_path / "k.bin"])
    assert [slide.id for slide in manifest.slides] == ["b", "k", "m", "z"]
    assert [slide.index for slide in manifest.slides] == [0, 1, 2, 3]
    assert manifest.slides[1].size == len("k.bin")


def test_hidden_files_and_job_folders_are_not_slides(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif", tmp_path / ".b.tif", tmp_path / ".git/c.tif", tmp_path / "s.csv.wsiseg/d.tif")
    assert [slide.id for slide in find_slides([tmp_path]).slides] == ["a"]


def test_a_zarr_is_one_slide(tmp_path: Path) -> None:
    touch(tmp_path / "a.ome.zarr/0/0.tif", tmp_path / "a.ome.zarr/zarr.json")
    manifest = find_slides([tmp_path])
    assert [slide.id for slide in manifest.slides] == ["a"]
    assert manifest.slides[0].size == len("0.tif") + len("zarr.json")


def test_the_same_file_twice_is_one_slide(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif")
    (tmp_path / "link").symlink_to(tmp_path)
    assert len(find_slides([tmp_path, tmp_path / "a.tif", tmp_path / "link" / "a.tif"]).slides) == 1


def test_two_slides_with_one_id_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "x/a.tif", tmp_path / "y/a.svs")
    with pytest.raises(UsageError, match=r"two slides have the id 'a': .*/x/a\.tif and .*/y/a\.svs"):
        find_slides([tmp_path])


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing.tif", "no such file"), ("empty", "no slides in it"), ("*.svs", "no slides in it")],
)
def test_nothing_is_said(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        find_slides([str(tmp_path / name)])


def test_keys_follow_the_relative_path(tmp_path: Path) -> None:
    touch(tmp_path / "one/x/a.tif", tmp_path / "one/b.tif", tmp_path / "two/x/a.tif")
    one, two = find_slides([tmp_path / "one"]), find_slides([tmp_path / "two"])
    assert one.slides[0].key == two.slides[0].key
    assert len({slide.key for slide in one.slides}) == 2


def test_keys_stay_when_inputs_come_and_go(tmp_path: Path) -> None:
    touch(tmp_path / "one/a.tif", tmp_path / "two/b.tif", tmp_path / "two/c.tif")
    alone = find_slides([tmp_path / "one"]).slides[0]
    for inputs in (["one", "two"], ["one", "two/b.tif"], ["one/*.tif", "two/c.tif"]):
        assert find_slides([tmp_path / name for name in inputs]).slides[0].key == alone.key


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "x/y/a.tif")
    for i in range(8):
        (tmp_path / f"x/y/again{i}").symlink_to(tmp_path / "x")
    assert len(find_slides([tmp_path]).slides) == 1


def test_the_frozen_list_reads_back(tmp_path: Path) -> None:
    touch(tmp_path / "ä,b.tif", tmp_path / "c d.tif")
    manifest = find_slides([tmp_path])
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    with pytest.raises(UsageError, match="not a manifest"):
        Manifest.from_bytes(b"{")


@pytest.mark.parametrize(
    ("path", "name"), [("/a/b.c.tif", "b.c"), ("x.ome.tif", "x"), ("y.ome.zarr/", "y"), ("z.svs", "z")]
)
def test_ids(path: str, name: str) -> None:
    assert slide_id(path) == name


def test_a_name_that_is_not_utf8_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.tif")).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"a\\xff\.tif: its name is not UTF-8; rename it"):
        find_slides([tmp_path])
