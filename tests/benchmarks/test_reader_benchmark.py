"""The reader's benchmark runs, and compares the reader with the bare decoder in one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import reader


@pytest.mark.parametrize("name", reader.LAYOUTS)
def test_every_layout_is_measured(tmp_path: Path, name: str) -> None:
    image = np.ascontiguousarray(reader.picture(256)[:200])
    table = reader.layout_table(name, reader.LAYOUTS[name], image, tmp_path, rounds=1)
    assert [r.variant for r in table.rows][:3] == [
        "tifffile, 1 thread",
        "bare decoder, 1 thread",
        "bare decoder and rows, scale 1, 1 thread",
    ]
    assert reader.summary({name: table}).rows[0][0] == name
    assert all(r.rate > 0 for r in table.rows)
