"""The README's tables of speed are those of the committed results."""

from __future__ import annotations

from benchmarks import readme_tables, tree


def test_the_readme_has_the_committed_figures() -> None:
    text = (tree.ROOT / "README.md").read_text()
    assert readme_tables.filled(text) == text, "run python -m benchmarks.readme_tables"
    for make in readme_tables.SECTIONS.values():
        assert len(make().splitlines()) > 5
