"""The torch backend on the CPU: the same network from its checkpoint as from its exported graph, with flips and members."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from wsiseg.backends import Session, SessionOptions, open_session
from wsiseg.backends import torch as backend
from wsiseg.backends.run import probabilities, run_tiles
from wsiseg.errors import ModelError, UsageError
from wsiseg.model.load import LoadedModel, load_models
from wsiseg.model.spec import ModelSpec

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch (the train extra)"),
]
TILE = 64


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    import torch

    from wsiseg_train.checkpoint import output_channels, save_checkpoint
    from wsiseg_train.networks import build_network

    folder = tmp_path_factory.mktemp("checkpoints")
    paths = []
    for seed in range(2):
        spec = ModelSpec(
            f"net{seed}",
            tile=TILE,
            tile_multiple=32,
            mean=(120.0, 110.0, 100.0),
            std=(60.0, 60.0, 60.0),
            network={"name": "compact-unet", "channels": [8, 8, 8], "decoder": [8, 8], "depth": 3},
        )
        torch.manual_seed(seed)
        net = build_network(spec.network, outputs=output_channels(spec))
        paths.append(str(folder / f"{seed}.pt"))
        save_checkpoint(paths[-1], spec, net.state_dict())
    return paths


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSISEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, TILE, TILE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(checkpoints: list[str]) -> LoadedModel:
    return load_models(checkpoints, (1, 3), "flips")


def test_an_ensemble_with_flips_equals_its_graph(model: LoadedModel, tiles: np.ndarray) -> None:
    expected, _ = probabilities(model, tiles, "openvino", "fp32", batch=2)
    got, ran = probabilities(model, tiles, "torch", "fp32", batch=2)
    assert ran == "fp32"
    assert np.abs(got - expected).max() < 1e-4


def test_the_session_keeps_the_protocol(checkpoints: list[str], tiles: np.ndarray) -> None:
    session = open_session(
        load_models(checkpoints[:1]), SessionOptions(TILE, 2, 2, 1, "fp32", "cpu"), "torch"
    )
    assert isinstance(session, Session)
    assert "torch" in session.description
    first = run_tiles(session, tiles)
    assert first.shape == (5, 1, TILE, TILE)
    assert np.array_equal(first, run_tiles(session, tiles))
    with pytest.raises(RuntimeError, match="not started"):
        session.wait(0)
    with pytest.raises(ValueError, match="between 1 and 2"):
        session.start(0, 3)
    session.close()


def test_exported_once_and_kept(checkpoints: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_models(checkpoints[:1])
    import wsiseg_train.export

    monkeypatch.setattr(wsiseg_train.export, "export_onnx", lambda path: pytest.fail("exported twice"))
    assert load_models(checkpoints[:1]).digest == first.digest
    assert first.checkpoints == (Path(checkpoints[0]),)


def test_only_checkpoints() -> None:
    from tests import fixtures_models as networks

    with pytest.raises(ModelError, match=r"it runs \.pt checkpoints only"):
        open_session(networks.load(networks.constant(0.5)), SessionOptions(TILE, 1, 1, 1), "torch")


def test_a_broken_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not a zip")
    with pytest.raises(ModelError) as caught:
        load_models([str(tmp_path / "bad.pt")])
    assert "\n" not in str(caught.value)


def test_precisions(tmp_path: Path) -> None:
    assert backend.choose_precision("auto", on_gpu=True) == "fp16"
    assert backend.choose_precision("auto", on_gpu=False) in ("fp32", "bf16")
    with pytest.raises(UsageError, match="fp32, bf16 on a CPU"):
        backend.choose_precision("fp16", on_gpu=False)
    info = tmp_path / "cpuinfo"
    info.write_text("flags : avx2 amx_bf16\n")
    assert backend.cpu_has_bf16(info)
    info.write_text("flags : avx2\n")
    assert not backend.cpu_has_bf16(info)
    assert not backend.cpu_has_bf16(tmp_path / "none")
