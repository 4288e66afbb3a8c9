"""Runs measured again: after random symmetries of each network."""

import json

import pytest
import torch
from helpers import line_of, run

import processors
from processors import options
from zoo import symmetry


@pytest.fixture(scope="module")
def trained(digits_zoo, tmp_path_factory):
    """A reader of weights and one of functions, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["--epochs", 6, "--batch", 8, "--device", "cpu", "--lr", 0.01]
    for model in ("mlp", "probe"):
        done = run("train", "classify", digits_zoo, "--model", model, *words, "--out",
                   folder / model)  # fmt: skip
        assert done.exit_code == 0, done.output
    return folder


def test_symmetries_are_those_of_the_library():
    assert set(options.SYMMETRIES) == set(symmetry.KINDS)


def test_random_symmetries_disturb_who_reads_weights_alone(trained, digits_zoo, tmp_path):
    kinds = ("permutation", "sign", "phase")
    names = [f"accuracy after {kind}" for kind in (*kinds, "all")]
    kept = tmp_path / "kept.json"
    done = run("eval", trained / "probe", digits_zoo, "--split", "test", "--randomise",
               ",".join(kinds), "--keep", kept)  # fmt: skip
    assert done.exit_code == 0, done.output
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert {found[name] for name in names} == {found["accuracy"]}
    (record,) = json.loads(kept.read_text())
    assert set(names) < set(record["summary"]["test"])
    assert "--randomise permutation,sign,phase" in record["config"]["command"]
    assert run("report", kept, "--out", tmp_path / "report.md").exit_code == 0
    assert "| after sign |" in (tmp_path / "report.md").read_text()

    # On what it has learnt by heart a perceptron is right until signs are turned.
    before = processors.evaluate(trained / "mlp", digits_zoo, "train", device="cpu")
    after = processors.evaluate(
        trained / "mlp", digits_zoo, "train", device="cpu", randomise=["sign"]
    )
    assert {name: after[name] for name in before} == before
    assert after["accuracy after sign"] < before["accuracy"]
    again = processors.evaluate(
        trained / "mlp", digits_zoo, "train", device="cpu", randomise=["sign"]
    )
    assert again == after


def test_rows_that_are_not_held_are_disturbed_alike(digits_zoo, monkeypatch):
    import zoo
    from processors import rows

    z = zoo.open_zoo(digits_zoo, "train")
    held = rows.Rows(z)
    monkeypatch.setattr(rows, "HELD_BYTES", 0)
    unheld = rows.Rows(z)
    assert unheld._held is None
    element = symmetry.sample(z.spec, len(z), ("permutation", "sign", "phase"))
    held.permute(element)
    unheld.permute(element)
    chosen = torch.tensor([3, 0, 17])
    one, two = held.batch(chosen)[0], unheld.batch(chosen)[0]
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(two.tensors()[name], tensor)
    x = torch.rand(9, 2)
    plain = zoo.forward(z.spec, z.batch(chosen)[0], x)
    torch.testing.assert_close(zoo.forward(z.spec, one, x), plain, atol=1e-3, rtol=1e-3)


def test_what_changes_the_function_is_refused(trained, digits_zoo):
    line = line_of(run("eval", trained / "mlp", digits_zoo, "--randomise", "scale"), 2)
    assert "a scale of a neuron changes what these networks compute" in line
    line = line_of(run("eval", trained / "mlp", digits_zoo, "--randomise", "sign,sign"), 2)
    assert "'--randomise'" in line
    with pytest.raises(ValueError, match="takes different ones of permutation"):
        processors.evaluate(trained / "mlp", digits_zoo, randomise=["rotation"])
