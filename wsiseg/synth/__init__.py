"""Synthetic kidney-like slides of any size, with their ground truth: for the demo, the tests and the benchmarks."""

from __future__ import annotations

from wsiseg.synth.layouts import LAYOUTS
from wsiseg.synth.scene import Scene
from wsiseg.synth.write import WriteReport, write_slide

__all__ = ["LAYOUTS", "Scene", "WriteReport", "write_slide"]
