"""One panel on a GPU: network rows go up once, tiles are cut, run and blended there, finished bands come back.

    host ring --rows, once--> ring -> tiles -> network -> sums -> band --once--> host -> runs

Everything is put into one stream in order, so that no stage needs an event to wait for another: rows and bands cross
the bus once, some per cent of the time that the network takes, and the host never waits but for a staging buffer
(two of each, in turn) or a band. Sums grow in grid order, tile by tile, as on the CPU: the same bytes.

Memory bound, on the device: ring rows x columns x 3, C x T x columns sums, C x S x columns of band, and the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wsiseg.pipeline.settings import ModelSettings
from wsiseg.tiling import Panel, TileGrid

Deliver = Callable[[npt.NDArray[np.float32], int, int], None]


class DeviceModel(Protocol):
    """A network whose input and output stay on the device.

    `image` is a device array uint8 [B, T, T, 3], `probability` float32 [B, C, T, T]; `run` puts one inference between
    them into the default stream.
    """

    @property
    def batch(self) -> int: ...
    @property
    def image(self) -> Any: ...
    @property
    def probability(self) -> Any: ...
    @property
    def run(self) -> Callable[[], None]: ...


@dataclass
class _Staging:
    """A page-locked buffer and the event after which it may be used again."""

    array: npt.NDArray[Any]
    event: Any
    used: bool = False


class DevicePanel:
    """The device's buffers of one panel, and the work put into its stream.

    Args:
        cuda: `numba.cuda`, real or simulated. kernels: `wsiseg_kernels.cuda`.
        ring_rows: rows of the host's ring; row y lies at y modulo this, there and here.
        deliver: receives (band float32 [C, n, columns], its first row, the row of tiles that made it final), in order; the array is used again after it returns.
    """

    def __init__(
        self,
        cuda: Any,
        kernels: Any,
        model: DeviceModel,
        grid: TileGrid,
        panel: Panel,
        settings: ModelSettings,
        ring_rows: int,
        deliver: Deliver,
    ) -> None:
        self._cuda, self._kernels, self._model, self._grid, self._panel = cuda, kernels, model, grid, panel
        self._settings, self._deliver = settings, deliver
        self._stream = cuda.default_stream()
        classes, tile, stride = len(settings.thresholds), settings.tile, settings.stride
        columns, height = panel.a1 - panel.a0, grid.size.height
        self._ring = cuda.device_array((ring_rows, panel.c1 - panel.c0, 3), np.uint8)
        self._sums = cuda.to_device(np.zeros((classes, tile, columns), np.float32))
        self._weights = cuda.to_device(kernels.gaussian_weights(tile))
        self._den_y = cuda.to_device(kernels.denominator(height, tile, stride))
        self._den_x = cuda.to_device(
            np.ascontiguousarray(kernels.denominator(grid.size.width, tile, stride)[panel.a0 : panel.a1])
        )
        self._up = [self._staging((min(tile, ring_rows), panel.c1 - panel.c0, 3), np.uint8) for _ in range(2)]
        self._band = cuda.device_array(classes * min(stride, height) * columns, np.float32)
        self._down = [self._staging((classes * min(stride, height) * columns,), np.float32) for _ in range(2)]
        self._bands: list[tuple[_Staging, int, int, int]] = []
        self._entries: list[tuple[int, int] | int] = []
        self._filled = 0
        self._uploaded = 0
        self._turn = 0

    def _staging(self, shape: tuple[int, ...], dtype: Any) -> _Staging:
        return _Staging(self._cuda.pinned_array(shape, dtype), self._cuda.event())

    def upload(self, ring: npt.NDArray[np.uint8], until: int) -> None:
        """Copy the rows of the host's ring that are new before row `until`; it may be overwritten at once."""
        rows = self._ring.shape[0]
        while self._uploaded < until:
            at = self._uploaded % rows
            staging = self._next(self._up)
            count = min(until - self._uploaded, rows - at, len(staging.array))
            staging.array[:count] = ring[at : at + count]
            self._ring[at : at + count].copy_to_device(staging.array[:count], stream=self._stream)
            staging.event.record(self._stream)
            self._uploaded += count

    def _next(self, pair: list[_Staging]) -> _Staging:
        """The buffer of a pair that was used longer ago, free to be filled."""
        pair.reverse()
        if pair[0].used:
            pair[0].event.synchronize()
        pair[0].used = True
        return pair[0]

    def skip_to(self, row: int) -> None:
        """Rows before `row` are not looked at by any tile that comes."""
        self._uploaded = max(self._uploaded, row)

    def add_tile(self, y: int, x: int) -> None:
        """Cut the tile at network pixel (y, x) into the batch, and run the batch when it is full."""
        size, settings = self._grid.size, self._settings
        self._kernels.gather_tile(
            self._ring, y, x, size.height, size.width, self._panel.c0, settings.fill, settings.fill_value, self._model.image[self._filled]
        )  # fmt: skip
        self._entries.append((y, x))
        self._filled += 1
        if self._filled == self._model.batch:
            self.flush()

    def end_row(self, row: int) -> None:
        """Every tile of this row of tiles has been added; what it makes final is finished behind the last of them."""
        self._entries.append(row)
        if not self._filled:
            self._drain()

    def flush(self) -> None:
        """Run the batch that is being filled, full or not, and blend it."""
        if self._filled:
            self._model.run()
        self._drain()
        self._filled = 0

    def close(self) -> None:
        """Run what is left and deliver the last bands."""
        self.flush()
        self._take(0)

    def _drain(self) -> None:
        index = 0
        height = self._grid.size.height
        for entry in self._entries:
            if isinstance(entry, int):
                self._finish(entry)
            else:
                y, x = entry
                self._kernels.accumulate(
                    self._sums, self._model.probability[index], self._weights, y, x - self._panel.a0, height
                )
                index += 1
        self._entries.clear()

    def _finish(self, row: int) -> None:
        y0, y1 = self._grid.y.final(row)
        if y0 == y1:
            return
        self._take(1)  # one band may be on its way while the next is computed
        classes, columns = self._sums.shape[0], self._sums.shape[2]
        staging = self._next(self._down)
        shape = (classes, y1 - y0, columns)
        size = shape[0] * shape[1] * shape[2]
        band = self._band[:size].reshape(*shape)
        self._kernels.finish(self._sums, y0, y1, self._den_y[y0:y1], self._den_x, band)
        band.copy_to_host(staging.array[:size].reshape(shape), stream=self._stream)
        staging.event.record(self._stream)
        self._bands.append((staging, y0, y1, row))

    def _take(self, left: int) -> None:
        """Deliver the oldest bands until `left` are under way."""
        while len(self._bands) > left:
            staging, y0, y1, row = self._bands.pop(0)
            staging.event.synchronize()
            shape = (self._sums.shape[0], y1 - y0, self._sums.shape[2])
            self._deliver(staging.array[: shape[0] * shape[1] * shape[2]].reshape(shape), y0, row)
