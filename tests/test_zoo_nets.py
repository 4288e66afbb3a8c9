"""Networks start within the papers' bounds and compute what torch's modules compute."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from zoo import nets
from zoo.spec import NetworkSpec
from zoo.weights import Weights

SIREN = NetworkSpec.mlp([2, 32, 32, 1], coord_order="xy")


class Sine(nn.Module):
    def __init__(self, omega: float):
        super().__init__()
        self.omega = omega

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.omega * x)


class MeanOverPositions(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def random_batch(spec: NetworkSpec, net: int = 3) -> Weights:
    generator = torch.Generator().manual_seed(0)
    # Values that float32 holds, so that modules take them without rounding.
    flat = torch.randn(net, spec.param_count, generator=generator)
    return Weights.unflatten(0.5 * flat.double(), spec)


def load(module: nn.Module, weights: Weights, spec: NetworkSpec, net: int) -> nn.Module:
    """A hand-written module with the weights of one network, in the order it lists them."""
    (state,) = weights[net].to_state_dicts(spec)
    module.load_state_dict(OrderedDict(zip(module.state_dict(), state.values(), strict=True)))
    return module.double()


CASES = {
    "sin": (
        NetworkSpec.mlp([2, 5, 4, 3], omega=4.0, output_offset=0.5),
        lambda: nn.Sequential(
            nn.Linear(2, 5), Sine(4.0), nn.Linear(5, 4), Sine(4.0), nn.Linear(4, 3)
        ),
        (2,),
    ),
    "relu": (
        NetworkSpec.mlp([6, 5, 2], activation="relu"),
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)),
        (6,),
    ),
    "tanh": (
        NetworkSpec.mlp([1, 5, 2], activation="tanh"),
        lambda: nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 2)),
        (1,),
    ),
    **{
        name: (
            NetworkSpec.mlp([4, 5, 3, 2], activation=name),
            lambda kind=kind: nn.Sequential(
                nn.Linear(4, 5), kind(), nn.Linear(5, 3), kind(), nn.Linear(3, 2)
            ),
            (4,),
        )
        for name, kind in (
            ("leaky_relu", nn.LeakyReLU),
            ("elu", nn.ELU),
            ("gelu", nn.GELU),
            ("silu", nn.SiLU),
            ("sigmoid", nn.Sigmoid),
        )
    },
    "one-layer": (NetworkSpec.mlp([3, 2]), lambda: nn.Sequential(nn.Linear(3, 2)), (3,)),
    "cnn": (
        NetworkSpec.cnn([1, 4, 6], 3),
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU()),
            *(MeanOverPositions(), nn.Linear(6, 3)),
        ),
        (1, 13, 10),
    ),
    "padded-cnn": (
        NetworkSpec.cnn([3, 4], 2, activation="tanh", kernel=5, stride=1, padding=2),
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 5, padding=2), nn.Tanh(), MeanOverPositions(), nn.Linear(4, 2)
        ),
        (3, 6, 7),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_is_that_of_torch_modules(name):
    spec, module, item = CASES[name]
    weights = random_batch(spec)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, *item, generator=generator, dtype=torch.float64)
    found = nets.forward(spec, weights, x)
    assert found.shape == (3, 7, spec.out)
    for net in range(3):
        with torch.no_grad():
            expected = load(module(), weights, spec, net)(x) + spec.output_offset
        assert_close(found[net], expected)
        # And of the module that readers get.
        with torch.no_grad():
            assert_close(nets.to_module(spec, weights, net).double()(x), expected)


@pytest.mark.parametrize("name", CASES)
def test_forward_on_inputs_of_its_own(name):
    spec, _, item = CASES[name]
    weights = random_batch(spec)
    x = torch.randn(3, 4, *item, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = nets.forward(spec, weights, x)
    for net in range(3):
        assert_close(found[net], nets.forward(spec, weights[net], x[net])[0])


def test_forward_is_differentiable():
    weights = random_batch(SIREN).map(lambda tensor: tensor.clone().requires_grad_())
    nets.forward(SIREN, weights, torch.zeros(4, 2, dtype=torch.float64)).sum().backward()
    assert all(tensor.grad is not None for tensor in weights.tensors().values())


def test_forward_refuses_what_does_not_fit():
    weights = random_batch(SIREN)
    with pytest.raises(ValueError, match=r"expected inputs \(item, 2, \.\.\.\), got"):
        nets.forward(SIREN, weights, torch.zeros(5, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected inputs"):
        nets.forward(SIREN, weights, torch.zeros(3, 5, 2, 1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"are not of a \(2, 16, 1\) network"):
        nets.forward(NetworkSpec.mlp([2, 16, 1]), weights, torch.zeros(5, 2))


def test_a_module_has_weights_of_its_own():
    weights = random_batch(SIREN).to(torch.float32)
    before = weights.flatten().clone()
    module = nets.to_module(SIREN, weights, 1)
    assert list(module.state_dict())[:2] == ["layers.0.weight", "layers.0.bias"]
    back = Weights.from_state_dict(module.state_dict())
    assert torch.equal(back.flatten()[0], before[1])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(weights.flatten(), before)


# --- coordinates and pictures ----------------------------------------------------------


def test_coordinates_of_both_orders():
    xy = nets.coordinates(SIREN, 2, 3)
    assert xy.dtype == np.float32
    # Row-major points, (column, row).
    assert xy.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]
    ij = nets.coordinates(NetworkSpec.mlp([2, 4, 1], coord_order="ij"), 2, 3)
    assert np.array_equal(ij, xy[:, ::-1])
    wide = NetworkSpec.mlp([2, 4, 1], coord_order="ij", coord_range=(0.0, 8.0))
    assert nets.coordinates(wide, 1, 3).tolist() == [[0, 0], [0, 4], [0, 8]]


def test_line_has_both_ends():
    spec = NetworkSpec.mlp([1, 4, 1], coord_order="x", coord_range=(-2.0, 2.0))
    assert nets.line(spec, 5).tolist() == [[-2], [-1], [0], [1], [2]]
    assert nets.line(spec, 5).dtype == np.float32


@pytest.mark.parametrize("order", ["xy", "ij"])
def test_render_is_neither_transposed_nor_mirrored(order):
    # One affine layer that gives 1 x column coordinate + 2 x row coordinate.
    spec = NetworkSpec.mlp([2, 1], coord_order=order, pixel_range=(-1.0, 3.0))
    column_row = [1.0, 2.0] if order == "xy" else [2.0, 1.0]
    weights = Weights((torch.tensor([[column_row]]),), (torch.zeros(1, 1),))
    picture = nets.render(spec, weights, 2, 3)
    assert picture.shape == (1, 2, 3, 1)
    values = np.array([[-3, -2, -1], [1, 2, 3]])
    # Black is 0 and white 1; nothing is clipped.
    assert_close(picture[0, :, :, 0], torch.tensor((values + 1) / 4, dtype=torch.float32))


def test_render_keeps_channels_last():
    spec = NetworkSpec.mlp([2, 3], coord_order="xy")
    weights = Weights((torch.zeros(2, 3, 2),), (torch.arange(6.0).reshape(2, 3),))
    picture = nets.render(spec, weights, 4, 5)
    assert picture.shape == (2, 4, 5, 3)
    assert picture[1, 3, 4].tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("order", [None, "x"])
def test_render_needs_two_coordinates(order):
    spec = NetworkSpec.mlp([1, 4, 1], coord_order=order)
    with pytest.raises(ValueError, match="two coordinates render as pictures, these take 1"):
        nets.render(spec, random_batch(spec), 3, 3)


# --- initialisation ----------------------------------------------------------------------

# --- Fourier features -------------------------------------------------------------------------

TURNS = [[0.1, -2.0], [3.5, 0.25], [0.0, 1.0]]
ENCODED = NetworkSpec.mlp([2, 5, 4, 3], "relu", output_offset=0.5, frequencies=TURNS)


def test_encoded_networks_read_sines_then_cosines():
    weights = random_batch(ENCODED)
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phase = 2 * np.pi * x.numpy() @ np.array(TURNS, np.float32).astype(np.float64).T
    features = torch.from_numpy(np.concatenate([np.sin(phase), np.cos(phase)], axis=1))
    plain = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    found, own = (nets.forward(ENCODED, weights, inputs) for inputs in (x, x.expand(3, 7, 2)))
    for net in range(3):
        with torch.no_grad():
            expected = load(plain, weights, ENCODED, net)(features) + 0.5
        assert_close(found[net], expected)
        assert_close(own[net], expected)
        module = nets.to_module(ENCODED, weights, net).double()
        assert len(module.state_dict()) == 6  # the frequencies are no parameters
        with torch.no_grad():
            assert_close(module(x), expected)
    with pytest.raises(ValueError, match=r"expected inputs \(item, 2, ...\), got \(7, 6\)"):
        nets.forward(ENCODED, weights, features)


def test_encoded_pictures_render_at_any_size():
    spec = NetworkSpec.mlp([2, 5, 1], "tanh", coord_order="ij", frequencies=TURNS)
    weights = random_batch(spec)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in (4, 3)])
    expected = nets.forward(spec, weights, grid).reshape(3, 4, 3, 1)
    assert_close(nets.render(spec, weights, 4, 3), expected, atol=1e-6, rtol=1e-6)


# RECIPES.md, section 1, rows "init", for 2-32-32-1 and omega 30.
BOUNDS = {
    "dws": [(0.0577350, 0.0), (0.0144338, 0.0), (0.1767767, 0.1767767)],
    "nfn": [(0.5, 0.7071068), (0.0144338, 0.1767767), (0.0144338, 0.1767767)],
}


@pytest.mark.parametrize("scheme", BOUNDS)
def test_bounds_are_those_of_the_recipes(scheme):
    np.testing.assert_allclose(nets.bounds(SIREN, scheme), BOUNDS[scheme], atol=5e-8)


@pytest.mark.parametrize("scheme", BOUNDS)
def test_draws_are_uniform_within_the_bounds(scheme):
    params = nets.initialise(SIREN, scheme, 3, np.arange(500), np.zeros(500, np.int64))
    assert params.shape == (500, 1185)
    assert params.dtype == np.float32
    weights = Weights.unflatten(torch.from_numpy(params), SIREN)
    for layer, bounds in enumerate(BOUNDS[scheme]):
        tensors = weights.weights[layer], weights.biases[layer]
        for tensor, bound in zip(tensors, bounds, strict=True):
            count = tensor.numel()
            assert tensor.abs().max() <= bound * (1 + 1e-6)
            assert tensor.abs().max() >= bound * (1 - 10 / count)
            assert abs(tensor.mean()) <= 4 * bound / (3 * count) ** 0.5
            # The variance of a uniform is bound^2 / 3, of its square 4/45 bound^4.
            off = abs(tensor.square().mean() - bound**2 / 3)
            assert off <= 4 * bound**2 * (4 / 45 / count) ** 0.5


def test_bounds_follow_omega_and_width():
    spec = NetworkSpec.mlp([1, 8, 50, 2], omega=10.0)
    dws, nfn = nets.bounds(spec, "dws"), nets.bounds(spec, "nfn")
    root = np.sqrt
    np.testing.assert_allclose(
        dws, [(root(6) / 10, 0), (root(6 / 8) / 10, 0), (1 / root(50), 1 / root(50))]
    )
    np.testing.assert_allclose(
        nfn, [(1, 1), (root(6 / 8) / 10, 1 / root(8)), (root(6 / 50) / 10, 1 / root(50))]
    )


def test_torch_starts_layers_as_its_modules_do():
    """Kaiming-uniform with a = sqrt(5), which is 1/sqrt(fan_in), for weights and biases."""
    spec = NetworkSpec.mlp([2, 9, 4, 1], "relu", frequencies=TURNS)
    roots = [1 / np.sqrt(fan_in) for fan_in in (6, 9, 4)]
    np.testing.assert_allclose(nets.bounds(spec, "torch"), [(root, root) for root in roots])
    for layer, root in zip(spec.layers, roots, strict=True):
        linear = nn.Linear(layer.inp, 5_000)
        for tensor in (linear.weight, linear.bias):
            assert tensor.abs().max().item() == pytest.approx(root, rel=2e-3)


@pytest.mark.parametrize("scheme", BOUNDS)
def test_the_same_network_in_every_batch(scheme):
    index, view = np.array([3, 9, 3, 70_000]), np.array([0, 0, 1, 2])
    together = nets.initialise(SIREN, scheme, 1, index, view)
    for row in range(4):
        alone = nets.initialise(SIREN, scheme, 1, index[row : row + 1], view[row : row + 1])
        assert np.array_equal(alone[0], together[row])
    assert len(np.unique(together, axis=0)) == 4


def test_seed_and_attempt_change_every_network():
    key = np.arange(3), np.zeros(3, np.int64)
    first = nets.initialise(SIREN, "nfn", 1, *key)
    for other in (
        nets.initialise(SIREN, "nfn", 2, *key),
        nets.initialise(SIREN, "nfn", 1, *key, attempt=1),
    ):
        assert (first != other).mean() > 0.99


def test_bytes_of_format_1():
    """These numbers are part of the format: a zoo is remade from its seed."""
    spec = NetworkSpec.mlp([1, 2, 1])
    found = nets.initialise(spec, "nfn", 7, np.array([42]), np.array([1]), attempt=1)
    assert [value.hex() for value in found[0].tolist()] == [
        *("0x1.df3c980000000p-2", "-0x1.93cb300000000p-3", "-0x1.4612180000000p-2"),
        *("-0x1.f178180000000p-2", "0x1.7443b00000000p-6", "-0x1.06ba560000000p-5"),
        "-0x1.1cdac60000000p-2",
    ]


def test_unknown_schemes_are_listed():
    with pytest.raises(ValueError, match="unknown init 'xavier'; known: dws, nfn, torch"):
        nets.bounds(SIREN, "xavier")


@pytest.mark.parametrize("signal", ["udf", "sdf", "occupancy"])
@pytest.mark.parametrize("logits", [False, True])
def test_from_field_is_the_inverse_of_field(signal, logits):
    shape = {"coord_order": "xyz", "signal": signal, "clip": 0.1, "logits": logits}
    spec = NetworkSpec.mlp([3, 5, 1], **shape)
    weights = Weights.unflatten(torch.randn(4, spec.param_count, dtype=torch.float64), spec)
    points = torch.rand(7, 3, dtype=torch.float64)
    said = nets.forward(spec, weights, points)[..., 0]
    found = nets.from_field(spec, nets.field(spec, weights, points))
    torch.testing.assert_close(found, said.sigmoid() if logits else said)


def test_every_signal_of_shapes_is_one_number_of_points():
    """Far outside is 0; on the surface or deep inside, whichever is told, 1."""
    for signal, outside, inside in (("udf", 0.1, 0.0), ("sdf", 0.1, -0.1), ("occupancy", 0.0, 1.0)):
        spec = NetworkSpec.mlp([3, 4, 1], coord_order="xyz", signal=signal, clip=0.1)
        assert nets.from_field(spec, torch.tensor([outside, inside])).tolist() == [0, 1]
    with pytest.raises(ValueError, match="do not stand for shapes: their spec names no signal"):
        nets.from_field(NetworkSpec.mlp([3, 4, 1]), torch.zeros(1))
