"""Test networks as plain lists of layers, built from one set of seeded weights as an ONNX model and as a torch module.

`unet_resnet34` has the layers of segmentation_models_pytorch's Unet("resnet34") with batch norm folded into the
convolutions: 24.4 million weights, 31 GMAC for a tile of 512. `light` is a network of two small convolutions, beside
which decoding is the limit. The weights are random (He), so masks mean nothing; speed and bytes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wsiseg.model import onnxio
from wsiseg.model.spec import ModelSpec

MEAN, STD = 127.0, 60.0


@dataclass(frozen=True)
class Layer:
    """One step. kind: conv, pool (3 x 3, stride 2), up (nearest, twice), add, concat. `inputs` and `name` are values."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    channels: tuple[int, int] = (0, 0)
    kernel: int = 3
    stride: int = 1
    relu: bool = False


def unet_resnet34() -> list[Layer]:
    """ResNet34 encoder, decoder of 256, 128, 64, 32, 16 channels, a head of one class."""
    layers = [Layer("conv", "e1", ("normal",), (3, 64), 7, 2, True), Layer("pool", "p1", ("e1",))]
    now, width, features = "p1", 64, ["e1"]
    for stage, (blocks, channels) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            stride = 2 if block == 0 and stage else 1
            name = f"s{stage}b{block}"
            layers.append(Layer("conv", f"{name}a", (now,), (width, channels), 3, stride, True))
            layers.append(Layer("conv", f"{name}b", (f"{name}a",), (channels, channels)))
            short = now
            if stride == 2 or width != channels:
                short = f"{name}s"
                layers.append(Layer("conv", short, (now,), (width, channels), 1, stride))
            layers.append(Layer("add", name, (f"{name}b", short), relu=True))
            now, width = name, channels
        features.append(now)
    widths = [64, 64, 128, 256, 512]
    skips = features[:-1][::-1]
    for step, channels in enumerate((256, 128, 64, 32, 16)):
        layers.append(Layer("up", f"u{step}", (now,)))
        now = f"u{step}"
        if step < len(skips):
            layers.append(Layer("concat", f"c{step}", (now, skips[step])))
            now, width = f"c{step}", width + widths[len(skips) - 1 - step]
        for half in "ab":
            layers.append(Layer("conv", f"d{step}{half}", (now,), (width, channels), relu=True))
            now, width = f"d{step}{half}", channels
    layers.append(Layer("conv", "logits", (now,), (width, 1)))
    return layers


def light() -> list[Layer]:
    """Two convolutions of 4 channels."""
    return [Layer("conv", "a", ("normal",), (3, 4), relu=True), Layer("conv", "logits", ("a",), (4, 1))]


def weights(layers: list[Layer], seed: int = 0) -> dict[str, np.ndarray]:
    """NAME.weight float32 [out, in, k, k] and NAME.bias [out]; convolutions that no ReLU follows are damped."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        if layer.kind == "conv":
            inside, outside = layer.channels
            gain = np.sqrt(2 / (inside * layer.kernel**2)) * (1.0 if layer.relu else 0.5)
            shape = (outside, inside, layer.kernel, layer.kernel)
            found[layer.name + ".weight"] = (rng.standard_normal(shape) * gain).astype(np.float32)
            found[layer.name + ".bias"] = np.zeros(outside, np.float32)
    return found


def onnx_model(layers: list[Layer], name: str, seed: int = 0, **spec: Any) -> bytes:
    """The network as a model file of wsiseg: uint8 NHWC in, sigmoid probabilities out.

    With `has_classifier` in `spec` a head on the deepest features says 0.5 of every tile.
    """
    held = weights(layers, seed)
    held |= {
        "mean": np.float32(MEAN),
        "scale": np.float32(1 / STD),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        helper.make_node("Cast", [onnxio.INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planar", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["normal"]),
        *(node for layer in layers for node in _nodes(layer)),
        helper.make_node("Sigmoid", ["logits"], [onnxio.OUTPUT]),
    ]
    image = helper.make_tensor_value_info(onnxio.INPUT, TensorProto.UINT8, ["batch", "tile", "tile", 3])
    output = helper.make_tensor_value_info(onnxio.OUTPUT, TensorProto.FLOAT, ["batch", 1, "tile", "tile"])
    outputs = [output]
    if spec.get("has_classifier"):
        held |= {"head": np.zeros((1, 512, 1, 1), np.float32), "axes": np.array([1, 2, 3], np.int64)}
        nodes += [
            helper.make_node("GlobalAveragePool", ["s3b2"], ["average"]),
            helper.make_node("Conv", ["average", "head"], ["seen"]),
            helper.make_node("ReduceMax", ["seen", "axes"], ["most"], keepdims=0),
            helper.make_node("Sigmoid", ["most"], ["presence"]),
        ]
        outputs.append(helper.make_tensor_value_info("presence", TensorProto.FLOAT, ["batch"]))
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in held.items()]
    model = helper.make_model(
        helper.make_graph(nodes, name, [image], outputs, tensors),
        opset_imports=[helper.make_opsetid("", onnxio.OPSET)],
        ir_version=10,
    )
    onnxio.set_spec(model, ModelSpec(**({"name": name, "tissue": "none"} | spec)))
    onnx.checker.check_model(model)
    return onnxio.canonical(model)


def _nodes(layer: Layer) -> Iterator[onnx.NodeProto]:
    out, given = layer.name + (".raw" if layer.relu else ""), list(layer.inputs)
    if layer.kind == "conv":
        given += [layer.name + ".weight", layer.name + ".bias"]
        yield helper.make_node("Conv", given, [out], pads=[layer.kernel // 2] * 4, strides=[layer.stride] * 2)
    elif layer.kind == "pool":
        yield helper.make_node("MaxPool", given, [out], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    elif layer.kind == "up":
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        yield helper.make_node("Resize", [*given, "", "twice"], [out], **how)
    elif layer.kind == "add":
        yield helper.make_node("Add", given, [out])
    else:
        yield helper.make_node("Concat", given, [out], axis=1)
    if layer.relu:
        yield helper.make_node("Relu", [out], [layer.name])


def torch_module(layers: list[Layer], seed: int = 0) -> Any:
    """The same network as a torch module: float NCHW, normalised, in; logits out."""
    import torch
    import torch.nn.functional as f

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = torch.nn.ModuleDict()
            for layer in layers:
                if layer.kind == "conv":
                    inside, outside = layer.channels
                    self.convs[layer.name] = torch.nn.Conv2d(
                        inside, outside, layer.kernel, layer.stride, layer.kernel // 2
                    )
            for name, value in weights(layers, seed).items():
                conv, _, kind = name.partition(".")
                getattr(self.convs[conv], kind).data.copy_(torch.from_numpy(value))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            values = {"normal": image}
            for layer in layers:
                given = [values[name] for name in layer.inputs]
                if layer.kind == "conv":
                    out = self.convs[layer.name](given[0])
                elif layer.kind == "pool":
                    out = f.max_pool2d(given[0], 3, 2, 1)
                elif layer.kind == "up":
                    out = f.interpolate(given[0], scale_factor=2, mode="nearest")
                elif layer.kind == "add":
                    out = given[0] + given[1]
                else:
                    out = torch.cat(given, 1)
                values[layer.name] = f.relu(out, inplace=True) if layer.relu else out
            return values["logits"]

    return Network().eval()
