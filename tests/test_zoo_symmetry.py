"""A symmetry moves the weights and leaves the function; what is none does not."""

import pytest
import torch
from torch.testing import assert_close

from zoo import nets, symmetry
from zoo.spec import Layer, NetworkSpec
from zoo.weights import Weights

SPECS = {
    "sin": NetworkSpec.mlp([2, 7, 5, 3], omega=3.0, output_offset=0.5),
    "relu": NetworkSpec.mlp([4, 6, 8, 5, 2], activation="relu"),
    "tanh": NetworkSpec.mlp([1, 9, 2], activation="tanh"),
    "conv-relu": NetworkSpec.cnn([2, 6, 5], 3, activation="relu", stride=1),
    "conv-tanh": NetworkSpec.cnn([1, 4, 5, 6], 2, activation="tanh", stride=2, padding=1),
}
KEPT = {
    "sin": ("permutation", "sign"),
    "relu": ("permutation", "scale"),
    "tanh": ("permutation", "sign"),
    "conv-relu": ("permutation", "scale"),
    "conv-tanh": ("permutation", "sign"),
}
KEPT_CASES = [(name, kind) for name in SPECS for kind in KEPT[name]]
BROKEN_CASES = [(name, kind) for name in SPECS for kind in symmetry.KINDS if kind not in KEPT[name]]
NETS = 4
TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def case(name: str, seed: int = 0) -> tuple[NetworkSpec, Weights, torch.Tensor, torch.Generator]:
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    spec = SPECS[name]
    flat = torch.randn(NETS, spec.param_count, generator=generator, dtype=torch.float64) / 2
    item = (spec.inp, 9, 11) if spec.layers[0].kind == "conv" else (spec.inp,)
    x = torch.randn(6, *item, generator=generator, dtype=torch.float64)
    return spec, Weights.unflatten(flat, spec), x, generator


def draw(spec: NetworkSpec, kinds: tuple[str, ...], generator: torch.Generator) -> symmetry.Element:
    return symmetry.sample(spec, NETS, kinds, generator, log_scale=0.5, dtype=torch.float64)


def assert_same(first: Weights, second: Weights, **tolerance: float) -> None:
    assert_close(first.tensors(), second.tensors(), **tolerance)


@pytest.mark.parametrize(("name", "kind"), KEPT_CASES)
def test_acting_keeps_the_function(name, kind):
    spec, weights, x, generator = case(name)
    moved = symmetry.apply(draw(spec, (kind,), generator), weights)
    assert not torch.allclose(moved.flatten(), weights.flatten())
    assert_close(nets.forward(spec, moved, x), nets.forward(spec, weights, x), **TIGHT)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", range(3))
def test_all_kinds_that_keep_it_together(name, seed):
    spec, weights, x, generator = case(name, seed)
    assert symmetry.kept_by(spec) == KEPT[name]
    moved = symmetry.apply(draw(spec, symmetry.kept_by(spec), generator), weights)
    assert_close(nets.forward(spec, moved, x), nets.forward(spec, weights, x), **TIGHT)


@pytest.mark.parametrize(("name", "kind"), BROKEN_CASES)
def test_what_the_activation_does_not_allow_changes_the_function(name, kind):
    spec, weights, x, generator = case(name)
    before = nets.forward(spec, weights, x)
    after = nets.forward(spec, symmetry.apply(draw(spec, (kind,), generator), weights), x)
    # Every network of the batch, not just one.
    assert ((after - before).abs().amax(dim=(1, 2)) > 1e-3 * before.abs().amax(dim=(1, 2))).all()


def test_mixed_activations_keep_what_all_allow():
    layers = (Layer("linear", 2, 3, "sin"), Layer("linear", 3, 4, "relu"), Layer("linear", 4, 1))
    assert symmetry.kept_by(NetworkSpec(layers)) == ("permutation",)
    assert symmetry.kept_by(NetworkSpec.mlp([2, 3, 1], "identity")) == symmetry.KINDS


@pytest.mark.parametrize("name", SPECS)
def test_elements_form_a_group_that_acts(name):
    spec, weights, _, generator = case(name)
    a, b, c = (draw(spec, symmetry.KINDS, generator) for _ in range(3))
    act, dot = symmetry.apply, symmetry.compose
    assert_same(act(dot(a, b), weights), act(a, act(b, weights)))
    assert_same(act(dot(dot(a, b), c), weights), act(dot(a, dot(b, c)), weights))
    # The order matters, else the first line could not fail.
    assert not torch.allclose(act(dot(a, b), weights).flatten(), act(dot(b, a), weights).flatten())
    assert_same(act(symmetry.invert(a), act(a, weights)), weights)
    assert_same(act(a, act(symmetry.invert(a), weights)), weights)
    unit = symmetry.identity(spec, NETS, torch.float64)
    assert_same(act(unit, weights), weights, rtol=0, atol=0)
    for product in (dot(symmetry.invert(a), a), dot(a, symmetry.invert(a))):
        for found, expected in zip(product.permutations, unit.permutations, strict=True):
            assert torch.equal(found, expected)
        for found, expected in zip(product.factors, unit.factors, strict=True):
            assert_close(found, expected)


def test_the_action_by_hand():
    spec = NetworkSpec.mlp([1, 2, 1])
    weights = Weights(
        weights=(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0, 4.0]]])),
        biases=(torch.tensor([[5.0, 6.0]]), torch.tensor([[7.0]])),
    )
    swap = symmetry.Element((torch.tensor([[1, 0]]),), (torch.tensor([[1.0, -2.0]]),))
    moved = symmetry.apply(swap, weights)
    # New neuron 0 is the old 1; new neuron 1 is -2 times the old 0.
    assert moved.weights[0].flatten().tolist() == [2.0, -2.0]
    assert moved.biases[0].flatten().tolist() == [6.0, -10.0]
    assert moved.weights[1].flatten().tolist() == [4.0, -1.5]
    assert moved.biases[1].flatten().tolist() == [7.0]
    assert spec.widths[1:-1] == (2,)


def test_channels_move_with_their_neurons():
    spec, weights, _, generator = case("relu")
    element = draw(spec, symmetry.KINDS, generator)
    lifted = weights.map(lambda tensor: torch.stack([tensor, 3 * tensor], dim=-1))
    moved = symmetry.apply(element, lifted)
    assert_same(moved.map(lambda t: t[..., 0]), symmetry.apply(element, weights))
    assert_same(moved.map(lambda t: t[..., 1] / 3), symmetry.apply(element, weights))


def test_samples_are_what_was_asked_for():
    spec = NetworkSpec.mlp([2, 3, 1])
    generator = torch.Generator().manual_seed(0)
    element = symmetry.sample(spec, 6000, symmetry.KINDS, generator, log_scale=0.7)
    kinds, counts = torch.unique(element.permutations[0], dim=0, return_counts=True)
    assert kinds.shape == (6, 3)  # every permutation of three, each about as often
    assert (counts - 1000).abs().max() < 4 * (1000 * 5 / 6) ** 0.5
    factor = element.factors[0]
    assert abs((factor > 0).float().mean() - 0.5) < 4 * 0.5 / 18000**0.5
    assert abs(factor.abs().log().std() - 0.7) < 0.02

    only = symmetry.sample(spec, 100, ("sign",), generator)
    assert torch.equal(only.permutations[0], torch.arange(3).expand(100, 3))
    assert set(only.factors[0].unique().tolist()) == {-1.0, 1.0}
    assert (symmetry.sample(spec, 100, ("scale",), generator).factors[0] > 0).all()
    assert (symmetry.sample(spec, 100, (), generator).factors[0] == 1).all()


def test_the_generator_decides():
    spec = SPECS["sin"]
    first, again, other = (
        symmetry.sample(spec, 3, symmetry.KINDS, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(first.factors, again.factors, other.factors, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_unknown_kinds_are_listed():
    with pytest.raises(ValueError, match=r"unknown symmetry \['flip'\]; known: permutation, sign"):
        symmetry.sample(SPECS["sin"], 1, ("flip",))
