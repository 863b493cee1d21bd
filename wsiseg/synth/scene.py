"""A procedural kidney-like slide: every pixel a pure function of (size, seed, mpp, tissue share) and its place."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg.runs import Runs
from wsiseg.synth import fields, paint

# Coarse samples per axis from which the threshold for the wanted tissue share is taken.
_SAMPLES = 192


class Scene:
    """One synthetic section, evaluated window by window.

    Args:
        size: of the slide, in pixels.
        seed: which section; also varies the stain slightly.
        mpp: microns per pixel.
        tissue: the share of the slide that is tissue, 0 to 1.

    Memory bound: the noise tables (0.5 MB) and one row of 104 bytes per glomerulus; a window needs itself and the
    tissue field of its block corners (1/32 of a window's pixels). Safe to use from many threads.
    """

    def __init__(self, size: Size, seed: int = 0, mpp: float = 0.5, tissue: float = 0.6) -> None:
        if not 0 <= tissue <= 1:
            raise UsageError(f"the tissue share must lie between 0 and 1, not {tissue}")
        if not 0.05 <= mpp <= 20:
            raise UsageError(f"mpp must lie between 0.05 and 20 microns per pixel, not {mpp}")
        if size.height < 1 or size.width < 1:
            raise UsageError(f"a slide has at least one pixel; {size} has none")
        self.size, self.seed, self.mpp, self.tissue = size, int(seed) & 0xFFFFFFFF, float(mpp), float(tissue)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        self._fine, self._soft = _noise_tables(rng, mpp)
        self._gain = 1.0 + np.array([0.08, 0.06, 0.08]) * rng.uniform(-1, 1, 3)
        self.threshold = self._threshold()
        self.glomeruli = self._place_glomeruli()

    def _field(self, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        field: np.ndarray = fields.sample_tissue(
            self.seed,
            ys.astype(np.float64),
            xs.astype(np.float64),
            *map(float, (self.size.height, self.size.width)),
            self.mpp,
        )
        return field

    def _threshold(self) -> float:
        """The level of the tissue field above which the wanted share of the slide lies."""
        if self.tissue >= 1:
            return -1e9
        if self.tissue <= 0:
            return 1e9
        ys = (np.arange(_SAMPLES) + 0.5) * self.size.height / _SAMPLES
        xs = (np.arange(_SAMPLES) + 0.5) * self.size.width / _SAMPLES
        return float(np.quantile(self._field(ys, xs), 1 - self.tissue))

    def _place_glomeruli(self) -> np.ndarray:
        """float64 [n, GLOMERULUS_FIELDS], in the order of their cells (row-major).

        Each cell of a coarse grid holds at most one, which stays inside its cell: glomeruli never overlap. They lie
        in tissue (centre and eight points around it), and are rare where a slow noise says "medulla".
        """
        cell = fields.GLOMERULUS_CELL_UM / self.mpp
        rows = []
        count = int(np.ceil(self.size.height / cell)), int(np.ceil(self.size.width / cell))
        around = np.array([(np.sin(a), np.cos(a)) for a in np.arange(8) * np.pi / 4] + [(0.0, 0.0)])
        for i in range(count[0] if self.tissue > 0 else 0):
            rng = np.random.Generator(np.random.PCG64([self.seed, 7, i]))
            draws = rng.random((count[1], 12))
            for j in range(count[1]):
                d = draws[j]
                radius = (55 + 85 * d[0] ** 1.3) / self.mpp
                bend = (d[1:7] - 0.5) * np.array([0.20, 0.20, 0.09, 0.09, 0.05, 0.05])
                reach = radius * (1 + float(np.abs(bend).sum())) + 1
                room = max(cell / 2 - reach - 1, 0.0)
                y, x = (i + 0.5) * cell + (2 * d[7] - 1) * room, (j + 0.5) * cell + (2 * d[8] - 1) * room
                medulla = fields.value_noise(self.seed + 51, y * self.mpp / 2600, x * self.mpp / 2600)
                if d[9] > (0.85 if medulla < 0.72 else 0.06) or y > self.size.height or x > self.size.width:
                    continue
                points = np.array([y, x]) + around * radius * 1.15
                if any(
                    fields.tissue_field(
                        self.seed, py, px, float(self.size.height), float(self.size.width), self.mpp
                    )
                    <= self.threshold
                    for py, px in points
                ):
                    continue
                shift = (d[10:12] - 0.5) * 0.24
                tuft = 0.97 - 0.7 * float(np.hypot(*shift))
                rows.append([y, x, radius, *bend, *shift, tuft, reach * reach])
        return np.array(rows, dtype=np.float64).reshape(-1, fields.GLOMERULUS_FIELDS)

    def near(self, rect: Rect) -> np.ndarray:
        """The glomeruli whose reach touches `rect`: float64 [n, GLOMERULUS_FIELDS]."""
        g = self.glomeruli
        dy = np.maximum(np.maximum(rect.y0 - g[:, 0], g[:, 0] - rect.y1), 0)
        dx = np.maximum(np.maximum(rect.x0 - g[:, 1], g[:, 1] - rect.x1), 0)
        return g[dy * dy + dx * dx <= g[:, 12]]

    def _corners(self, rect: Rect) -> np.ndarray:
        """The tissue field on the corners of the paint blocks that cover a window."""
        b = paint.BLOCK
        ys = np.arange(rect.y0 // b, (rect.y1 - 1) // b + 2) * b
        xs = np.arange(rect.x0 // b, (rect.x1 - 1) // b + 2) * b
        return self._field(ys, xs)

    def is_background(self, rect: Rect) -> bool:
        """Whether a window holds no tissue at all; may say no of a window that just misses some.

        Two background windows of one size whose corners agree modulo `paint.NOISE` are identical.
        """
        return len(self.near(rect)) == 0 and bool(self._corners(rect).max() <= self.threshold)

    def render(self, rect: Rect) -> np.ndarray:
        """The pixels of a window: uint8 [h, w, 3] RGB. What lies outside the slide goes on like the inside."""
        out = np.empty((rect.size.height, rect.size.width, 3), dtype=np.uint8)
        if out.size:
            paint.paint(
                out, rect.y0, rect.x0, self._corners(rect), self.threshold, self.seed, self.mpp, self.near(rect),
                self._fine, self._soft, self._gain,
            )  # fmt: skip
        return out

    def truth(self) -> Runs:
        """The union of the glomeruli's outlines at full size, from the outlines' equations, without a mask."""
        starts, lengths = [], []
        for g in self.glomeruli:
            columns = 2 * int(np.ceil(np.sqrt(g[12]))) + 4
            # A column meets the outline in a handful of runs at most: the outline has few harmonics.
            s, n = np.empty(columns * 8, np.int64), np.empty(columns * 8, np.int64)
            count = fields.outline_runs(g, self.size.height, self.size.width, s, n)
            starts.append(s[:count].copy())
            lengths.append(n[:count].copy())
        if not starts:
            return Runs.empty(self.size)
        all_starts, all_lengths = np.concatenate(starts), np.concatenate(lengths)
        order = np.argsort(all_starts, kind="stable")
        return Runs.merged(all_starts[order], all_lengths[order], self.size)


def _noise_tables(rng: np.random.Generator, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """White noise, and noise blurred over about 2 microns, both periodic: float32 [NOISE, NOISE]."""
    n = paint.NOISE
    fine = rng.standard_normal((n, n)).clip(-2.5, 2.5)
    # Blurred in the frequency domain, so that it is periodic.
    f = np.fft.fftfreq(n)
    sigma = max(1.6 / mpp, 0.7)
    low = np.exp(-2 * (np.pi * sigma) ** 2 * (f[:, None] ** 2 + f[None] ** 2))
    soft: Any = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * low).real
    soft = (soft / soft.std()).clip(-2.5, 2.5)
    # Quantised, so that the last bits of a Fourier transform on another machine do not matter.
    return np.round(fine * 64).astype(np.float32) / 64, np.round(soft * 64).astype(
        np.float32
    ) / 64 * np.float32(0.6)
