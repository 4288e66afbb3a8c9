"""The readers that come with the repository: whole, small, and as their cards say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import run
from huggingface_hub import ModelCard

import processors
from processors import saving
from zoo import NetworkSpec, Weights, symmetry
from zoo.nets import initialise

ROOT = Path(__file__).parents[1] / "model_cards"
CARDS = sorted(path.parent for path in ROOT.glob("*/README.md"))
# Of the others, whose weights are too large for a repository, the cards alone are there.
FOLDERS = [folder for folder in CARDS if (folder / "model.safetensors").exists()]
NOTICE = {"dws": 3e-2, "nfn-hnp": 3e-2, "mlp-align": 0.3}
MOST, MOST_TOGETHER = 2_000_000, 11_000_000


def test_they_are_small():
    sizes = [path.stat().st_size for path in ROOT.rglob("*") if path.is_file()]
    assert FOLDERS
    assert max(sizes) < MOST
    assert sum(sizes) < MOST_TOGETHER


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_a_card_says_what_its_run_measured_and_where_the_model_is(folder):
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    card = ModelCard.load(folder / "README.md")
    (found,) = card.data.eval_results[:1]
    metric = found.metric_type
    assert metric == next(iter(summary["test"]))
    assert found.metric_value == summary["test"][metric]
    kept = folder in FOLDERS
    assert (f'processors.load("model_cards/{folder.name}")' in card.text) == kept
    assert ("are not in this repository" in card.text) != kept
    assert (folder / "config.json").exists() == kept


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_reader_is_what_its_run_and_its_card_say(folder):
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    saving.check_hashes(folder)
    model = processors.load(folder)
    assert sum(p.numel() for p in model.parameters()) == summary["parameters"]


def model_name(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["name"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_reader_takes_no_notice_of_the_order_of_neurons(folder):
    """With the weights that training gave it; what is no symmetry it does notice.

    DWSNets and NFN, which normalise entry by entry here, take some notice; weight matching,
    which ends in another local optimum on networks that are far from its reference, takes more.
    """
    most = NOTICE.get(model_name(folder), 1e-3)
    model = processors.load(folder).eval()
    spec: NetworkSpec = model.spec
    index = torch.arange(8).numpy()
    fresh = torch.from_numpy(initialise(spec, "dws", 0, index, 0 * index))
    plain = Weights.unflatten(fresh, spec)
    moved = symmetry.apply(symmetry.sample(spec, 8, ("permutation",)), plain)
    assert not torch.equal(moved.flatten(), plain.flatten())
    other = plain.map(lambda tensor: tensor.roll(1, dims=-1))
    with torch.no_grad():
        found, after, noticed = model(plain), model(moved), model(other)
    assert found.shape[0] == 8
    size = found.abs().max()
    assert (after - found).abs().max() < most * size
    assert (noticed - found).abs().max() > 0.1 * size


@pytest.mark.parametrize("width", [8, 4_000], ids=["whole", "its card alone"])
def test_a_run_is_laid_out_whole_if_its_weights_are_small(width, digits_zoo, tmp_path):
    words = ("--epochs", 1, "--device", "cpu", "--set", f"width={width}")
    words += ("--out", tmp_path / "mine")
    made = run("train", "classify", digits_zoo, "--model", "statnn", *words)
    assert made.exit_code == 0, made.output
    script = ROOT.parent / "benchmarks" / "readers.py"
    call = [sys.executable, script, f"a={tmp_path / 'mine'}", "--out", tmp_path / "cards"]
    subprocess.run(call, check=True, capture_output=True)
    folder = tmp_path / "cards" / "a"
    text = (folder / "README.md").read_text(encoding="utf-8")
    if (folder / "model.safetensors").exists():
        assert width == 8
        assert 'processors.load("cards/a")' in text
        saving.check_hashes(folder)
        processors.load(folder)
    else:
        assert width == 4_000
        assert not (folder / "config.json").exists()
        assert 'processors.load("runs/mine/model")' in text
        assert "MB and are not in this repository" in text


def test_what_is_no_finished_run_is_one_line(tmp_path):
    script = ROOT.parent / "benchmarks" / "readers.py"
    call = [sys.executable, script, f"a={tmp_path / 'none'}", "--out", tmp_path / "cards"]
    result = subprocess.run(call, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "none" in line
    assert not (tmp_path / "cards").exists()
