"""What a figure depends on: the processor, what was granted of it, versions, and the commit of a checkout."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsiseg._version import __version__
from wsiseg.limits import core_limit, memory_limit
from wsiseg.units import format_bytes

PACKAGES = ("numpy", "numba", "openvino", "imagecodecs", "tifffile")
WIDE = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
SOURCE = Path(__file__).resolve().parents[2]


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Facts with names that people know, for the figures of a report."""
    facts = {
        "processor": processor(),
        "cores granted": str(core_limit().value),
        "memory granted": format_bytes(memory_limit().value),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "wsiseg": __version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    for package in packages:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def processor() -> str:
    """The processor's name and its widest vector units."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    flags = named.get("flags", "").split()
    return " ".join([named.get("model name", platform.processor()), *(f for f in WIDE if f in flags)])


def commit(folder: Path = SOURCE) -> str:
    """The commit of a checkout, and whether it was changed; "" for an installed package."""

    def git(*arguments: str) -> str:
        try:
            run = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=folder)
        except OSError:
            return ""
        return run.stdout.strip() if run.returncode == 0 else ""

    if git("rev-parse", "--show-toplevel") != str(folder):
        return ""
    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!README.md"
    )
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")
