"""The submission CSV: `id,predicted`, one row per slide, an empty field for an empty mask.

Rows may be tens of megabytes long and there may be 100,000 of them; both directions stream.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import OutputError, UsageError
from wsiseg.outputs.files import atomic_file

COLUMNS = ("predicted", "encoding")
"""The names of the second column: of a submission, and of the competition's training file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file: line number (the header is 1), id, and the runs' text.

    `problem` says what is wrong with a row that has no two fields; "" otherwise.
    """

    line: int
    id: str
    rle: str
    problem: str = ""


def write_submission(
    path: str | os.PathLike[str], rows: Iterable[tuple[str, str]], column: str = COLUMNS[0]
) -> int:
    """Writes (id, runs' text) rows whole or not at all, and returns how many.

    Lines end in "\\n". The file appears under its name only when it is complete and on the disk.

    Raises:
        OutputError: an id occurs twice (the file would be ambiguous), or the file cannot be written.
    """
    seen: set[str] = set()
    with atomic_file(path) as file:
        file.write(f"id,{column}\n".encode())
        for name, rle in rows:
            if name in seen:
                raise OutputError(f"{os.fspath(path)}: the id {name!r} occurs twice; ids must differ")
            seen.add(name)
            file.write(f"{csv_field(name)},".encode())
            file.write(rle.encode("ascii"))
            file.write(b"\n")
    return len(seen)


def csv_field(field: str) -> str:
    """A text as a CSV field, quoted where it must be."""
    return '"' + field.replace('"', '""') + '"' if re.search(r'[",\r\n]|^\s|\s$', field) else field


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The rows of a submission or of a training file, one at a time; nothing of a row but its shape is judged.

    Raises:
        UsageError: no such file, not text, or not a header of id and predicted or encoding.
    """
    name = os.fspath(path)
    # The module's limit of 131,072 characters per field is far below a slide's row. It is global, and only raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip().lower() for cell in next(reader, [])]
            if len(header) < 2 or header[0] != "id" or header[1] not in COLUMNS:
                shown = ",".join(header)[:60]
                raise UsageError(
                    f"{name}: the header must be id,{COLUMNS[0]} (or id,{COLUMNS[1]}), not {shown!r}"
                )
            for cells in reader:
                if not cells:
                    continue
                wrong = (
                    ""
                    if len(cells) == len(header)
                    else f"{len(cells)} fields where the header has {len(header)}"
                )
                yield Row(reader.line_num, cells[0], cells[1] if len(cells) > 1 else "", wrong)
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{name}: not a CSV of text: {error}") from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error


def read_row(path: str | os.PathLike[str], slide_id: str) -> Row:
    """The row of one id.

    Raises:
        UsageError: as `read_rows`; no such id (the message lists some that exist).
    """
    known: list[str] = []
    for row in read_rows(path):
        if row.id == slide_id:
            return row
        known.append(row.id)
    some = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    raise UsageError(f"{os.fspath(path)}: no row with the id {slide_id!r}; it has {some or 'no rows'}")


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    """The ids in the order of the file."""
    return [row.id for row in read_rows(Path(path))]
