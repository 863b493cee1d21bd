"""Reaching the training package lazily, with a clear line where the train extra is missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from wsiseg.errors import UsageError


def training(module: str, *needs: str) -> Any:
    """The module `wsiseg_train.MODULE`.

    Args:
        needs: packages of the train extra that it imports.

    Raises:
        UsageError: naming the package that is missing and how to get it.
    """
    for name in needs:
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"this needs {name}, which is not installed; pip install 'wsiseg[train]'")
    return importlib.import_module(f"wsiseg_train.{module}")


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """`name=value` options as a dictionary.

    Raises:
        UsageError: for a text without "=".
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option} {text}: write it as name=value")
        found[name.strip()] = value.strip()
    return found


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Comma-separated numbers.

    Raises:
        UsageError: for anything else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: not numbers separated by commas") from error
