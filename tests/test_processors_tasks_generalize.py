"""`generalize` on networks after symmetries of theirs: who notices, and for whom it is."""

import pytest
import torch
from helpers import write_zoo

import zoo
from processors.options import GeneralizeOptions
from processors.rows import Rows
from processors.tasks.generalize import Generalize
from zoo import nets

# Activation, the option for it, its value, and the suffix of the metrics.
CASES = [("relu", "rescale", 2.0, "_rescaled"), ("tanh", "flip", True, "_flipped")]


def task(tmp_path, activation, **options) -> Generalize:
    spec = zoo.NetworkSpec.mlp([3, 6, 5, 2], activation=activation)
    write_zoo(tmp_path / activation, spec=spec)
    rows = {"test": Rows(zoo.open_zoo(tmp_path / activation, "test"))}
    return Generalize(rows, GeneralizeOptions(target="mse", **options))


@pytest.mark.parametrize(("activation", "option", "value", "suffix"), CASES)
def test_monomial_does_not_move_and_others_do(tmp_path, activation, option, value, suffix):
    asked = task(tmp_path, activation, **{option: value})
    torch.manual_seed(0)
    for model, moves in (("monomial", False), ("nfn-np", True), ("statnn", True)):
        sizes = {} if model == "statnn" else {"channels": [4], "fourier": 4}
        usual = asked.fitting_sizes(model, asked.chosen(model).sizes)
        module = asked.module(model, None, {**usual, **sizes}).eval()
        found = asked.evaluate(module, "test")
        assert set(found) == {f"{m}{s}" for m in ("tau", "r2", "mse_x100") for s in ("", suffix)}
        same = found[f"mse_x100{suffix}"] == pytest.approx(found["mse_x100"], rel=1e-4)
        assert same != moves
        assert asked.evaluate(module, "test") == found  # drawn alike every time


@pytest.mark.parametrize(("activation", "option", "value", "suffix"), CASES)
def test_functions_stay_as_they_are(tmp_path, activation, option, value, suffix):
    """Random weights of other networks would make a model move too."""
    asked = task(tmp_path, activation, **{option: value})
    weights, _ = asked.data["test"].batch(torch.arange(7))
    changed = asked.cases[suffix](weights, torch.Generator().manual_seed(0))
    assert not torch.allclose(changed.weights[1], weights.weights[1])
    x = torch.randn(11, 3)
    ours, theirs = (nets.forward(asked.spec, each, x) for each in (changed, weights))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("activation", "option", "value", "suffix"), CASES)
def test_networks_whose_function_it_would_change_are_refused(
    tmp_path, activation, option, value, suffix
):
    other = {"relu": "tanh", "tanh": "relu"}[activation]
    with pytest.raises(ValueError, match=rf"--{option} is for .* networks.*these have {other}"):
        task(tmp_path, other, **{option: value})
