"""The ring: the same pixels for any panel, ring and thread count; every segment decoded once; failures reach everyone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slide_samples import drain, picture, plain_shrink, read_slide, write_tiff

from wsiseg.errors import BadSegment, SlideError
from wsiseg.slide import DecodePool, NetworkReader, Slide, open_slide, ring_bytes
from wsiseg.slide.level import ALIGN, BESIDE, Scratch

PICTURE = picture(301, 418)


@pytest.fixture(scope="module", params=["tiles", "strips", "raw"])
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    how = {
        "tiles": {"tile": (48, 80), "compression": "zlib"},
        "strips": {"rowsperstrip": 1, "compression": "lzw"},
        "raw": {"rowsperstrip": 1 << 20},
    }
    path = write_tiff(tmp_path_factory.mktemp("ring") / "s.tif", PICTURE, **how[request.param])
    return open_slide(path)


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 7, 8, 50])
def test_panels_and_rings_give_the_same_pixels(slide: Slide, pool: DecodePool, scale: int) -> None:
    want = plain_shrink(PICTURE, scale)
    plan = slide.plan(scale)
    width, height = plan.network.width, plan.network.height
    for columns in ((0, width), (0, 1), (width - 1, width), (width // 3, width // 3 + 2), (1, width)):
        for window in (1, 5, height):
            for spare in (0, 3):
                rows = plan.ring_rows(window) + spare
                got = read_slide(slide, scale, pool, columns=columns, window=window, rows=rows)
                np.testing.assert_array_equal(got, want[:, slice(*columns)], f"{columns} {window} {rows}")


@pytest.mark.parametrize("scale", [1, 3, 7])
def test_reading_from_a_row_on(slide: Slide, scale: int) -> None:
    want, plan = plain_shrink(PICTURE, scale), slide.plan(scale)
    height = plan.network.height
    with DecodePool(6) as several:
        for first in (0, 1, height // 3, height // 2 + 1, height - 1):
            for window in (1, 9):
                rows = plan.ring_rows(window)
                with NetworkReader(slide, plan, rows=rows, pool=several, first_row=first) as reader:
                    for y0 in range(first, height, window):
                        y1 = min(height, y0 + window)
                        reader.wait(y1)
                        for y in range(y0, y1):
                            np.testing.assert_array_equal(reader.ring[y % len(reader.ring)], want[y])
                        reader.release(y1)


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_thread_counts_give_the_same_pixels(slide: Slide, threads: int) -> None:
    with DecodePool(threads) as several:
        for scale in (1, 3, 7):
            np.testing.assert_array_equal(
                read_slide(slide, scale, several, window=3), plain_shrink(PICTURE, scale)
            )


class Counting:
    """A source that counts how often each segment is decoded, and fails where it is told to."""

    def __init__(self, inner: Any, fail: tuple[int, int] | None = None) -> None:
        self.inner, self.fail, self.reads = inner, fail, {}
        self.gate = threading.Event()
        self.gate.set()

    def read(self, row: int, col: int, scratch: Scratch) -> Any:
        self.gate.wait(10)
        self.reads[row, col] = self.reads.get((row, col), 0) + 1
        if self.fail == (row, col):
            raise BadSegment("s.tif", "tile is damaged")
        return self.inner.read(row, col, scratch)

    def stored(self, row: int, col: int) -> int:
        return self.inner.stored(row, col)

    def total_stored(self) -> int:
        return self.inner.total_stored()


def counted(slide: Slide, fail: tuple[int, int] | None = None) -> tuple[Slide, Counting]:
    from dataclasses import replace

    copy = open_slide(slide.path)
    source = Counting(copy.levels[0].source, fail)
    copy.levels = (replace(copy.levels[0], source=source),)
    return copy, source


@pytest.mark.parametrize("scale", [1, 3, 7])
def test_every_segment_is_decoded_once(slide: Slide, pool: DecodePool, scale: int) -> None:
    copy, source = counted(slide)
    with copy:
        read_slide(copy, scale, pool)
        level = copy.levels[0]
        assert source.reads == {(i, j): 1 for i in range(level.rows) for j in range(level.cols)}


def test_a_panel_reads_only_its_columns(slide: Slide, pool: DecodePool) -> None:
    copy, source = counted(slide)
    with copy:
        read_slide(copy, 2, pool, columns=(0, 30))
        level = copy.levels[0]
        assert {j for _, j in source.reads} == {j for j in range(level.cols) if level.xs[j] < 60}


def test_read_ahead_is_bounded_by_the_ring(slide: Slide) -> None:
    copy, source = counted(slide)
    with copy, DecodePool(4) as several:
        plan = copy.plan(1)
        rows = plan.ring_rows(1)
        with NetworkReader(copy, plan, rows=rows, pool=several) as reader:
            reader.wait(1)
            reader.release(1)
            reader.wait(2)
            with several.lock:
                running = reader._running
            while running:
                with several.lock:
                    running = reader._running
            assert max(int(copy.levels[0].ys[i + 1]) for i, _ in source.reads) <= rows + 1


def test_the_first_failure_reaches_every_wait(slide: Slide, pool: DecodePool) -> None:
    copy, _ = counted(slide, fail=(copy_rows(slide) // 2, 0))
    with copy:
        plan = copy.plan(1)
        reader = NetworkReader(copy, plan, rows=plan.network.height, pool=pool)
        caught: list[BaseException] = []

        def consume() -> None:
            try:
                reader.wait(plan.network.height)
            except SlideError as error:
                caught.append(error)

        waiting = [threading.Thread(target=consume) for _ in range(3)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join(20)
        assert len(caught) == 3
        assert len({id(e) for e in caught}) == 1
        with pytest.raises(BadSegment, match="tile is damaged"):
            reader.wait(plan.network.height)
        reader.close()


def copy_rows(slide: Slide) -> int:
    return slide.levels[0].rows


def test_an_unexpected_failure_keeps_its_cause(slide: Slide, pool: DecodePool) -> None:
    copy, source = counted(slide)
    plan = copy.plan(1)
    source.inner = None
    with copy, NetworkReader(copy, plan, rows=400, pool=pool) as reader:
        with pytest.raises(SlideError, match="reading failed: AttributeError") as caught:
            reader.wait(1)
        assert isinstance(caught.value.__cause__, AttributeError)


def test_close_from_another_thread_wakes_a_waiting_one(slide: Slide) -> None:
    copy, source = counted(slide)
    source.gate.clear()
    with copy, DecodePool(2) as two:
        reader = NetworkReader(copy, copy.plan(1), rows=400, pool=two)
        outcome: list[str] = []

        def consume() -> None:
            try:
                reader.wait(300)
            except RuntimeError as error:
                outcome.append(str(error))

        waiting = threading.Thread(target=consume)
        waiting.start()
        closing = threading.Thread(target=reader.close)
        closing.start()
        waiting.join(20)
        assert outcome == ["the reader is closed"]
        source.gate.set()
        closing.join(20)
        assert not closing.is_alive()
        reader.close()


def test_closing_the_pool_wakes_a_waiting_one(slide: Slide) -> None:
    copy, source = counted(slide)
    source.gate.clear()
    with copy:
        two = DecodePool(2)
        reader = NetworkReader(copy, copy.plan(1), rows=400, pool=two)
        outcome: list[str] = []

        def consume() -> None:
            try:
                reader.wait(300)
            except RuntimeError as error:
                outcome.append(str(error))

        waiting = threading.Thread(target=consume)
        waiting.start()
        while not reader._running:
            pass
        threading.Timer(0.05, source.gate.set).start()
        two.close()
        waiting.join(20)
        assert outcome == ["the reader is closed"]
        reader.close()


def test_a_ring_that_cannot_work_is_said_so(slide: Slide, pool: DecodePool) -> None:
    plan = slide.plan(1)
    if plan.unit < plan.network.height:
        with pytest.raises(ValueError, match="too small; one decoding unit writes"):
            NetworkReader(slide, plan, rows=plan.unit - 1, pool=pool)
        with NetworkReader(slide, plan, rows=plan.unit, pool=pool) as reader:
            reader.wait(1)
            reader.release(1)
            with pytest.raises(RuntimeError, match="cannot be read: 1 is the last row released"):
                reader.wait(plan.unit + 1)


def test_two_slides_share_a_pool(slide: Slide, pool: DecodePool) -> None:
    plan = slide.plan(3)
    readers = [NetworkReader(slide, plan, rows=plan.ring_rows(4), pool=pool) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in reversed(readers):
        np.testing.assert_array_equal(drain(reader, plan.network.height, 4), plain_shrink(PICTURE, 3))
    for reader in readers:
        reader.close()


def test_the_file_stays_open_while_it_is_read(slide: Slide, pool: DecodePool) -> None:
    copy = open_slide(slide.path)
    plan = copy.plan(2)
    with NetworkReader(copy, plan, rows=plan.ring_rows(4), pool=pool) as reader:
        reader.start()
        copy.close()
        np.testing.assert_array_equal(drain(reader, plan.network.height, 4), plain_shrink(PICTURE, 2))


@pytest.mark.parametrize("scale", [1, 3, 7])
def test_memory_is_what_was_planned(slide: Slide, scale: int) -> None:
    plan = slide.plan(scale)
    rows, columns = plan.ring_rows(8), (2, plan.network.width - 3)
    listed = dict(ring_bytes(plan, columns, rows, threads=1))
    with DecodePool(1) as one, NetworkReader(slide, plan, columns=columns, rows=rows, pool=one) as reader:
        drain(reader, plan.network.height, 8)
        assert reader.ring.nbytes <= listed["ring of network rows"]
        seams = reader._writer._seams
        assert sum(s.nbytes for s in seams._free) <= listed["sums of rows between tiles"]
        assert seams._col_sums.nbytes <= listed["sums of columns between tiles"]


def test_stats_count_what_was_read(slide: Slide, pool: DecodePool) -> None:
    plan = slide.plan(2)
    with NetworkReader(slide, plan, rows=plan.network.height, pool=pool) as reader:
        reader.wait(plan.network.height)
        assert reader.stats.pixels == PICTURE.shape[0] * PICTURE.shape[1] == plan.pixels
        assert reader.stats.segments == plan.segments
        assert reader.stats.stored_bytes == plan.stored
        assert reader.stats.decode_seconds > 0


def test_buffers_lie_where_the_jpeg_decoder_keeps_to_the_caches() -> None:
    scratch = Scratch()
    for nbytes in (1, 100, 4096, 196_608, 3 << 20):
        for name in ("stored", "decoded"):
            taken = scratch.take(name, nbytes)
            assert (taken.size, taken.ctypes.data % ALIGN) == (nbytes, BESIDE)


def test_narrow_tiles_are_taken_several_at_a_time(tmp_path: Path, pool: DecodePool) -> None:
    """Beside each other where that takes no memory, and not where a tile's edge splits a network pixel."""
    image = picture(130, 2000)
    with open_slide(write_tiff(tmp_path / "s.tif", image, tile=(64, 64), compression="zlib")) as wide:
        one, split = wide.plan(2), wide.plan(3)
        assert one.cols_per_unit > 1
        assert "unit" not in dict(one.scratch)
        assert "unit" in dict(split.scratch)
        for columns in ((0, 1000), (31, 33), (500, 999)):
            got = read_slide(wide, 2, pool, columns=columns)
            np.testing.assert_array_equal(got, plain_shrink(image, 2)[:, slice(*columns)])
