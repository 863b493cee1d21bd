"""What a user may call a model, and the one line for what is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests import fixtures_models as networks
from wsiseg.errors import ModelError, UsageError
from wsiseg.model import cache, load, onnxio


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(networks.random_conv(1))
    return path


def test_a_file_and_its_digest(model_file: Path) -> None:
    loaded = load.load_models([str(model_file)])
    assert loaded.name == "random1"
    assert loaded.copies == 1
    assert loaded.digest == networks.load(networks.random_conv(1)).digest
    digests = {
        loaded.digest,
        load.load_models([str(model_file)], tta="flips").digest,
        load.load_models([str(model_file)] * 2, weights=(1, 2)).digest,
        load.load_models([str(model_file)] * 2, weights=(2, 1)).digest,
        networks.load(networks.with_spec(networks.random_conv(1), thresholds=(0.4,))).digest,
    }
    assert len(digests) == 5


def test_a_bundled_name(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    monkeypatch.setattr(load, "BUNDLED", model_file.parent)
    assert load.bundled_names() == ("net",)
    assert load.load_models(["net"]).name == "random1"
    with pytest.raises(ModelError, match="unknown model 'nett'; known: net"):
        load.load_models(["nett"])


def test_files_that_are_no_model(tmp_path: Path, model_file: Path) -> None:
    def refused(data: bytes, name: str = "bad.onnx") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            load.load_models([str(path)])
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    good = model_file.read_bytes()
    assert "empty" in refused(b"")
    assert "not an ONNX model" in refused(b"II*\0 this is a TIFF")
    assert "not an ONNX model" in refused(good[: len(good) // 2])
    assert "not a model file" in refused(good, "bad.tif")
    with pytest.raises(ModelError, match="folder"):
        load.load_models([str(tmp_path)])
    with pytest.raises(ModelError, match="no such model file"):
        load.load_models([str(tmp_path / "no.onnx")])
    assert "empty" in refused(b"", "bad.pt")


def edited(change) -> bytes:  # type: ignore[no-untyped-def]
    model = onnx.load_model_from_string(networks.random_conv(1))
    change(model)
    return onnxio.canonical(model)


def test_graphs_that_break_the_contract() -> None:
    def message(change) -> str:  # type: ignore[no-untyped-def]
        with pytest.raises(ModelError) as caught:
            networks.load(edited(change))
        return str(caught.value)

    assert "without a wsiseg model spec" in message(lambda m: m.metadata_props.pop())
    assert "takes float" in message(
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", onnx.TensorProto.FLOAT)
    )
    assert "2 inputs" in message(lambda m: m.graph.input.add(name="extra"))
    assert "cast its uint8 input" in message(lambda m: m.graph.node[0].__setattr__("op_type", "Identity"))
    assert "2 channels" in message(
        lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 2)
    )
    assert "gives double" in message(
        lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", onnx.TensorProto.DOUBLE)
    )


def test_nothing_given() -> None:
    with pytest.raises(UsageError, match="wsiseg models"):
        load.load_models([])


def test_the_cache_is_bounded_and_never_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    monkeypatch.setenv("WSISEG_CACHE", str(tmp_path / "cache"))
    assert cache.get("a") is None
    for age, name in enumerate("abc"):
        cache.put(name, bytes([age + 1]) * 100, limit=1000)
        os.utime(tmp_path / "cache" / name, (1e9 + age, 1e9 + age))
    cache.put("d", b"4" * 100, limit=250)
    assert [cache.get(name) is not None for name in "abcd"] == [False, False, True, True]
    cache.put("e", b"5" * 300, limit=250)
    assert cache.get("e") is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WSISEG_CACHE", str(tmp_path / "file"))
    cache.put("a", b"1")
    assert cache.get("a") is None


def test_naming_the_modules_loads_no_runtime() -> None:
    code = (
        "import sys, wsiseg.backends, wsiseg.model.load;"
        "print([m for m in ('onnx','openvino','torch','tensorrt') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
