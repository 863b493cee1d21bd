"""The README's tables of formats and refusals say what the reader does today."""

from __future__ import annotations

import re
from pathlib import Path

from tables import BEGIN, END, tables

README = Path(__file__).resolve().parents[2] / "README.md"


def without_quotes(text: str) -> list[str]:
    """Lines without what stands in brackets: there libraries speak, in words that change with their versions."""
    return [re.sub(r"\(.*?\)", "()", line) for line in text.strip().splitlines()]


def test_the_readme_has_the_tables_that_the_tests_make() -> None:
    written = README.read_text().split(BEGIN)[1].split(END)[0]
    made = tables()
    assert "WRONG" not in made
    assert "(read)" not in made
    assert without_quotes(written) == without_quotes(made), (
        "run PYTHONPATH=.:kernels:tests/slide python tests/slide/tables.py README.md"
    )
