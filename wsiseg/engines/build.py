"""What `wsiseg build-engine` does for every runtime: resolve, build, compare, write plan and sidecar by rename.

A builder is a module with `missing() -> str` (what this machine lacks, or "") and `build(request) -> Built`.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from wsiseg.engines import parity
from wsiseg.errors import EngineError, UsageError, unknown_name
from wsiseg.model import onnxio
from wsiseg.model.enginefile import EngineFile, Sidecar, sidecar_path, write_engine
from wsiseg.model.load import LoadedModel, load_models

BUILDERS = {"tensorrt": "wsiseg.engines.tensorrt_build", "openvino": "wsiseg.engines.openvino_build"}
BUILD_PRECISIONS = {"tensorrt": ("fp16", "bf16", "fp32"), "openvino": ("bf16", "int8", "fp32")}


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        model: the graph, flips and members inside. precision: see BUILD_PRECISIONS. tile, batch: the sizes.
        tiles: uint8 [N, T, T, 3] to calibrate and compare with; tiles_from: "slide" or "procedural".
        workspace, optimization_level, timing_cache, refit: TensorRT's own. threads: of the CPU. command: builds it again.
        tell: receives lines about progress.
    """

    model: LoadedModel
    precision: str
    tile: int
    batch: int
    tiles: npt.NDArray[np.uint8]
    tiles_from: str
    threads: int = 1
    workspace: int = 0
    optimization_level: int = 3
    timing_cache: str = ""
    refit: bool = False
    command: str = ""
    tell: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class Built:
    """A compiled plan with what the sidecar says of it. tile and batch are 0 where the plan takes any."""

    plan: bytes
    runtime_version: str
    tile: int
    batch: int
    key: dict[str, Any]


class Runner(Protocol):
    """`wsiseg.backends.run.probabilities`; given by the caller, since backends stand above engines."""

    def __call__(
        self,
        model: LoadedModel,
        tiles: npt.NDArray[np.uint8],
        backend: str,
        precision: str,
        batch: int,
        threads: int,
    ) -> tuple[npt.NDArray[np.float32], str]: ...


class Builder(Protocol):
    """The functions of a builder module."""

    def missing(self) -> str: ...
    def key(self, request: Request) -> dict[str, Any]: ...
    def build(self, request: Request) -> Built: ...


def builder(name: str) -> Builder:
    """The builder called `name`.

    Raises:
        UsageError: for a name that does not exist.
    """
    if name not in BUILDERS:
        raise UsageError(unknown_name("engine backend", name, ("auto", *BUILDERS)))
    return cast(Builder, importlib.import_module(BUILDERS[name]))


def choose_builder(name: str) -> tuple[str, str]:
    """(builder, why not the first) for "auto" or a name: TensorRT where it can build, else the CPU's.

    Raises:
        EngineError: when a named builder cannot work here, with what to install and the CPU engine's command.
    """
    if name != "auto":
        lacking = builder(name).missing()
        if lacking:
            offer = (
                ""
                if name == "openvino"
                else "; the CPU engine is built by `wsiseg build-engine MODEL --backend openvino`"
            )
            raise EngineError(f"cannot build a {name} engine here: {lacking}{offer}")
        return name, ""
    reasons: list[str] = []
    for candidate in BUILDERS:
        lacking = builder(candidate).missing()
        if not lacking:
            return candidate, "; ".join(reasons)
        reasons.append(f"{candidate}: {lacking}")
    raise EngineError("no engine can be built here; " + "; ".join(reasons))


def choose_precision(runtime: str, asked: str) -> str:
    """The precision to build: the runtime's first for "auto".

    Raises:
        UsageError: for one that the runtime's engines do not have.
    """
    known = BUILD_PRECISIONS[runtime]
    if asked == "auto":
        return known[0]
    if asked not in known:
        raise UsageError(unknown_name(f"precision for a {runtime} engine", asked, known))
    return asked


def up_to_date(output: Path, runtime: str, request: Request) -> EngineFile | None:
    """The engine at `output` if it is whole and is what `request` would build, else None."""
    if not output.exists() or not sidecar_path(output).exists():
        return None
    try:
        engine = EngineFile.open(output)
        engine.read_plan()
    except EngineError:
        return None
    same = (
        engine.sidecar.runtime == runtime
        and engine.sidecar.key.get("key") == builder(runtime).key(request)["key"]
    )
    return engine if same else None


def build_engine(
    runtime: str, request: Request, output: Path, run: Runner
) -> tuple[EngineFile, parity.Parity]:
    """Build, write, load it again as a user would, and compare with the float32 graph. `run` runs a model on tiles.

    Raises:
        EngineError: when the compiler fails or the engine is not what was asked for. OutputError: when it cannot be written.
    """
    _check_writable(output)
    built = builder(runtime).build(request)
    # A run's default tile is its model's: for an engine of one tile, that one.
    spec = dataclasses.replace(request.model.spec, tile=built.tile or request.model.spec.tile)
    sidecar = Sidecar(
        runtime=runtime,
        runtime_version=built.runtime_version,
        spec=spec,
        model_digest=request.model.digest,
        model_refs=request.model.refs,
        plan_digest=onnxio.digest(built.plan),
        plan_bytes=len(built.plan),
        precision=request.precision,
        tile=built.tile,
        batch=built.batch,
        tta=request.model.tta,
        key=built.key,
        built=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=request.command,
    )
    write_engine(output, built.plan, sidecar)
    request.tell(f"comparing with the float32 graph on {len(request.tiles)} {request.tiles_from} tiles")
    expected, _ = run(request.model, request.tiles, "openvino", "fp32", 1, request.threads)
    got, ran = run(load_models([str(output)]), request.tiles, runtime, "auto", request.batch, request.threads)
    report = parity.compare(expected, got, request.model.spec.thresholds, ran, request.tiles_from)
    return write_engine(output, built.plan, dataclasses.replace(sidecar, parity=report.to_dict())), report


def _check_writable(output: Path) -> None:
    """Fail before minutes of building, not after: try the folder with an empty file."""
    probe = output.with_name(f".{output.name}.probe")
    onnxio.write_atomic(probe, b"")
    probe.unlink(missing_ok=True)
