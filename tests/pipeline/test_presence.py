"""A classification head spares the decoder on tiles without objects: the same runs as the whole graph, and a count."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile

from tests import fixtures_models as networks
from wsiseg.backends import SessionOptions, open_session
from wsiseg.backends.base import Session, SkipsTiles
from wsiseg.errors import ModelError, UsageError
from wsiseg.model.load import LoadedModel, load_models
from wsiseg.model.spec import ModelSpec
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.options import RunOptions, SlideResult, SlideTask
from wsiseg.pipeline.start import start

TILE = 64
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")


def picture(height: int, width: int, discs: list[tuple[int, int, int]]) -> np.ndarray:
    """Pale pink with red discs at (y, x, radius)."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), (220, 190, 200), np.uint8)
    for cy, cx, radius in discs:
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = (200, 20, 40)
    return image


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Five tiles; the second and the last have a disc."""
    found = np.stack([picture(TILE, TILE, [])] * 5)
    found[1], found[4] = picture(TILE, TILE, [(30, 30, 9)]), picture(TILE, TILE, [(2, 60, 5)])
    return found


def all_tiles(session: Session, tiles: np.ndarray) -> tuple[np.ndarray, list[bool]]:
    assert isinstance(session, SkipsTiles)
    results, absent = [], []
    for at in range(0, len(tiles), session.options.batch):
        part = tiles[at : at + session.options.batch]
        session.input(0)[: len(part)] = part
        session.start(0, len(part))
        results.append(session.wait(0).copy())
        absent += session.absent(0)[: len(part)].tolist()
    return np.concatenate(results), absent


def options(presence: float, batch: int = 1) -> SessionOptions:
    return SessionOptions(TILE, batch, 2, 2, "fp32", "cpu", presence=presence)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_tiles_without_objects_are_zeros_and_the_others_as_ever(tiles: np.ndarray, batch: int) -> None:
    model = networks.load(networks.beacon())
    whole, none = all_tiles(open_session(model, options(0.0, batch)), tiles)
    got, absent = all_tiles(open_session(model, options(0.5, batch)), tiles)
    assert none == [False] * 5
    assert absent == [True, False, True, True, False]
    assert (got[absent] == 0).all()
    assert np.array_equal(got[[1, 4]], whole[[1, 4]])


@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_presence_is_the_largest_over_members_and_flips(tta: str) -> None:
    # The second member finds paler discs, and that is enough for the tile to be decoded by both.
    members = networks.beacon(level=120.0), networks.beacon(level=40.0)
    tiles = np.stack([picture(TILE, TILE, []), picture(TILE, TILE, [(20, 40, 6)])])
    tiles[1][tiles[1][..., 1] == 20] = (170, 70, 90)
    model = networks.load(*members, tta=tta)
    assert model.spec.has_classifier
    whole, _ = all_tiles(open_session(model, options(0.0)), tiles)
    got, absent = all_tiles(open_session(model, options(0.5)), tiles)
    assert absent == [True, False]
    assert np.array_equal(got[1], whole[1])
    assert 0.4 < got[1].max() < 0.6  # one of two members


def test_an_ensemble_with_a_member_without_a_head_decodes_everything() -> None:
    model = networks.load(networks.beacon(), networks.redness())
    assert not model.spec.has_classifier
    assert len(onnx.load_model_from_string(model.onnx_bytes).graph.output) == 1


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    image = picture(900, 700, [(100, 120, 40), (820, 600, 12), (450, 699, 30), (0, 0, 8)])
    tifffile.imwrite(tmp_path / "slide.tif", image, photometric="rgb", tile=(64, 64), compression="deflate")
    return tmp_path / "slide.tif"


def segment(slide: Path, model: Path, **given: object) -> tuple[SlideResult, dict[str, object]]:
    config = RunConfig(
        models=(str(model),), memory=4 << 30, threads=2, precision="fp32", options=RunOptions(**given)
    )  # type: ignore[arg-type]
    with start(config) as started:
        (outcome,) = started.processor.process([SlideTask(0, "slide", str(slide))])
        assert isinstance(outcome, SlideResult)
        return outcome, started.identity


@pytest.mark.parametrize("batch", [1, 4])
def test_a_slide_has_the_same_runs_and_counts_what_was_spared(
    slide: Path, tmp_path: Path, batch: int
) -> None:
    model = tmp_path / "beacon.onnx"
    model.write_bytes(networks.beacon(tissue="none"))
    whole, about = segment(slide, model, presence=0.0, batch=batch)
    spared, told = segment(slide, model, batch=batch)  # the spec's 0.5
    assert len(whole.runs[0].starts) > 100
    assert whole.runs[0].to_rle() == spared.runs[0].to_rle()
    counts = spared.stats["counts"]
    assert "tiles without objects" not in whole.stats["counts"]
    assert counts["tiles"] == whole.stats["counts"]["tiles"]
    assert 0.5 * counts["tiles"] < counts["tiles without objects"] < counts["tiles"]
    assert told == about | {"presence": 0.5}


@pytest.mark.parametrize(
    ("graph", "presence", "message"),
    [
        (networks.redness, 0.1, "--presence 0.1: model 'redness' has no classification head"),
        (networks.beacon, 1.0, "--presence 1: must be at least 0 and below 1"),
    ],
)
def test_bad_limits_are_one_line(graph, presence: float, message: str, slide: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "model.onnx").write_bytes(graph())
    with pytest.raises(UsageError, match=message):
        segment(slide, tmp_path / "model.onnx", presence=presence)


def test_a_spec_that_promises_a_head_that_is_not_there() -> None:
    model = networks.load(networks.with_spec(networks.redness(), has_classifier=True))
    with pytest.raises(ModelError, match="has no classification head"):
        open_session(model, options(0.1))


# -- torch


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    import torch

    from wsiseg_train.checkpoint import output_channels, save_checkpoint
    from wsiseg_train.networks import build_network

    folder = tmp_path_factory.mktemp("heads")
    kinds = [
        {"name": "compact-unet", "channels": [8, 8, 8], "decoder": [8, 8], "depth": 3},
        {"name": "plain-unet", "width": 4, "depth": 3},
    ]
    for seed, network in enumerate(kinds):
        spec = ModelSpec(
            f"net{seed}", tile=TILE, mean=(120.0, 110.0, 100.0), std=(60.0, 60.0, 60.0),
            has_classifier=True, network=network | {"classifier": True},
        )  # fmt: skip
        torch.manual_seed(seed)
        net = build_network(spec.network, outputs=output_channels(spec))
        save_checkpoint(folder / f"{seed}.pt", spec, net.state_dict())
    return [str(folder / f"{seed}.pt") for seed in range(len(kinds))]


def both(model: LoadedModel, tiles: np.ndarray, limit: float, backend: str) -> tuple[np.ndarray, list[bool]]:
    return all_tiles(open_session(model, options(limit), backend), tiles)


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(("count", "tta"), [(1, "none"), (2, "flips")])
def test_torch_and_openvino_spare_the_same_tiles(
    checkpoints: list[str], count: int, tta: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISEG_CACHE", str(tmp_path))
    tiles = np.random.default_rng(0).integers(0, 256, (6, TILE, TILE, 3), dtype=np.uint8)
    tiles[::2] //= 4
    model = load_models(checkpoints[:count], None, tta)
    whole, _ = both(model, tiles, 0.0, "torch")
    # A limit between two tiles, from the presence that OpenVINO gives out.
    session = open_session(model, options(1e-9))
    presence = []
    for tile in tiles:
        session.input(0)[0] = tile
        session.start(0, 1)
        session.wait(0)
        presence.append(float(session._presence[0][0]))  # type: ignore[attr-defined]
    low, high = sorted(presence)[2:4]
    limit = (low + high) / 2
    got, absent = both(model, tiles, limit, "torch")
    other, same = both(model, tiles, limit, "openvino")
    assert absent == same == [p < limit for p in presence]
    assert sum(absent) == 3
    assert (got[absent] == 0).all()
    present = [not a for a in absent]
    assert np.abs(got[present] - whole[present]).max() < 1e-5
    assert np.abs(got - other).max() < 1e-4


@needs_torch
@pytest.mark.torch
def test_a_network_that_torch_cannot_trace_is_refused_in_one_line() -> None:
    import torch

    from wsiseg.backends.torch_gate import TwoStages

    with pytest.raises(UsageError, match="cannot be traced in torch; use --backend openvino"):
        TwoStages(torch.nn.Identity(), "net")


def test_the_limit_of_an_ensemble_is_its_most_careful_member_s() -> None:
    members = [networks.with_spec(networks.beacon(), presence=p) for p in (0.4, 0.1)]
    assert networks.load(*members).spec.presence == 0.1
    with pytest.raises(ModelError, match="presence 1 is not in"):
        dataclasses.replace(networks.load(*members).spec, presence=1)
