"""A decode pool for the slide tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wsiseg.pipeline.warm import warm_kernels
from wsiseg.slide import DecodePool


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2) as threads:
        yield threads


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """As every run does before it measures memory: a kernel's first compilation is not what reading a slide takes."""
    warm_kernels()
