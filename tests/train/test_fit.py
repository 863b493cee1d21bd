"""The loop: it learns, a killed training resumes to the same weights, and what goes wrong is said in one line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from fixtures_train import recipe_data

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("lightning", reason="needs the train extra")
pytestmark = pytest.mark.torch

from wsiseg.errors import UsageError  # noqa: E402
from wsiseg_train.checkpoint import load_checkpoint, read_checkpoint  # noqa: E402
from wsiseg_train.config import recipe_from  # noqa: E402
from wsiseg_train.fit import cross_validate, train_recipe  # noqa: E402
from wsiseg_train.module import schedule_of, workers_of  # noqa: E402


def recipe(stores, **train):
    return recipe_from(recipe_data(stores, **train), "test")


class Killed(Exception):
    pass


def test_a_killed_training_resumes_to_the_same_weights(stores, tmp_path):
    whole = train_recipe(recipe(stores), tmp_path / "whole", say=lambda line: None)

    def die(line):
        if "step 8" in line:
            raise Killed

    with pytest.raises(Killed):
        train_recipe(recipe(stores), tmp_path / "killed", say=die)
    resumed = train_recipe(recipe(stores), tmp_path / "killed", resume=True, say=lambda line: None)
    assert resumed.steps == whole.steps == 8
    (_, one), (_, other) = read_checkpoint(whole.last), read_checkpoint(resumed.last)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)
    tables = [
        list(csv.DictReader((tmp_path / n / "curves.csv").read_text().splitlines()))
        for n in ("whole", "killed")
    ]
    assert tables[0] == tables[1]
    assert [r["step"] for r in tables[0]] == ["4", "8"]


def test_a_resume_point_that_is_damaged_or_foreign_is_refused(stores, tmp_path):
    for content in (b"junk", None):
        if content is None:
            torch.save({"state_dict": print}, tmp_path / "resume.ckpt")
        else:
            (tmp_path / "resume.ckpt").write_bytes(content)
        with pytest.raises(UsageError, match="not a resume point") as error:
            train_recipe(recipe(stores), tmp_path, resume=True, say=lambda line: None)
        assert "\n" not in str(error.value)


def test_training_stops_when_the_held_out_dice_no_longer_rises(stores, tmp_path):
    tiny = recipe(stores, steps=40, epoch=1, lr=1e-12, schedule="constant", patience=2, ema=0.0)
    assert train_recipe(tiny, tmp_path, say=lambda line: None).steps < 40


def test_the_shipped_weights_are_the_running_average(stores, tmp_path):
    """And they are what is scored on the held-out side, so that the best of them is kept."""
    from wsiseg_train import module as trained
    from wsiseg_train.module import SegmentationModule

    scored = []
    seen, inner = [], SegmentationModule.on_train_batch_end

    def score(net, *_):
        scored.append(net.head.bias.detach().clone())
        return [0.5]

    def look(module, *args):
        seen.append(module.net.head.bias.detach().clone())
        inner(module, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "on_train_batch_end", look)
        patch.setattr(trained, "held_dice", score)
        result = train_recipe(recipe(stores, steps=3, epoch=3), tmp_path, say=lambda line: None)
    mean = seen[0]
    for count, weights in enumerate(seen[1:], 1):
        share = min(0.5, (1 + count) / (10 + count))
        mean = share * mean + (1 - share) * weights
    assert torch.allclose(read_checkpoint(result.last)[1]["head.bias"], mean, atol=1e-6)
    assert torch.allclose(scored[-1], mean, atol=1e-6)
    assert not torch.allclose(scored[-1], seen[-1], atol=1e-6)


def test_the_last_epoch_may_be_shorter(stores, tmp_path):
    lines = []
    assert train_recipe(recipe(stores, steps=5, epoch=3), tmp_path, say=lines.append).steps == 5
    assert [line.split(":")[0] for line in lines] == ["step 3 of 5", "step 5 of 5"]


def test_it_learns_discs(stores, tmp_path):
    data = recipe_data(stores, steps=50, epoch=25, batch=4, ema=0.0, lr=0.01)
    lines = []
    result = train_recipe(recipe_from(data, "test"), tmp_path, say=lines.append)
    assert result.dice is not None
    assert result.dice > 0.8
    assert len(lines) == 2
    _, spec = load_checkpoint(result.best)
    assert spec.scores["held_out_dice"] == pytest.approx(result.dice, abs=1e-6)
    assert spec.name == "discs"
    assert json.loads((tmp_path / "recipe.json").read_text())["spec"]["classes"] == ["disc"]
    from wsiseg_train.sweep import sweep_checkpoint

    rows = sweep_checkpoint(result.best, recipe_from(data, "test"), write=True, shifts=False)
    best = max(rows, key=lambda r: r["dice"])
    assert read_checkpoint(result.best)[0].thresholds == (best["threshold"],)
    assert best["dice"] >= result.dice - 1e-6


def test_two_stages_deep_supervision_a_classifier_and_accumulation_run_together(stores, tmp_path):
    data = recipe_data(stores, steps=4, epoch=2, accumulate=2, schedule="one-cycle")
    data["model"] |= {"has_classifier": True, "tile_multiple": 32}
    data["network"] = {
        "name": "unet",
        "encoder": "tu-resnet10t",
        "decoder": [8, 8, 8, 8],
        "depth": 4,
        "deep": True,
        "classifier": True,
    }
    data["loss"] = [{"bce": 1.0}, {"start": 2, "lovasz": 1.0}]
    assert train_recipe(recipe_from(data, "test"), tmp_path, say=lambda line: None).steps == 4


def test_a_loss_that_is_not_a_number_stops_with_one_line_and_keeps_the_checkpoint(
    stores, tmp_path, monkeypatch
):
    from wsiseg_train import losses

    def broken(logits, target, weight):
        broken.calls += 1
        return losses.bce(logits, target, weight) * (float("nan") if broken.calls > 5 else 1.0)

    broken.calls = 0
    monkeypatch.setitem(losses.LOSSES, "broken", broken)
    data = recipe_data(stores)
    data["loss"] = {"broken": 1.0}
    with pytest.raises(UsageError, match="loss became nan at step 5"):
        train_recipe(recipe_from(data, "test"), tmp_path, say=lambda line: None)
    load_checkpoint(tmp_path / "last.pt")


def test_cross_validation_writes_a_table(stores, tmp_path):
    table = cross_validate(recipe(stores, steps=2, epoch=2), tmp_path, say=lambda line: None)
    assert [fold for fold, _ in table] == [0, 1, 2]
    assert (tmp_path / "folds.csv").read_text().splitlines()[0] == "fold,dice"
    assert (tmp_path / "fold-2" / "best.pt").exists()


def test_starting_weights_and_classes_are_checked(stores, tmp_path):
    data = recipe_data(stores)
    data["model"]["classes"] = ["square"]
    with pytest.raises(UsageError, match="square are not the stores' disc"):
        train_recipe(recipe_from(data, "test"), tmp_path, say=lambda line: None)
    data = recipe_data(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no training stores"):
        train_recipe(recipe_from(data, "test"), tmp_path, say=lambda line: None)


def rates(stores, **train):
    config = recipe(stores, **train).train
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.lr)
    schedule = schedule_of(optimizer, config)
    found = []
    for _ in range(config.steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(found) / config.lr


def test_the_schedules_are_what_they_say(stores):
    constant = rates(stores, schedule="constant", steps=20, warmup=5)
    assert constant[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert (constant[5:] == 1).all()
    decay = rates(stores, schedule="hold-decay", steps=100, warmup=1, hold=0.3)
    assert (decay[:31] == 1).all()
    assert decay[65] == pytest.approx(0.5)
    cycle = rates(stores, schedule="one-cycle", steps=100)
    assert cycle.argmax() == pytest.approx(10, abs=1)
    restarts = rates(stores, schedule="cosine-restarts", steps=60, epoch=4)  # periods of 5 and 10 epochs
    assert np.flatnonzero(restarts > 0.999).tolist() == [0, 20]
    assert restarts[10] == pytest.approx(0.5)


def test_workers_are_chosen_by_the_cores_granted():
    assert [workers_of(-1, cores) for cores in (1, 2, 4, 64)] == [0, 0, 2, 8]
    assert workers_of(3, 1) == 3


def test_tiles_are_the_same_from_workers_and_in_process(stores, tmp_path):
    states = []
    for workers in (0, 2):
        data = recipe_data(stores, steps=2, epoch=2)
        data["data"]["workers"] = workers
        result = train_recipe(recipe_from(data, "test"), tmp_path / str(workers), say=lambda line: None)
        states.append(read_checkpoint(result.last)[1])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
