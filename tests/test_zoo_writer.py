"""Anybody's networks become a whole zoo, or nothing does."""

import json

import datasets
import numpy as np
import pytest
import torch

import zoo
from zoo import Column, NetworkSpec, Weights, ZooError
from zoo.shards import read_index

SPEC = NetworkSpec.mlp([3, 4, 2], "tanh")
CNN = NetworkSpec.cnn([1, 3, 4], 2)
COLUMNS = {"label": Column("target", "class", ("cat", "dog")), "score": "real"}


def networks(count, spec=SPEC, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Weights.unflatten(torch.randn(count, spec.param_count, generator=generator), spec)


def columns(count, start=0):
    return {"label": np.arange(count) % 2, "score": torch.arange(start, start + count) / 7}


def test_three_lines_make_a_zoo(tmp_path):
    weights = networks(25)
    with zoo.Writer(tmp_path / "mine", SPEC, COLUMNS, shard_rows=10) as writer:
        for start in (0, 9):
            rows = slice(start, 9 if start == 0 else 25)
            part = {name: values[rows] for name, values in columns(25).items()}
            writer.write("train", weights[rows], part)
        writer.write("test", networks(3, seed=1), columns(3))
    z = zoo.open_zoo(tmp_path / "mine", "train", check_hashes=True)
    found, values = z.batch(range(25))
    assert torch.equal(found.flatten(), weights.flatten())
    assert torch.equal(values["score"], torch.arange(25) / 7)
    assert [shard.rows for shard in writer.index.shards] == [10, 10, 5, 3]
    assert z.columns["label"].names == ("cat", "dog")
    assert zoo.open_zoo(tmp_path / "mine", "test").column("index").tolist() == [25, 26, 27]
    assert all(check.passed for check in zoo.verify(tmp_path / "mine"))
    view = datasets.load_dataset(str(tmp_path / "mine"), cache_dir=str(tmp_path / "cache"))
    assert view["train"][24]["weight_0"] == weights.weights[0][24].tolist()
    mean = z.stats()["entry.mean.weight_0"]
    torch.testing.assert_close(mean, weights.weights[0].double().mean(dim=0))
    assert "own networks" in (tmp_path / "mine" / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "mine"]


@pytest.mark.parametrize("as_vectors", [torch.Tensor, np.asarray])
def test_vectors_and_cnns_are_taken(as_vectors, tmp_path):
    weights = networks(4, CNN)
    with zoo.Writer(tmp_path / "zoo", CNN) as writer:
        writer.write("train", weights, {})
        writer.write("test", as_vectors(networks(2, CNN, 1).flatten()), {"index": [7, 9]})
    found, _ = zoo.open_zoo(tmp_path / "zoo", "train").batch(range(4))
    assert torch.equal(found.flatten(), weights.flatten())
    assert zoo.open_zoo(tmp_path / "zoo", "test").column("index").tolist() == [7, 9]


def test_reduced_storage_rounds(tmp_path):
    with zoo.Writer(tmp_path / "zoo", SPEC, dtype="bfloat16") as writer:
        writer.write("train", networks(4), {})
    found, _ = zoo.open_zoo(tmp_path / "zoo").batch(range(4))
    assert torch.equal(found.flatten(), networks(4).flatten().bfloat16().float())


def test_networks_that_are_not_finite_are_left_out_by_name(tmp_path):
    weights = networks(4)
    weights.weights[0][2, 0, 0] = float("nan")
    with zoo.Writer(tmp_path / "zoo", SPEC) as writer:
        writer.write("train", weights, {})
    (lost,) = read_index(tmp_path / "zoo").excluded
    assert (lost.split, lost.index, lost.reason) == ("train", 2, "weight_0 is not finite")
    assert len(zoo.open_zoo(tmp_path / "zoo")) == 3


def test_an_error_in_the_block_makes_nothing(tmp_path):
    def breaks():
        with zoo.Writer(tmp_path / "zoo", SPEC) as writer:
            writer.write("train", networks(3), {})
            raise KeyError("mine")

    with pytest.raises(KeyError):
        breaks()
    assert not (tmp_path / "zoo" / "zoo.json").exists()
    with zoo.Writer(tmp_path / "zoo", SPEC) as writer:  # the folder is free all the same
        writer.write("train", networks(2), {})
    assert len(zoo.open_zoo(tmp_path / "zoo")) == 2


def test_a_zoo_that_is_there_stays_until_the_new_one_stands(tmp_path):
    with zoo.Writer(tmp_path / "zoo", SPEC) as writer:
        writer.write("train", networks(3), {})
    with (
        pytest.raises(ValueError, match="holds a zoo; choose another --out"),
        zoo.Writer(tmp_path / "zoo", SPEC),
    ):
        pass
    with zoo.Writer(tmp_path / "zoo", SPEC, overwrite=True) as writer:
        writer.write("train", networks(5), {})
        assert len(zoo.open_zoo(tmp_path / "zoo")) == 3
    assert len(zoo.open_zoo(tmp_path / "zoo", check_hashes=True)) == 5


@pytest.mark.parametrize(
    ("split", "weights", "given", "message"),
    [
        ("training", networks(2), columns(2), "unknown split 'training'"),
        ("train", networks(2, CNN), columns(2), "weight_0: expected"),
        ("train", torch.zeros(2, 5), columns(2), r"expected vectors \(net, 26\), got \(2, 5\)"),
        ("train", networks(2), {"label": [0, 1]}, "no column 'score'; the zoo has label, score"),
        ("train", networks(2), {**columns(2), "x": [1, 2]}, "unknown column 'x'"),
        ("train", networks(2), {**columns(2), "label": [0, 2]}, "2 classes, counted from 0, and 2"),
        ("train", networks(2), {**columns(2), "label": [0, 0.5]}, "expected whole numbers"),
        ("train", networks(2), {**columns(2), "label": [0, -1]}, "no negative number"),
        ("train", networks(2), {**columns(2), "score": [0]}, r"score: expected \(2,\), got \(1,\)"),
        ("train", networks(2), {**columns(2), "score": ["a", "b"]}, "expected real numbers"),
        ("train", networks(2), {**columns(2), "index": [3, 3]}, "index 3, view 0 is there twice"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_the_rest_is_kept(
    split, weights, given, message, tmp_path
):
    with zoo.Writer(tmp_path / "zoo", SPEC, COLUMNS) as writer:
        writer.write("train", networks(3), columns(3))
        with pytest.raises(ValueError, match=message):
            writer.write(split, weights, given)
    assert len(zoo.open_zoo(tmp_path / "zoo")) == 3


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"weight_0": "real"}, "cannot be the name"),
        ({"index": "count"}, "cannot be the name"),
        ({"two words": "real"}, "cannot be the name"),
        ({"x": "number"}, "unknown kind 'number'; known: class, real, count"),
        ({"x": Column("weight", "tensor")}, "must be one number a network"),
    ],
)
def test_columns_that_cannot_be_are_refused(column, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        zoo.Writer(tmp_path / "zoo", SPEC, column)
    assert not (tmp_path / "zoo").exists()


def test_nothing_written_is_no_zoo_and_a_second_writer_waits_outside(tmp_path):
    with pytest.raises(ValueError, match="nothing was written"), zoo.Writer(tmp_path / "a", SPEC):
        pass
    with zoo.Writer(tmp_path / "b", SPEC) as writer:
        writer.write("train", networks(1), {})
        with pytest.raises(ZooError, match="another process"), zoo.Writer(tmp_path / "b", SPEC):
            pass
    with pytest.raises(ValueError, match="inside its `with` block"):
        zoo.Writer(tmp_path / "c", SPEC).write("train", networks(1), {})


def test_what_was_fitted_is_saved(tmp_path):
    x = torch.linspace(-1, 1, 30)[:, None]
    y = torch.stack([torch.sin(k * x) for k in range(1, 11)])
    fitted = zoo.fit(x, y, zoo.recipe("dws", "tensors", steps=3, hidden=4))
    index = fitted.save(tmp_path / "mine", labels=np.arange(10) % 2, shares=(0.1, 0.2))
    assert index.splits == {"train": 7, "validation": 1, "test": 2}
    z = zoo.open_zoo(tmp_path / "mine", "test")
    assert z.column("label").tolist() == [0, 1]
    assert torch.equal(z.batch([0, 1])[0].flatten(), fitted.weights[8:].flatten())
    assert z.columns["psnr_db"].unit == "dB"
    assert json.loads((tmp_path / "mine" / "zoo.json").read_text())["format"] == 1
    with pytest.raises(ValueError, match="leave no network"):
        fitted.save(tmp_path / "other", shares=(0.5, 0.5))
    with pytest.raises(ValueError, match="a label for each target"):
        fitted.save(tmp_path / "other", labels=[1, 2])


def test_batches_of_networks_are_joined():
    parts = [networks(2, seed=seed) for seed in range(3)]
    joined = Weights.cat(parts)
    assert len(joined) == 6
    assert torch.equal(joined[2:4].flatten(), parts[1].flatten())
    with pytest.raises(ValueError, match="at least one"):
        Weights.cat([])
    with pytest.raises(ValueError, match="one architecture"):
        Weights.cat([parts[0], networks(1, CNN)])
