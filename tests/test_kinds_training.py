"""Zoos of classifiers and trajectories: same bytes whatever happens, rows that are right."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_same_rows

import zoo
from zoo import shards, verification
from zoo.kinds import training
from zoo.kinds.training import Classification
from zoo.making.builder import build
from zoo.making.plan import plan_rows
from zoo.making.progress import Progress
from zoo.making.site import unfinished
from zoo.recipes import ClassifierRecipe, TrajectoryRecipe, bounds, recipe

PAIRS = ClassifierRecipe(name="binary", hidden=16, layers=3, batch="64", networks=30)
RUNS = TrajectoryRecipe(
    name="fashion", hidden=16, layers=3, batch="512", epochs=2, interval=3, runs=16, loss_items=100
)


@pytest.mark.parametrize("chosen", [PAIRS, RUNS], ids=["pairs", "runs"])
def test_same_rows_whatever_the_shards_workers_and_chunks(chosen, digits, tmp_path, monkeypatch):
    build(chosen, digits, tmp_path / "a", shard_rows=9, parquet=False)
    build(chosen, digits, tmp_path / "b", shard_rows=14, workers=2, parquet=False)
    monkeypatch.setattr(training, "CHUNK_BYTES", 30_000)
    build(chosen, digits, tmp_path / "c", shard_rows=1000, parquet=False)
    assert_same_rows(tmp_path / "a", tmp_path / "b")
    assert_same_rows(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("chosen", [PAIRS, RUNS], ids=["pairs", "runs"])
def test_stopped_and_resumed_it_is_the_same_to_the_byte(chosen, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHUNK_BYTES", 20_000)
    whole, out = tmp_path / "whole", tmp_path / "out"
    build(chosen, digits, whole, shard_rows=20)
    total = shards.read_index(whole).rows

    class StopError(Exception):
        pass

    stops = 0
    for part in (0.2, 0.5, 0.8):

        def stop(state: Progress, part: float = part) -> None:
            if state.fitted and state.done >= part * total:
                raise StopError

        try:
            build(chosen, digits, out, shard_rows=20, progress=stop)
        except StopError:
            stops += 1
            state = unfinished(out)
            assert state is not None
            assert part * total <= state.done < state.total == total
    assert stops
    build(chosen, digits, out, shard_rows=20)
    a, b = shards.read_index(whole), shards.read_index(out)
    assert a.shards == b.shards
    assert a.stats == b.stats
    assert all(check.passed for check in verification.verify(out, samples=8, refit=2))


KILLED = ["fit-trajectories", "digits", "--hidden", "16", "--batch", "64", "--epochs", "4"]


def test_killed_it_goes_on(tmp_path):
    wszoo = [sys.executable, "-c", "from cli.main import main; main()"]
    words = [*wszoo, *KILLED, "--runs", "20", "--shard-rows", "210", "--no-parquet"]
    subprocess.run([*words, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    out = tmp_path / "out"
    child = subprocess.Popen(
        [*words, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while child.poll() is None and not list(out.glob("weights/*.safetensors")):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    subprocess.run([*words, "--out", str(out)], check=True, capture_output=True)
    a, b = (shards.read_index(folder) for folder in (tmp_path / "whole", out))
    assert a.shards == b.shards
    assert a.stats == b.stats


def test_trajectories(digits, tmp_path):
    index = build(RUNS, digits, tmp_path / "out", shard_rows=10)
    steps = [3, 6]  # four updates an epoch of 1,617 items
    assert index.splits == {"train": 24, "validation": 4, "test": 4}
    seen: set[int] = set()
    for split in index.splits:
        z = zoo.open_zoo(tmp_path / "out", split)
        assert not seen & set(z.runs)
        seen |= set(z.runs)
        for number in z.runs:
            weights, columns = z.run(number)
            assert columns["step"].tolist() == steps
            np.testing.assert_allclose(columns["epoch"], [0.75, 1.5])
            assert len(weights) == 2
            assert (columns["index"] == number).all()
    assert seen == set(range(16))
    with pytest.raises(ValueError, match=r"no run 17 in split 'test', which has 2 runs"):
        zoo.open_zoo(tmp_path / "out", "test").run(17)
    late = zoo.open_zoo(tmp_path / "out").column("test_accuracy")[1::2].mean()
    early = zoo.open_zoo(tmp_path / "out").column("test_accuracy")[0::2].mean()
    assert late > early + 0.03
    with pytest.raises(ValueError, match="has no original"):
        zoo.original(zoo.open_zoo(tmp_path / "out")[0])


def test_classifiers(digits, tmp_path):
    index = build(replace(PAIRS, epochs=8), digits, tmp_path / "out")
    assert index.splits == {"train": 24, "validation": 3, "test": 3}
    z = zoo.open_zoo(tmp_path / "out")
    assert (z.column("class_a") < z.column("class_b")).all()
    assert len(set(zip(z.column("class_a"), z.column("class_b"), strict=True))) > 10
    assert z.column("test_accuracy").mean() > 0.95
    with pytest.raises(ValueError, match="not of trajectories"):
        z.run(0)
    row = z[5]
    module = row.to_module()
    test = np.arange(1618, 1797)
    test = test[np.isin(digits.labels[test], [row.class_a, row.class_b])]
    import torch

    pictures = torch.from_numpy(digits.images[test]).permute(0, 3, 1, 2).flatten(1) / 127.5 - 1
    right = module(pictures).argmax(dim=1).numpy() == digits.labels[test]
    np.testing.assert_allclose(right.mean(), row.test_accuracy, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reduced_storage(dtype, digits, tmp_path):
    build(RUNS, digits, tmp_path / "exact")
    build(RUNS, digits, tmp_path / "half", dtype=dtype)
    exact, half = zoo.open_zoo(tmp_path / "exact"), zoo.open_zoo(tmp_path / "half")
    rounded = shards.round_to(exact.column("weight_0"), dtype)
    assert np.array_equal(half.column("weight_0"), rounded)
    assert half[3].weights.weights[0].dtype is exact[3].weights.weights[0].dtype
    bound = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    assert 0 < half.column("rounding").max() < bound
    assert all(c.passed for c in verification.verify(tmp_path / "half", samples=8, refit=2))
    card = (tmp_path / "half" / "README.md").read_text()
    assert f"kept as {dtype}" in card
    a, b = (shards.read_index(tmp_path / name) for name in ("exact", "half"))
    assert b.shards[0].bytes < 0.6 * a.shards[0].bytes
    from datasets import load_dataset

    view = load_dataset(
        "parquet", data_files=str(tmp_path / "half" / "data" / "train-*.parquet"),
        split="train", cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert np.array_equal(np.array(view.with_format("numpy")[0]["weight_0"]), rounded[0])
    assert np.array_equal(
        np.array(half.as_hf_dataset().with_format("numpy")[0]["weight_0"]), rounded[0]
    )


def test_rounding_to_bfloat16_is_torchs():
    import torch

    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(shards.round_to(values, "bfloat16"), expected)


def test_varied_settings_are_drawn_from_their_ranges(digits):
    chosen = recipe("nfn-mlp3", "digits", runs=200, hidden=8)
    assert isinstance(chosen, TrajectoryRecipe)
    goal = Classification(chosen, digits)
    drawn = goal.target_columns(0, np.arange(200))
    assert set(drawn) == {
        "lr", "weight_decay", "init_scale", "batch", "optimiser", "fraction"
    }  # fmt: skip
    for name in ("lr", "weight_decay", "init_scale"):
        low, high = bounds(getattr(chosen, name))
        logs = np.log(drawn[name])
        assert np.log(low) <= logs.min() < np.log(low) + 0.1 * np.log(high / low)
        assert np.log(high) >= logs.max() > np.log(high) - 0.1 * np.log(high / low)
    assert set(drawn["batch"].tolist()) == {128, 512}
    assert set(drawn["optimiser"].tolist()) == {0, 1, 2}
    for index in (0, 1, 2, 50):
        run = goal.run(0, index)
        assert len(set(run.steps)) == 10
        assert run.steps[-1] <= 20 * run.epoch_steps
        assert len(run.train_items) == np.ceil(drawn["fraction"][index] * 1618)
    rows = plan_rows(chosen, digits, None)
    assert {split: len(part) for split, part in rows.items()} == {
        "train": 180, "validation": 0, "test": 20,
    }  # fmt: skip


def test_small_cnn_is_kept_at_the_epochs_of_its_recipe(digits, tmp_path):
    chosen = recipe("small-cnn", "digits", runs=4, epochs=4, size=16, validation_share=0.25)
    index = build(chosen, replace(digits, images=digits.images.repeat(2, 1).repeat(2, 2)), tmp_path)
    assert index.spec.param_count == 4_970
    _, columns = zoo.open_zoo(tmp_path).run(0)
    epochs = [0, 0.4, 0.8, 1, 1.2, 1.6, 2, 2.4, 2.8, 3, 3.2, 3.6, 4]
    np.testing.assert_allclose(columns["epoch"], epochs, atol=0.51 / 1)
    assert columns["epoch"][0] == 0
    assert columns["epoch"][-1] == 4


def test_diverging_runs_are_left_out_whole(digits, tmp_path):
    wild = replace(RUNS, lr="1e-3..1e38", optimiser="sgd")
    index = build(wild, digits, tmp_path / "out", shard_rows=8)
    assert 0 < len(index.excluded) < 16
    assert index.rows == 2 * (16 - len(index.excluded))
    assert all(row.reason == "not finite after 3 attempts" for row in index.excluded)
    checks = list(verification.verify(tmp_path / "out", samples=0, refit=1))
    assert all(check.passed for check in checks)


def test_verify_finds_a_wrong_accuracy_and_a_moved_row(digits, tmp_path):
    build(RUNS, digits, tmp_path / "out", parquet=False)

    def spoil(name: str, row: int, value: float) -> list[str]:
        index = shards.read_index(tmp_path / "out")
        file = index.shards[0].file
        arrays = shards.read_tensors(tmp_path / "out" / file)
        before = arrays[name][row].copy()
        arrays[name][row] = value
        shards.write_tensors(tmp_path / "out" / file, arrays)
        about = shards.describe(tmp_path / "out", file)
        changed = replace(index.shards[0], bytes=about.bytes, sha256=about.sha256)
        shards.write_index(tmp_path / "out", replace(index, shards=(changed, *index.shards[1:])))
        failed = [
            check.name
            for check in verification.verify(tmp_path / "out", samples=100, refit=0)
            if not check.passed
        ]
        arrays[name][row] = before
        shards.write_tensors(tmp_path / "out" / file, arrays)
        shards.write_index(tmp_path / "out", index)
        return failed

    assert spoil("test_accuracy", 3, 0.5) == ["stats", "quality"]
    assert spoil("train_loss", 3, 9.0) == ["stats", "quality"]
    assert spoil("step", 2, 5) == ["plan"]


def test_misuse(digits, tmp_path):
    for changes, message in (
        ({"lr": "fast"}, "lr cannot be read: expected a number or a range such as"),
        ({"lr": "1e-2..1e-4"}, "lr cannot be read: expected 0 <= low <= high"),
        ({"optimiser": "adamw"}, "optimiser must be one of adam, sgd, rmsprop, got 'adamw'"),
        ({"batch": "0"}, "batch must be from 1 to .*, got 0"),
        ({"batch": "128,512"}, "checkpoints 'every' wants one batch"),
        ({"fraction": "1.5"}, r"fraction must be in \(0, 1\], got 1.5"),
        ({"dropout": "1"}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"test_share": 0.9}, "must leave some to train"),
        ({"network": "rnn"}, "network must be one of mlp, cnn, got 'rnn'"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(RUNS, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="10 random checkpoints do not fit into the 2 updates"):
        build(replace(RUNS, checkpoints="random", epochs=1, batch="1000"), digits, tmp_path)
    with pytest.raises(ValueError, match="wants at least two classes"):
        build(RUNS, replace(digits, class_names=()), tmp_path)
    with pytest.raises(ValueError, match="dtype 'float16' is for classifiers"):
        build("dws", digits, tmp_path, dtype="float16")
    with pytest.raises(ValueError, match="recipe 'fashion' is made by `wszoo fit-trajectories`"):
        recipe("fashion", "digits", "fit-inrs")
