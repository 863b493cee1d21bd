"""Recipes: every shipped one is valid, and a wrong one is refused by section and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures_train import recipe_data

from wsiseg.errors import UsageError, WsisegError
from wsiseg_train.config import read_recipe, recipe_from

RECIPES = sorted((Path(__file__).resolve().parents[2] / "train" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_shipped_recipe_is_valid(path):
    recipe = read_recipe(path)
    assert recipe.spec.name
    assert recipe.loss_at(0).start == 0
    assert recipe.loss_at(10**9) == recipe.losses[-1]


def test_settings_can_be_changed_from_the_command_line():
    recipe = read_recipe(RECIPES[0], {"train.steps": "7", "data.fold": "-1", "augment.preset": "light"})
    assert recipe.train.steps == 7
    assert recipe.data.fold == -1
    with pytest.raises(UsageError, match=r"section\.key=value"):
        read_recipe(RECIPES[0], {"steps": "7"})


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("train", "stepz", 3, "steps"),
        ("train", "schedule", "cosine", "cosine-restarts"),
        ("train", "precision", "int8", "bf16"),
        ("train", "lr", 0.0, "lr must be positive"),
        ("data", "tile", 50, "not a multiple"),
        ("model", "tile", 50, "not a multiple"),
        ("model", "colour", 1, "model spec field"),
        ("augment", "preset", "strong", "hubmap"),
        ("sampling", "object", 1.0, "objects"),
        ("train", "steps", "many", "steps = 'many' must be a whole number"),
        ("train", "lr", True, "must be a number"),
        ("train", "devices", "all", "a number of devices"),
        ("data", "tile", 64.5, "must be a whole number"),
        ("network", "classifier", True, "has_classifier is false; set both, or neither"),
        ("model", "has_classifier", True, "set both, or neither"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, section, key, value, words):
    data = recipe_data(tmp_path)
    data.setdefault(section, {})[key] = value
    with pytest.raises(WsisegError, match=words) as error:
        recipe_from(data, "recipe.toml")
    assert "\n" not in str(error.value)


def test_stages_must_ascend(tmp_path):
    data = recipe_data(tmp_path)
    data["loss"] = [{"bce": 1.0, "start": 5}]
    with pytest.raises(UsageError, match="begin at start = 0"):
        recipe_from(data, "recipe.toml")
    data.pop("network")
    with pytest.raises(UsageError, match=r"section \[network\] is missing"):
        recipe_from(data, "recipe.toml")


def test_a_stage_can_be_changed_by_its_number(tmp_path):
    path = next(p for p in RECIPES if p.stem == "lovasz_two_stage")
    assert [s.start for s in read_recipe(path, {"loss.1.start": "5"}).losses] == [0, 5]
    with pytest.raises(UsageError, match=r"no table 'loss\.7'"):
        read_recipe(path, {"loss.7.start": "5"})


def test_what_follows_the_held_out_dice_needs_something_held_out(tmp_path):
    data = recipe_data(tmp_path, schedule="plateau")
    data["data"]["fold"] = -1
    with pytest.raises(UsageError, match="fold -1 holds nothing out"):
        recipe_from(data, "recipe.toml")
