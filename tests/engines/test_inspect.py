"""An engine that only claims to be half is found by its layers."""

from __future__ import annotations

import json

import pytest

from wsiseg.engines.inspect import inspect_layers, require
from wsiseg.errors import EngineError


def layer(name: str, kind: str, *formats: str) -> dict:
    tensors = [{"Name": f"t{i}", "Dimensions": [1], "Format/Datatype": f} for i, f in enumerate(formats)]
    return {"Name": name, "LayerType": kind, "Inputs": tensors[:1], "Outputs": tensors[1:]}


def text(*layers: object) -> str:
    return json.dumps({"Layers": layers, "Bindings": []})


CAST = layer("cast", "Reformat", "UInt8", "Half")
CONV = layer("conv1", "CaskConvolution", "Half", "Half")
OLD = layer(
    "conv2",
    "CaskConvolution",
    "Two wide channel vectorized row major FP16 format",
    "Row major linear FP16 format",
)
SIGMOID = layer("sigmoid", "PointWise", "Half", "Float")


def test_half_engines_pass() -> None:
    layers = inspect_layers(text(CAST, CONV, OLD, SIGMOID), "fp16")
    assert layers.right == ("conv1", "conv2")
    assert layers.others == 2
    require(layers, "fp16")


def test_a_float_layer_fails_by_name() -> None:
    layers = inspect_layers(text(CONV, layer("conv9", "CaskConvolution", "Float", "Float")), "fp16")
    with pytest.raises(
        EngineError, match=r"not fp16: 1 of 2 working layers are in another precision \(conv9\)"
    ):
        require(layers, "fp16")
    require(inspect_layers(text(layer("a", "gemm", "Float", "Float")), "fp32"), "fp32")
    require(inspect_layers(text(layer("a", "kgen", "BFloat16", "BFloat16")), "bf16"), "bf16")


@pytest.mark.parametrize("bad", ["", "{}", "[]", '{"Layers": ["conv1"]}', '{"Layers": 3}'])
def test_no_information_is_no_proof(bad: str) -> None:
    with pytest.raises(EngineError, match="layer information"):
        inspect_layers(bad, "fp16")


def test_an_engine_without_working_layers() -> None:
    with pytest.raises(EngineError, match="cannot be proven"):
        require(inspect_layers(text(CAST), "fp16"), "fp16")
