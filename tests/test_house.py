"""Who may import whom, and what must not be loaded: the rules of the house, held by the code's own imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsiseg

ROOT = Path(__file__).resolve().parent.parent
STDLIB = sys.stdlib_module_names

# Floors from the ground up. A module may import from its own floor and those below, never from above.
FLOORS = [
    {
        "wsiseg.errors",
        "wsiseg.units",
        "wsiseg.geometry",
        "wsiseg._version",
        "wsiseg.limits",
        "wsiseg.resident",
        "wsiseg_kernels",
    },
    {"wsiseg.model.spec", "wsiseg.slide", "wsiseg.runs", "wsiseg.tiling", "wsiseg.instances"},
    {"wsiseg.memory", "wsiseg.model"},
    {"wsiseg.objects", "wsiseg_train"},
    {"wsiseg.backends", "wsiseg.engines", "wsiseg.outputs", "wsiseg.synth"},
    {"wsiseg.pipeline"},
    {"wsiseg.api", "wsiseg.bench"},
    {"wsiseg.jobs"},
    {"wsiseg.cli"},
]
GROUND = ("wsiseg.errors", "wsiseg.units", "wsiseg.geometry")
HEAVY = (
    "torch",
    "openvino",
    "onnx",
    "numba",
    "zarr",
    "pandas",
    "cv2",
    "tifffile",
    "tensorrt",
    "wsiseg_train",
)


def modules() -> Iterator[tuple[str, Path]]:
    for base, package in (
        (ROOT, "wsiseg"),
        (ROOT / "kernels", "wsiseg_kernels"),
        (ROOT / "train", "wsiseg_train"),
    ):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path, name: str, lazy: bool = True) -> set[str]:
    """Absolute names that a module imports; `lazy` includes those inside functions. Types only never count."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(n) for n in ast.walk(node)}
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped |= {id(n) for n in ast.walk(node) if n is not node}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def floor_of(name: str) -> int | None:
    """The floor of a module: the longest prefix that a floor names."""
    best, level = "", None
    for index, floor in enumerate(FLOORS):
        for prefix in floor:
            if (name == prefix or name.startswith(prefix + ".")) and len(prefix) > len(best):
                best, level = prefix, index
    return level


ALL = list(modules())


@pytest.mark.parametrize(("name", "path"), ALL, ids=[n for n, _ in ALL])
def test_no_module_imports_from_a_floor_above(name: str, path: Path) -> None:
    own = floor_of(name)
    if own is None:
        assert name in ("wsiseg", "wsiseg.__main__"), f"{name} is on no floor"
        return
    # The command line and an engine's export reach the training package lazily; nothing does at import.
    for other in imports(path, name, lazy=False):
        level = floor_of(other)
        if other.startswith("wsiseg") and level is not None:
            assert level <= own, f"{name} (floor {own}) imports {other} (floor {level})"


@pytest.mark.parametrize(("name", "path"), ALL, ids=[n for n, _ in ALL])
def test_packages_keep_to_what_they_may_import(name: str, path: Path) -> None:
    roots = {i.split(".")[0] for i in imports(path, name)}
    if name in GROUND or name in ("wsiseg.limits", "wsiseg.resident"):
        assert roots <= STDLIB | {"__future__"}, f"{name} imports {roots - STDLIB}"
    if name.split(".")[0] == "wsiseg_kernels":
        # llvmlite is what numba is built on and comes with; its instructions are how numba is extended.
        assert roots - STDLIB <= {"numpy", "numba", "llvmlite", "wsiseg_kernels"}
    if name.startswith(("wsiseg.tiling", "wsiseg.memory")):
        assert roots - STDLIB <= {"wsiseg"}
    if name.startswith("wsiseg.pipeline"):
        assert "rich" not in roots
        assert not any(i.startswith("wsiseg.jobs") for i in imports(path, name))
    if not name.startswith(("wsiseg.cli", "wsiseg_train")):
        assert "rich" not in roots, f"{name} imports rich; only the command line does"
    if name.startswith("wsiseg.") and not name.startswith(
        ("wsiseg.cli", "wsiseg.model", "wsiseg.engines", "wsiseg.backends")
    ):
        assert "wsiseg_train" not in roots, f"{name} imports the training package"


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running `code`."""
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "train"))}


@pytest.mark.parametrize(
    "code",
    [
        "import wsiseg",
        "from wsiseg.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
        "from wsiseg.cli.main import main\ntry:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass",
    ],
    ids=["import wsiseg", "wsiseg --help", "wsiseg run --help"],
)
def test_help_and_import_load_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & set(HEAVY)


def test_the_parent_of_a_run_stays_light() -> None:
    # It survives what a worker does not, so it must not hold a runtime or a decoder itself.
    assert not loaded_after(
        "import wsiseg.cli.run, wsiseg.cli.display\n"
        "from wsiseg.outputs.kinds import keeps_probabilities, missing_outputs, parse_kinds\n"
        "missing_outputs('a', '.', parse_kinds(['mask,geojson']))"
    ) & {
        "torch",
        "openvino",
        "numba",
        "zarr",
        "cv2",
        "tifffile",
    }


def test_public_names() -> None:
    assert set(wsiseg.__all__) == {
        "BudgetError", "ModelError", "ModelSpec", "RunOptions", "Runs", "Segmentation", "SlideError", "UsageError",
        "WsisegError", "__version__", "segment",
    }  # fmt: skip
    for name in wsiseg.__all__:
        assert getattr(wsiseg, name) is not None
