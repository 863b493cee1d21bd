"""What the writers of a synthetic slide share: threads that paint and encode, and the background encoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from wsiseg.geometry import Rect, ceil_div
from wsiseg.synth.layouts import TILE, Layout, encode
from wsiseg.synth.scene import Scene
from wsiseg_kernels import cpu

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int], None]


class Work:
    """What the writers share: the scene, the pool, and the encoded background segments."""

    def __init__(
        self, scene: Scene, layout: Layout, pool: ThreadPoolExecutor, ahead: int, progress: Progress
    ) -> None:
        self.scene, self.layout, self.pool, self.ahead, self.progress = scene, layout, pool, ahead, progress
        # Background repeats every paint.NOISE pixels, so few different background tiles exist: encoded once each.
        self._blank: dict[tuple[int, ...], tuple[bytes, np.ndarray | None]] = {}

    def in_order(self, task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """task(item) for each item, computed by the pool at most `ahead` items early."""
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(self.pool.submit(task, item))
                if len(pending) >= self.ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def tile(self, rect: Rect, plane: int | None) -> tuple[bytes, np.ndarray | None]:
        """A tile's bytes (one colour's if `plane` is given), and its means if the layout is a pyramid."""
        clipped = rect.intersect(Rect(0, 0, self.scene.size.height, self.scene.size.width)).size
        key = (rect.y0 % TILE, rect.x0 % TILE, clipped.height, clipped.width, -1 if plane is None else plane)
        blank = self.scene.is_background(rect)
        if blank and key in self._blank:
            return self._blank[key]
        pixels = self.scene.render(rect)
        made = (
            encode(self.layout, pixels if plane is None else pixels[:, :, plane]),
            shrunk(pixels[: clipped.height, : clipped.width], self.layout.factor)
            if self.layout.factor
            else None,
        )
        if blank:
            self._blank[key] = made
        return made


def shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Exact rounded means of factor x factor blocks, ragged at the right and bottom: uint8 [ceil(h/f), ceil(w/f), 3]."""
    out = np.empty((ceil_div(pixels.shape[0], factor), ceil_div(pixels.shape[1], factor), 3), np.uint8)
    cpu.shrink(np.ascontiguousarray(pixels), factor, out)
    return out
