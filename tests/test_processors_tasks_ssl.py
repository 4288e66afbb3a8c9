"""Which views are compared, and by what the best weights are chosen."""

import json

import pytest
import torch
from helpers import line_of, run

import zoo
from processors import tasks
from processors.options import SslOptions, views
from processors.rows import Rows


def task_on(folder, **options):
    data = {split: Rows(zoo.open_zoo(folder, split)) for split in ("train", "validation")}
    made = tasks.make("ssl", data, options)
    made.settle(made.chosen("statnn"), options)
    return made


def test_a_clean_network_and_an_augmented_one_are_the_pair(waves_zoo):
    made = task_on(waves_zoo)
    assert made.options.pair == "clean,augmented"
    weights, _ = made.data["train"].batch(torch.arange(4))
    clean, augmented = made._pair(weights)
    assert torch.equal(clean.flatten(), weights.flatten())
    assert not torch.equal(augmented.flatten(), weights.flatten())
    both = task_on(waves_zoo, pair="augmented,augmented")._pair(weights)
    assert all(not torch.equal(each.flatten(), weights.flatten()) for each in both)


def test_two_clean_views_are_refused():
    for text in ("clean,clean", "clean", "clean,moved"):
        with pytest.raises(ValueError, match="takes clean,augmented or augmented,augmented"):
            views(text)
        with pytest.raises(ValueError, match="pair"):
            SslOptions(pair=text)


@pytest.mark.parametrize("select", ["loss", "metric"])
def test_the_best_weights_are_those_of_the_selection(waves_zoo, tmp_path, select):
    words = ("--model", "statnn", "--epochs", 4, "--batch", 32, "--lr", 0.01, "--set", "width=8")
    given = () if select == "loss" else ("--select", "metric")
    result = run("train", "ssl", waves_zoo, *words, *given, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task_options"]["select"] == select
    assert config["task_options"]["projection"] == 16
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    measured = [r for r in map(json.loads, lines) if "validation" in r]
    name = "loss" if select == "loss" else "mse"
    best = min(measured, key=lambda record: record["validation"][name])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best_step"] == best["step"]
    assert summary["metric"] == "mse"
    assert summary["constant"]["name"] == "the mean"
    again = run("eval", tmp_path / "run", waves_zoo)
    assert f"mse {summary['test']['mse']:.6g}"[:12] in again.stdout


def test_a_wrong_pair_is_one_line(waves_zoo, tmp_path):
    result = run("train", "ssl", waves_zoo, "--model", "statnn", "--pair", "clean,clean")
    assert "--pair" in line_of(result, 2)
