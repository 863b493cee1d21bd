"""State dicts of a named architecture become models, wrappers' prefixes and all; what is no state dict is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from wsiseg.backends.run import probabilities
from wsiseg.engines import statedict
from wsiseg.engines.tiles import procedural_tiles
from wsiseg.errors import ModelError
from wsiseg.model.load import from_graphs
from wsiseg.model.spec import ModelSpec

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch (the train extra)"),
]
SPEC = ModelSpec(
    "lab", tile=64, tile_multiple=32, mean=(120.0,) * 3, std=(60.0,) * 3,
    network={"name": "compact-unet", "channels": [8, 8, 8], "decoder": [8, 8], "depth": 3},
)  # fmt: skip


def test_a_state_dict_from_a_trainer(tmp_path: Path) -> None:
    import torch

    from wsiseg_train.export import GraphModel
    from wsiseg_train.networks import build_network

    torch.manual_seed(0)
    net = build_network(SPEC.network, outputs=1).eval()
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in net.state_dict().items()}, "epoch": 3},
        tmp_path / "lab.pth",
    )
    data = statedict.to_onnx(tmp_path / "lab.pth", SPEC)
    tiles = procedural_tiles(64, 2)
    with torch.inference_mode():
        expected = GraphModel(net, SPEC)(torch.from_numpy(tiles)).numpy()
    got, _ = probabilities(from_graphs([data], ["lab"]), tiles, "openvino", "fp32")
    assert np.abs(got - expected).max() < 1e-4
    torch.save({k: v for k, v in net.state_dict().items() if not k.startswith("head")}, tmp_path / "less.pth")
    with pytest.raises(
        ModelError, match=r"weights missing and 0 unknown for network 'compact-unet' \(first: head"
    ):
        statedict.to_onnx(tmp_path / "less.pth", SPEC)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    import pickle

    import torch

    bad = tmp_path / "bad.pt"
    with pytest.raises(ModelError, match=r"add a \[network\] table"):
        statedict.to_onnx(bad, ModelSpec("lab"))
    bad.write_bytes(b"text")
    with pytest.raises(ModelError, match="not a state dict of tensors"):
        statedict.to_onnx(bad, SPEC)
    bad.write_bytes(pickle.dumps(print))  # a pickle that would call something
    with pytest.raises(ModelError, match="not a state dict of tensors"):
        statedict.to_onnx(bad, SPEC)
    torch.save({"a": 3}, bad)
    with pytest.raises(ModelError, match="it holds more than tensors"):
        statedict.to_onnx(bad, SPEC)


def test_prefixes_go_only_when_they_hide_the_names() -> None:
    assert statedict.unwrapped({"module.model.a": 1}, {"a": 0}) == {"a": 1}
    assert statedict.unwrapped({"net.a": 1}, {"net.a": 0}) == {"net.a": 1}
    assert statedict.unwrapped({"x": 1, "net.a": 1}, {"a": 0}) == {"x": 1, "net.a": 1}
