"""An engine file is never trusted: cut, exchanged and edited plans and sidecars are refused by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wsiseg.errors import EngineError, UsageError
from wsiseg.model import onnxio
from wsiseg.model.enginefile import EngineFile, Sidecar, sidecar_path, write_engine
from wsiseg.model.load import load_models
from wsiseg.model.spec import ModelSpec

PLAN = bytes(range(256)) * 40


def sidecar(**changes: object) -> Sidecar:
    base = Sidecar(
        runtime="tensorrt", runtime_version="10.16.1", spec=ModelSpec("net"), model_digest="0" * 64, model_refs=("net.pt",),
        plan_digest=onnxio.digest(PLAN), plan_bytes=len(PLAN), precision="fp16", tile=512, batch=8, tta="flips", key={"gpu": "X"},
        command="wsiseg build-engine net.pt",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_engine(tmp_path / "net.engine", PLAN, sidecar())
    return tmp_path / "net.engine"


def test_there_and_back(path: Path) -> None:
    engine = EngineFile.open(path)
    assert engine.sidecar == sidecar()
    assert engine.read_plan() == PLAN
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.engine", "net.engine.json"]
    loaded = load_models([str(path)])
    assert (loaded.name, loaded.tta, loaded.copies, loaded.digest) == ("net", "flips", 4, onnxio.digest(PLAN))


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        data = json.loads(sidecar_path(path).read_text())
        change(data)
        sidecar_path(path).write_text(json.dumps(data))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(PLAN[:-1]), "10239 bytes, its sidecar says 10240: cut or exchanged"),
        (lambda p: p.write_bytes(PLAN[:-1] + b"x"), "its hash is not the one in its sidecar"),
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (lambda p: p.unlink() or p.mkdir(), "cannot be read"),
        (lambda p: sidecar_path(p).unlink(), "no sidecar net.engine.json beside it"),
        (lambda p: sidecar_path(p).write_text(sidecar_path(p).read_text()[:100]), "the sidecar is damaged or cut"),
        (lambda p: sidecar_path(p).write_text(""), "the sidecar is damaged or cut"),
        (lambda p: sidecar_path(p).write_text("[]"), "the sidecar is damaged or cut"),
        (lambda p: sidecar_path(p).write_bytes(b"\xff\xfe\x00"), "the sidecar cannot be read"),
        (edit(lambda d: d.update(precision="fp32")), "the sidecar was changed after it was written"),
        (edit(lambda d: d.update(plan_digest="0" * 64)), "the sidecar was changed after it was written"),
        (edit(lambda d: d.pop("digest")), "the sidecar is damaged or cut"),
        (edit(lambda d: d.update(schema=99)), "sidecar schema 99, this wsiseg reads 1"),
    ],
)  # fmt: skip
def test_damage_is_refused_in_one_line_with_the_command(
    path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(path)
    with pytest.raises(EngineError) as caught:
        EngineFile.open(path).read_plan()
    assert message in str(caught.value)
    assert "wsiseg build-engine" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_engine_stands_alone(path: Path) -> None:
    with pytest.raises(UsageError, match="cannot join an ensemble"):
        load_models([str(path), str(path)])
    with pytest.raises(UsageError, match="built with --tta flips"):
        load_models([str(path)], tta="d4")
    assert load_models([str(path)], tta="flips").engine is not None


def test_a_sidecar_of_an_unknown_runtime(tmp_path: Path) -> None:
    write_engine(tmp_path / "a.engine", PLAN, sidecar(runtime="coreml"))
    with pytest.raises(EngineError, match="an engine for 'coreml'; this wsiseg runs tensorrt, openvino"):
        EngineFile.open(tmp_path / "a.engine")
