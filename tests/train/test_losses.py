"""Each loss against a plain reference, and what every loss promises."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.torch

from wsiseg.errors import UsageError  # noqa: E402
from wsiseg_train.losses import LOSSES, SMOOTH, WeightedSum, deep_loss  # noqa: E402


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 2, 6, 7))
    target = (rng.random((2, 2, 6, 7)) > 0.6).astype(np.float64)
    weight = (rng.random((2, 1, 6, 7)) > 0.3).astype(np.float64)
    return logits, target, weight


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_bce(z, t, w):
    p = sigmoid(z)
    return float((-(t * np.log(p) + (1 - t) * np.log(1 - p)) * w).sum() / np.broadcast_to(w, z.shape).sum())


def plain_tversky(z, t, w, alpha=0.5, beta=0.5, gamma=1.0):
    p, values = sigmoid(z), []
    for c in range(z.shape[1]):
        hit, false, missed = (float((v[:, c] * w[:, 0]).sum()) for v in (p * t, p * (1 - t), (1 - p) * t))
        values.append((1 - (hit + SMOOTH / 2) / (hit + alpha * false + beta * missed + SMOOTH / 2)) ** gamma)
    return float(np.mean(values))


def plain_focal(z, t, w):
    p = sigmoid(z)
    per = -(0.25 * t * (1 - p) ** 2 * np.log(p) + 0.75 * (1 - t) * p**2 * np.log(1 - p))
    return float((per * w).sum() / np.broadcast_to(w, z.shape).sum())


def plain_lovasz(z, t, w):
    """By the definition: the Jaccard loss's gain as one error after another joins, in falling order."""
    values = []
    for b in range(z.shape[0]):
        seen = w[b, 0] > 0
        for c in range(z.shape[1]):
            score, truth = z[b, c][seen], t[b, c][seen] > 0.5
            errors = 1 - score * (2 * truth - 1)
            total, wrong, before = 0.0, np.zeros(len(errors), bool), 0.0
            for k in np.argsort(-errors, kind="stable"):
                wrong[k] = True
                hit, union = (truth & ~wrong).sum(), (truth | wrong).sum()
                loss = 1 - hit / union
                total += max(errors[k], 0) * (loss - before)
                before = loss
            values.append(total)
    return float(np.mean(values))


def plain_cross_entropy(z, t, w):
    e = np.exp(z - z.max(1, keepdims=True))
    logp = np.log(e / e.sum(1, keepdims=True))
    return float((-(t * logp).sum(1, keepdims=True) * w).sum() / w.sum())


PLAIN = {
    "bce": plain_bce, "dice": plain_tversky, "tversky": plain_tversky, "focal": plain_focal,
    "lovasz": plain_lovasz, "cross-entropy": plain_cross_entropy,
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_its_definition(name, case):
    found = float(LOSSES[name](*map(torch.from_numpy, case)))
    assert found == pytest.approx(PLAIN[name](*case), rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_without_weight_do_not_matter(name, case):
    z, t, w = map(torch.from_numpy, case)
    other = torch.where(w > 0, z, torch.full_like(z, 7.0))
    assert float(LOSSES[name](z, t, w)) == pytest.approx(float(LOSSES[name](other, t, w)), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_right_answer_costs_less_and_the_gradient_leads_there(name, case):
    _, t, w = map(torch.from_numpy, case)
    t = torch.cat([t[:, :1], 1 - t[:, :1]], 1)  # shares that sum to one, as cross entropy needs
    z = torch.zeros_like(t, requires_grad=True)
    loss = LOSSES[name](z, t, w)
    loss.backward()
    assert float(LOSSES[name](z.detach() - 5 * torch.sign(z.grad), t, w)) < float(loss.detach())
    assert float(LOSSES[name]((t * 2 - 1) * 20, t, w)) < 0.05


def test_nothing_to_learn_is_no_error():
    z = torch.randn(1, 1, 4, 4, requires_grad=True)
    for name in LOSSES:
        loss = LOSSES[name](z, torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
        loss.backward()
        assert np.isfinite(float(loss.detach()))


def test_a_missing_background_channel_is_what_the_others_leave():
    z, t = torch.randn(1, 3, 4, 4), torch.zeros(1, 2, 4, 4)
    t[:, 0, :2] = 1
    whole = torch.cat([1 - t.sum(1, keepdim=True), t], 1)
    ones = torch.ones(1, 1, 4, 4)
    assert float(LOSSES["cross-entropy"](z, t, ones)) == pytest.approx(
        float(LOSSES["cross-entropy"](z, whole, ones))
    )


def test_a_sum_adds_its_terms(case):
    z, t, w = map(torch.from_numpy, case)
    total = WeightedSum({"bce": 2.0, "tversky": {"weight": 0.5, "alpha": 0.3, "beta": 0.7}})(z, t, w)
    assert float(total) == pytest.approx(2 * plain_bce(*case) + 0.5 * plain_tversky(*case, 0.3, 0.7))


def test_deep_supervision_enlarges_the_side_outputs(case):
    z, t, w = map(torch.from_numpy, case)
    side = torch.full((2, 2, 3, 4), 0.5, dtype=z.dtype)
    found = deep_loss(WeightedSum({"bce": 1.0}), [z, side], [0.25], t, w)
    assert float(found) == pytest.approx(
        plain_bce(*case) + 0.25 * plain_bce(np.full(z.shape, 0.5), case[1], case[2])
    )


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(UsageError, match="tversky"):
        WeightedSum({"diec": 1.0})
