"""The TensorRT session's ordering, lifetimes, padding and memory on the simulated device."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulated_cuda import SimulatedCuda, SimulatedPlan
from wsiseg.backends import Session, SessionOptions
from wsiseg.backends.devices import ManyDevices, device_numbers, over_devices
from wsiseg.backends.run import run_tiles
from wsiseg.backends.tensorrt import TensorRtSession
from wsiseg.engines.cuda_api import DeviceMemoryError
from wsiseg.errors import EngineError, UsageError
from wsiseg.model.spec import ModelSpec

TILE = 8
SPEC = ModelSpec(name="simulated", tile=TILE, tile_multiple=1)


def network(tiles: np.ndarray) -> np.ndarray:
    """Depends on every channel of a pixel and on its tile alone."""
    weighted = tiles.astype(np.float32) @ np.array([1, 3, 5], np.float32)
    return (weighted + weighted.mean(axis=(1, 2), keepdims=True))[:, None] / 4590


def session_on(
    api: SimulatedCuda, batch: int = 4, slots: int = 3, graphs: bool = True, **options: object
) -> TensorRtSession:
    chosen = SessionOptions(TILE, batch, slots, 1, **options)  # type: ignore[arg-type]
    return TensorRtSession(
        SPEC, chosen, "fp16", SimulatedPlan(api, network, TILE, 16), api, 0, "simulated", graphs
    )


@pytest.fixture
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, TILE, TILE, 3), dtype=np.uint8)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(("batch", "slots"), [(1, 1), (4, 1), (4, 3), (16, 2), (5, 4)])
def test_every_tile_comes_back_in_order(tiles: np.ndarray, batch: int, slots: int, graphs: bool) -> None:
    api = SimulatedCuda()
    session = session_on(api, batch, slots, graphs)
    assert isinstance(session, Session)
    assert np.array_equal(run_tiles(session, tiles), network(tiles))
    assert (api.launches > 0) == graphs
    session.close()
    assert api.nothing_left()


@pytest.mark.parametrize(
    "removed", ["wait_event of stream 1", "wait_event of stream 2", "synchronise_event", "record"]
)
def test_a_removed_wait_is_caught(tiles: np.ndarray, removed: str) -> None:
    """The control: without each of the waits the same run gives wrong results, so the test above would fail."""
    session = session_on(SimulatedCuda(skip=(removed,)))
    assert not np.array_equal(run_tiles(session, tiles), network(tiles))


def test_results_may_be_waited_for_in_any_order(tiles: np.ndarray) -> None:
    session = session_on(SimulatedCuda(), batch=2, slots=3)
    for slot in range(3):
        session.input(slot)[:] = tiles[2 * slot : 2 * slot + 2]
        session.start(slot, 2)
    for slot in (1, 2, 0):
        assert np.array_equal(session.wait(slot), network(tiles[2 * slot : 2 * slot + 2]))
    session.close()


def test_padding_is_black_and_does_not_come_back(tiles: np.ndarray) -> None:
    seen: list[np.ndarray] = []
    api = SimulatedCuda()

    def spy(batch: np.ndarray) -> np.ndarray:
        seen.append(batch)
        return network(batch)

    session = TensorRtSession(
        SPEC, SessionOptions(TILE, 4, 1, 1), "fp16", SimulatedPlan(api, spy, TILE, 4), api, 0, "simulated"
    )
    session.input(0)[:] = 255
    session.input(0)[:1] = tiles[:1]
    session.start(0, 1)
    result = session.wait(0)
    assert result.shape == (1, 1, TILE, TILE)
    assert np.array_equal(result, network(tiles[:1]))
    assert not seen[-1][1:].any()
    session.close()


def test_closing_waits_for_what_is_in_flight(tiles: np.ndarray) -> None:
    api = SimulatedCuda()
    session = session_on(api)
    session.input(0)[:] = tiles[:4]
    session.start(0, 4)
    session.close()
    assert api.nothing_left()
    assert session._plan.closed  # type: ignore[attr-defined]
    session.close()


def test_out_of_memory_halves_the_batch_once(tiles: np.ndarray) -> None:
    def needs(batch: int, slots: int = 2) -> int:
        return batch * TILE * TILE * (16 + slots * (3 + 4))

    api = SimulatedCuda(memory=needs(8) - 1)
    session = session_on(api, batch=8, slots=2)
    assert session.options.batch == 4
    assert session.notes == ("batch 8 does not fit the GPU's memory; running with 4",)
    assert api.peak == needs(4) or api.peak <= needs(8)
    assert np.array_equal(run_tiles(session, tiles), network(tiles))
    session.close()
    assert api.nothing_left()

    api = SimulatedCuda(memory=needs(4) - 1)
    with pytest.raises(DeviceMemoryError, match="even with batch 4; run with --batch 1"):
        session_on(api, batch=8, slots=2)
    assert api.nothing_left()


def test_gpu_memory_is_a_limit() -> None:
    api = SimulatedCuda()
    needed = 4 * TILE * TILE * (16 + 3 * 7)
    session_on(api, device_memory=needed).close()
    assert api.peak <= needed
    assert session_on(SimulatedCuda(), device_memory=needed - 1).options.batch == 2
    with pytest.raises(DeviceMemoryError, match=r"--gpu-memory allows 0\.977 KiB"):
        session_on(SimulatedCuda(), device_memory=1000)


def test_wrong_use_is_refused() -> None:
    session = session_on(SimulatedCuda())
    with pytest.raises(RuntimeError, match="not started"):
        session.wait(0)
    with pytest.raises(ValueError, match="between 1 and 4"):
        session.start(0, 5)
    session.start(0, 1)
    with pytest.raises(RuntimeError, match="twice"):
        session.start(0, 1)
    session.close()
    api = SimulatedCuda()
    with pytest.raises(EngineError, match="2 channels, its spec names 1"):
        TensorRtSession(
            SPEC,
            SessionOptions(TILE, 1, 1, 1),
            "fp16",
            SimulatedPlan(api, network, TILE, 1, classes=2),
            api,
            0,
            "x",
        )


def test_several_devices_take_batches_in_turn(tiles: np.ndarray) -> None:
    devices = [SimulatedCuda(), SimulatedCuda()]
    parts = [session_on(api, batch=4, slots=2) for api in devices]
    both = over_devices(parts)
    assert isinstance(both, ManyDevices)
    assert isinstance(both, Session)
    assert both.options.slots == 4
    before = [api.launches for api in devices]
    assert np.array_equal(run_tiles(both, tiles), network(tiles))
    assert [api.launches - b for api, b in zip(devices, before, strict=True)] == [3, 3]
    both.close()
    assert all(api.nothing_left() for api in devices)


def test_device_names() -> None:
    assert device_numbers("auto", 2) == device_numbers("cuda", 2) == (0,)
    assert device_numbers("cuda:1", 2) == (1,)
    assert device_numbers("cuda:0,1", 2) == (0, 1)
    with pytest.raises(UsageError, match="this machine has 1 GPU,"):
        device_numbers("cuda:1", 1)
    for bad in ("cuda:", "gpu", "cuda:a", "cuda:0,", "cuda:-1"):
        with pytest.raises(UsageError, match="write auto, cpu, cuda"):
            device_numbers(bad, 4)
