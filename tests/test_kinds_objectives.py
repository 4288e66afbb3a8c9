"""Pictures and waves become inputs and targets; fits become quality columns."""

import pickle

import numpy as np
import pytest

from zoo import kinds
from zoo.engines import Adam, Fit
from zoo.kinds import objectives
from zoo.kinds.objectives import ImageObjective, Objective, SineObjective
from zoo.making.fitting import Rows
from zoo.recipes import recipe
from zoo.shards import Column

TWO = Rows(np.arange(2), np.zeros(2, np.int64))
RNG = np.random.default_rng(3)


def a_fit(mse: list[float]) -> Fit:
    count = len(mse)
    return Fit(
        np.zeros((count, 5), np.float32), np.array(mse), np.arange(count), np.zeros(count, np.int64)
    )


def test_psnr_is_ten_log_of_peak_squared_over_mse():
    found = objectives.psnr_db(np.array([1e-4, 1.0, 4.0]), 1.0)
    np.testing.assert_allclose(found, [40.0, 0.0, -6.0205999], rtol=1e-7)
    np.testing.assert_allclose(objectives.psnr_db(np.array([4e-4]), 2.0), [40.0])


def test_no_error_at_all_is_120_db():
    np.testing.assert_allclose(objectives.psnr_db(np.array([0.0, 1e-300]), 2.0), [120, 120])
    assert np.isnan(objectives.psnr_db(np.array([np.nan]), 1.0)[0])  # not turned into a number


@pytest.mark.parametrize(("name", "black", "white"), [("dws", 0.0, 1.0), ("nfn", -1.0, 1.0)])
def test_pictures_as_values_row_by_row(name, black, white):
    pictures = RNG.integers(0, 256, (3, 4, 5, 2), np.uint8)
    pictures[0, 0, 0], pictures[0, 0, 1] = 0, 255
    goal = ImageObjective(recipe(name, "mnist"), (4, 5, 2), ("cat", "dog"))
    targets = goal.targets(pictures)
    assert targets.shape == (3, 20, 2)
    assert targets.dtype == np.float32
    assert targets[0, 0].tolist() == [black, black]
    assert targets[0, 1].tolist() == [white, white]
    expected = black + (white - black) * pictures[2, 3, 1, 1] / 255
    assert targets[2, 3 * 5 + 1, 1] == pytest.approx(expected, abs=1e-7)
    # The input of the same point, in the recipe's order.
    column_row = [-1 + 2 * 1 / 4, -1 + 2 * 3 / 3]
    assert goal.inputs[3 * 5 + 1].tolist() == (column_row if name == "dws" else column_row[::-1])
    assert goal.spec.widths == (2, 32, 32, 2)
    assert goal.spec.pixel_range == (black, white)


def test_columns_of_pictures():
    goal = ImageObjective(recipe("dws", "mnist"), (4, 5, 1), ("cat", "dog"))
    assert goal.columns == {
        "label": Column("target", "class", ("cat", "dog")),
        "psnr_db": Column("quality", "real", unit="dB"),
        "mse": Column("quality", "real"),
        "steps": Column("quality", "count"),
        "stop": Column("quality", "count"),
    }
    assert "label" not in ImageObjective(recipe("dws", "mnist"), (4, 5, 1), ()).columns


def test_quality_of_pictures_has_the_range_as_peak():
    goal = ImageObjective(recipe("nfn", "mnist"), (4, 5, 1), ())
    found = goal.quality(a_fit([4e-2, 4e-4]), 0, TWO, None)
    assert list(found) == [name for name in goal.columns]
    np.testing.assert_allclose(found["psnr_db"], [20, 40], rtol=1e-6)
    for name, values in found.items():
        assert values.dtype == goal.columns[name].dtype


def test_waves():
    goal = SineObjective(recipe("sine-ssl", "sine", points=9))
    x = np.linspace(-np.pi, np.pi, 9)
    np.testing.assert_allclose(goal.inputs[:, 0], x, atol=3e-7)
    targets = goal.targets(np.array([[2.0, 3.0], [0.0, 5.0], [7.5, 0.25]]))
    assert targets.shape == (3, 9, 1)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets[0, :, 0], 2 * np.sin(3 * x), atol=3e-6)
    np.testing.assert_allclose(targets[1, :, 0], 0, atol=0)
    np.testing.assert_allclose(targets[2, :, 0], 7.5 * np.sin(0.25 * x), atol=3e-6)
    assert list(goal.columns) == ["amplitude", "frequency", "mse", "steps", "stop"]
    found = goal.quality(a_fit([0.5, 0.25]), 0, TWO, None)
    assert list(found) == ["mse", "steps", "stop"]
    assert found["mse"].tolist() == [0.5, 0.25]
    assert goal.flaw(found, 0) is None


def test_flaw_is_only_what_the_recipe_forbids():
    x = np.zeros((3, 2), np.float32)
    fit = a_fit([1e-2, 1e-3])  # 20 and 30 dB
    free = Objective(recipe("dws", "mnist"), x, 1)
    assert [free.flaw(free.quality(fit, 0, TWO, None), row) for row in range(2)] == [None, None]
    strict = Objective(recipe("dws", "mnist", min_psnr_db=25.5), x, 1)
    assert strict.flaw(strict.quality(fit, 0, TWO, None), 0) == "PSNR 20.00 dB is below 25.5 dB"
    assert strict.flaw(strict.quality(fit, 0, TWO, None), 1) is None


def test_adam_takes_everything_from_the_recipe():
    chosen = recipe(
        "nfn", "mnist", lr=1.0, steps=2, weight_decay=3.0, beta1=0.4, beta2=0.5, eps=6.0,
        target_psnr_db=10.0,
    )  # fmt: skip
    assert objectives.adam(chosen) == Adam(
        lr=1.0, steps=2, weight_decay=3.0, beta1=0.4, beta2=0.5, eps=6.0, target_mse=0.4
    )


@pytest.mark.parametrize("name", ["dws", "sine-ssl"])
def test_objectives_are_small_and_travel(name):
    if name == "dws":
        goal = ImageObjective(recipe(name, "mnist"), (28, 28, 1), tuple("0123456789"))
    else:
        goal = SineObjective(recipe(name, "sine"))
    content = pickle.dumps(goal)
    assert len(content) < 20_000
    back = pickle.loads(content)
    assert (back.recipe, back.spec, back.columns) == (goal.recipe, goal.spec, goal.columns)
    assert np.array_equal(back.inputs, goal.inputs)


def test_sources_of_recipes():
    chosen = recipe("sine-regression", "sine", waves=20, points=7)
    waves = kinds.open_source(chosen, "sine", seed=3)
    assert len(waves) == 20
    assert np.array_equal(waves.coefs, kinds.open_source(chosen, "sine", seed=3).coefs)
    assert not np.array_equal(waves.coefs, kinds.open_source(chosen, "sine", seed=4).coefs)
    goal = kinds.objective(chosen, waves)
    assert isinstance(goal, SineObjective)
    items = np.array([4, 2])
    raw = waves.items(items)
    columns = waves.columns(items)
    assert columns["amplitude"].tolist() == [1.0, 1.0]
    assert np.array_equal(columns["frequency"], raw[:, 1].astype(np.float32))
    assert goal.targets(raw).shape == (2, 7, 1)
    with pytest.raises(ValueError, match="recipe 'dws' is for pictures, sine"):
        kinds.objective(recipe("dws", "mnist"), waves)


def test_pictures_of_a_source():
    chosen = recipe("dws", "digits")
    digits = kinds.open_source(chosen, "digits", seed=0)
    goal = kinds.objective(chosen, digits)
    assert isinstance(goal, ImageObjective)
    items = np.array([1000, 3])
    raw = digits.items(items)
    assert np.array_equal(raw, digits.images[items])
    assert goal.targets(raw).shape == (2, 64, 1)
    assert np.array_equal(digits.columns(items)["label"], digits.labels[items])
    assert goal.columns["label"].names == digits.class_names
