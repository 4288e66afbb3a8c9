"""Zoos are cut and joined: rows keep all that they had."""

import numpy as np
import pytest
import torch
from helpers import line_of, run

import zoo
from zoo.recipes import fitted_by
from zoo.shards import read_index

RECIPE = zoo.recipe("dws", "digits", steps=2, hidden=4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joining")
    zoo.build(RECIPE, "digits", folder / "a", limit=60)
    zoo.build(RECIPE, "digits", folder / "b", limit=60, seed=1)
    other = zoo.recipe("dws", "digits", steps=2, hidden=5)
    zoo.build(other, "digits", folder / "wider", limit=20)
    return folder


def test_select_keeps_the_rows_that_are_wanted(digits, tmp_path):
    index = zoo.select(digits / "a", "label in ('3', '8') and index > 5", tmp_path / "threes")
    for split in index.splits:
        before, after = zoo.open_zoo(digits / "a", split), zoo.open_zoo(tmp_path / "threes", split)
        labels, places = before.column("label"), before.column("index")
        rows = np.flatnonzero(((labels == 3) | (labels == 8)) & (places > 5))
        assert after.column("index").tolist() == places[rows].tolist()
        wanted, found = before.batch(rows), after.batch(range(len(after)))
        assert torch.equal(found[0].flatten(), wanted[0].flatten())
        assert torch.equal(found[1]["psnr_db"], wanted[1]["psnr_db"])
    assert index.rows > 0
    assert all(check.passed for check in zoo.verify(tmp_path / "threes", samples=4))
    row = zoo.open_zoo(tmp_path / "threes", "train")[0]
    assert zoo.original(row).shape == (8, 8, 1)


def test_rows_of_zoos_know_what_fitted_them(digits, tmp_path):
    """So presets by recipe and citations reach them; mixed ones have none."""
    made = read_index(digits / "a").recipe
    index = zoo.select(digits / "a", "index < 20", tmp_path / "low")
    assert index.recipe["name"] == "select"
    assert fitted_by(index.recipe) == made
    assert fitted_by(zoo.select(tmp_path / "low", "index < 9", tmp_path / "few").recipe) == made
    zoo.select(digits / "a", "index >= 20", tmp_path / "high")
    both = zoo.concat([tmp_path / "low", tmp_path / "high"], tmp_path / "whole")
    assert fitted_by(both.recipe) == made
    card = (tmp_path / "whole" / "README.md").read_text()
    fitted = card.partition("Its networks were fitted by the recipe:")[2]
    assert "| `name` | dws | name of the recipe |" in fitted
    assert "| `steps` | 2 |" in fitted
    assert "fitted by dws (image)" in run("info", tmp_path / "whole").output
    assert "navon" in card.lower()
    other = zoo.recipe("dws", "digits", steps=1, hidden=4)
    zoo.build(other, "digits", tmp_path / "other", limit=20)
    zoo.select(tmp_path / "other", "index < 20", tmp_path / "others")
    parts = [tmp_path / "high", tmp_path / "others"]
    mixed = zoo.concat(parts, tmp_path / "mixed")
    assert fitted_by(mixed.recipe)["name"] == "concat"


def test_concat_says_where_rows_come_from(digits, tmp_path):
    with pytest.raises(ValueError, match="both have index 0, view 0"):
        zoo.concat([digits / "a", digits / "b"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    index = zoo.concat([digits / "a", digits / "b"], tmp_path / "both", equal_keys=True)
    assert index.columns["origin"].names == ("a", "b")
    assert index.source["sha256"] == read_index(digits / "a").source["sha256"]
    z = zoo.open_zoo(tmp_path / "both", "train", check_hashes=True)
    origin = z.column("origin")
    for number, name in enumerate("ab"):
        before = zoo.open_zoo(digits / name, "train")
        rows = np.flatnonzero(origin == number)
        wanted = before.batch(range(len(before)))[0].flatten()
        assert torch.equal(z.batch(rows)[0].flatten(), wanted)


def test_halves_put_together_are_the_whole(digits, tmp_path):
    zoo.select(digits / "a", "index < 20", tmp_path / "low")
    zoo.select(digits / "a", "index >= 20", tmp_path / "high")
    zoo.concat([tmp_path / "low", tmp_path / "high"], tmp_path / "whole")
    before, after = zoo.open_zoo(digits / "a", "train"), zoo.open_zoo(tmp_path / "whole", "train")
    assert after.column("index").tolist() == before.column("index").tolist()
    assert torch.equal(after.stats()["entry.std.weight_0"], before.stats()["entry.std.weight_0"])


def test_views_of_opened_zoos_are_written_too(digits, tmp_path):
    z = zoo.open_zoo(digits / "a", "train")
    view = z[z.table["label"] == 3][:4]
    index = zoo.select(view, None, tmp_path / "threes")
    made = zoo.open_zoo(tmp_path / "threes", "train", check_hashes=True)
    assert index.splits["train"] == index.rows == len(view) > 0
    assert made.column("index").tolist() == view.column("index").tolist()
    assert torch.equal(
        made.batch(range(len(made)))[0].flatten(), view.batch(range(len(view)))[0].flatten()
    )
    again = zoo.select(z, "label == 3", tmp_path / "again")
    assert again.rows == (z.table["label"] == 3).sum()
    both = zoo.concat([z[:3], z[5:7]], tmp_path / "both")
    assert zoo.open_zoo(tmp_path / "both").column("index").tolist() == [
        *z.column("index")[[0, 1, 2, 5, 6]]
    ]
    assert both.rows == 5
    with pytest.raises(ValueError, match="both have index"):
        zoo.concat([z[:3], z[2:4]], tmp_path / "twice")
    with pytest.raises(ValueError, match=r"no network of .* is chosen"):
        zoo.select(z[:0], None, tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["select", "a", "--where", "psnr > 3"], "no column 'psnr'; there are index"),
        (["select", "a", "--where", "psnr_db > 1000"], "no network of .*a meets 'psnr_db > 1000'"),
        (["select", "a", "--where", "psnr_db >"], "cannot be read"),
        (["concat", "a"], "at least two zoos"),
        (["concat", "a", "wider"], "networks of different specs"),
        (["concat", "a", "b"], "--equal-keys"),
    ],
)
def test_commands_refuse_in_one_line_and_leave_nothing(digits, tmp_path, words, message):
    words = [str(digits / word) if word in ("a", "b", "wider") else word for word in words]
    result = run(*words, "--out", tmp_path / "new")
    assert message.split(".*")[-1] in line_of(result, 2)
    assert not (tmp_path / "new").exists()


def test_a_view_and_a_card_are_made_anew(digits, tmp_path):
    zoo.build(RECIPE, "digits", tmp_path / "zoo", limit=60, parquet=False)
    assert not (tmp_path / "zoo" / "data").exists()
    (tmp_path / "zoo" / "README.md").write_text("spoilt")
    assert run("view", tmp_path / "zoo").exit_code == 0
    found, wanted = read_index(tmp_path / "zoo"), read_index(digits / "a")
    assert [s.parquet for s in found.shards] == [s.parquet for s in wanted.shards]
    assert [s.sha256 for s in found.shards] == [s.sha256 for s in wanted.shards]
    assert found.stats == wanted.stats
    assert all(check.passed for check in zoo.verify(tmp_path / "zoo", samples=4, refit=2))
    card = (tmp_path / "zoo" / "README.md").read_text()
    assert (tmp_path / "zoo" / "figures" / "samples.png").is_file()
    (tmp_path / "zoo" / "README.md").write_text("spoilt")
    assert run("card", tmp_path / "zoo").exit_code == 0
    assert (tmp_path / "zoo" / "README.md").read_text() == card


def test_a_card_of_damaged_shards_is_refused(digits, tmp_path):
    zoo.build(RECIPE, "digits", tmp_path / "zoo", limit=20)
    shard = tmp_path / "zoo" / read_index(tmp_path / "zoo").shards[0].file
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    result = run("card", tmp_path / "zoo")
    assert "does not have the sha256" in line_of(result, 1)
