"""A zoo's card shows what runs on it reached, and refuses runs on other networks."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import line_of, run

import zoo
from processors.options import OPTIONS
from processors.settings import Settings
from zoo import shards

RECIPE = zoo.recipe("dws", "digits", steps=2, hidden=4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reached") / "digits"
    zoo.build(RECIPE, "digits", folder, limit=60, parquet=False)
    return folder


def record(folder: Path, model: str, accuracy: float, seed: int = 0, **changes) -> dict:
    """What `wszoo report --keep` keeps of a run."""
    index = shards.read_index(folder)
    config = {
        "task": "classify", "model": model, "zoo": "elsewhere/digits", "zoo_name": index.name,
        "zoo_sha256": shards.sha256(folder / "zoo.json"), "recipe": index.recipe,
        "source": index.source["name"], "networks": dict(index.splits),
        "settings": asdict(Settings(epochs=3, batch=8)), "options": {}, "sizes": {},
        "task_options": asdict(OPTIONS["classify"]()), "model_sizes": {}, "seed": seed,
        "split_limit": {}, "lr_grid": [], "versions": {}, "preset": "small",
        "command": f"wszoo train classify elsewhere/digits --model {model}", **changes,
    }  # fmt: skip
    measured = {"accuracy": accuracy, "loss": 1.0}
    summary = {
        "task": "classify", "model": model, "zoo": config["zoo"], "epochs": 3.0,
        "networks": config["networks"]["train"], "seed": seed, "device": "cpu, 1 threads",
        "devices": 1, "validation": measured, "test": measured, "metric": "accuracy",
        "higher": True, "recipe": "dws", "source": config["source"], "steps": 18, "best_step": 18,
        "batch": 8, "lr": 0.001, "lr_grid": {}, "parameters": 100, "minutes": 0.1,
        "constant": {"name": "chance", "score": 0.125, "error": 0.1},
    }  # fmt: skip
    return {"config": config, "summary": summary}


def kept(path: Path, *records: dict) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_the_card_shows_what_models_reach(digits, tmp_path):
    runs = [record(digits, "probe", 0.75), record(digits, "probe", 0.85, seed=1)]
    runs.append(record(digits, "mlp", 0.25, options={"augment": "none"}))
    runs.append(record(digits, "mlp", 0.2, sizes={"width": 9}, options={"augment": "none"}))
    ceiling = record(digits, "originals", 0.9)
    kept(digits / "ceiling.json", ceiling)
    before = (digits / "zoo.json").read_bytes()
    found = run("card", digits, "--results", kept(tmp_path / "runs.json", *runs))
    assert found.exit_code == 0, found.output
    card = (digits / "README.md").read_text("utf-8")
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    at = next(n for n, line in enumerate(rows) if line.startswith("| model |"))
    assert rows[at].split(" | ")[2] == "accuracy, %"
    cells = [line.strip("| ").split(" | ") for line in rows[at + 2 : at + 7]]
    assert [row[1] for row in cells] == ["function", "weights", "weights", "data", "nothing"]
    # What both have in common is not said.
    assert [row[0] for row in cells[1:3]] == ["MLP", "MLP, width 9"]
    assert [row[2] for row in cells] == ["80.00 ± 7.1", "25.00", "20.00", "90.00", "12.50"]
    assert cells[0][3] == f"{runs[0]['summary']['networks']:,} networks, 3 epochs, 2 seeds"
    assert "](figures/results-1.png)" in card
    # The card is no part of the zoo's hash: its runs stay bound to it.
    assert (digits / "zoo.json").read_bytes() == before
    assert run("card", digits).exit_code == 0
    assert "What models reach" not in (digits / "README.md").read_text("utf-8")


def test_runs_on_other_networks_are_refused(digits, tmp_path):
    other = zoo.recipe("dws", "digits", steps=2, hidden=5).to_json()
    wrong = record(digits, "mlp", 0.3, zoo_sha256="0" * 64, recipe=other)
    card = (digits / "README.md").read_bytes()
    found = run("card", digits, "--results", kept(tmp_path / "a.json", wrong))
    assert "was trained on the zoo digits, which is of another recipe or source" in line_of(
        found, 1
    )
    more = {**shards.read_index(digits).splits, "train": 1_000}
    larger = record(digits, "mlp", 0.3, zoo_sha256="0" * 64, networks=more)
    found = run("card", digits, "--results", kept(tmp_path / "b.json", larger))
    assert "has more networks in train" in line_of(found, 1)
    assert (digits / "README.md").read_bytes() == card
    # Before it grew: the same networks, another index.
    same = record(digits, "mlp", 0.3, zoo_sha256="0" * 64)
    found = run("card", digits, "--results", kept(tmp_path / "c.json", same))
    assert found.exit_code == 0
    assert "had another zoo.json" in found.stderr


def test_results_and_runs_come_together(digits, tmp_path):
    found = run("card", digits, "--results")
    assert "--results names no run" in line_of(found, 2)
    found = run("card", digits, kept(tmp_path / "a.json"))
    assert "--results is lacking before" in line_of(found, 2)
