"""The user's configuration file, written: `bench --sweep` keeps there what is best for the machine."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsiseg.cli.options import user_config
from wsiseg.errors import OutputError, UsageError
from wsiseg.outputs.files import write_atomically

HEAD = "# Options of `wsiseg run` for this machine; the command line and --config go before them.\n"


def keep(values: Mapping[str, Any]) -> str:
    """Set options in the user's config, leave its other options as they are, and return its path.

    Raises:
        UsageError: the file that is there is not TOML. OutputError: it cannot be written.
    """
    path = Path(user_config())
    try:
        held = tomllib.loads(path.read_text()) if path.exists() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); correct or remove it") from error
    held.update(values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be made ({error.strerror})") from error
    write_atomically(
        path, (HEAD + "".join(f"{key} = {_toml(value)}\n" for key, value in held.items())).encode()
    )
    return str(path)


def _toml(value: Any) -> str:
    """A plain value as TOML writes it; options are numbers, words, booleans and lists of these."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in value)
        return f'"{escaped}"'
    return repr(value)
