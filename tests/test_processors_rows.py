"""`processors.rows`: every row once an epoch, whoever asks; held or streamed alike."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers import SINE, write_zoo
from torch.testing import assert_close

import zoo
from processors import rows as rows_module
from processors.rows import Rows, batch_rows, orders, steps_per_epoch
from zoo import symmetry


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("rows") / "tiny"
    write_zoo(made, rows={"train": 20, "validation": 5, "test": 7}, shard_rows=8, spec=SINE)
    return made


@pytest.fixture
def streamed(folder, monkeypatch) -> Rows:
    """The training rows, too large to be held."""
    monkeypatch.setattr(rows_module, "HELD_BYTES", 0)
    return Rows(zoo.open_zoo(folder))


@pytest.mark.parametrize(("rows", "batch"), [(20, 8), (21, 8), (7, 512), (100, 32), (5, 1)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_is_seen_once_an_epoch(rows, batch, world):
    length = steps_per_epoch(rows, batch)
    for epoch in range(3):
        seen = [
            number
            for rank in range(world)
            for part in islice(orders(rows, batch, 5, epoch * length, rank, world), length)
            for number in part.tolist()
        ]
        assert sorted(seen) == list(range(rows))


def test_batches_are_even_and_known_beforehand():
    sizes = [len(part) for part in islice(orders(101, 32, 0), 9)]
    assert sizes == [34, 34, 33] * 3
    assert sizes == [batch_rows(101, 32, step) for step in range(9)]


def test_orders_start_anywhere():
    all_of_them = list(islice(orders(23, 5, 3), 20))
    for start in range(12):
        some = list(islice(orders(23, 5, 3, start=start), 6))
        for expected, found in zip(all_of_them[start:], some, strict=False):
            assert torch.equal(expected, found)


def test_orders_depend_on_seed_and_epoch():
    (first, second), (other, _) = (
        [torch.cat(list(islice(orders(50, 10, seed, start), 5))) for start in (0, 5)]
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_streamed_rows_are_the_held_ones(folder, streamed):
    held = Rows(zoo.open_zoo(folder))
    chosen = list(islice(orders(20, 6, 0), 7))
    pairs = zip(held.stream(chosen), streamed.stream(chosen), strict=True)
    for (weights, columns), (others, theirs) in pairs:
        assert torch.equal(weights.flatten(), others.flatten())
        assert columns.keys() == theirs.keys()
        for name, values in columns.items():
            assert torch.equal(values, theirs[name])
    expected, _ = zoo.open_zoo(folder).batch(chosen[0])
    assert torch.equal(held.batch(chosen[0])[0].flatten(), expected.flatten())


def test_an_endless_stream_can_be_left(streamed):
    stream = streamed.stream(orders(20, 6, 0))
    next(stream)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_evaluation_sees_every_row_in_order(streamed):
    index = torch.cat([columns["index"] for _, columns in streamed.batches(6)])
    assert index.tolist() == streamed.column("index").tolist()
    assert streamed.column("psnr_db").dtype == torch.float32


def test_a_limit_takes_the_first(folder):
    some = Rows(zoo.open_zoo(folder), limit=6)
    assert len(some) == 6
    assert some.column("index").tolist() == Rows(zoo.open_zoo(folder)).column("index")[:6].tolist()
    assert len(Rows(zoo.open_zoo(folder), limit=600)) == 20
    with pytest.raises(ValueError, match="limit of at least 1 network, got 0"):
        Rows(zoo.open_zoo(folder), limit=0)


def test_stats_are_those_of_the_zoo(folder, streamed):
    expected = zoo.open_zoo(folder).stats()
    for rows in (streamed, Rows(zoo.open_zoo(folder))):
        found = rows.stats()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value)


@pytest.mark.parametrize("held", [0, 1e9])
def test_permuted_rows_replace_the_old(folder, monkeypatch, held):
    monkeypatch.setattr(rows_module, "HELD_BYTES", held)
    rows = Rows(zoo.open_zoo(folder))
    before, old = rows.batch(torch.arange(20))
    elements = [symmetry.sample(rows.zoo.spec, 20) for _ in range(2)]
    for element in elements:
        before = symmetry.apply(element, before)
        rows.permute(element)
    after, columns = rows.batch(torch.arange(20))
    assert torch.equal(after.flatten(), before.flatten())
    assert torch.equal(columns["label"], old["label"])
    chosen = list(islice(orders(20, 6, 0), 7))
    for part, (weights, columns) in zip(chosen, rows.stream(chosen), strict=True):
        assert torch.equal(weights.flatten(), before[part].flatten())
        assert torch.equal(columns["label"], old["label"][part])
    expected = before.weights[1].double().mean(0)
    assert_close(rows.stats()["entry.mean.weight_1"], expected)
