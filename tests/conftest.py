"""What every test may use: where the shared data is, and skips that say their reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared() -> Path | None:
    candidates = [Path(p) for p in (os.environ.get("WSISEG_SHARED", ""),) if p] + [ROOT.parent / "shared"]
    for candidate in candidates:
        if (candidate / "data").is_dir():
            return candidate
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data folder; tests that use it carry the mark `data`."""
    shared = _shared()
    if shared is None:
        pytest.skip(
            "no shared data folder beside the checkout (set WSISEG_SHARED to the folder that holds data/)"
        )
    return shared / "data"
