"""Pooled tensors are invariant, and have the published number of features."""

import pytest
import torch
from equivariance import assert_breaks, assert_invariant, random_weights

from processors import pool as pools
from processors.pool import POOLS, InvariantPool
from zoo import NetworkSpec

SPECS = [
    NetworkSpec.mlp([2, 5, 4, 3]),
    NetworkSpec.mlp([1, 4, 1]),
    NetworkSpec.mlp([3, 1, 4, 1, 2]),
    NetworkSpec.cnn([2, 3, 4], 5, kernel=2),
]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("group", ["hnp", "np"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(map(str, spec.widths)))
def test_invariant(spec, group, pool):
    head = InvariantPool(spec, group, 3, pool)
    assert_invariant(head, spec, group, 3)
    assert_invariant(head, spec, group, 3, dtype=torch.float32)


def test_not_invariant_to_a_larger_group():
    spec = SPECS[0]
    head = InvariantPool(spec, "hnp", 3)
    for larger in ("np", "mono-relu", "mono-sin"):
        assert_breaks(head, spec, larger, 3)
    assert_breaks(InvariantPool(spec, "np", 3, "max"), spec, "mono-sin", 3)


def test_the_assertion_rejects_what_sees_the_group_and_what_is_no_vector():
    spec = SPECS[0]
    with pytest.raises(AssertionError, match="not equivariant by"):
        assert_invariant(lambda weights: weights.biases[0][:, 0], spec, "hnp", 3)
    with pytest.raises(AssertionError, match="expected vectors, got Weights"):
        assert_invariant(lambda weights: weights, spec, "hnp", 3)


@pytest.mark.parametrize("chan", [1, 5])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_features(layers, chan):
    inp, out = 3, 2
    spec = NetworkSpec.mlp([inp, *[4] * (layers - 1), out])
    # DWSNets, Sec. 5: c (2 L - 3 + n_0 + 2 n_L).
    assert InvariantPool(spec, "hnp", chan).features == chan * (2 * layers - 3 + inp + 2 * out)
    assert InvariantPool(spec, "np", chan).features == chan * 2 * layers


@pytest.mark.parametrize("pool", POOLS)
def test_values(pool):
    spec = NetworkSpec.cnn([2, 3, 4], 5, kernel=2)
    weights = random_weights(spec, 2)
    (w1, w2, w3), (b1, b2, b3) = weights.weights, weights.biases
    reduce = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[pool]
    expected = [
        reduce(w1, 1).flatten(1),
        reduce(b1, 1),
        reduce(w2, (1, 2)),
        reduce(b2, 1),
        reduce(w3, 2).flatten(1),
        b3.flatten(1),
    ]
    head = InvariantPool(spec, "hnp", 2, pool)
    torch.testing.assert_close(head(weights), torch.cat(expected, 1))
    assert head.features == 2 * (2 * 4 + 1 + 4 + 1 + 5 + 5) == head(weights).shape[1]


def test_misuse_is_named():
    with pytest.raises(ValueError, match="unknown group 'mono-sin'; known: hnp, np"):
        InvariantPool(SPECS[0], "mono-sin", 1)
    with pytest.raises(ValueError, match="unknown pool 'last'; known: mean, sum, max"):
        InvariantPool(SPECS[0], "hnp", 1, "last")
    head = InvariantPool(SPECS[1], "hnp", 2)
    with pytest.raises(ValueError, match=r"weight_0: expected \(net, 4, 1, 2\), got"):
        head(random_weights(SPECS[1], 3))


def test_both_pools_have_the_gradients_of_each():
    # Rounded, so that there are ties.
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64).mul(2).round().requires_grad_()
    factors = [torch.randn_like(found) for found in (x, x.amax(1), x.amax(2))]

    def gradient(found, chosen):
        total = sum((found[i] * factors[i]).sum() for i in chosen)
        return torch.autograd.grad(total, x)[0]

    for chosen in ((0, 1, 2), (1, 2), (0, 2), (1,), (0,)):
        expected = gradient((x, x.amax(1), x.amax(2)), chosen)
        torch.testing.assert_close(gradient(pools._MaxBoth.apply(x), chosen), expected)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("features", [1, 2, 31, 32])
def test_the_largest_are_those_of_amax(dim, length, features):
    shape = [3, 2, 2, features]
    shape[dim] = length
    x = torch.randn(shape)
    x[0, 0] = float("nan")
    for each in (x, x.transpose(0, dim).contiguous().transpose(0, dim)):
        expected = each.amax(dim)
        torch.testing.assert_close(
            pools.largest(each, dim), expected, rtol=0, atol=0, equal_nan=True
        )
