"""A model with flips is opened with as many streams as the budget has room for, and says the same with any number."""

from __future__ import annotations

import numpy as np
import pytest

from tests import fixtures_models as networks
from wsiseg.backends import SessionOptions, registry
from wsiseg.memory import Share
from wsiseg.model.load import LoadedModel
from wsiseg.pipeline import streams

MIB = 1 << 20
OPTIONS = SessionOptions(64, 1, 6, 4, "fp32", "cpu")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return networks.load(networks.random_conv(1), tta="d4")


@pytest.mark.parametrize(("budget", "expected"), [(500, 1), (800, 1), (1100, 2), (1400, 3), (4000, 4)])
def test_streams_follow_from_the_budget(
    model: LoadedModel, budget: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 200 MiB before the model, 300 more with one stream of it.
    seen = iter([200 * MIB, 500 * MIB])
    monkeypatch.setattr(streams, "resident_bytes", lambda: next(seen))
    session = streams.open_fitting(model, OPTIONS, "openvino", Share(budget * MIB))
    assert f", {expected} x " in session.description
    session.input(0)[:] = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    session.start(0, 1)
    found = session.wait(0).copy()
    session.close()
    reference = registry.open_session(model, OPTIONS, "openvino")
    reference.input(0)[:] = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    reference.start(0, 1)
    assert np.array_equal(found, reference.wait(0))
    reference.close()


def test_a_model_without_flips_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "resident_bytes", lambda: pytest.fail("nothing to measure"))
    session = streams.open_fitting(
        networks.load(networks.random_conv(1)), OPTIONS, "openvino", Share(100 * MIB)
    )
    assert ", 4 x 1 threads" in session.description
    session.close()
