"""Graded networks see no permutation, sign, phase or scale, and everything else."""

import pytest
import torch
from equivariance import EXACT, draw, moved_by, random_spec
from torch.testing import assert_close

from processors import graded
from processors.graded import Graded, values
from zoo import NetworkSpec, Weights


def reader(spec: NetworkSpec) -> Graded:
    torch.manual_seed(0)
    model = Graded(spec, 3, chan=8, width=16).double().eval()
    for parameter in model.parameters():  # constants too, which start at zero
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("activation", EXACT)
def test_the_whole_group_is_not_seen(activation, seed):
    print(f"seed {seed}")
    spec = random_spec(activation, seed)
    model, weights = reader(spec), draw(spec, seed)
    with torch.no_grad():
        before = model(weights)
        after = model(moved_by(spec, weights, EXACT[activation][0], seed + 100))
    assert before.isfinite().all()
    assert (after - before).abs().max() < 1e-10 * before.abs().max().clamp(min=1)


@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("widths", [[2, 5, 3], [2, 4, 6, 3], [1, 3, 4, 5, 2]])
def test_what_is_outside_the_group_is_seen(activation, widths):
    spec = NetworkSpec.mlp(widths, activation, omega=7.0)
    model, weights = reader(spec), draw(spec, 0)
    with torch.no_grad():
        before = model(weights)
        for kind in EXACT[activation][1]:
            after = model(moved_by(spec, weights, (kind,), 1))
            # Every network of the batch, not just one.
            assert ((after - before).abs().amax(dim=1) > 1e-4).all(), kind


def test_neighbours_are_permuted_together_or_it_is_seen():
    """Rows without the columns that belong to them: no symmetry, and a group of its own."""
    spec = NetworkSpec.mlp([2, 5, 6, 3], omega=7.0)
    model, weights = reader(spec), draw(spec, 0)
    rows = Weights(
        (weights.weights[0], weights.weights[1].flip(1), weights.weights[2]),
        (weights.biases[0], weights.biases[1].flip(1), weights.biases[2]),
    )
    with torch.no_grad():
        assert ((model(rows) - model(weights)).abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize("name", ["weight_0", "bias_0", "weight_1", "bias_1", "weight_2", "bias_2"])
@pytest.mark.parametrize("activation", EXACT)
def test_every_tensor_is_read(activation, name):
    spec = NetworkSpec.mlp([2, 5, 4, 3], activation, omega=7.0)
    model, weights = reader(spec), draw(spec, 0)
    changed = dict(weights.tensors())
    changed[name] = changed[name] + 0.3
    with torch.no_grad():
        after = model(Weights.from_tensors(changed))
        assert ((after - model(weights)).abs().amax(dim=1) > 1e-6).all()


@pytest.mark.parametrize("grades", [1, 2, 4])
def test_values_are_characters_and_their_own_inverse(grades):
    x = torch.randn(grades, 3, 5, dtype=torch.float64)
    assert_close(values(values(x)), x)
    assert_close(values(x).square().sum(), x.square().sum())
    # Acting by a character on the grades permutes the values.
    for element in range(grades):
        sign = [(-1.0) ** bin(grade & element).count("1") for grade in range(grades)]
        acted = x * torch.tensor(sign, dtype=torch.float64)[:, None, None]
        order = [value ^ element for value in range(grades)]
        assert_close(values(acted), values(x)[order])


@pytest.mark.parametrize("kind", ["scaled", "gated", "still"])
@pytest.mark.parametrize("grades", [1, 2, 4])
def test_what_is_compiled_is_what_is_plain(kind, grades):
    """As close to float64 as torch's own float32, and with its gradients."""
    torch.manual_seed(0)
    x = 3 * torch.randn(grades, 2, 5, 6)
    x[0, 0, 0], x[0, 0, 1] = 30.0, -30.0
    found = []
    for dtype, run in (
        (torch.float32, graded._EachNeuron.apply),
        (torch.float64, lambda x, kind: graded._PLAIN[kind](x)),
    ):
        given = x.to(dtype).requires_grad_()
        out = run(given, kind)
        factors = torch.linspace(-1, 2, out.numel()).reshape(out.shape).to(dtype)
        (slope,) = torch.autograd.grad((out * factors).sum(), given, create_graph=True)
        (fast,) = torch.autograd.grad((run(given, kind) * factors).sum(), given)
        (second,) = torch.autograd.grad(slope.square().sum(), given)
        found.append([each.detach().double() for each in (out, fast, slope, second)])
    for mine, expected in zip(*found, strict=True):
        assert_close(mine, expected, rtol=1e-5, atol=5e-6 * float(expected.abs().max()))
    assert graded._EachNeuron.apply(torch.full_like(x, torch.nan), kind).isnan().all()


@pytest.mark.parametrize("more", [True, False])
def test_linear_maps_of_grades_have_their_gradients(more):
    torch.manual_seed(0)
    linear = graded._Linear(4, 3, 2).double()
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    others = [torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)] if more else []
    with torch.no_grad():
        linear.constant.normal_()
    expected = torch.einsum("gnic,gcd->gnid", x, linear.weight)
    expected = torch.cat([expected[:1] + linear.constant, expected[1:]])
    assert_close(linear(x, *others), expected + (others[0] if more else 0))

    def run(x, weight, constant, *others):
        state = {"weight": weight, "constant": constant}
        return torch.func.functional_call(linear, state, (x, *others))

    given = (x, linear.weight, linear.constant, *others)
    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


@pytest.mark.parametrize("activation", EXACT)
def test_float32_is_as_float64(activation):
    """The one is compiled, the other is not."""
    spec = NetworkSpec.mlp([2, 5, 4, 3], activation, omega=7.0)
    model, weights = reader(spec), draw(spec, 0)
    exact = model(weights)
    exact.square().sum().backward()
    slopes = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    found = model.float()(weights.map(lambda tensor: tensor.float()))
    found.square().sum().backward()
    assert_close(found.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.detach().abs().max()))
    for parameter, expected in zip(model.parameters(), slopes, strict=True):
        most = float(expected.abs().max())
        assert_close(parameter.grad.double(), expected, rtol=1e-3, atol=1e-3 * most)


def test_statistics_scale_and_never_shift():
    """The rms of absorbed weights: networks and their statistics by one factor are the same."""
    spec = NetworkSpec.mlp([2, 5, 4, 3], "tanh")
    weights = draw(spec, 0)
    stats = {}
    for name, tensor in weights.tensors().items():
        stats[f"tensor.mean.{name}"], stats[f"tensor.std.{name}"] = (
            tensor.mean().reshape(1),
            tensor.std(correction=0).reshape(1),
        )
    larger = {name: value * 8 for name, value in stats.items()}
    torch.manual_seed(0)
    model = Graded(spec, 3, chan=8, stats=stats).double().eval()
    torch.manual_seed(0)
    other = Graded(spec, 3, chan=8, stats=larger).double().eval()
    with torch.no_grad():
        assert_close(other(weights.map(lambda t: 8 * t)), model(weights), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(other(weights), model(weights))


def test_networks_without_hidden_neurons_are_refused():
    with pytest.raises(ValueError, match="have none"):
        Graded(NetworkSpec.mlp([2, 3]), 1)
