"""`wsiseg doctor`: what this machine grants and has, and which backend would run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from wsiseg import __version__
from wsiseg.backends import registry
from wsiseg.backends.base import SessionOptions
from wsiseg.engines import build, cuda_driver
from wsiseg.errors import WsisegError
from wsiseg.limits import core_limit, memory_limit
from wsiseg.model import cache, load
from wsiseg.units import format_bytes

HELP = "Tell what this machine grants and has (cores, memory, CPU, GPU, runtimes), which backend would run, and what is missing."
PACKAGES = (
    "numpy", "numba", "tifffile", "imagecodecs", "zarr", "pandas", "opencv-python-headless", "openvino", "onnx", "rich",
    "torch", "numba-cuda", "cuda-bindings", "tensorrt", "nncf", "dask",
)  # fmt: skip
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="everything as one JSON object on standard output"
    )


def main(args: argparse.Namespace) -> int:
    found = examine()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console(highlight=False, soft_wrap=True))
    return 0 if found["ready"] else 1


def examine() -> dict[str, Any]:
    """What there is, as plain data. Never raises for what is missing."""
    cores, memory = core_limit(), memory_limit()
    driver = cuda_driver.probe()
    backends = registry.available()
    return {
        "wsiseg": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": {"count": cores.value, "from": cores.source},
        "memory": {"bytes": memory.value, "from": memory.source},
        "cpu": cpu(),
        "gpu": {
            "gpus": [
                {
                    "index": g.index,
                    "name": g.name,
                    "compute_capability": g.compute_capability,
                    "memory": g.memory,
                }
                for g in driver.gpus
            ],
            "cuda": driver.cuda_text if driver.cuda else "",
            "reason": driver.reason,
        },
        "backends": {
            name: {"usable": s.usable, "version": s.version, "devices": list(s.devices), "reason": s.reason}
            for name, s in backends.items()
        },
        "engines": {name: build.builder(name).missing() for name in build.BUILDERS},
        "packages": {name: version(name) for name in PACKAGES},
        "models": list(load.bundled_names()),
        "cache": str(cache.folder()),
        "would_run": would_run(),
        "ready": any(s.usable for s in backends.values()),
    }


def cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """The processor's name and those of its features that inference gains from."""
    name, flags = platform.processor() or "unknown", ""
    try:
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = value
    except OSError:
        pass
    return {"name": name, "features": [f for f in FEATURES if f in flags.split()]}


def version(package: str) -> str:
    """The installed version, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def would_run() -> str:
    """Which backend `wsiseg run` would take for a bundled model."""
    names = load.bundled_names()
    if not names:
        return "nothing: no model is bundled; give one with --model"
    try:
        model = load.load_models([names[0]])
        return f"{registry.choose(model, SessionOptions(model.spec.tile, 1, 1, 1))} with model {names[0]}"
    except WsisegError as error:
        return f"nothing: {error}"


def show(found: dict[str, Any], console: Console) -> None:
    """The findings in words: what is there in green, what is missing with its reason."""

    def line(name: str, text: str, good: bool | None = None) -> None:
        mark = {True: "[green]yes[/]", False: "[yellow]no [/]", None: "   "}[good]
        console.print(f"{mark} [bold]{name:<11}[/] {escape(text)}")

    line("wsiseg", f"{found['wsiseg']}, Python {found['python']}, {found['system']}")
    line("cores", f"{found['cores']['count']} (from {found['cores']['from']})")
    line("memory", f"{format_bytes(found['memory']['bytes'])} (from {found['memory']['from']})")
    line(
        "CPU",
        f"{found['cpu']['name']}"
        + (f": {', '.join(found['cpu']['features'])}" if found["cpu"]["features"] else ""),
    )
    gpu = found["gpu"]
    for g in gpu["gpus"]:
        line(
            f"cuda:{g['index']}",
            f"{g['name']}, sm {g['compute_capability']}, {format_bytes(g['memory'])}, CUDA {gpu['cuda']}",
            True,
        )
    if not gpu["gpus"]:
        line("GPU", gpu["reason"], False)
    for name, status in found["backends"].items():
        text = (
            f"{status['version']} on {', '.join(status['devices'])}" if status["usable"] else status["reason"]
        )
        line(name, text, status["usable"])
    for name, lacking in found["engines"].items():
        line(
            "engines",
            f"{name}: `wsiseg build-engine --backend {name}` works" if not lacking else f"{name}: {lacking}",
            not lacking,
        )
    line("packages", ", ".join(f"{k} {v}" for k, v in found["packages"].items() if v))
    missing = [k for k, v in found["packages"].items() if not v]
    if missing:
        line("", f"not installed: {', '.join(missing)}")
    line("models", ", ".join(found["models"]) or "none bundled")
    line("cache", found["cache"])
    line("would run", found["would_run"], not found["would_run"].startswith("nothing"))
