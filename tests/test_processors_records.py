"""What the files of a run may say: one line names the file and the field that it does not."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from test_processors_report import config, summary

from processors import records, report
from processors.options import LATER, OPTIONS
from processors.settings import Settings
from zoo import ZooError


def changed(plain: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field set; `...` takes it out."""
    copy = json.loads(json.dumps(plain))
    *outer, last = path.split(".")
    inner = copy
    for key in outer:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


CONFIGS = [
    ("task", ...), ("task", 3), ("model", None), ("zoo", "a\nb"), ("zoo_sha256", "0" * 63),
    ("zoo_sha256", "G" * 64), ("recipe", []), ("source", None), ("networks.train", -1),
    ("networks.train", 4.0), ("networks.train", True), ("settings", ...), ("settings.lr", ...),
    ("settings.lr", "0.1"), ("settings.batch", 512.0), ("settings.compile", 0),
    ("settings.epochs", "5"), ("settings.more", 1), ("options", []), ("sizes", None),
    ("settings.schedule", "constantconstant"),
    ("task_options.noise", None), ("task_options.more", 1), ("task_options.views", 1.5),
    ("task_options.augment", "small-cnn"),
    ("model_sizes", 3), ("seed", -1), ("seed", 2**32), ("seed", 0.0), ("split_limit.train", 0),
    ("lr_grid", [0.0]), ("lr_grid", {}), ("versions", []), ("command", "wszoo 'train"),
    ("command", 7),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), CONFIGS)
def test_a_config_that_says_what_it_cannot(path, value):
    records.check_config(config(), "config.json")
    with pytest.raises(ZooError, match=rf"config\.json: {path.replace('.', '[.]')}"):
        records.check_config(changed(config(), path, value), "config.json")


SUMMARIES = [
    ("task", "classify"), ("model", "mlp"), ("networks", 4001), ("networks", 0), ("seed", 1),
    ("batch", 511), ("source", "mnist"), ("recipe", "dws"), ("epochs", -1.0), ("epochs", "5"),
    ("device", 1), ("devices", 0), ("validation", []), ("validation.mse", None),
    ("test.mse", "1"), ("higher", 0), ("steps", 1.5), ("lr", 0.0), ("lr_grid.0.1", "x"),
    ("parameters", -1), ("minutes", True), ("metric", ...), ("files", []), ("files", {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), SUMMARIES)
def test_a_summary_that_says_what_it_cannot(path, value):
    records.check_summary(summary(1.0), config(), "summary.json")
    plain = changed(summary(1.0), path, value) if path != "lr_grid.0.1" else {
        **summary(1.0), "lr_grid": {"0.1": value},
    }  # fmt: skip
    with pytest.raises(ZooError, match=rf"summary\.json: {path.split('.')[0]}"):
        records.check_summary(plain, config(), "summary.json")


def test_numbers_agree():
    for changes, message in (
        ({"metric": "r2"}, "validation has no 'r2', which `metric` names"),
        ({"test": {"r2": 1.0}}, "test has no 'mse', which `metric` names"),
        ({"best_step": 4001}, "best_step is 4,001 of 4,000 steps"),
        ({"lr": 0.5}, "lr: config.json says 0.001, got 0.5"),
    ):
        with pytest.raises(ZooError, match=message):
            records.check_summary({**summary(1.0), **changes}, config(), "summary.json")
    grid = config(lr_grid=[0.5, 0.1])
    records.check_summary({**summary(1.0), "lr": 0.5}, grid, "summary.json")
    with pytest.raises(ZooError, match=r"lr: config\.json says"):
        records.check_summary(summary(1.0), grid, "summary.json")


def test_what_was_published_can_be_read():
    """Records of all results in docs, which early versions wrote."""
    from pathlib import Path

    found = report.collect([Path(__file__).parents[1] / "docs" / "results.json"])
    assert len(found) > 100


def test_metrics_are_read_line_by_line(tmp_path):
    first = {"step": 1, "epoch": 0.5, "loss": 2.0, "lr": 0.1, "seconds": 1.5}
    second = {"step": 2, "validation": {"mse": 0.5}}
    lines = [json.dumps(first), json.dumps(second)]
    path = tmp_path / "metrics.jsonl"
    for text, wrong in (
        ("\n".join(lines) + "\n", None),
        ("\n".join([*lines, '{"step": 3, "lo']), None),  # cut by a kill
        ("\n".join([lines[0], '{"step": 3, "lo', lines[1]]) + "\n", "line 2: not JSON"),
        ("\n".join([*lines, "[]"]) + "\n", "line 3: expected"),
        ("\n".join([*lines, '{"step": 3, "loss": 1}']) + "\n", "line 3: expected"),
        ("\n".join([*lines, '{"step": 0, "validation": {}}']) + "\n", "line 3: expected"),
        ("\n".join([lines[0], "\0\0\0", lines[1]]) + "\n", "line 2: not JSON"),
        ("\n".join([*lines, lines[0].replace("2.0", "NaN")]) + "\n", "line 3: not JSON"),
    ):
        path.write_text(text)
        found, told = records.read_metrics(tmp_path)
        assert found == [first, second]
        assert (told is None) == (wrong is None)
        assert wrong is None or wrong in told
    path.write_bytes(b"\xff\xfe\n")
    assert records.read_metrics(tmp_path)[0] == []


def test_fields_are_those_of_the_first_version():
    """A field that comes later has to be one that a run may lack; see `records._fields`."""
    assert list(asdict(Settings())) == [
        "epochs", "steps", "batch", "lr", "optimiser", "weight_decay", "warmup", "schedule",
        "clip", "accumulate", "precision", "compile", "evaluations", "patience",
    ]  # fmt: skip
    options = {
        name: [field for field in asdict(kind()) if field not in LATER]
        for name, kind in OPTIONS.items()
    }
    base = ["augment", "noise", "drop"]
    assert options == {
        "classify": [*base, "target"],
        "regress": [*base, "target"],
        "generalize": [*base, "target", "loss", "rescale", "flip"],
        "ssl": [*base, "dimension", "temperature", "projection", "views", "targets"],
        "adapt": [*base, "strength", "variants", "images", "eval_images"],
        "edit": [*base, "edit", "points"],
        "tickets": [*base, "sparsity", "retrain_steps", "retrain_networks"],
    }
