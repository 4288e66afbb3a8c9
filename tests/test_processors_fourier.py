"""Fourier features in pieces: what they are, their gradients, and that none are kept."""

import math

import pytest
import torch

from processors import fourier


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Several pieces in a batch, and several in a network."""
    monkeypatch.setitem(fourier._PIECE, "cpu", 48)


def plainly(x, frequencies):
    phase = 2 * math.pi * (x @ frequencies)
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def plainly_mixed(x, frequencies, weight):
    found = plainly(x[..., None], frequencies[None])
    return found @ weight.T, found.sum(2), found.sum(1)


@pytest.mark.parametrize("turns", [0.1, 1.0, 60.0, 1e4])
def test_sines_of_float32_are_those_of_the_rounded_turns(turns):
    torch.manual_seed(0)
    x, one = turns * torch.randn(2000, 1), torch.ones(1, 4)
    found = fourier.features(x, one)
    torch.testing.assert_close(found.double(), plainly(x.double(), one.double()), atol=1e-6, rtol=0)
    ends = torch.tensor([[0.0], [0.25], [0.5], [-0.5], [1.0], [2.0**25]])
    expected = plainly(ends.double(), one.double()).float()
    torch.testing.assert_close(fourier.features(ends, one), expected, atol=1e-6, rtol=0)


def test_values_that_are_not_finite_stay_visible():
    assert fourier.features(torch.tensor([[math.inf], [math.nan]]), torch.ones(1, 2)).isnan().all()


@pytest.mark.parametrize("chan", [1, 3])
def test_features_have_the_gradients_of_sines(chan):
    torch.manual_seed(0)
    frequencies = torch.randn(chan, 4, dtype=torch.float64)
    x = torch.randn(2, 9, chan, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(fourier.features(x, frequencies), plainly(x, frequencies))
    assert torch.autograd.gradcheck(lambda x: fourier.features(x, frequencies), (x,))
    assert torch.autograd.gradgradcheck(lambda x: fourier.features(x, frequencies), (x,))


@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 9, 5), (1, 3, 20), (2, 3, 1)])
def test_a_matrix_gives_product_and_pools(shape):
    torch.manual_seed(0)
    frequencies = torch.randn(4, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    found = fourier.mixed(x, frequencies, weight)
    for mine, expected in zip(found, plainly_mixed(x, frequencies, weight), strict=True):
        torch.testing.assert_close(mine, expected)

    def run(x, weight):
        return fourier.mixed(x, frequencies, weight)

    assert torch.autograd.gradcheck(run, (x, weight))
    assert torch.autograd.gradgradcheck(run, (x, weight))
    # One of the outputs, or one of the inputs, alone.
    for place in range(3):
        assert torch.autograd.gradcheck(lambda x, p=place: run(x, weight.detach())[p], (x,))
    assert torch.autograd.gradcheck(lambda weight: run(x.detach(), weight)[0], (weight,))


def test_pools_of_data_ask_for_no_gradient():
    x, weight = torch.randn(2, 3, 4), torch.randn(5, 8, requires_grad=True)
    product, *pools = fourier.mixed(x, torch.randn(4), weight)
    assert product.requires_grad
    assert not any(pool.requires_grad for pool in pools)
    pools = fourier.mixed(x.requires_grad_(), torch.randn(4), weight)[1:]
    assert all(pool.requires_grad for pool in pools)


def test_nothing_but_the_inputs_is_kept():
    kept = []
    x = torch.randn(2, 30, 30, requires_grad=True)
    weight = torch.randn(5, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        fourier.mixed(x, torch.randn(4), weight)
        fourier.features(x[..., None], torch.randn(1, 4))
    assert max(kept) <= x.numel()


def test_half_precision_multiplies_only():
    torch.manual_seed(0)
    x, frequencies = 5 * torch.randn(2, 6, 5), 10 * torch.randn(4)
    weight = torch.randn(3, 8)
    low = weight.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        product, *pools = fourier.mixed(x, frequencies, low)
    assert product.dtype == torch.bfloat16
    exact = plainly_mixed(x.double(), frequencies.double(), weight.double())
    torch.testing.assert_close(product.double(), exact[0], atol=0.1, rtol=0.02)
    for pool, expected in zip(pools, exact[1:], strict=True):
        torch.testing.assert_close(pool.double(), expected, atol=1e-4, rtol=0)
    product.sum().backward()
    assert low.grad.dtype == torch.bfloat16
    torch.testing.assert_close(low.grad[0].double(), exact[1].sum((0, 1)), atol=0.2, rtol=0.02)


def test_transforms_of_functions_see_plain_operations():
    frequencies, weight = torch.randn(4), torch.randn(3, 8)
    x = torch.randn(2, 3, 5)
    each = torch.vmap(lambda x: fourier.mixed(x[None], frequencies, weight)[0][0])(x)
    torch.testing.assert_close(each, fourier.mixed(x, frequencies, weight)[0], atol=1e-4, rtol=1e-4)
    slope = torch.func.grad(lambda x: fourier.features(x, frequencies[None]).sum())(x[..., None])
    assert slope.shape == (2, 3, 5, 1)
    assert slope.abs().max() > 0
