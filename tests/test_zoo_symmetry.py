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
    "leaky": NetworkSpec.mlp([4, 6, 8, 2], activation="leaky_relu"),
    "elu": NetworkSpec.mlp([4, 6, 5, 2], activation="elu"),
    "gelu": NetworkSpec.mlp([4, 6, 5, 2], activation="gelu"),
    "silu": NetworkSpec.mlp([4, 6, 5, 2], activation="silu"),
    "sigmoid": NetworkSpec.mlp([4, 6, 5, 2], activation="sigmoid"),
    **{
        f"encoded-{name}": NetworkSpec.mlp([2, 6, 5, 2], name, 2.0, frequencies=[[0.3, 1], [2, 0]])
        for name in ("sin", "relu", "tanh", "gelu")
    },
    "conv-relu": NetworkSpec.cnn([2, 6, 5], 3, activation="relu", stride=1),
    "conv-tanh": NetworkSpec.cnn([1, 4, 5, 6], 2, activation="tanh", stride=2, padding=1),
    "conv-sin": NetworkSpec.cnn([1, 4, 5], 2, activation="sin", stride=2, padding=1),
}
KEPT = {
    "sin": ("permutation", "sign", "phase"),
    "relu": ("permutation", "scale"),
    "tanh": ("permutation", "sign"),
    "leaky": ("permutation", "scale"),
    **dict.fromkeys(("elu", "gelu", "silu", "sigmoid"), ("permutation",)),
    "encoded-sin": ("permutation", "sign", "phase"),
    "encoded-relu": ("permutation", "scale"),
    "encoded-tanh": ("permutation", "sign"),
    "encoded-gelu": ("permutation",),
    "conv-relu": ("permutation", "scale"),
    "conv-tanh": ("permutation", "sign"),
    "conv-sin": ("permutation", "sign", "phase"),
}
# The largest groups that can be drawn.
MONOMIAL, TURNS = ("permutation", "sign", "scale"), ("permutation", "sign", "phase")
KEPT_CASES = [(name, kind) for name in SPECS for kind in KEPT[name]]
BROKEN_CASES = [(name, kind) for name in SPECS for kind in symmetry.KINDS if kind not in KEPT[name]]
NETS = 4
TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def case(name: str, seed: int = 0) -> tuple[NetworkSpec, Weights, torch.Tensor, torch.Generator]:
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    spec = SPECS[name]
    flat = torch.randn(NETS, spec.param_count, generator=generator, dtype=torch.float64) / 2
    item = (spec.inp, 9, 11) if spec.layers[0].kind == "conv" else (spec.inputs,)
    x = torch.randn(6, *item, generator=generator, dtype=torch.float64)
    return spec, Weights.unflatten(flat, spec), x, generator


def draw(spec: NetworkSpec, kinds: tuple[str, ...], generator: torch.Generator) -> symmetry.Element:
    return symmetry.sample(spec, NETS, kinds, generator, log_scale=0.5, dtype=torch.float64)


def assert_same(first: Weights, second: Weights, **tolerance: float) -> None:
    assert_close(first.tensors(), second.tensors(), **tolerance)


@pytest.mark.parametrize(("name", "kind"), KEPT_CASES)
def test_acting_keeps_the_function(name, kind):
    spec, weights, x, generator = case(name)
    moved = symmetry.apply(draw(spec, (kind,), generator), weights, spec)
    assert not torch.allclose(moved.flatten(), weights.flatten())
    assert_close(nets.forward(spec, moved, x), nets.forward(spec, weights, x), **TIGHT)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", range(3))
def test_all_kinds_that_keep_it_together(name, seed):
    spec, weights, x, generator = case(name, seed)
    assert symmetry.kept_by(spec) == KEPT[name]
    moved = symmetry.apply(draw(spec, symmetry.kept_by(spec), generator), weights, spec)
    assert_close(nets.forward(spec, moved, x), nets.forward(spec, weights, x), **TIGHT)


@pytest.mark.parametrize(("name", "kind"), BROKEN_CASES)
def test_what_the_activation_does_not_allow_changes_the_function(name, kind):
    spec, weights, x, generator = case(name)
    before = nets.forward(spec, weights, x)
    after = nets.forward(spec, symmetry.apply(draw(spec, (kind,), generator), weights, spec), x)
    # Every network of the batch, not just one.
    assert ((after - before).abs().amax(dim=(1, 2)) > 1e-3 * before.abs().amax(dim=(1, 2))).all()


def test_mixed_activations_keep_what_all_allow():
    layers = (Layer("linear", 2, 3, "sin"), Layer("linear", 3, 4, "relu"), Layer("linear", 4, 1))
    assert symmetry.kept_by(NetworkSpec(layers)) == ("permutation",)
    assert symmetry.kept_by(NetworkSpec.mlp([2, 3, 1], "identity")) == MONOMIAL


@pytest.mark.parametrize("kinds", [MONOMIAL, TURNS])
@pytest.mark.parametrize("name", SPECS)
def test_elements_form_a_group_that_acts(name, kinds):
    spec, weights, _, generator = case(name)
    a, b, c = (draw(spec, kinds, generator) for _ in range(3))
    dot = symmetry.compose

    def act(element: symmetry.Element, networks: Weights) -> Weights:
        return symmetry.apply(element, networks, spec)

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
        assert not any(phase.any() for phase in product.phases)


def test_phases_compose_with_elements_that_have_none():
    spec, weights, _, generator = case("sin")
    turned, plain = draw(spec, TURNS, generator), draw(spec, ("permutation", "sign"), generator)
    for first, second in ((turned, plain), (plain, turned)):
        both = symmetry.compose(second, first)
        one_by_one = symmetry.apply(second, symmetry.apply(first, weights, spec), spec)
        assert_same(symmetry.apply(both, weights, spec), one_by_one)
    some = torch.tensor([2, 0])
    assert_same(
        symmetry.apply(turned[some], weights[some], spec),
        symmetry.apply(turned, weights, spec)[some],
    )


def test_signs_turn_phases_round():
    """A semidirect product: j = j2 + (-1)^d2 j1, and the inverse has -(-1)^d j."""
    one, back = torch.ones(1, 1), -torch.ones(1, 1)
    order = torch.zeros(1, 1, dtype=torch.int64)
    first = symmetry.Element((order,), (one,), (torch.tensor([[2]]),))
    second = symmetry.Element((order,), (back,), (torch.tensor([[3]]),))
    assert symmetry.compose(second, first).phases[0].item() == 3 - 2
    assert symmetry.compose(first, second).phases[0].item() == 2 + 3
    assert symmetry.invert(second).phases[0].item() == 3
    assert symmetry.invert(first).phases[0].item() == -2


def test_phases_need_the_spec_and_no_scales():
    spec, weights, _, generator = case("sin")
    turned = draw(spec, ("phase",), generator)
    assert max(int(phase.abs().max()) for phase in turned.phases) > 1
    with pytest.raises(ValueError, match="give the spec"):
        symmetry.apply(turned, weights)
    with pytest.raises(ValueError, match="draw one of them"):
        draw(spec, ("phase", "scale"), generator)


@pytest.mark.parametrize("name", SPECS)
def test_absorbing_omega_keeps_the_function(name):
    spec, weights, x, _ = case(name)
    plain, absorbed = symmetry.absorb(spec, weights)
    assert all(layer.omega == 1 for layer in plain.layers)
    assert_close(nets.forward(plain, absorbed, x), nets.forward(spec, weights, x), **TIGHT)
    same = torch.equal(absorbed.flatten(), weights.flatten())
    assert same == all(layer.omega == 1 for layer in spec.layers)


@pytest.mark.parametrize("name", ["relu", "leaky", "conv-relu"])
def test_the_canonical_form_keeps_the_function_and_forgets_scales(name):
    spec, weights, x, generator = case(name)
    for weight, bias in zip(weights.weights[:-1], weights.biases[:-1], strict=True):
        weight[1, 2], bias[1, 2] = 0, 0  # a neuron that gives nothing
    form = symmetry.canonical(spec, weights)
    assert_close(nets.forward(spec, form, x), nets.forward(spec, weights, x), **TIGHT)
    scaled = symmetry.apply(draw(spec, ("scale",), generator), weights)
    assert not torch.allclose(scaled.flatten(), weights.flatten())
    assert_same(symmetry.canonical(spec, scaled), form)
    assert_same(symmetry.canonical(spec, form), form)
    norm = form.weights[0].flatten(2).square().sum(dim=2) + form.biases[0].square()
    assert_close(norm[0], torch.ones_like(norm[0]))
    assert not form.weights[1][1, :, 2].any()  # what it gave, is not there any more


@pytest.mark.parametrize("name", ["sin", "tanh", "gelu", "elu", "conv-tanh"])
def test_networks_without_relu_are_canonical_as_they_are(name):
    spec, weights, _, _ = case(name)
    assert_same(symmetry.canonical(spec, weights), weights, rtol=0, atol=0)


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
    element = draw(spec, MONOMIAL, generator)
    lifted = weights.map(lambda tensor: torch.stack([tensor, 3 * tensor], dim=-1))
    moved = symmetry.apply(element, lifted)
    assert_same(moved.map(lambda t: t[..., 0]), symmetry.apply(element, weights))
    assert_same(moved.map(lambda t: t[..., 1] / 3), symmetry.apply(element, weights))


def test_samples_are_what_was_asked_for():
    spec = NetworkSpec.mlp([2, 3, 1])
    generator = torch.Generator().manual_seed(0)
    element = symmetry.sample(spec, 6000, MONOMIAL, generator, log_scale=0.7)
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
        symmetry.sample(spec, 3, MONOMIAL, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(first.factors, again.factors, other.factors, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_unknown_kinds_are_listed():
    with pytest.raises(ValueError, match=r"unknown symmetry \['flip'\]; known: permutation, sign"):
        symmetry.sample(SPECS["sin"], 1, ("flip",))
