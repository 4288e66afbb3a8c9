"""Figures of runs have the width of a card, and equal numbers give equal bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from processors.tasks import figures
from zoo.drawing import DPI, WIDE

DRAW = np.random.default_rng(0)
NUMBERS = DRAW.normal(size=(2, 40))
PICTURES = [DRAW.random((8, 8, 1)) for _ in range(6)]
LOGGED = [{"step": 10, "loss": 1.0}, {"step": 20, "validation": {"accuracy": 0.7}}]

RANKED = np.linspace(1, 0, 9)
FIGURES: dict[str, Callable[[Path], None]] = {
    "confusion": lambda path: figures.confusion(np.eye(4, dtype=np.int64), list("abcd"), path),
    "predicted": lambda path: figures.predicted(*NUMBERS, "test_accuracy", path),
    "curves": lambda path: figures.curves(LOGGED, "accuracy", path, ("chance", 0.1, 0.01)),
    "pictures": lambda path: figures.pictures({"before": PICTURES, "after": PICTURES}, path),
    "shares": lambda path: figures.shares({"one": [0.1, 0.2], "two": [0.3, 0.1]}, ["a", "b"],
                                          "share kept", path),
    "ranked": lambda path: figures.ranked({"one": [RANKED, RANKED[:3]], "two": [RANKED] * 2},
                                          ["a", "b"], "share kept", path),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_card(tmp_path, name):
    for file in "ab":
        FIGURES[name](tmp_path / f"{file}.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == WIDE * DPI
        assert "Software" not in picture.info
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
