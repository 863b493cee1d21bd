"""Files appear whole; what dead writers left is removed, what living ones write is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsiseg.errors import OutputError
from wsiseg.jobs.store import DiskStore, Store, open_store, write_whole
from wsiseg.jobs.temporary import TEMPORARY, host_name, process_start, temporary_name

URL_STORE = "memory://wsiseg-tests/job"


@pytest.fixture(params=["disk", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "url":
        pytest.importorskip("fsspec", reason="needs fsspec (the cluster extra)")
    opened = open_store(tmp_path / "job" if request.param == "disk" else URL_STORE)
    yield opened
    opened.remove_folder(".")


def test_write_replaces_and_reads_back(store: Store) -> None:
    store.write("a/b.txt", b"first line\n", b"second")
    assert store.read("a/b.txt") == b"first line\nsecond"
    assert store.read_line("a/b.txt") == b"first line"
    store.write("a/b.txt", b"new")
    assert store.read("a/b.txt") == b"new"
    assert store.read("a/c.txt") is None
    assert store.read_line("a/c.txt") is None
    assert list(store.names("a")) == ["a/b.txt"]
    assert list(store.names("nothing")) == []


def test_only_the_first_creates(store: Store) -> None:
    assert store.create("m", b"one")
    assert not store.create("m", b"two")
    assert store.read("m") == b"one"


def test_removing_what_is_not_there_is_fine(store: Store) -> None:
    store.write("x/1", b"1")
    store.remove("x/1")
    store.remove("x/1")
    store.remove_folder("nothing")
    assert store.read("x/1") is None


def test_a_dead_writers_file_is_removed_and_a_living_ones_is_kept(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    dead = subprocess.run(
        [sys.executable, "-c", "from wsiseg.jobs.temporary import temporary_name; print(temporary_name())"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    ).stdout.strip()  # fmt: skip
    folder = tmp_path / TEMPORARY
    folder.mkdir()
    recycled = f"{host_name()}.{os.getpid()}.{(process_start(os.getpid()) or 0) - 1}.0.tmp"
    other_host = "elsewhere.1.1.0.tmp"
    mine = temporary_name()
    for name in (dead, mine, recycled, other_host):
        (folder / name).touch()
    assert store.clean() == 2
    assert {path.name for path in folder.iterdir()} == {mine, other_host}
    os.utime(folder / other_host, (1, 1))
    assert store.clean() == 1


def test_cleaning_removes_the_empty_folder_and_writing_makes_it_again(tmp_path: Path) -> None:
    one, two = DiskStore(tmp_path), DiskStore(tmp_path)
    one.write("a", b"1")
    two.clean()
    assert not (tmp_path / TEMPORARY).exists()
    one.write("b", b"2")
    assert one.read("b") == b"2"


def test_a_failed_write_leaves_the_old_file_and_no_new_one(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_bytes(b"old")

    def parts() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_whole(target, parts())
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert target.read_bytes() == b"old"


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_whole(tmp_path / "file" / "out.csv", [b""])
    with pytest.raises(OutputError, match="cannot write"):
        DiskStore(tmp_path / "file").write("x", b"")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / TEMPORARY).mkdir()
    with pytest.raises(OutputError, match="No space left"):
        write_to_full(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def write_to_full(folder: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"x"
        raise OSError(28, "No space left on device")

    write_whole(folder / "out.csv", full())
