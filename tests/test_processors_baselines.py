import pytest
import torch
from torch import nn

from processors import baselines
from processors.baselines import (
    MLP,
    AlignedMLP,
    AugmentedMLP,
    INR2Vec,
    StatNN,
    Transformer,
    count_params,
)
from zoo import NetworkSpec, Weights, symmetry

MNIST = NetworkSpec.mlp([2, 32, 32, 1])
SMALL_CNN = NetworkSpec.cnn([1, 16, 16, 16], 10)
TINY = NetworkSpec.mlp([2, 5, 4, 1])
ALL = [MLP, AugmentedMLP, AlignedMLP, INR2Vec, Transformer, StatNN]


def random_networks(spec, nets=6):
    return Weights.unflatten(torch.randn(nets, spec.param_count), spec)


def permuted(spec, weights, seed=0):
    element = symmetry.sample(spec, len(weights), generator=torch.Generator().manual_seed(seed))
    return symmetry.apply(element, weights)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("spec", [TINY, NetworkSpec.cnn([1, 3, 2], 4), NetworkSpec.mlp([3, 1])])
def test_shapes_and_gradients(make, spec):
    model = make(spec, 7, params=20_000)
    y = model(random_networks(spec))
    assert y.shape == (6, 7)
    y.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("params", [100_000, baselines.PARAMS, 4_000_000])
@pytest.mark.parametrize("spec", [MNIST, SMALL_CNN])
def test_parameters_match_within_two_percent(make, params, spec):
    model = make(spec, 10, params=params)
    assert count_params(model) == pytest.approx(params, rel=0.02)


def test_statnn_has_the_published_size():
    assert count_params(StatNN(SMALL_CNN, 1)) == 1_059_001  # "1.06M"


@pytest.mark.parametrize("hidden", [1, 2, 4])
def test_depth_is_the_number_of_hidden_layers(hidden):
    def linears(module):
        return sum(isinstance(part, nn.Linear) for part in module.modules())

    assert linears(MLP(TINY, 2, hidden=hidden, width=8).layers) == hidden + 1
    assert linears(INR2Vec(TINY, 2, hidden=hidden, width=8).encoder) == hidden
    assert len(Transformer(TINY, 2, hidden=hidden, width=8).blocks) == hidden + 1


def test_a_size_that_cannot_be_reached_is_refused():
    with pytest.raises(ValueError, match="expected 10 parameters, but width 1 has"):
        MLP(MNIST, 10, params=10)


@pytest.mark.parametrize("make", ALL)
def test_state_is_saved_with_the_statistics(make):
    stats = {}
    for name, shape in TINY.tensors.items():
        for kind, size in (("entry", shape), ("tensor", (1,))):
            stats[f"{kind}.mean.{name}"] = torch.randn(size, dtype=torch.float64)
            stats[f"{kind}.std.{name}"] = torch.rand(size, dtype=torch.float64) + 0.5
    weights = random_networks(TINY)
    trained = make(TINY, 3, params=20_000, stats=stats).eval()
    loaded = make(TINY, 3, params=20_000).eval()
    assert not torch.allclose(loaded(weights), trained(weights))
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(weights), trained(weights))


def test_only_statistics_are_blind_to_permutations():
    weights = random_networks(TINY)
    for make in ALL:
        model = make(TINY, 3, params=20_000).eval()
        same = torch.allclose(model(permuted(TINY, weights)), model(weights), atol=1e-5)
        assert same == (make is StatNN), make


def test_augmentation_permutes_in_training_only():
    weights = random_networks(TINY)
    model = AugmentedMLP(TINY, 3, width=16)
    seen = []
    model.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(weights)
    model.eval()(weights)
    assert not torch.equal(seen[0], weights.flatten())
    assert torch.equal(seen[0].sort(1).values, weights.flatten().sort(1).values)
    assert torch.equal(seen[1], weights.flatten())


def test_alignment_makes_permuted_copies_alike():
    torch.manual_seed(0)
    one = random_networks(TINY, 1)
    copies = Weights.unflatten(one.flatten().expand(50, -1), TINY)
    noisy = copies.map(lambda tensor: tensor + 0.05 * torch.randn_like(tensor))
    model = AlignedMLP(TINY, 3, width=16).eval()
    model.fit_reference(permuted(TINY, noisy))
    y = model(permuted(TINY, copies, seed=1))
    torch.testing.assert_close(y, y[:1].expand_as(y))
    again = AlignedMLP(TINY, 3, width=16).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(permuted(TINY, copies, seed=2)), y)


def test_rows_hold_every_entry_once():
    weights = random_networks(TINY)
    rows = baselines.weight_rows(TINY, weights)
    assert rows.shape == (6, 5 + 1 + 4 + 1 + 1 + 1, 5)
    assert torch.equal(rows[:, 6:10], weights.weights[1])
    assert torch.equal(rows[:, 10, :4], weights.biases[1])
    sums = (rows.sum((1, 2)), weights.flatten().sum(1))
    torch.testing.assert_close(*sums, atol=1e-4, rtol=0)


def test_rows_are_a_set():
    spec = NetworkSpec.mlp([5, 5])
    weights = random_networks(spec)
    order = torch.randperm(5)
    model = INR2Vec(spec, 3, width=16).eval()
    moved = Weights((weights.weights[0][:, order],), weights.biases)
    torch.testing.assert_close(model(moved), model(weights))


def test_statistics_equal_torchs():
    weights = random_networks(SMALL_CNN)
    found = baselines.statistics_of(weights)
    expected = []
    for tensor in weights.tensors().values():
        entries = tensor.flatten(1)
        quantiles = torch.quantile(entries, torch.tensor(baselines.QUANTILES), dim=1)
        expected += [entries.mean(1), entries.var(1, correction=0), *quantiles]
    torch.testing.assert_close(found, torch.stack(expected, 1))


def test_statistics_are_the_same_with_a_gradient():
    weights = random_networks(SMALL_CNN)
    tracked = weights.map(lambda tensor: tensor.clone().requires_grad_())
    found = baselines.statistics_of(tracked)
    assert torch.equal(found, baselines.statistics_of(weights))
    found.square().sum().backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in tracked.tensors().values())


@pytest.mark.parametrize("make", ALL)
def test_bfloat16_autocast_trains(make):
    model = make(TINY, 3, params=20_000)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(random_networks(TINY))
    y.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
