"""Parts of users' own: models, tasks and augmentations by object and by import path."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import line_of, run
from test_processors_train import environment
from torch import nn

import processors
import zoo
from processors import own, report
from zoo import Weights, ZooError
from zoo.schema import read_json

# What a user's file holds; the class takes neither statistics nor sizes of the papers.
MINE = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy
import processors
from processors.settings import Settings

print("mine is run")

class Reader(nn.Module):
    def __init__(self, spec, out, width=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(spec.param_count, width), nn.ReLU(),
                                    nn.Linear(width, out))

    def forward(self, weights):
        return self.layers(weights.flatten())

class Editor(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.step = nn.Parameter(torch.zeros(spec.param_count))

    def forward(self, weights):
        from zoo import Weights
        return Weights.unflatten(weights.flatten() + self.step, self.spec)

class Parity(processors.Task):
    metric, higher, title, out = "accuracy", True, "accuracy of parity", 2

    def loss(self, module, weights, columns):
        return cross_entropy(module(self.augment(weights)), columns["label"] % 2)

    def evaluate(self, module, split):
        found = [module(w).argmax(1) == c["label"] % 2 for w, c in self.data[split].batches(64)]
        return {"accuracy": float(torch.cat(found).double().mean())}

    def figures(self, module, split, folder):
        pass

def shrink(weights):
    return weights.map(lambda x: 0.9 * x)

def broken(weights):
    raise TypeError("no such thing")
"""
SHORT: dict[str, Any] = {"settings": {"epochs": 2, "batch": 32}, "device": "cpu"}


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """The module `mine`, in the working directory and not yet imported."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(own, "_given", {})
    sys.modules.pop("mine", None)
    yield tmp_path
    sys.modules.pop("mine", None)


def fresh() -> None:
    """As if another process came: nothing was given or imported."""
    own._given.clear()
    sys.modules.pop("mine", None)


def test_a_model_by_its_import_path(mine, digits_zoo, capfd):
    words = ["train", "classify", digits_zoo, "--model", "mine:Reader", "--epochs", 2, "--batch",
             32, "--device", "cpu", "--set", "width=5", "--out", mine / "run"]  # fmt: skip
    result = run(*words)
    assert result.exit_code == 0, result.output
    config, summary = (read_json(mine / "run" / f"{n}.json") for n in ("config", "summary"))
    assert config["model"] == summary["model"] == "mine:Reader"
    # Sizes of the papers are not for it.
    assert config["model_sizes"] == {"width": 5}
    assert "--model mine:Reader" in config["command"]
    saved = read_json(mine / "run" / "model" / "config.json")
    assert (saved["name"], saved["sizes"]) == ("mine:Reader", {"width": 5})
    capfd.readouterr()
    # Whatever a file names is not imported.
    fresh()
    for use in (
        lambda: processors.load(mine / "run"),
        lambda: processors.evaluate(mine / "run", digits_zoo, device="cpu"),
    ):
        with pytest.raises(ValueError, match="mine:Reader is code that is not wszoo's, and is run"):
            use()
    assert "mine" not in sys.modules
    line = line_of(run("eval", mine / "run", digits_zoo, "--device", "cpu"), 2)
    assert "only when you say so: --trust" in line
    # A report needs none of it, and pushing neither.
    found = run("report", mine / "run", "--out", mine / "report.md")
    assert found.exit_code == 0, found.output
    assert "| mine:Reader |" in (mine / "report.md").read_text()
    from processors import runs

    with runs.published(mine / "run", "user/name") as staged:
        assert (staged / "model.safetensors").is_file()
    assert "mine" not in sys.modules
    assert capfd.readouterr().out == ""
    trusted = run("eval", mine / "run", digits_zoo, "--device", "cpu", "--trust")
    assert trusted.exit_code == 0, trusted.output
    found = {k: float(v) for k, v in (line.split() for line in trusted.stdout.splitlines()[-2:])}
    assert found == pytest.approx(summary["test"], rel=1e-4)
    fresh()
    assert processors.load(mine / "run", trust=True).name == "mine:Reader"
    # The same again is the same run.
    again = run(*words)
    assert again.exit_code == 0, again.output
    assert "holds another run" in line_of(run(*words[:-4], "--set", "width=4", *words[-2:]), 2)


class Linear(nn.Module):
    """A reader of this file, with an argument that is no plain data."""

    def __init__(self, spec: zoo.NetworkSpec, out: int, activation: Any = torch.tanh):
        super().__init__()
        self.activation = activation
        self.layer = nn.Linear(spec.param_count, out)

    def forward(self, weights: Weights) -> torch.Tensor:
        return self.layer(self.activation(weights.flatten()))


def test_a_model_by_the_class_itself(digits_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "_given", {})
    monkeypatch.chdir(tmp_path)
    summary = processors.fit_model("classify", model=Linear, zoo=digits_zoo, **SHORT)
    folder = tmp_path / "runs" / "classify-Linear-digits-0"
    assert read_json(folder / "config.json")["model"] == f"{__name__}:Linear"
    own._given.clear()
    with pytest.raises(ValueError, match="or give the class itself"):
        processors.load(folder)
    model = processors.load(folder, model=Linear).eval()
    weights, _ = zoo.open_zoo(digits_zoo, "test").batch(range(3))
    assert model(weights).shape == (3, 10)
    own._given.clear()
    found = processors.evaluate(folder, digits_zoo, device="cpu", trust=[Linear])
    assert found == pytest.approx(summary["test"])
    assert len(report.collect([folder])) == 1

    # A local class has a name that nobody can import, and can be given.
    class Local(Linear):
        pass

    processors.fit_model("classify", Local, digits_zoo, tmp_path / "local", **SHORT)
    own._given.clear()
    with pytest.raises(ValueError, match="has no '<locals>'"):
        processors.load(tmp_path / "local", trust=True)
    assert isinstance(processors.load(tmp_path / "local", model=Local).model, Local)


def test_damaged_models_of_ones_own(digits_zoo, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(own, "_given", {})
    processors.fit_model("classify", Linear, digits_zoo, tmp_path / "run", **SHORT)
    processors.load(tmp_path / "run").save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    state = load_file(path)
    save_file({**state, "more": torch.zeros(1)}, path)
    with pytest.raises(ZooError, match="has a tensor that the model has not, 'more'"):
        processors.load(tmp_path / "model")
    state["model.layer.weight"][0, 0] = float("nan")
    save_file(state, path)
    with pytest.raises(ZooError, match=r"'model\.layer\.weight' has numbers that are not finite"):
        processors.load(tmp_path / "model")


def test_a_task_and_an_augmentation_of_ones_own(mine, digits_zoo):
    words = ["train", "classify", digits_zoo, "--task", "mine:Parity", "--model", "mlp", "--set",
             "width=8", "--augment", "noise,mine:shrink", "--epochs", 2, "--batch", 32, "--device",
             "cpu", "--out", mine / "run"]  # fmt: skip
    result = run(*words)
    assert result.exit_code == 0, result.output
    config, summary = (read_json(mine / "run" / f"{n}.json") for n in ("config", "summary"))
    assert config["task"] == "mine:Parity"
    assert config["task_options"]["augment"] == "noise,mine:shrink"
    fresh()
    with pytest.raises(ValueError, match="mine:Parity is code that is not wszoo's"):
        processors.evaluate(mine / "run", digits_zoo, device="cpu")
    # The model is one of wszoo's.
    assert processors.load(mine / "run").name == "mlp"
    found = processors.evaluate(mine / "run", digits_zoo, device="cpu", trust=True)
    assert found == summary["test"]
    assert run("report", mine / "run", "--out", mine / "report.md").exit_code == 0
    assert "mine:Parity on digits networks" in (mine / "report.md").read_text()
    # The command that the run keeps makes it again.
    import shlex

    again = shlex.split(config["command"])
    assert again[:3] == ["wszoo", "train", "classify"]
    again[again.index("--out") + 1] = str(mine / "again")
    fresh()
    result = run(*again[1:], "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert read_json(mine / "again" / "summary.json")["test"] == summary["test"]


def test_objects_of_a_users_script(mine, digits_zoo):
    """A task, a model and an augmentation, all by object."""
    module: Any = own.allow("mine:Parity") and sys.modules["mine"]
    seen: list[int] = []

    def watch(weights: Weights) -> Weights:
        seen.append(len(weights))
        return weights

    summary = processors.fit_model(
        module.Parity, module.Reader, digits_zoo, mine / "run", augment=watch, **SHORT
    )
    assert seen
    assert summary["task"] == "mine:Parity"
    assert 0 <= summary["test"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model mine:Writer", "mine:Writer: module mine has no 'Writer'"),
        ("--model yours:Reader", "yours:Reader: there is no module 'yours'; it is looked for"),
        ("--model bad:Reader", "bad:Reader: bad fails with ZeroDivisionError: division by zero"),
        (
            "--model mine:Reader --set depth=3",
            "has no argument 'depth'; known: width, input_rank, canonical",
        ),
        ("--model mine:Reader --set width=x", "mine:Reader cannot be built with width='x': "),
        ("--model mine:shrink", "mine:shrink has no argument|cannot be built|takes no"),
        ("--model mlp --task mine:Reader", "mine:Reader is no task: expected a subclass of"),
        ("--model mlp --task Parity", "'--task': must be package.module:name, got 'Parity'"),
        ("--model mlp --augment mine:none", "mine:none: module mine has no 'none'"),
        ("--model mlp --task mine:Parity --target label", "has no option 'target'; known: augment"),
        ("--model a/b:c", "'--model': unknown model 'a/b:c'; known: dws"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(words, message, mine, digits_zoo):
    import re

    (mine / "bad.py").write_text("1 / 0")
    line = line_of(run("train", "classify", digits_zoo, *words.split(), "--out", mine / "run"), 2)
    assert re.search(message, line)
    assert not (mine / "run").exists()


def test_names_of_parts():
    assert own.give(Linear) == f"{__name__}:Linear"
    with pytest.raises(ValueError, match="expected a class or function with a name of its own"):
        own.give(types.SimpleNamespace())
    with pytest.raises(own.NotGiven, match="os:system is code that is not wszoo's"):
        own.find("os:system")


def test_the_command_finds_what_lies_in_the_working_directory(digits_zoo, tmp_path):
    """As it is installed: its own folder, not this one, stands first on the path."""
    (tmp_path / "mine.py").write_text(MINE)
    script = "import sys; sys.path[0] = '/nowhere'; from cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "classify", str(digits_zoo), "--model",
         "mine:Reader", "--epochs", "1", "--device", "cpu", "--out", "run"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"] == "mine:Reader"
    assert Path(tmp_path / "run" / "summary.json").exists()
