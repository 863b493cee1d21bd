"""Every kernel in numba on one core; for now the plain numpy forms."""

from __future__ import annotations

from .reference import *  # noqa: F403
