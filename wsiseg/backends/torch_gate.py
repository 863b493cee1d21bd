"""The decoder left out in torch: a traced network is run up to its classification head first, and on only where needed.

As in `wsiseg.model.split`, the graph itself says what the head needs: the nodes that the presence depends on are the
encoder, the others the decoder. It needs a network that torch.fx can trace; ours can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsiseg.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

Symmetry = tuple[bool, bool, bool]


class TwoStages:
    """A traced network of (logits, presence logit) in two calls.

    Raises:
        UsageError: for a network that is not traced, so that its parts are not known.
    """

    def __init__(self, net: nn.Module, name: str) -> None:
        from torch import fx

        if not isinstance(net, fx.GraphModule):
            raise UsageError(
                f"--presence: the network of {name!r} cannot be traced in torch; use --backend openvino, or --presence 0"
            )
        self._net = net
        result = next(node for node in net.graph.nodes if node.op == "output")
        self._logits, self._presence = result.args[0]
        needed = _ancestors(self._presence)
        nodes = [node for node in net.graph.nodes if node.op != "output"]
        self._first = [node for node in nodes if node in needed or node.op == "placeholder"]
        rest = _ancestors(self._logits) - needed
        self._rest = [node for node in nodes if node in rest and node.op != "placeholder"]

    def head(self, image: torch.Tensor) -> tuple[dict[Any, Any], torch.Tensor]:
        """What the encoder made, and the presence logits of float [B, 3, T, T]."""
        values = self._run(self._first, {}, image)
        return values, values[self._presence]

    def tail(self, values: dict[Any, Any]) -> torch.Tensor:
        """The logits, from what `head` made."""
        logits: torch.Tensor = self._run(self._rest, values, None)[self._logits]
        return logits

    def _run(self, nodes: Sequence[fx.Node], values: dict[Any, Any], image: Any) -> dict[Any, Any]:
        from torch import fx

        interpreter = fx.Interpreter(self._net)
        interpreter.env, interpreter.args_iter = values, iter([image])
        for node in nodes:
            values[node] = interpreter.run_node(node)
        return values


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if one not in found:
            found.add(one)
            stack += one.all_input_nodes
    return found


def gated(
    members: Sequence[Any], shares: Sequence[float], symmetries: Sequence[Symmetry], limit: list[float]
) -> nn.Module:
    """A module uint8 [B, T, T, 3] -> (float32 [B, C, T, T], presence float32 [B]).

    Args:
        members: `wsiseg_train.export.GraphModel`, each with a traced network. limit: one number, which may change; below
            it a tile's probabilities are zeros, and the decoders run only when a tile of the batch is not below.
    """
    import torch
    from torch import nn

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList(members)
            self.stages = [TwoStages(m.net, m.spec.name) for m in members]

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            stacked, tiles = stack(image, symmetries), len(image)
            made, presence = [], torch.zeros(tiles)
            for member, stage in zip(members, self.stages, strict=True):
                pixels = (stacked.to(member.mean.dtype).permute(0, 3, 1, 2) - member.mean) * member.gain
                values, logits = stage.head(pixels)
                made.append(values)
                seen = torch.sigmoid(logits.float()).reshape(len(symmetries), tiles, -1).amax(dim=(0, 2))
                presence = torch.maximum(presence, seen)
            edge = image.shape[1]
            if not bool((presence >= limit[0]).any()):
                return torch.zeros(tiles, len(members[0].spec.classes), edge, edge), presence
            total: torch.Tensor | None = None
            for member, stage, values, share in zip(members, self.stages, made, shares, strict=True):
                mean = unstack(member.activate(stage.tail(values).float()), symmetries, share)
                total = mean if total is None else total + mean
            assert total is not None
            total[presence < limit[0]] = 0
            return total, presence

    return Gated().eval()


def stack(image: torch.Tensor, symmetries: Sequence[Symmetry]) -> torch.Tensor:
    """The variants of a batch [B, T, T, 3], one after the other: [k B, T, T, 3]."""
    import torch

    copies = []
    for swap, flip_y, flip_x in symmetries:
        value = image.transpose(1, 2) if swap else image
        axes = [axis for axis, on in ((1, flip_y), (2, flip_x)) if on]
        copies.append(value.flip(axes) if axes else value)
    return torch.cat(copies) if len(copies) > 1 else image


def unstack(stacked: torch.Tensor, symmetries: Sequence[Symmetry], share: float) -> torch.Tensor:
    """`share` of the mean of the variants [k B, C, T, T], each turned back: [B, C, T, T]."""
    total: torch.Tensor | None = None
    for part, (swap, flip_y, flip_x) in zip(stacked.chunk(len(symmetries)), symmetries, strict=True):
        axes = [axis for axis, on in ((2, flip_y), (3, flip_x)) if on]
        value = part.flip(axes) if axes else part
        value = (value.transpose(2, 3) if swap else value) * (share / len(symmetries))
        total = value if total is None else total + value
    assert total is not None
    return total
