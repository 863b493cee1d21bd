"""`--mpp`: one number for all slides, or a CSV with the columns id and mpp for those whose files say nothing or lie."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.errors import UsageError
from wsiseg.slide.mpp import PLAUSIBLE


@dataclass(frozen=True)
class MppOverrides:
    """Microns per pixel by slide id; `default` for the others. Plain data: `plain()` and back."""

    default: float | None = None
    by_id: Mapping[str, float] = field(default_factory=dict)

    def of(self, slide_id: str) -> float | None:
        """What was given for a slide; None when its file decides."""
        return self.by_id.get(slide_id, self.default)


def parse_mpp(text: str | None) -> MppOverrides:
    """`text` is a number or the path of a CSV with a header of id and mpp; None gives no overrides.

    Raises:
        UsageError: neither, or a row that is wrong; the message has its line.
    """
    if text is None:
        return MppOverrides()
    try:
        return MppOverrides(_plausible(text, "--mpp"))
    except ValueError:
        pass
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"--mpp {text} is neither a number of microns per pixel nor a CSV file")
    by_id: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"id", "mpp"} <= set(rows.fieldnames or ()):
                found = ", ".join(rows.fieldnames or ()) or "nothing"
                raise UsageError(f"{path} needs the columns id and mpp; it has {found}")
            for row in rows:
                where = f"{path} line {rows.line_num}"
                try:
                    value = _plausible(row["mpp"] or "", where)
                except ValueError as error:
                    raise UsageError(f"{where}: {row['mpp']!r} is not a number") from error
                if not row["id"] or row["id"] in by_id:
                    raise UsageError(
                        f"{where}: the id {row['id']!r} is {'twice there' if row['id'] else 'empty'}"
                    )
                by_id[row["id"]] = value
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV file ({error})") from error
    return MppOverrides(None, by_id)


def _plausible(text: str, where: str) -> float:
    value = float(text)
    if not math.isfinite(value) or not PLAUSIBLE[0] <= value <= PLAUSIBLE[1]:
        raise UsageError(
            f"{where}: {text} microns per pixel is not plausible; {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} are"
        )
    return value
