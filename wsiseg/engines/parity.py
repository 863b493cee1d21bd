"""How far an engine's masks are from the float32 graph's: the one figure that a lower precision is judged by.

Only a trained network says anything here: random weights amplify rounding to some per cent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Shares of mask pixels that may differ from float32; measured on trained nets at about a third to a half of these.
LIMITS = {"fp32": 0.00001, "fp16": 0.0005, "bf16": 0.0005, "int8": 0.003}


@dataclass(frozen=True)
class Parity:
    """The comparison of a session with the float32 graph on some tiles.

    Attributes:
        tiles, source: how many and from where. pixels: compared, over all classes.
        disagreement: share of pixels whose mask differs. foreground: share that is in the reference's mask.
        dice: 2 |A and B| / (|A| + |B|) of the two masks, 1 when both are empty.
        max_difference, mean_difference: of probabilities. precision: what ran. limit: what `disagreement` may be.
    """

    tiles: int
    source: str
    pixels: int
    disagreement: float
    foreground: float
    dice: float
    max_difference: float
    mean_difference: float
    precision: str
    limit: float

    @property
    def passed(self) -> bool:
        return self.disagreement <= self.limit

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """One line for people."""
        verdict = "within" if self.passed else "ABOVE"
        return (
            f"{self.precision} against fp32 on {self.tiles} {self.source} tiles: {self.disagreement:.4%} of mask pixels differ "
            f"({verdict} the limit of {self.limit:.3%}), Dice {self.dice:.5f}, largest difference {self.max_difference:.4f}, "
            f"mean {self.mean_difference:.6f}"
        )


def compare(
    expected: npt.NDArray[np.float32],
    got: npt.NDArray[np.float32],
    thresholds: tuple[float, ...],
    precision: str,
    source: str,
) -> Parity:
    """The parity of `got` with `expected`, both float32 [N, C, T, T]."""
    limits = np.array(thresholds, np.float32).reshape(1, -1, 1, 1)
    a, b = expected > limits, got > limits
    both, total = int((a & b).sum()), int(a.sum()) + int(b.sum())
    difference = np.abs(expected - got)
    return Parity(
        tiles=len(expected), source=source, pixels=expected.size, disagreement=float((a != b).mean()),
        foreground=float(a.mean()), dice=2 * both / total if total else 1.0,
        max_difference=float(difference.max()), mean_difference=float(difference.mean(dtype=np.float64)),
        precision=precision, limit=LIMITS[precision],
    )  # fmt: skip
