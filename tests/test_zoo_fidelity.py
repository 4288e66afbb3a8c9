"""Published zoos beside ours: every fact has a value here, and the recipes are what was printed."""

from dataclasses import replace

import numpy as np
import pytest

import zoo
from zoo import cards, fidelity, shards
from zoo.fidelity import FACTS, ORIGINALS, beside_the_published, of_weights
from zoo.recipes import RECIPES, TrainedRecipe, recipe_from_json
from zoo.shards import Index

# Published by nobody, or to be compared with nothing.
OURS = {"fast", "occupancy", "sdf"}
# Where the recipe is another than printed, and the card says so.
OTHERWISE = {
    ("dws", "rate"), ("dws", "updates"), ("sine-ssl", "updates"), ("udf", "rate"),
    ("nfn", "copies"), ("nfn-mlp3", "runs"), ("nfn-mlp5", "runs"), ("fashion", "runs"),
}  # fmt: skip


def index_of(name: str, source: str, **fields) -> Index:
    """An index of the whole zoo of a recipe, without its files."""
    recipe = zoo.recipe(name, source, **fields)
    if isinstance(recipe, TrainedRecipe):
        spec = recipe.spec((32, 32, 3) if name == "binary" else (28, 28, 1), 10)
    else:
        spec = recipe.spec({"sine": 1, "udf": 3}.get(name.partition("-")[0], 2), 1)
    return Index(
        name="z", recipe=recipe.to_json(), spec=spec, columns=shards.zoo_columns(spec, {}),
        shards=(), source={"name": source, "title": source}, plan={"limit": None},
    )  # fmt: skip


def said(fact: str, index: Index) -> str | None:
    return FACTS[fact][1](index, recipe_from_json(index.recipe))


def test_every_recipe_says_what_it_reproduces_or_that_it_is_ours():
    assert ORIGINALS.keys() | OURS == set(RECIPES)
    for original in ORIGINALS.values():
        for facts in (original.facts, *original.of_source.values()):
            for named in facts.values():
                for name in named:
                    which, _, tensor = name.partition(".")
                    known = name in FACTS or (which in ("std", "mean") and tensor)
                    assert known, name
        assert set(original.of_source) <= set(original.sources)


@pytest.mark.parametrize("name", [name for name in ORIGINALS if name != "dws-paper"])
def test_recipes_are_what_was_printed(name):
    """Shape, rate, updates, batch, waves: by default, or the card's table shows the difference."""
    source = {"sine": "sine", "udf": "shapes"}.get(name.partition("-")[0], "mnist")
    index = index_of(name, source)
    _, rows = beside_the_published(index)
    words = {told: fact for fact, (told, _) in FACTS.items()}
    compared = 0
    for told, published, here, _ in rows:
        fact = words[told]
        if fact in ("networks", "pictures", "kept", "source"):
            continue  # of a zoo, not of its recipe
        assert (published == here) == ((name, fact) not in OTHERWISE), (told, published, here)
        compared += 1
    assert compared >= 1


def test_weights_are_compared_by_the_mean_over_entries_of_their_deviations():
    index = index_of("dws", "mnist")
    statistics = {"entry.std.weight_0": np.array([[0.05], [0.0754]]),
                  "entry.mean.bias_2": np.array([-0.02])}  # fmt: skip
    _, rows = beside_the_published(index, statistics)
    found = {row[0]: row[1:3] for row in rows if of_weights(row)}
    assert found == {
        "deviation of `weight_0`": ["0.0627", "0.0627 (+0.0%)"],
        "mean of `bias_2`": ["-0.0124", "-0.0200"],
    }
    _, without = beside_the_published(index)
    assert not any(map(of_weights, without))
    fashion = dict(ORIGINALS["dws"].of_source)["fashion-mnist"]
    assert next(iter(fashion.values()))["std.weight_0"] == 0.0781


def test_cards_say_it_of_published_zoos_alone():
    index = index_of("dws", "mnist", steps=7)
    index = replace(index, plan={"limit": 40})
    card = cards._beside(index, {"entry.std.bias_1": np.array([0.0121])})
    assert "| updates | 1,000 at most | 7 at most | Navon et al., App. J |" in card
    assert "| deviation of `bias_1` | 0.0110 | 0.0121 (+10.0%) | the authors' statistics |" in card
    assert "Those of few networks scatter." in card
    assert cards._beside(index_of("dws", "digits"), None) == ""
    assert cards._beside(index_of("fast", "mnist"), None) == ""
    theirs = replace(index, recipe={"name": "dws"})
    assert theirs.imported
    assert cards._beside(theirs, None) == ""


def test_runs_and_copies_are_counted_apart():
    shard = shards.Shard("weights/train-00000-of-00001.safetensors", 8, "0" * 64, "train", 30,
                         "zen", None)  # fmt: skip
    trajectories = replace(index_of("nfn-mlp3", "mnist"), shards=(shard,), plan={"limit": 3})
    assert said("runs", trajectories) == "3"
    assert said("kept", trajectories) == "10 of each run"
    shorter = replace(trajectories, plan={"limit": 4})
    assert said("kept", shorter) == "7.5 a run in the mean"
    copies = replace(index_of("nfn", "mnist", views=10), shards=(shard,))
    assert said("pictures", copies) == "3 / 0 / 0"
    assert fidelity._parameters("2-32-32-3") == "1,251"
