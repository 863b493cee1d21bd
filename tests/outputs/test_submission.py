"""The submission file: whole or absent, any id, rows of megabytes, and one line for whatever is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from wsiseg.errors import OutputError, UsageError
from wsiseg.outputs.files import atomic_file
from wsiseg.outputs.submission import Row, read_ids, read_row, read_rows, write_submission

AWKWARD = [
    "plain",
    "with space",
    "comma,comma",
    'quote"quote',
    "zażółć",
    "<script>alert(1)</script>",
    " edge ",
]


def test_bytes_are_exactly_the_competitions(tmp_path: Path) -> None:
    assert write_submission(tmp_path / "s.csv", [("b", "1 2 5 1"), ("a", "")]) == 2
    assert (tmp_path / "s.csv").read_bytes() == b"id,predicted\nb,1 2 5 1\na,\n"


def test_awkward_ids_come_back_also_through_pandas(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, [(name, f"{k + 1} 1") for k, name in enumerate(AWKWARD)])
    assert list(read_rows(path)) == [Row(k + 2, name, f"{k + 1} 1") for k, name in enumerate(AWKWARD)]
    assert pd.read_csv(path).id.tolist() == AWKWARD


def test_long_rows_stream(tmp_path: Path) -> None:
    path, text = tmp_path / "s.csv", "1234567890 12 " * 400_000 + "1 1"
    write_submission(path, ((str(k), text) for k in range(3)))
    assert [len(row.rle) for row in read_rows(path)] == [len(text)] * 3
    assert read_row(path, "2").line == 4


def test_training_files_and_foreign_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfid,encoding\r\na,"1 2"\r\n\r\nb,\r\n')
    assert [(r.id, r.rle) for r in read_rows(path)] == [("a", "1 2"), ("b", "")]


def test_the_same_id_twice_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="'a' occurs twice"):
        write_submission(tmp_path / "s.csv", [("a", ""), ("b", ""), ("a", "")])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, [("old", "")])

    def fails() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert read_ids(path) == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def opened(name: object, mode: str = "r", **kwargs: object) -> object:
        """/dev/full fails as a full disk does."""
        return real("/dev/full", "wb") if str(name).endswith(".part") else real(name, mode, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("wsiseg.outputs.files.open", opened, raising=False)
    with pytest.raises(OutputError, match=r"s\.csv: cannot be written: No space left on device"):
        write_submission(tmp_path / "s.csv", [("a", "1 1")])
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    assert write_submission("/dev/null", [("a", "1 1")]) == 1
    assert not Path("/dev/null").is_file()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_submission(tmp_path / "pipe", [("a", "1 1")])
        assert os.read(reader, 100) == b"id,predicted\na,1 1\n"
    finally:
        os.close(reader)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_unwritable_places_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        write_submission(tmp_path / "none" / "s.csv", [])
    with pytest.raises(OutputError, match="is a folder"):
        write_submission(tmp_path, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        write_submission(tmp_path / "file" / "s.csv", [])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "header must be id,predicted"),
        (b"name,rle\na,1 1\n", "not 'name,rle'"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a CSV of text"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "s.csv").write_bytes(data)
    with pytest.raises(UsageError, match=words):
        list(read_rows(tmp_path / "s.csv"))


def test_missing_file_and_missing_id(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_ids(tmp_path / "s.csv")
    write_submission(tmp_path / "s.csv", [("a", ""), ("b", "")])
    with pytest.raises(UsageError, match="no row with the id 'c'; it has a, b"):
        read_row(tmp_path / "s.csv", "c")


def test_rows_of_the_wrong_shape_are_reported_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,predicted\na\nb,1 1,9\nc,1 1\n")
    assert [row.problem != "" for row in read_rows(tmp_path / "s.csv")] == [True, True, False]
