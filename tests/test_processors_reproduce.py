"""Experiments of the papers from one name, at quick scale, without any data set."""

import gc
import itertools
import json
import re
import weakref
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
from helpers import line_of, run

import zoo
from processors import MODELS, minutes
from processors.models import Processor, build
from processors.options import OPTIONS
from processors.reproduce import EXPERIMENTS, SCALES, Changes, plan
from zoo.making.plan import plan_rows
from zoo.sources.arrays import of_arrays


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_names_what_exists(name):
    """Its recipe, task, options, models and their arguments, at both scales."""
    each = EXPERIMENTS[name]
    for changes in ({}, each.quick_recipe):
        zoo.recipe(each.recipe, each.source, each.command, **{**each.recipe_changes, **changes})
    assert each.task in OPTIONS
    spec = zoo.NetworkSpec.mlp([2, 8, 8, 1], coord_order="xy")
    if each.recipe == "small-cnn":
        spec = zoo.NetworkSpec.cnn([1, 4, 4], 10)
    for variant in each.variants:
        assert variant.model in MODELS
        OPTIONS[each.task](**{**each.options, **variant.options})
        for sizes in (variant.sizes, {**variant.sizes, **each.quick_sizes}):
            if sizes:
                build(variant.model, spec, out=None if each.task == "edit" else 1, **sizes)
    names = [variant.name for variant in each.variants]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_asked_for_at_every_scale(name, scale, tmp_path):
    fit, *trainings, report = plan(name, scale, tmp_path, Changes(device="cpu"))
    assert fit.words[0].startswith("fit-")
    assert report.words[0] == "report"
    preset = "paper" if scale == "paper" else "small"
    for step in trainings:
        assert step.words[step.words.index("--preset") + 1] == preset
    seeds = EXPERIMENTS[name].seeds if scale == "paper" else (0,)
    assert len(trainings) == len(seeds) * len(EXPERIMENTS[name].variants)


def test_every_experiment_that_a_zoo_can_feed_is_known():
    found = {each.identity for each in EXPERIMENTS.values()}
    papers = {*(f"D{number}" for number in range(1, 9)), *(f"N{number}" for number in range(1, 8))}
    assert papers | {"M2", "M3", "M5"} <= found  # M1 is N1's, M4 N5's
    sources = {each.source for each in EXPERIMENTS.values() if each.identity == "M3"}
    assert sources == {"mnist", "fashion-mnist", "cifar10"}


@pytest.mark.parametrize("scale", ["quick", "cpu"])
def test_more_views_are_of_the_same_pictures(scale):
    """Else the zoo with more views has fewer pictures, and no rise can be seen."""
    pictures = of_arrays(np.zeros((70_000, 2, 2), np.uint8))
    source = replace(pictures, name="fashion-mnist", train_items=60_000)
    planned = {}
    for name in ("views-1", "views-2", "views-4", "views-6", "views-8", "views"):
        experiment = EXPERIMENTS[name]
        recipe = experiment.made_by(scale)
        planned[recipe.views] = plan_rows(recipe, source, experiment.count(scale))
    for views, rows in planned.items():
        for split, chosen in rows.items():
            once = planned[1][split].index.tolist()
            assert set(chosen.index.tolist()) == set(once)
            assert len(chosen) == (views if split == "train" else 1) * len(once)


def test_a_reproduction_goes_from_zoo_to_report_and_on_from_what_is_there(tmp_path):
    words = ("reproduce", "sine-regression", "--out", tmp_path, "--limit", 30, "--epochs", 1)
    listed = run(*words, "--models", "statnn", "--dry-run")
    assert [line.split()[3] for line in listed.stdout.splitlines()[:2]] == ["fit-inrs", "train"]
    assert not (tmp_path / "ledger.jsonl").exists()
    first = run(*words, "--models", "statnn")
    assert first.exit_code == 0, first.output
    path = tmp_path / "report-sine-regression-quick.md"
    assert first.stdout.strip() == str(path)
    assert "## D1: frequency of sine wave networks, recipe sine-regression" in path.read_text()
    assert "| *published* |  | *a plot* |" in path.read_text()
    (found,) = (tmp_path / "runs" / "sine-regression-quick").iterdir()
    before = (found / "summary.json").stat().st_mtime_ns
    index = next((tmp_path / "zoos").iterdir()) / "zoo.json"
    made = index.stat().st_mtime_ns
    second = run(*words, "--models", "statnn,mlp")
    assert second.exit_code == 0, second.output
    assert (found / "summary.json").stat().st_mtime_ns == before
    assert index.stat().st_mtime_ns == made
    assert {each.name for each in found.parent.iterdir()} == {"statnn-0", "mlp-0"}
    assert "| MLP |" in path.read_text()
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["command"].split()[1] for line in lines] == [
        *("fit-inrs", "train", "report", "train", "report")
    ]
    assert json.loads(lines[1])["result"]["test"]["mse"] > 0
    config = json.loads((found / "config.json").read_text())
    assert config["command"].startswith("wszoo train regress ")
    assert "--target frequency" in config["command"]


def test_shapes_of_a_file_are_looked_for_among_the_data_sets(tmp_path, monkeypatch):
    """Without it one line says where it comes from; with it the zoo is fitted."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    words = ("fit-inrs", "voxels:adrenalmnist3d_64.npz", "--out", tmp_path / "z", "--limit", 4,
             "--steps", 2, "--pool-points", 200, "--hidden", 4, "--no-parquet")  # fmt: skip
    refused = run(*words, "--data-root", root)
    line = line_of(refused, 2)
    assert str(root / "adrenalmnist3d_64.npz") in line
    assert "Zenodo record 10519652" in line
    ball = (np.indices((8, 8, 8)) - 3.5).__pow__(2).sum(0) < 9
    arrays = {f"{part}_images": ball[None].astype(np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.zeros((1, 1), np.uint8) for part in ("train", "val", "test")}
    np.savez(root / "adrenalmnist3d_64.npz", **arrays, **labels)
    made = run(*words, "--data-root", root)
    assert made.exit_code == 0, made.output
    row = zoo.open_zoo(tmp_path / "z")[0]
    assert row.source["name"] == "voxels:adrenalmnist3d_64.npz"
    # What is pulled knows no folder, and is looked for in the same way.
    plain = {name: value for name, value in row.source.items() if name != "address"}
    assert zoo.original(replace(row, source=plain), root).shape == (32, 32, 32)
    step = plan("adrenal", "quick", tmp_path / "out", Changes(data_root=root))[0]
    assert step.out == str(tmp_path / "out" / "zoos" / "adrenalmnist3d_64.npz-udf-300")


def test_minutes_are_what_each_row_takes_times_how_often(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("reproduce", "sine-regression", "--minutes", "--models", "statnn,mlp-align")
    result = run(*words, "--scale", "paper", "--limit", 400)
    assert result.exit_code == 0, result.output
    lines = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["the zoo", "mlp-align", "statnn", "in all"]
    assert lines[0][1] == "400 networks"
    # Batches of 32 of 320 networks.
    assert lines[1][1] == "1,000 updates of 32, 3 seeds, 4 rates tried"
    assert "cpu" in lines[-1][1]
    assert list(tmp_path.iterdir()) == []


def test_minutes_and_dry_runs_are_of_one_experiment_and_not_of_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flag in ("--minutes", "--dry-run"):
        assert f"{flag} needs an EXPERIMENT" in line_of(run("reproduce", flag), 2)
    both = run("reproduce", "sine-ssl", "--minutes", "--dry-run")
    assert "--minutes and --dry-run" in line_of(both, 2)
    assert list(tmp_path.iterdir()) == []


def test_what_one_update_takes_is_multiplied(monkeypatch):
    """By a clock that goes on by a second whenever it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr(minutes, "clock_of", lambda device: lambda: float(next(ticks)))
    changes = Changes(models=("statnn",), limit=400, seeds=(0, 1), device="cpu")
    zoo_part, row = minutes.expected("sine-regression", "quick", changes)
    assert zoo_part.seconds == pytest.approx(400 / 60)
    # 48 networks in a batch took a second; 64 networks in each of 5 updates an epoch.
    updates, batch = 5 * 5, 64
    assert row.amount == f"{updates} updates of {batch}, 2 seeds"
    assert row.seconds == pytest.approx(2 * updates * batch / 48)


def test_minutes_hold_one_model_at_a_time(monkeypatch):
    """Some take gigabytes: NFN-HNP of wide perceptrons has 450M parameters."""
    made, alive = [], []
    building = Processor.__init__

    @wraps(building)
    def watched(self, *words, **more):
        made.append(weakref.ref(self))
        building(self, *words, **more)

    monkeypatch.setattr(Processor, "__init__", watched)
    gc.disable()  # by itself Python looks for cycles when it likes
    try:
        minutes.expected(
            "sine-regression", "quick", Changes(models=("statnn", "mlp"), device="cpu"),
            told=lambda part: alive.append(sum(model() is not None for model in made)),
        )  # fmt: skip
    finally:
        gc.enable()
    assert len(made) >= 2
    assert alive == [0, 0, 0]


def test_wrong_names_are_one_line_that_lists_the_known(tmp_path):
    assert "known: sine-regression," in line_of(run("reproduce", "sines", "--out", tmp_path), 2)
    words = ("reproduce", "dilate", "--out", tmp_path)
    assert "does not compare 'statnn', but nfn-np," in line_of(run(*words, "--models", "statnn"), 2)
    assert "whole numbers" in line_of(run(*words, "--seeds", "a"), 2)
    with pytest.raises(ValueError, match="unknown scale 'large'; known: paper, cpu, quick"):
        plan("dilate", "large", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_rate_of_the_first_seed_is_kept_for_the_others(tmp_path):
    steps = plan("sine-ssl", "paper", tmp_path, Changes(models=("dws",), device="cpu"))
    commands = [step.words for step in steps]
    assert [words[0] for words in commands] == ["fit-inrs", "train", "train", "train", "report"]
    assert "--limit" not in commands[0]
    assert "--lr-grid" in commands[1]
    for words in commands[2:4]:
        assert f"{{lr:{steps[1].out}}}" in words
        assert "--lr-grid" not in words
        assert words[-2:] == ("--device", "cpu")
    given = plan("sine-ssl", "paper", tmp_path, Changes(models=("dws",), settings={"lr": 0.1}))
    assert all("--lr" in step.words for step in given[1:4])


def test_without_a_name_the_experiments_are_listed():
    result = run("reproduce")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
