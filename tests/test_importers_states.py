"""State dicts as people save them become the very functions they were, or are refused."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo import nets
from zoo.errors import ZooError
from zoo.importers import states
from zoo.importers.published import Told
from zoo.importers.states import Choices, normalised, numbered, plan_of
from zoo.spec import Layer, NetworkSpec
from zoo.weights import Weights

Module = nn.Module


def brought(
    state: Any,
    spec: NetworkSpec | None = None,
    activation: str = "relu",
    in_order: bool = True,
    **choices: Any,
) -> tuple[NetworkSpec, Weights, list[str]]:
    """What a file that holds `state` becomes, and what is said of it."""
    told, chosen = Told(), Choices(**choices)
    plan, shapes = plan_of(state, in_order, "a.pth", told, chosen, spec, activation)
    spec = spec or NetworkSpec.mlp(states.widths_of(shapes), activation)
    arrays = normalised(state, plan, spec, "a.pth", told, chosen.norm_eps)
    assert all(array.dtype == np.float32 for array in arrays.values())
    weights = Weights.from_tensors({n: torch.from_numpy(a[None]) for n, a in arrays.items()})
    return spec, weights, told.lines(1)


def assert_function(net: Module, spec: NetworkSpec, weights: Weights, x: torch.Tensor) -> None:
    """The network computes what the module does, evaluated."""
    net.eval()
    with torch.no_grad():
        ours = nets.forward(spec, weights, x)[0]
        torch.testing.assert_close(ours, net(x).float(), rtol=1e-5, atol=1e-5)


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    layers: list[Module] = []
    for inp, out in itertools.pairwise(widths):
        layers += [nn.Linear(inp, out, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# ---- what wraps a state dict


class Wrapped(nn.Module):
    """A module within another, as Lightning, DataParallel and compile make them."""

    def __init__(self, **inner: Module):
        super().__init__()
        for name, module in inner.items():
            self.add_module(name, module)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"epoch": 3, "model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(4)}}}},
        lambda s: {"model_state_dict": s, "loss": 0.5, "rng": torch.zeros(5, dtype=torch.uint8)},
        lambda s: {"net": s, "acc": torch.tensor(0.9)},
        lambda s: {"params": s, "image_idx": 7},
        lambda s: {"a": {"b": [1, {"weights": s}]}},
        lambda s: [s, {"lr": 0.1}],
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
        lambda s: {**{f"module.{k}": v for k, v in s.items()}, "n_averaged": torch.tensor(3)},
    ],
)  # fmt: skip
def test_the_one_state_dict_is_found_in_whatever_wraps_it(wrap):
    net = mlp(2, 4, 3, 1)
    spec, weights, _ = brought(wrap(dict(net.state_dict())))
    assert spec.widths == (2, 4, 3, 1)
    assert_function(net, spec, weights, torch.randn(5, 2))


def test_several_state_dicts_are_listed_and_chosen_by_key():
    net, average = mlp(2, 4, 1), mlp(2, 4, 1)
    loaded = {"model": net.state_dict(), "ema": average.state_dict(), "epoch": 3}
    with pytest.raises(ValueError, match=r"a\.pth: several.*model \(4 tensors\), ema.*--key"):
        brought(loaded)
    spec, weights, lines = brought(loaded, key="ema")
    assert_function(average, spec, weights, torch.randn(5, 2))
    assert "the state dict is ema" in lines
    with pytest.raises(ValueError, match=r"--key 'emma' is no state dict.*model.*ema"):
        brought(loaded, key="emma")
    # Two networks in one state dict are told apart by the name of a module.
    both = Wrapped(generator=net, critic=mlp(2, 5, 1)).state_dict()
    for key, loaded in (("generator", dict(both)), ("state.generator", {"state": dict(both)})):
        spec, weights, _ = brought(loaded, key=key)
        assert_function(net, spec, weights, torch.randn(5, 2))


def test_what_holds_no_state_dict_is_said():
    with pytest.raises(ZooError, match=r"expected a state dict.*got epoch, loss"):
        brought({"epoch": 3, "loss": 0.5})
    with pytest.raises(ZooError, match="expected a state dict, got Tensor"):
        brought(torch.ones(3))
    with pytest.raises(ZooError, match="got nothing"):
        brought({})


# ---- biases, buffers, numbers


def test_absent_biases_are_zeros_and_pairs_go_by_module():
    for one, two, three in itertools.product([True, False], repeat=3):
        net = nn.Sequential(
            nn.Linear(2, 4, bias=one), nn.ReLU(), nn.Linear(4, 4, bias=two), nn.ReLU(),
            nn.Linear(4, 1, bias=three),
        )  # fmt: skip
        spec, weights, lines = brought(dict(net.state_dict()))
        assert_function(net, spec, weights, torch.randn(5, 2))
        bare = [str(n) for n, there in ((0, one), (2, two), (4, three)) if not there]
        said = [line for line in lines if line.startswith("no bias")]
        assert said == ([f"no bias in {', '.join(bare)}: zeros stand for it"] if bare else [])
    # In whatever order they lie in the file.
    net = mlp(3, 3, 3)
    state = net.state_dict()
    shuffled = {k: state[k] for k in ("0.weight", "2.weight", "2.bias", "0.bias")}
    spec, weights, _ = brought(shuffled)
    assert_function(net, spec, weights, torch.randn(5, 3))
    with pytest.raises(ZooError, match="2: a bias without a weight"):
        brought({k: v for k, v in state.items() if k != "2.weight"})


def test_buffers_that_no_layer_needs_are_named_and_left_out():
    net = mlp(2, 4, 1)
    state = {"grid": torch.zeros(7, 2), **net.state_dict(), "step": torch.tensor(3), "label": 4}
    spec, weights, lines = brought(state)
    assert_function(net, spec, weights, torch.randn(5, 2))
    for name in ("grid [7, 2]", "step []", "label"):
        assert f"left out: {name}, which no layer needs" in lines


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float32])
def test_other_floats_are_made_float32_and_said(dtype: torch.dtype):
    net = mlp(2, 4, 1).to(dtype)
    _, weights, lines = brought(dict(net.state_dict()))
    for ours, theirs in zip(weights.tensors().values(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(ours[0], theirs.float(), rtol=0, atol=0)
    words = {
        torch.float64: ["float64, rounded to float32"],
        torch.float16: ["float16, widened to float32"],
        torch.bfloat16: ["bfloat16, widened to float32"],
        torch.float32: [],
    }[dtype]
    assert [line for line in lines if "float32" in line] == words


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("1.weight", torch.ones(4), "1: a norm without running statistics"),
        ("1.weight", torch.ones(4, 2, 3), "1: a convolution along one axis"),
        ("1.weight", torch.ones(4, 4).int(), "1.weight: expected a dense tensor of floating"),
        ("1.weight", torch.ones(4, 4).to_sparse(), "expected a dense tensor"),
        ("1.weight", torch.ones(4, 4, dtype=torch.complex64), "expected a dense tensor"),
        ("1.weight", torch.zeros(0, 4), "a layer of width 0"),
        ("1.weight", torch.ones(1).expand(1 << 28), "entries are too many"),
        ("1.weight_v", torch.ones(4, 4), "remove_parametrizations"),
        ("1.parametrizations.weight.original0", torch.ones(4, 1), "remove_parametrizations"),
        ("1.weight_orig", torch.ones(4, 4), "prune.remove"),
        ("rnn.weight_ih_l0", torch.ones(4, 4), "recurrent layers and attention are no chain"),
        ("attention.in_proj_weight", torch.ones(12, 4), "recurrent layers and attention"),
        ("my_weight", torch.ones(4, 4), "expected names ending in weight or bias"),
        ("0.running_mean", torch.ones(4), "running_mean and running_var belong together"),
    ],
)
def test_what_is_no_chain_of_layers_is_refused(name: str, value: Any, match: str):
    state = {**mlp(2, 4, 1).state_dict(), name: value}
    with pytest.raises(ZooError, match=f"a.pth: .*{match}") as raised:
        brought(state)
    assert "\n" not in str(raised.value)


# ---- the order of layers


def test_numbers_in_names_are_an_order():
    assert numbered(["l10", "l9", "l1"]) == ["l1", "l9", "l10"]
    names = ["b.1.fc1", "b.0.fc2", "b.1.fc2", "b.0.fc1"]
    assert numbered(names) == ["b.0.fc1", "b.0.fc2", "b.1.fc1", "b.1.fc2"]
    assert numbered(["fc1", "head"]) is None
    assert numbered(["l1", "l01"]) is None
    assert numbered(["fc", "fc2"]) is None


def test_the_order_is_that_of_numbers_of_the_file_or_of_shapes():
    square = mlp(*[4] * 12)
    for in_order in (True, False):
        items = list(square.state_dict().items())
        random.Random(0).shuffle(items)
        if in_order:
            # Shuffled, and numbered otherwise: the shapes allow both.
            with pytest.raises(ValueError, match=r"numbers in their names say.*give --order"):
                brought(dict(items))
            items = list(square.state_dict().items())
        spec, weights, lines = brought(dict(items), in_order=in_order)
        assert_function(square, spec, weights, torch.randn(5, 4))
        assert any("in the order of the numbers in their names" in line for line in lines)
    words = {"first": nn.Linear(2, 3), "second": nn.Linear(3, 5), "third": nn.Linear(5, 1)}
    net = nn.Sequential(words["first"], nn.ReLU(), words["second"], nn.ReLU(), words["third"])
    reverse = {
        f"{name}.{leaf}": value
        for name, layer in reversed(words.items())
        for leaf, value in layer.state_dict().items()
    }
    for in_order in (True, False):
        spec, weights, lines = brought(reverse, in_order=in_order)
        assert_function(net, spec, weights, torch.randn(5, 2))
        assert "layers in the only order that their shapes allow: first, second, third" in lines


def test_an_order_that_nothing_tells_is_asked_for():
    layers = {"head": nn.Linear(4, 4), "body": nn.Linear(4, 4)}
    state = {f"{n}.{k}": v for n, layer in layers.items() for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match=r"allow several orders.*give --order"):
        brought(state, in_order=False)
    net = nn.Sequential(layers["body"], nn.ReLU(), layers["head"])
    spec, weights, _ = brought(state, in_order=False, order=("body", "head"))
    assert_function(net, spec, weights, torch.randn(5, 4))
    prefixed = {f"net.{name}": value for name, value in state.items()}
    spec, weights, _ = brought(prefixed, in_order=False, order=("net.body", "net.head"))
    assert_function(net, spec, weights, torch.randn(5, 4))
    with pytest.raises(ValueError, match=r"--order body: a\.pth has the layers"):
        brought(state, order=("body",))
    # A file of torch has an order, which is taken and said.
    _, _, lines = brought(state)
    assert "layers in the order of the file: head, body" in lines
    pairs = itertools.product("abcdefghi", repeat=2)
    many = {f"{a}{b}.weight": torch.ones(3, 3) for a, b in pairs}
    with pytest.raises(ValueError, match="give --order"):
        brought(many, in_order=False)
    with pytest.raises(ZooError, match=r"layer 1.*expected weight \(out, 4\).*\(1, 5\).*chain"):
        brought({"0.weight": torch.ones(4, 2), "1.weight": torch.ones(1, 5)})


def test_every_network_is_held_against_the_first():
    told = Told()
    net = mlp(2, 4, 1)
    plan, shapes = plan_of(dict(net.state_dict()), True, "a", told, activation="relu")
    spec = NetworkSpec.mlp(states.widths_of(shapes), "relu")
    with pytest.raises(
        ZooError, match=r"b: expected the layers 0, 2, as in the first.*got 0, 2, 4"
    ):
        normalised(dict(mlp(2, 4, 4, 1).state_dict()), plan, spec, "b", told)
    with pytest.raises(ZooError, match=r"b: weight_0: expected \(4, 2\).*got \(5, 2\)"):
        normalised(dict(mlp(2, 5, 1).state_dict()), plan, spec, "b", told)


# ---- batch norm


def trained(net: nn.Sequential, x: torch.Tensor) -> nn.Sequential:
    """With statistics, scales and shifts that a training would leave, in float64."""
    draw = torch.Generator().manual_seed(0)
    for module in net:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.is_floating_point():
                    fresh = torch.randn(tensor.shape, generator=draw)
                    tensor.data.copy_(fresh.abs() + 0.1 if "var" in name else fresh)
    return net.eval()


def assert_exact(net: nn.Sequential, spec: NetworkSpec, weights: Weights, x: torch.Tensor) -> None:
    """Folded weights are those that float64 gives, rounded once."""
    with torch.no_grad():
        expected = net.double()(x.double())
        got = nets.forward(spec, weights.to(torch.float64), x.double())[0]
    scale = expected.abs().max()
    assert float((got - expected).abs().max() / scale) < 1e-6


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_is_folded_into_the_layer_before_it(affine: bool, bias: bool):
    x = torch.randn(50, 3)
    net = trained(
        nn.Sequential(
            nn.Linear(3, 6, bias=bias), nn.BatchNorm1d(6, affine=affine), nn.ReLU(),
            nn.Linear(6, 5, bias=bias), nn.BatchNorm1d(5, affine=affine), nn.ReLU(),
            nn.Linear(5, 2),
        ),
        x,
    )  # fmt: skip
    for in_order in (True, False):
        spec, weights, lines = brought(dict(net.float().state_dict()), in_order=in_order)
        assert spec.widths == (3, 6, 5, 2)
        assert_exact(net, spec, weights, x)
        assert "batch norm 1 folded into 0 before it, as it is evaluated, with eps 1e-05" in lines
        assert not any("num_batches_tracked" in line for line in lines)


def test_batch_norm_behind_the_activation_is_folded_into_the_layer_behind_it():
    x = torch.randn(50, 3)
    net = trained(
        nn.Sequential(
            nn.BatchNorm1d(3), nn.Linear(3, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 5),
            nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 2), nn.BatchNorm1d(2),
        ),
        x,
    )  # fmt: skip
    spec, weights, lines = brought(dict(net.float().state_dict()))
    assert_exact(net, spec, weights, x)
    assert "batch norm 3 folded into 4 behind it, as it is evaluated, with eps 1e-05" in lines


def test_batch_norm_of_convolutions_is_folded():
    x = torch.randn(4, 1, 12, 12)
    convs = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4, eps=1e-3), nn.ReLU(),
        nn.Conv2d(4, 3, 3, stride=2), nn.BatchNorm2d(3, eps=1e-3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip
    net = trained(convs, x)
    layers = (
        Layer("conv", 1, 4, "relu", kernel=(3, 3), stride=2, padding=1),
        Layer("conv", 4, 3, "relu", kernel=(3, 3), stride=2),
        Layer("linear", 3, 2),
    )
    spec, weights, _ = brought(dict(net.float().state_dict()), NetworkSpec(layers), norm_eps=1e-3)
    assert_exact(net, spec, weights, x)
    # Behind the activation: into the next kernel, unless that pads with zeros.
    behind = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=0), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip
    net = trained(behind, x)
    for padding in (0, 1):
        layers = (
            Layer("conv", 1, 4, "relu", kernel=(3, 3)),
            Layer("conv", 4, 3, "relu", kernel=(3, 3), padding=padding),
            Layer("linear", 3, 2),
        )
        state = dict(net.float().state_dict())
        if padding:
            with pytest.raises(ValueError, match="padding is zeros: it cannot be folded exactly"):
                brought(state, NetworkSpec(layers))
        else:
            spec, weights, _ = brought(state, NetworkSpec(layers))
            assert_exact(net, spec, weights, x)


class Named(nn.Module):
    """Layers and norms by name, registered layers first, as many people write it."""

    def __init__(self, after: bool):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.bn1, self.bn2 = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, norm in ((self.fc1, self.bn1), (self.fc2, self.bn2)):
            x = norm(torch.relu(layer(x))) if self.after else torch.relu(norm(layer(x)))
        return self.fc3(x)


@pytest.mark.parametrize("after", [True, False])
def test_where_a_named_batch_norm_stands_is_asked_for(after: bool):
    torch.manual_seed(1)
    net = Named(after)
    for norm in (net.bn1, net.bn2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    # Registered behind both layers, bn1 belongs to fc1 by its number; the file says fc3.
    state = {f"m.{k}": v for k, v in net.state_dict().items()}
    for in_order in (True, False):
        with pytest.raises(ValueError, match="--norm before or --norm after"):
            brought(dict(state), in_order=in_order)
        spec, weights, _ = brought(
            dict(state), in_order=in_order, norm="after" if after else "before"
        )
        assert_function(net, spec, weights, torch.randn(9, 3))


def test_what_stands_on_both_sides_of_a_batch_norm_is_asked_for():
    parts = nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)
    net = trained(nn.Sequential(*parts), torch.randn(5, 3))
    with pytest.raises(ValueError, match="--norm before or --norm after"):
        brought(dict(net.state_dict()))
    spec, weights, _ = brought(dict(net.state_dict()), norm="before")
    assert_function(net, spec, weights, torch.randn(9, 3))
    wide = {**net.state_dict(), "2.running_mean": torch.zeros(5), "2.running_var": torch.ones(5),
            "2.weight": torch.ones(5), "2.bias": torch.ones(5)}  # fmt: skip
    with pytest.raises(ZooError, match="the batch norm 2 has 5 channels, 0 beside it 4"):
        brought(wide, norm="before")


def test_an_order_may_name_the_batch_norms():
    norm, one, two = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4)
    net = trained(nn.Sequential(one, nn.ReLU(), two, norm), torch.randn(5, 4))
    parts = {"n": norm, "a": one, "b": two}
    state = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    spec, weights, _ = brought(state, order=("a", "b", "n"))
    assert_function(net, spec, weights, torch.randn(9, 4))


def test_a_batch_norm_that_is_not_finite_gives_a_network_that_is_not():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    net[1].running_var.fill_(-1)
    _, weights, _ = brought(dict(net.state_dict()))
    assert not torch.isfinite(weights.weights[0]).all()
