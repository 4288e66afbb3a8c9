from itertools import permutations

import pytest
import torch

from processors import align
from zoo import NetworkSpec, Weights, symmetry

MLP = NetworkSpec.mlp([2, 9, 7, 1])
SPECS = [MLP, NetworkSpec.mlp([1, 6, 2]), NetworkSpec.cnn([1, 5, 4], 3), NetworkSpec.mlp([3, 2])]


def random_networks(spec, nets):
    return Weights.unflatten(torch.randn(nets, spec.param_count), spec)


def similar_networks(spec, nets, noise=0.3):
    """Noisy copies of one network, each permuted at random; and the network."""
    one = random_networks(spec, 1)
    copies = one.flatten().expand(nets, -1) + noise * torch.randn(nets, spec.param_count)
    element = symmetry.sample(spec, nets)
    return symmetry.apply(element, Weights.unflatten(copies, spec)), one


@pytest.mark.parametrize("spec", SPECS)
def test_a_random_permutation_is_undone_exactly(spec):
    torch.manual_seed(0)
    networks, one = similar_networks(spec, 30, noise=0.0)
    found = align.align(spec, networks, reference=one)
    assert torch.equal(found.weights.flatten(), one.flatten().expand(30, -1))
    assert torch.equal(symmetry.apply(found.element, networks).flatten(), found.weights.flatten())


@pytest.mark.parametrize("spec", SPECS)
def test_the_distance_never_grows(spec):
    torch.manual_seed(1)
    networks, reference = random_networks(spec, 50), random_networks(spec, 1)
    before = align.squared_distance(networks, reference)
    last = before
    for sweeps in (1, 2, 100):
        moved = symmetry.apply(align.match(spec, networks, reference, sweeps), networks)
        after = align.squared_distance(moved, reference)
        assert (after <= last + 1e-5 * last).all()
        last = after
    if len(spec.layers) > 1:
        assert after.mean() < 0.95 * before.mean()


@pytest.mark.parametrize("references", [1, 20])
@pytest.mark.parametrize("spec", SPECS)
def test_parts_of_any_size_give_the_same(spec, references, monkeypatch):
    networks, reference = random_networks(spec, 20), random_networks(spec, references)
    whole = align.match(spec, networks, reference)
    monkeypatch.setattr(align, "_SIDE_BY_SIDE", 3 * spec.param_count)
    parts = align.match(spec, networks, reference)
    assert len(whole.permutations) == len(parts.permutations) == len(spec.layers) - 1
    for ours, theirs in zip(whole.permutations, parts.permutations, strict=True):
        assert torch.equal(ours, theirs)


def test_a_network_that_is_aligned_stays():
    networks = random_networks(MLP, 20)
    element = align.match(MLP, networks, networks)
    assert torch.equal(symmetry.apply(element, networks).flatten(), networks.flatten())


def test_one_hidden_layer_takes_the_best_of_all_permutations():
    spec = NetworkSpec.mlp([2, 4, 1])
    networks, reference = random_networks(spec, 10), random_networks(spec, 1)
    found = symmetry.apply(align.match(spec, networks, reference), networks)
    best = torch.full((10,), float("inf"), dtype=torch.float64)
    for order in permutations(range(4)):
        element = symmetry.Element((torch.tensor(order).expand(10, 4),), (torch.ones(10, 4),))
        distance = align.squared_distance(symmetry.apply(element, networks), reference)
        best = torch.minimum(best, distance)
    torch.testing.assert_close(align.squared_distance(found, reference), best)


def test_the_mean_of_the_aligned_finds_the_common_network():
    torch.manual_seed(2)
    networks, _ = similar_networks(MLP, 200)
    found = align.align(MLP, networks, sample=100, generator=torch.Generator().manual_seed(0))
    noise = 0.3**2 * MLP.param_count
    spread = align.squared_distance(found.weights, found.reference).mean().item()
    assert spread == pytest.approx(noise, rel=0.05)
    plain = networks.map(lambda tensor: tensor.mean(0, keepdim=True))
    assert align.squared_distance(networks, plain).mean() > 3 * noise


def test_more_rounds_bring_the_mean_closer():
    torch.manual_seed(3)
    networks, _ = similar_networks(MLP, 60, noise=0.8)
    spreads = []
    for rounds in (1, 2, 4):
        reference = align.mean_reference(MLP, networks, rounds, tolerance=0.0)
        moved = symmetry.apply(align.match(MLP, networks, reference), networks)
        mean = moved.map(lambda tensor: tensor.mean(0, keepdim=True))
        spreads.append(align.squared_distance(moved, mean).mean().item())
    assert spreads == sorted(spreads, reverse=True)


def test_results_do_not_depend_on_the_batch():
    networks, reference = random_networks(MLP, 20), random_networks(MLP, 1)
    together = symmetry.apply(align.match(MLP, networks, reference), networks)
    alone = symmetry.apply(align.match(MLP, networks[7], reference), networks[7])
    assert torch.equal(alone.flatten(), together[7].flatten())


def test_autocast_changes_nothing():
    networks, reference = random_networks(MLP, 20), random_networks(MLP, 1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = align.match(MLP, networks, reference)
    for got, expected in zip(
        cast.permutations, align.match(MLP, networks, reference).permutations, strict=True
    ):
        assert torch.equal(got, expected)


def test_channels_are_refused():
    lifted = random_networks(MLP, 2).map(lambda tensor: tensor[..., None])
    with pytest.raises(ValueError, match="takes plain weights"):
        align.match(MLP, lifted, lifted)
    with pytest.raises(ValueError, match="at least one sweep, got 0"):
        align.match(MLP, random_networks(MLP, 2), random_networks(MLP, 1), sweeps=0)
