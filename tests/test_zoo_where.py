"""Conditions choose rows, and are never run as code."""

import numpy as np
import pytest

from zoo.shards import Column
from zoo.where import Condition

COLUMNS = {
    "weight_0": Column("weight", "tensor"),
    "label": Column("target", "class", ("cat", "dog", "frog")),
    "index": Column("key", "index"),
    "psnr_db": Column("quality", "real", unit="dB"),
}
ROWS = {
    "label": np.array([0, 1, 2, 1, 0]),
    "index": np.array([0, 1, 2, 3, 4]),
    "psnr_db": np.array([20.0, 25.0, 30.0, np.nan, 40.0], np.float32),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("psnr_db > 25", [2, 4]),
        ("25 <= psnr_db", [1, 2, 4]),
        ("psnr_db > 25 and label in (0, 1)", [4]),
        ("psnr_db > 25 or label == 1", [1, 2, 3, 4]),
        ("not psnr_db > 25", [0, 1, 3]),
        ("label in ('cat', 'frog')", [0, 2, 4]),
        ("label not in ['cat']", [1, 2, 3]),
        ("label != 'dog'", [0, 2, 4]),
        ("0 < index <= 3", [1, 2, 3]),
        ("index == label", [0, 1, 2]),
        ("index > -1 and (label == 0 or label == 2)", [0, 2, 4]),
        ("  index in (4,)\n", [4]),
        ("index > 1e18", []),
    ],
)
def test_a_condition_chooses_rows(text, rows):
    found = Condition(text, COLUMNS)(ROWS)
    assert found.dtype == bool
    assert np.flatnonzero(found).tolist() == rows


def test_it_knows_what_it_reads():
    assert Condition("psnr_db > 25 and label == 1", COLUMNS).names == {"psnr_db", "label"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quality > 3", "no column 'quality'; there are label, index, psnr_db"),
        ("weight_0 > 0", "no column 'weight_0'"),
        ("label == 'horse'", "'horse' is no class of 'label'; its classes: cat, dog, frog"),
        ("index == 'cat'", "'cat' is no class of 'index'; it has no classes"),
        ("psnr_db >", "cannot be read"),
        ("", "cannot be read"),
        ("psnr_db", "'psnr_db' means nothing here"),
        ("3", "means nothing here; it may hold columns, numbers"),
        ("3 < 4", "means nothing here"),
        ("psnr_db + 1 > 3", "means nothing here"),
        ("psnr_db > True", "means nothing here"),
        ("psnr_db is 3", "means nothing here"),
        ("label in index", "means nothing here"),
        ("3 in (1, 2)", "means nothing here"),
        ("__import__('os').system('true') == 0", "means nothing here"),
        ("label == (lambda: 1)()", "means nothing here"),
        ("index.real > 0", "means nothing here"),
        ("[index for index in (1,)]", "means nothing here"),
        ("not " * 3000 + "index > 0", "more|nested|at most"),
        ("index > 0" + " and index > 0" * 1000, "at most"),
        ("\0", "cannot be read"),
    ],
)
def test_anything_else_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        Condition(text, COLUMNS)
    assert "\n" not in str(error.value)
