"""Networks of signals that are no pictures say so, as they are fitted and as a zoo."""

import numpy as np
import pytest
import torch

import zoo
from zoo import engines, machine
from zoo.kinds import kind_of
from zoo.shards import read_index
from zoo.verification import verify

DRAW = np.random.default_rng(4)


def fitted(inputs: int, recipe: str = "dws", low: float = -1.0, high: float = 1.0) -> zoo.Networks:
    """Ten networks of random signals on 30 random points, whose ends are points too."""
    x = DRAW.uniform(low, high, (30, inputs))
    x[0], x[-1] = low, high
    chosen = zoo.recipe(recipe, "sine" if recipe.startswith("sine") else "tensors", steps=2)
    return zoo.fit(x, DRAW.normal(size=(10, 30, 1)), chosen, engine="reference")


@pytest.mark.parametrize(
    ("inputs", "recipe", "order"),
    [
        (1, "dws", "x"),
        (1, "nfn", "x"),
        (1, "sine-ssl", "x"),
        (2, "dws", "xy"),
        (2, "nfn", "ij"),
        (3, "dws", None),
        (3, "sine-ssl", None),
        (2, "sine-ssl", None),
    ],
)
def test_the_order_of_coordinates_is_that_of_the_inputs(inputs, recipe, order):
    spec = fitted(inputs, recipe).spec
    assert (spec.coord_order, spec.inp) == (order, inputs)
    assert len(spec.axes) == (0 if order is None else inputs)


def test_a_line_has_the_range_of_its_points(tmp_path):
    found = fitted(1, low=-2.0, high=5.0)
    assert found.spec.coord_range == (-2.0, 5.0)
    found.save(tmp_path / "signals", labels=[0, 1] * 5)
    index = read_index(tmp_path / "signals")
    assert (index.spec.coord_order, index.spec.coord_range) == ("x", (-2.0, 5.0))
    assert set(index.columns) - set(index.spec.tensors) == {
        "index", "view", "label", "psnr_db", "mse", "steps", "stop",
    }  # fmt: skip
    row = zoo.open_zoo(tmp_path / "signals")[0]
    x = torch.linspace(-2, 5, 9)[:, None]
    expected = zoo.forward(row.spec, row.weights, x)[0]
    torch.testing.assert_close(row.render(rows=9), expected)
    with pytest.raises(ValueError, match="a network of one coordinate renders rows"):
        row.render(rows=9, columns=9)
    card = (tmp_path / "signals" / "README.md").read_text(encoding="utf-8")
    assert "The one input is x. It runs from -2 to 5, ends included." in card
    assert "torch.linspace(-2.0, 5.0, 1000)[:, None]" in card
    assert "picture" not in card.partition("## What was read")[0]
    assert all(check.passed for check in verify(tmp_path / "signals", samples=0))


def test_signals_of_three_coordinates_are_no_pictures(tmp_path):
    found = fitted(3)
    index = found.save(tmp_path / "shapes")
    assert index.spec.coord_order is None
    assert index.to_json()["spec"]["conventions"]["coord_order"] is None
    row = zoo.open_zoo(tmp_path / "shapes")[0]
    with pytest.raises(ValueError, match="only networks of two coordinates render as pictures"):
        row.render(4, 4)
    assert row.to_module()(torch.zeros(5, 3)).shape == (5, 1)
    card = (tmp_path / "shapes" / "README.md").read_text(encoding="utf-8")
    assert "h = torch.zeros(1, 3)  # your inputs" in card
    assert "implicit-neural-representation" not in card
    for word in ("picture", "column,", "wave"):
        assert word not in card.partition("## What a row is")[0]
    assert all(check.passed for check in verify(tmp_path / "shapes", samples=0))


@pytest.mark.parametrize("shape", [(4, 30), (4, 5, 5, 5, 1)])
def test_building_of_arrays_says_where_other_signals_go(shape, tmp_path):
    with pytest.raises(ValueError, match=r"expected pictures uint8 .* zoo\.fit\(inputs, targets\)"):
        zoo.build("dws", np.zeros(shape, np.uint8), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_signals_of_ones_own_on_fourier_features(tmp_path):
    """Frequencies from the seed, one column for x; kept and opened again by what the spec says."""
    x = torch.linspace(0, 5, 50)[:, None]
    fields = {"encoding": "fourier", "frequencies": 4, "scale": 0.3, "steps": 9, "hidden": 6}
    chosen = zoo.recipe("sine-ssl", "sine", activation="tanh", **fields)
    made = zoo.fit(x, torch.stack([x.sin(), x.cos()]), chosen, seed=4, engine="reference")
    assert made.spec.frequencies == chosen.spec(1, 1, 4).frequencies
    made.save(tmp_path / "z", shares=(0.0, 0.0), parquet=False)
    rows = zoo.open_zoo(tmp_path / "z")
    assert (rows.index.format, rows.spec, rows.spec.coord_range) == (2, made.spec, (0.0, 5.0))
    phase = 2 * torch.pi * x @ torch.tensor(rows.spec.frequencies).T
    for row, wanted in zip(rows, (x.sin(), x.cos()), strict=True):
        h = torch.cat([phase.sin(), phase.cos()], dim=1)
        for weight, bias in zip(row.weights.weights[:2], row.weights.biases[:2], strict=True):
            h = torch.tanh(h @ weight[0].T + bias[0])
        output = h @ row.weights.weights[2][0].T + row.weights.biases[2][0] + 0.5
        torch.testing.assert_close(row.render(50), output, atol=1e-5, rtol=1e-5)
        assert (output - wanted).square().mean().item() == pytest.approx(row.mse, rel=1e-4)


def test_classifiers_are_fitted_to_no_target():
    x, chosen = np.zeros((3, 1), np.float32), zoo.recipe("binary", "mnist")
    with pytest.raises(ValueError, match="made by `wszoo fit-classifiers`, not fit-inrs"):
        zoo.fit(x, np.zeros((2, 3, 1)), "binary")
    with pytest.raises(ValueError, match="trains classifiers, which have no one target"):
        kind_of(chosen).values_goal(chosen, x, 1)


def test_each_signal_may_have_points_of_its_own():
    """Distances to spheres at random points: what is learnt holds at other points."""
    draw = np.random.default_rng(0)
    points = draw.uniform(-1, 1, (4, 300, 3))
    radii = np.linspace(0.3, 0.8, 4)[:, None, None]
    distance = np.linalg.norm(points, axis=2, keepdims=True) - radii
    recipe = zoo.recipe("dws", "tensors", steps=300, hidden=16, output_offset=0.0, omega=3.0)
    found = zoo.fit(points, distance, recipe)
    assert found.spec.coord_order is None
    assert found.columns["mse"].max() < 1e-2
    others = draw.uniform(-1, 1, (4, 200, 3))
    answers = zoo.forward(found.spec, found.weights, torch.from_numpy(others).float())
    wanted = torch.from_numpy(np.linalg.norm(others, axis=2, keepdims=True) - radii)
    assert (answers - wanted).square().mean() < 2e-2
    # Networks of other points are other networks; those of shared points are as before.
    shared = zoo.fit(points[0], distance[:1], recipe)
    first = zoo.fit(points[:1], distance[:1], recipe)
    assert torch.equal(shared.weights.flatten(), first.weights.flatten())
    assert torch.equal(found.weights.flatten()[:1], first.weights.flatten())
    assert not torch.equal(
        zoo.fit(points[1:2], distance[:1], recipe).weights.flatten(), first.weights.flatten()
    )


@pytest.mark.parametrize("shape", [(4, 30, 3), (5, 29, 3), (30, 5, 3), (5,), (1, 5, 30, 3)])
def test_points_that_do_not_fit_their_targets_are_one_line(shape):
    with pytest.raises(ValueError, match=r"expected inputs \(point, inp\) or \(net, point, inp\)"):
        zoo.fit(np.zeros(shape), np.zeros((5, 30, 1)))


def test_cuda_hands_points_of_their_own_to_batched_torch(monkeypatch):
    monkeypatch.setattr(engines, "triton_problem", lambda: None)
    spec = zoo.NetworkSpec.mlp([3, 16, 1])
    assert engines.choose("auto", "cuda", spec) == "cuda"
    with pytest.warns(machine.Notice, match="fitted by 'reference', batched torch"):
        assert engines.choose("auto", "cuda", spec, plain=False) == "reference"
    with pytest.raises(ValueError, match="squared errors; use engine 'reference'"):
        engines.choose("cuda", "cuda", spec, plain=False)
