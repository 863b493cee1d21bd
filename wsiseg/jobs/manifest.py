"""The manifest: the frozen list of slides of one job, in the order of the CSV.

Slides come from files, folders and globs. A slide's id is its file's name without the extension; its key, which names
its record, is a hash of its path relative to the folder it was found under, since stems collide and data moves.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsiseg.errors import UsageError

FORMAT = 1
NAME = "manifest.json"
SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".scn", ".bif", ".btf", ".tf8", ".qptiff", ".zarr")


@dataclass(frozen=True)
class Slide:
    """One line of the manifest.

    Attributes:
        index: row in the CSV, from 0.
        id: the file's name without its extension.
        path: where the file is, absolute.
        key: 16 hexadecimal digits that name its record.
        size: bytes of the file (of all files, when it is a folder).
        mtime: its modification time in nanoseconds.
    """

    index: int
    id: str
    path: str
    key: str
    size: int
    mtime: int


@dataclass(frozen=True)
class Manifest:
    """The slides of a job in the order of the CSV, and a folder that all of them are in."""

    root: str
    slides: tuple[Slide, ...]

    def to_bytes(self) -> bytes:
        """JSON, one slide a line."""
        head = json.dumps(
            {"format": FORMAT, "root": self.root, "count": len(self.slides)}, ensure_ascii=False
        )
        lines = (
            json.dumps([s.id, os.path.relpath(s.path, self.root), s.key, s.size, s.mtime], ensure_ascii=False)
            for s in self.slides
        )
        return (head[:-1] + ', "slides": [\n' + ",\n".join(lines) + "\n]}\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = NAME) -> Manifest:
        """The manifest from its JSON.

        Raises:
            UsageError: when it is not one, or of another format.
        """
        try:
            content: dict[str, Any] = json.loads(data)
            if content["format"] != FORMAT:
                raise UsageError(f"{where}: manifest format {content['format']}, this wsiseg reads {FORMAT}")
            root = content["root"]
            slides = tuple(
                Slide(i, name, os.path.normpath(os.path.join(root, path)), key, size, mtime)
                for i, (name, path, key, size, mtime) in enumerate(content["slides"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{where}: not a manifest of wsiseg ({error}); use --fresh to start over"
            ) from error
        return cls(root, slides)


def find_slides(inputs: Iterable[str | os.PathLike[str]], suffixes: Sequence[str] = SUFFIXES) -> Manifest:
    """The slides under files, folders (with all folders in them) and globs, sorted by id.

    A file that is named is taken whatever its extension; in folders only `suffixes` count. Hidden files do not.

    Raises:
        UsageError: nothing found, a name that does not exist or is not UTF-8, or two files with the same id.
    """
    names = [os.fspath(name) for name in inputs]
    if not names:
        raise UsageError("no slides given: name files, folders or globs")
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        files, root = _expand(name, suffixes)
        if not files:
            raise UsageError(f"{name}: no slides in it; looked for {', '.join(suffixes)}")
        for file in files:
            found.setdefault(os.path.realpath(file), (file, root))
    seen: dict[str, str] = {}
    entries = []
    for path, root in found.values():
        name = slide_id(path)
        _check_name(path)
        if name in seen:
            first, second = sorted((seen[name], path))
            raise UsageError(f"two slides have the id {name!r}: {first} and {second}; rename one")
        seen[name] = path
        # relative to its own input, so that a key stays the same when other inputs come or go; two slides with one
        # relative path would have one id
        entries.append((name, path, key_of(os.path.relpath(path, root)), *measure(path)))
    entries.sort(key=lambda entry: entry[0])
    slides = tuple(Slide(i, *entry) for i, entry in enumerate(entries))
    return Manifest(os.path.commonpath([root for _, root in found.values()]), slides)


def _check_name(path: str) -> None:
    """Refuse a name that no CSV, record or log could hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise UsageError(f"{shown}: its name is not UTF-8; rename it") from None


def slide_id(path: str) -> str:
    """The file's name without its extension; `.ome.tif` and `.ome.zarr` are one extension."""
    stem, suffix = os.path.splitext(os.path.basename(path.rstrip("/")))
    if suffix.lower() in (".tif", ".tiff", ".btf", ".tf8", ".zarr") and stem.lower().endswith(".ome"):
        stem = stem[:-4]
    return stem


def key_of(relative: str) -> str:
    """16 hexadecimal digits for a relative path; 100,000 slides collide with a probability of 3e-10."""
    name = relative.replace(os.sep, "/").encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=8).hexdigest()


def measure(path: str) -> tuple[int, int]:
    """(bytes, newest modification in ns) of a file, or of all files of a zarr folder. (-1, -1) when it is not there."""
    try:
        info = os.stat(path)
        if not os.path.isdir(path):
            return info.st_size, info.st_mtime_ns
        total, newest = 0, info.st_mtime_ns
        for folder, _, files in os.walk(path):
            for file in files:
                info = os.stat(os.path.join(folder, file))
                total, newest = total + info.st_size, max(newest, info.st_mtime_ns)
        return total, newest
    except OSError:
        return -1, -1


def _expand(name: str, suffixes: Sequence[str]) -> tuple[list[str], str]:
    """(files of one input, the folder their paths are relative to)."""
    path = Path(name).expanduser().absolute()
    text = os.path.normpath(path)
    if path.is_dir() and path.suffix.lower() != ".zarr":
        return _walk(text, suffixes), text
    if path.exists():
        return [text], os.path.dirname(text)
    if not glob.has_magic(name):
        raise UsageError(f"{name}: no such file or folder")
    fixed = Path(*path.parts[: _first_magic(path.parts)])
    files = []
    for match in sorted(glob.glob(text, recursive=True)):
        if os.path.isdir(match) and not match.lower().endswith(".zarr"):
            files += _walk(match, suffixes)
        else:
            files.append(match)
    return files, str(fixed)


def _first_magic(parts: Sequence[str]) -> int:
    return next(i for i, part in enumerate(parts) if glob.has_magic(part))


def _walk(folder: str, suffixes: Sequence[str]) -> list[str]:
    files = []
    patterns = [f"*{suffix}" for suffix in suffixes]

    def wanted(name: str) -> bool:
        return not name.startswith(".") and any(fnmatch.fnmatchcase(name.lower(), p) for p in patterns)

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {error.strerror}") from error

    entered: set[str] = set()
    for directory, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        # links may lead in circles
        real = os.path.realpath(directory)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        # a zarr is one slide, not a folder of slides
        files += [os.path.join(directory, d) for d in folders if d.lower().endswith(".zarr") and wanted(d)]
        folders[:] = sorted(
            d for d in folders if not d.startswith(".") and not d.lower().endswith((".zarr", ".wsiseg"))
        )
        files += [os.path.join(directory, n) for n in sorted(names) if wanted(n)]
    return files
