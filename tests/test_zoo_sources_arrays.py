"""Pictures in memory become a zoo as those of any source do."""

import numpy as np
import pytest
import torch

import zoo
from zoo.sources import of_arrays

RECIPE = zoo.recipe("dws", "arrays", steps=3, hidden=4)


def pictures(shape=(12, 6, 5)):
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


@pytest.mark.parametrize("given", [np.asarray, torch.from_numpy])
def test_arrays_become_a_zoo_that_verifies(given, tmp_path):
    labels = np.arange(12) % 3
    index = zoo.build(RECIPE, given(pictures()), tmp_path / "zoo", labels=given(labels))
    z = zoo.open_zoo(tmp_path / "zoo", "train")
    assert z.column("label").tolist() == labels[z.column("index")].tolist()
    assert z.columns["label"].names == ("0", "1", "2")
    assert index.rows == 12
    source = of_arrays(pictures(), labels)
    checks = list(zoo.verify(tmp_path / "zoo", samples=5, refit=3, source=source))
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) > 3
    # The same pictures go on from what is there; others are another zoo.
    assert zoo.build(RECIPE, pictures(), tmp_path / "zoo", labels=labels) == index
    with pytest.raises(ValueError, match="source sha256"):
        zoo.build(RECIPE, pictures() ^ 1, tmp_path / "zoo", labels=labels)


def test_colours_without_labels(tmp_path):
    index = zoo.build(RECIPE, pictures((4, 5, 5, 3)), tmp_path / "zoo")
    assert index.spec.out == 3
    assert "label" not in index.columns


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        (pictures().astype(np.float32), None, "expected pictures uint8"),
        (pictures((3, 4)), None, "expected pictures uint8"),
        (pictures((3, 4, 4, 2)), None, "expected pictures uint8"),
        (pictures((0, 4, 4)), None, "at least one picture"),
        (pictures(), [0, 1], "a whole number as label of each of 12"),
        (pictures(), np.arange(12) / 2, "a whole number as label"),
        (pictures(), np.arange(12) - 1, "labels from 0"),
        ("digits", [0], "a source has its own"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(given, labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        zoo.build(RECIPE, given, tmp_path / "zoo", labels=labels)
    assert not (tmp_path / "zoo").exists()
