"""An engine on disk: the compiled model and the sidecar JSON beside it that says what it was built from.

`X.engine` is the plan (TensorRT) or an archive of the intermediate representation (OpenVINO); `X.engine.json` is the
sidecar. A plan is never handed to a runtime on trust: its bytes must have the hash that the sidecar states, and the
sidecar must carry its own digest, so that neither can be exchanged, cut or edited unnoticed. (That finds accidents and
mix-ups. It is no signature: who can write both files can write anything.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsiseg.errors import EngineError
from wsiseg.model.onnxio import digest, write_atomic
from wsiseg.model.spec import ModelSpec

SCHEMA = 1
SUFFIX = ".engine"
RUNTIMES = ("tensorrt", "openvino")


@dataclass(frozen=True)
class Sidecar:
    """What an engine was built from.

    Attributes:
        runtime: "tensorrt" or "openvino". runtime_version: the version that built it.
        spec: the model spec of the network inside.
        model_digest: SHA-256 of the ONNX bytes it was built from. model_refs: what the user called them.
        plan_digest, plan_bytes: SHA-256 and size of the engine file.
        precision: "fp32", "bf16", "fp16" or "int8".
        tile, batch: what it was built for; 0 where the engine takes any.
        tta: test-time flips inside.
        key: the parts of the cache key (see `wsiseg.engines.key`): GPU name, compute capability, driver, options.
        parity: the parity report of the build, plain data.
        built: when, in ISO 8601 UTC. command: the command that builds it again.
    """

    runtime: str
    runtime_version: str
    spec: ModelSpec
    model_digest: str
    model_refs: tuple[str, ...]
    plan_digest: str
    plan_bytes: int
    precision: str
    tile: int
    batch: int
    tta: str = "none"
    key: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    built: str = ""
    command: str = ""

    def to_json(self) -> str:
        """Indented JSON with a schema number and a digest over everything else."""
        data = {
            "schema": SCHEMA,
            **dataclasses.asdict(self),
            "spec": self.spec.to_dict(),
            "model_refs": list(self.model_refs),
        }
        return json.dumps({**data, "digest": _digest(data)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Sidecar:
        """The sidecar in `text`.

        Raises:
            EngineError: when it is damaged, edited, or of another schema.
        """
        again = "; build the engine again with `wsiseg build-engine`"
        try:
            data = json.loads(text)
            stated = data.pop("digest")
            schema = data.get("schema")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise EngineError(f"{where}: the sidecar is damaged or cut ({error}){again}") from error
        if schema != SCHEMA:
            raise EngineError(f"{where}: sidecar schema {schema!r}, this wsiseg reads {SCHEMA}{again}")
        if stated != _digest(data):
            raise EngineError(f"{where}: the sidecar was changed after it was written{again}")
        data.pop("schema")
        data["spec"] = ModelSpec.from_dict(data.get("spec"), where)
        try:
            sidecar = cls(**{**data, "model_refs": tuple(data["model_refs"])})
        except (TypeError, KeyError) as error:
            raise EngineError(f"{where}: the sidecar does not fit this wsiseg ({error}){again}") from error
        if sidecar.runtime not in RUNTIMES:
            raise EngineError(
                f"{where}: an engine for {sidecar.runtime!r}; this wsiseg runs {', '.join(RUNTIMES)}"
            )
        return sidecar


@dataclass(frozen=True)
class EngineFile:
    """An engine whose sidecar has been read. Its plan is read, and checked, by `read_plan`."""

    path: Path
    sidecar: Sidecar

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EngineFile:
        """The engine at `path`, by its sidecar.

        Raises:
            EngineError: without a sidecar, or with one that does not fit.
        """
        path = Path(path)
        beside = sidecar_path(path)
        try:
            text = beside.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise EngineError(
                f"{path}: no sidecar {beside.name} beside it, so nobody knows what it is; copy both files, "
                f"or build it again with `wsiseg build-engine`"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(
                f"{beside}: the sidecar cannot be read ({error}); build the engine again with `wsiseg build-engine`"
            ) from error
        return cls(path, Sidecar.from_json(text, str(beside)))

    def read_plan(self) -> bytes:
        """The engine's bytes, after their size and hash have been found as the sidecar states.

        Raises:
            EngineError: for a file that is cut, exchanged or changed.
        """
        fix = f"; build it again with `{self.sidecar.command or 'wsiseg build-engine'}`"
        try:
            plan = self.path.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.path}: cannot be read ({error.strerror}){fix}") from error
        if len(plan) != self.sidecar.plan_bytes:
            raise EngineError(
                f"{self.path}: {len(plan)} bytes, its sidecar says {self.sidecar.plan_bytes}: cut or exchanged{fix}"
            )
        if digest(plan) != self.sidecar.plan_digest:
            raise EngineError(
                f"{self.path}: its hash is not the one in its sidecar: changed or exchanged{fix}"
            )
        return plan


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """`X.engine.json` of `X.engine`."""
    return Path(f"{os.fspath(path)}.json")


def write_engine(path: str | os.PathLike[str], plan: bytes, sidecar: Sidecar) -> EngineFile:
    """Write plan and sidecar, each by rename, the sidecar last: a crash in between leaves a refusal, not a mix.

    Raises:
        OutputError: when the folder cannot be written.
    """
    path = Path(path)
    write_atomic(path, plan)
    write_atomic(sidecar_path(path), sidecar.to_json().encode())
    return EngineFile(path, sidecar)


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
