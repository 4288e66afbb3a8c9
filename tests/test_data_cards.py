"""The published cards are what the code renders from their indexes."""

import re
from pathlib import Path

import pytest

from zoo import cards, shards

FOLDERS = sorted(
    path.parent for path in (Path(__file__).parents[1] / "data_cards").glob("*/zoo.json")
)


def test_there_are_cards():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_is_that_of_its_index(folder):
    index = shards.read_index(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    figures = {file: caption for caption, file in re.findall(r"!\[(.*)\]\((figures/.*)\)", card)}
    assert figures
    assert all((folder / file).is_file() for file in figures)
    assert cards.render_card(index, figures) == card
    assert index.name == folder.name
