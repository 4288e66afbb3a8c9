"""The published cards are what `wszoo card` makes of their zoos, and small."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import run
from huggingface_hub import DatasetCard

from processors.reached import About, reached
from zoo import cards, identity, shards
from zoo.fidelity import ORIGINALS
from zoo.reader import read_stats
from zoo.shards import STATS_FILE

ROOT = Path(__file__).parents[1] / "data_cards"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/zoo.json"))
MOST, MOST_TOGETHER = 2_000_000, 3_000_000


def test_there_are_cards():
    assert FOLDERS


def test_they_are_small():
    sizes = [path.stat().st_size for path in ROOT.rglob("*") if path.is_file()]
    assert max(sizes) < MOST
    assert sum(sizes) < MOST_TOGETHER


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_is_that_of_its_index(folder):
    """And of the runs that are kept beside it, which are runs on this very zoo."""
    index = shards.read_index(folder)
    described = DatasetCard.load(folder / "README.md").data["dataset_info"]["features"]
    shown = tuple(each["name"] for each in described if each["name"] in ("image", "original"))
    # Which pictures the view shows stands in its files, which are not here.
    index = replace(index, pictures=shown)
    card = (folder / "README.md").read_text(encoding="utf-8")
    figures = {file: caption for caption, file in re.findall(r"!\[(.*)\]\((figures/.*)\)", card)}
    assert figures
    drawn = {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert drawn == set(figures)
    known = identity.hashes(folder)
    about = About(folder, known, index.recipe, index.source["name"], index.splits)
    kept = folder / "results.json"
    others: list[str] = []
    results = reached(about, [kept], others.append) if kept.exists() else ()
    assert others == []
    # What is between the brackets is escaped already.
    captions = {file: re.sub(r"\\(.)", r"\1", caption) for file, caption in figures.items()}
    # They lie here where something of weights was published; as the index says, by their hash.
    statistics = read_stats(folder, index) if (folder / STATS_FILE).exists() else None
    recipe, source = index.recipe["name"], index.source["name"]
    of_weights = recipe in ORIGINALS and ORIGINALS[recipe].of_weights(source)
    assert of_weights == (statistics is not None)
    assert cards.render_card(index, captions, results, statistics) == card
    assert index.name == folder.name


def test_a_card_is_made_again_to_the_byte(digits_zoo, tmp_path):
    """By the command: text, figures, and nothing else is touched."""
    folder = tmp_path / digits_zoo.name
    shutil.copytree(digits_zoo, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder / "figures")
    (folder / "README.md").unlink()
    found = run("card", folder)
    assert found.exit_code == 0, found.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
