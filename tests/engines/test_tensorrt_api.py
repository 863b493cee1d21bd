"""Every TensorRT name in our source against the public names of TensorRT 10.16 and 11.4, read off their own bindings.

TensorRT 10 and 11 cannot be installed here. Two rules, by syntax tree: every `trt.A.B` must be a class and a member of
it; every attribute of a variable called `builder`, `network`, `config`, ... must be a member of the class that such a
variable holds. The control shows that names which 11 has dropped are found.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "wsiseg/engines/tensorrt_build.py",
    "wsiseg/engines/tensorrt_runtime.py",
    "wsiseg/backends/tensorrt.py",
)
VERSIONS = ("10.16.1", "11.4.0")
# What our variables of these names hold, with or without a leading underscore.
HOLDS = {
    "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "parser": "OnnxParser", "profile": "IOptimizationProfile",
    "runtime": "Runtime", "engine": "ICudaEngine", "context": "IExecutionContext", "inspector": "EngineInspector", "timing_cache": "ITimingCache",
}  # fmt: skip
# Files where one of these names is something of our own.
OURS = {"wsiseg/backends/tensorrt.py": {"engine", "context"}}
ALWAYS = {"__version__"}


def names_used(source: str, ours: set[str] = frozenset()) -> set[tuple[str, ...]]:  # type: ignore[assignment]
    """(class, member) and (class,) of every TensorRT name in `source`."""
    used: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        chain = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            chain.insert(0, value.attr)
            value = value.value
        if not isinstance(value, ast.Name):
            continue
        chain.insert(0, value.id)
        if chain[0] == "trt":
            used.add(tuple(chain[1:]))
        elif len(chain) >= 2 and chain[-2].lstrip("_") in set(HOLDS) - ours:
            used.add((HOLDS[chain[-2].lstrip("_")], chain[-1]))
    return used


def unknown(used: set[tuple[str, ...]], api: dict[str, list[str]]) -> list[str]:
    """Those of `used` that the API does not have. Severity is a class inside ILogger: its members are ILogger's."""
    missing = []
    for name in sorted(used):
        head, *rest = name
        if head in ALWAYS:
            continue
        if head not in api or any(
            part not in api[head] and part not in api.get(rest[0], ()) for part in rest
        ):
            missing.append(".".join(name))
    return missing


@pytest.fixture(scope="module")
def apis(shared_data: Path) -> dict[str, dict[str, list[str]]]:
    folder = shared_data.parent / "tools" / "tensorrt_api"
    if not folder.is_dir():
        pytest.skip("no API lists in the shared folder")
    return {version: json.loads((folder / f"{version}.json").read_text()) for version in VERSIONS}


def all_names() -> set[tuple[str, ...]]:
    return set().union(*(names_used((ROOT / path).read_text(), OURS.get(path, set())) for path in SOURCES))


def test_the_check_sees_our_code() -> None:
    used = all_names()
    assert ("Builder",) in used
    assert ("IExecutionContext", "execute_async_v3") in used
    assert ("ExecutionContextAllocationStrategy", "USER_MANAGED") in used
    assert len(used) > 40


def test_no_other_file_touches_tensorrt() -> None:
    for path in ROOT.glob("wsiseg/**/*.py"):
        if str(path.relative_to(ROOT)) not in SOURCES:
            assert "import tensorrt as" not in path.read_text(), path


@pytest.mark.data
@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists(apis: dict[str, dict[str, list[str]]], version: str) -> None:
    assert unknown(all_names(), apis[version]) == []


@pytest.mark.data
def test_names_that_are_gone_are_found(apis: dict[str, dict[str, list[str]]]) -> None:
    """The negative control."""
    bad = (
        "config.set_flag(trt.BuilderFlag.FP16)\n"
        "network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))\n"
        "size = self._engine.device_memory_size\n"
        "context.execute_async_v4(stream)\n"
        "trt.NoSuchClass\n"
    )
    found = set(unknown(names_used(bad), apis["11.4.0"]))
    assert found == {
        "BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "ICudaEngine.device_memory_size",
        "IExecutionContext.execute_async_v4", "NoSuchClass",
    }  # fmt: skip
    assert "BuilderFlag.FP16" not in unknown(names_used(bad), apis["10.16.1"])
