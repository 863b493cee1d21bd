"""A decode pool for the slide tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wsiseg.slide import DecodePool


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2) as threads:
        yield threads
