"""The OpenVINO session: slots, padding, precision, and the same bytes whatever the threads and batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests import fixtures_models as networks
from wsiseg.backends import Session, SessionOptions, available, choose, names, open_session, registry
from wsiseg.backends import openvino as backend
from wsiseg.engines import openvino_ir
from wsiseg.errors import EngineError, ModelError, UsageError


def options(**changes: object) -> SessionOptions:
    return SessionOptions(
        **({"tile": 32, "batch": 2, "slots": 2, "threads": 1, "precision": "fp32"} | changes)
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)


def run(session: Session, tiles: np.ndarray) -> np.ndarray:
    """All tiles through all slots, several in flight, the last batch not full."""
    batch, slots = session.options.batch, session.options.slots
    chunks = [tiles[i : i + batch] for i in range(0, len(tiles), batch)]
    results: list[np.ndarray] = []
    for index in range(len(chunks) + slots):
        slot = index % slots
        if index >= slots and index - slots < len(chunks):
            results.append(session.wait(slot).copy())
        if index < len(chunks):
            session.input(slot)[: len(chunks[index])] = chunks[index]
            session.start(slot, len(chunks[index]))
    return np.concatenate(results)


def test_a_session_keeps_the_protocol(tiles: np.ndarray) -> None:
    session = open_session(networks.load(networks.random_conv(1)), options())
    assert isinstance(session, Session)
    assert session.input(0).shape == (2, 32, 32, 3)
    assert session.input(0).dtype == np.uint8
    assert "openvino" in session.description
    assert "fp32" in session.description
    result = run(session, tiles)
    assert result.shape == (9, 1, 32, 32)
    assert result.dtype == np.float32
    session.close()


def test_the_answer_is_the_network_s(tiles: np.ndarray) -> None:
    import cv2

    session = open_session(networks.load(networks.redness(blur=5, gain=0.25, level=40.0)), options(batch=1))
    got = run(session, tiles[:1])[0, 0]
    rgb = tiles[0].astype(np.float64)
    mean = cv2.blur(rgb[..., 0] - (rgb[..., 1] + rgb[..., 2]) / 2, (5, 5), borderType=cv2.BORDER_CONSTANT)
    assert np.abs(got - 1 / (1 + np.exp(-0.25 * (mean - 40)))).max() < 1e-5
    session.close()


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_same_bytes_for_any_threads_slots_and_batch(tiles: np.ndarray, precision: str) -> None:
    model = networks.load(networks.random_conv(2, channels=16))
    results = set()
    for threads, slots, batch in itertools.product((1, 2), (1, 3), (1, 4)):
        session = open_session(model, options(threads=threads, slots=slots, batch=batch, precision=precision))
        results.add(run(session, tiles).tobytes())
        session.close()
    assert len(results) == 1


def test_padding_never_leaks(tiles: np.ndarray) -> None:
    session = open_session(networks.load(networks.random_conv(1)), options(batch=4, slots=1))
    clean = run(session, tiles[:1])
    session.input(0)[:] = 255
    session.input(0)[:1] = tiles[:1]
    session.start(0, 1)
    assert np.array_equal(session.wait(0), clean)
    session.close()


def test_a_constant_stays_constant() -> None:
    for precision in ("fp32", "auto"):
        session = open_session(networks.load(networks.constant(0.7, classes=2)), options(precision=precision))
        session.start(0, 2)
        values = [np.unique(c) for c in session.wait(0).transpose(1, 0, 2, 3)]
        assert [len(v) for v in values] == [1, 1]
        assert abs(values[0][0] - 0.7) < 0.002
        assert abs(values[1][0] - 0.35) < 0.002
        session.close()


def test_wrong_order_is_refused() -> None:
    session = open_session(networks.load(networks.constant(0.5)), options())
    with pytest.raises(RuntimeError, match="not started"):
        session.wait(0)
    with pytest.raises(ValueError, match="between 1 and 2"):
        session.start(0, 3)
    session.start(0, 1)
    with pytest.raises(RuntimeError, match="twice"):
        session.start(0, 1)
    session.close()  # waits for what is in flight


@pytest.mark.parametrize(
    ("asked", "quantised", "capabilities", "runs"),
    [
        ("auto", False, ["FP32", "BF16"], "bf16"),
        ("auto", False, ["FP32"], "fp32"),
        ("auto", True, ["FP32", "BF16", "INT8"], "int8"),
        ("fp32", False, ["FP32", "BF16"], "fp32"),
        ("bf16", False, ["FP32", "BF16"], "bf16"),
    ],
)
def test_precision(asked: str, quantised: bool, capabilities: list[str], runs: str) -> None:
    assert backend.choose_precision(asked, quantised, capabilities, "net") == runs


def test_impossible_precisions_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="build-engine"):
        backend.choose_precision("int8", False, ["FP32"], "net")
    with pytest.raises(UsageError, match="does not compute in bf16; use fp32"):
        backend.choose_precision("bf16", False, ["FP32"], "net")


def test_the_registry() -> None:
    model = networks.load(networks.constant(0.5))
    assert choose(model, options(device="cpu")) == "openvino"
    assert set(available()) == set(names())
    assert available()["openvino"].usable
    with pytest.raises(UsageError, match="unknown backend 'tflite'; known: auto, openvino"):
        open_session(model, options(), "tflite")
    with pytest.raises(ModelError, match="not on cuda:7"):
        open_session(model, options(device="cuda:7"), "openvino")


def test_sizes_are_checked_before_anything_is_loaded() -> None:
    model = networks.load(networks.with_spec(networks.constant(0.5), tile=64, tile_multiple=32))
    with pytest.raises(UsageError, match=r"--tile 50: .* multiple of 32, like 64"):
        open_session(model, options(tile=50))
    with pytest.raises(UsageError, match="--batch 0"):
        open_session(model, options(batch=0))
    with pytest.raises(UsageError, match="unknown precision 'half'"):
        open_session(model, options(precision="half"))


def test_a_graph_that_cannot_compile_is_one_line() -> None:
    import onnx

    from wsiseg.model import onnxio

    model = onnx.load_model_from_string(networks.random_conv(1))
    model.graph.node[-1].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="OpenVINO cannot") as caught:
        open_session(networks.load(onnxio.canonical(model)), options())
    assert "\n" not in str(caught.value)


def test_an_engine_archive_is_checked() -> None:
    xml, weights = openvino_ir.unpack_engine(openvino_ir.pack_engine(b"<net/>", b"123"), "x.engine")
    assert (xml, weights) == (b"<net/>", b"123")
    assert openvino_ir.pack_engine(b"a", b"b") == openvino_ir.pack_engine(b"a", b"b")
    with pytest.raises(EngineError, match=r"x\.engine: not an OpenVINO engine"):
        openvino_ir.unpack_engine(b"\0" * 100, "x.engine")


def test_a_broken_runtime_is_a_status_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BACKENDS, "broken", "wsiseg.backends.does_not_exist")
    assert "does_not_exist" in registry.available()["broken"].reason
