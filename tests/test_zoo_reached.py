"""What models reach stands in the card: rows by what they read, chance and ceiling."""

import re
from pathlib import Path

import pytest
from helpers import write_zoo
from PIL import Image

from zoo import cards, reached
from zoo.drawing import DPI, WIDE
from zoo.reached import Line, Reached

FOUND = Reached(
    task="classify",
    unit="accuracy, %",
    higher=True,
    models=(
        Line("probe", "function", (95.5, 94.9, 95.9), "11,000 networks, 40 epochs, 3 seeds"),
        Line("graded *own*", "weights", (91.35,), "11,000 networks, 40 epochs, 1 seed"),
    ),
    ceilings=(
        Line("a CNN on renders", "function", (97.0,), "11,000 networks, 10 epochs, 1 seed"),
        Line("a CNN on pictures", "data", (98.5,), "11,000 networks, 10 epochs, 1 seed"),
    ),
    chance=("chance", 11.7),
)
ERRORS = Reached("edit", "mean squared error", False, FOUND.models[:1], chance=("unedited", 0.3449))


def test_numbers_have_their_spread():
    assert [line.number for line in FOUND.models] == ["95.43 ± 0.5", "91.35"]
    assert Line("a", "weights", (0.12514,), "").number == "0.1251"
    assert FOUND.ceiling is FOUND.ceilings[1]
    assert ERRORS.ceiling is None


def test_the_card_has_a_table_and_a_figure(tmp_path: Path):
    index = write_zoo(tmp_path)
    cards.write_card(tmp_path, index, {}, None, [FOUND, ERRORS])
    card = (tmp_path / "README.md").read_text("utf-8")
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    at = rows.index("| model | reads | accuracy, % | trained on |")
    assert rows[at + 2 : at + 7] == [
        "| probe | function | 95.43 ± 0.5 | 11,000 networks, 40 epochs, 3 seeds |",
        r"| graded \*own\* | weights | 91.35 | 11,000 networks, 40 epochs, 1 seed |",
        "| a CNN on renders | function | 97.00 | 11,000 networks, 10 epochs, 1 seed |",
        "| a CNN on pictures | data | 98.50 | 11,000 networks, 10 epochs, 1 seed |",
        "| without reading networks: chance | nothing | 11.70 |  |",
    ]
    assert "`wszoo train edit`: mean squared error, on the test split; lower is better." in card
    places = [card.index(f"## {title}") for title in ("In ten", "What models", "Load it")]
    assert places == sorted(places)
    # One model is a dot, which says no more than its row.
    assert re.findall(r"\((figures/results.*?)\)", card) == ["figures/results-1.png"]
    with Image.open(tmp_path / "figures" / "results-1.png") as picture:
        assert picture.width == WIDE * DPI
    # A card that is made anew without results keeps none, nor their figures.
    cards.write_card(tmp_path, index, {}, None)
    assert "What models reach" not in (tmp_path / "README.md").read_text("utf-8")
    assert not list((tmp_path / "figures").glob("results-*"))


@pytest.mark.parametrize("found", [FOUND, ERRORS], ids=["accuracy", "error"])
def test_equal_results_give_equal_bytes(tmp_path: Path, found: Reached):
    for name in "ab":
        reached.draw(tmp_path / f"{name}.png", found)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
