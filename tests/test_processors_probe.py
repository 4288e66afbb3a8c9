"""Probes see functions: all that keeps a network's function leaves the answer alone."""

import pytest
import torch
from equivariance import EXACT, NETS, draw, moved_by, random_spec
from torch.testing import assert_close

from processors import probe
from processors.probe import Probe
from zoo import NetworkSpec, Weights, forward


def reader(spec: NetworkSpec, hidden: bool) -> Probe:
    torch.manual_seed(0)
    return Probe(spec, 3, probes=16, hidden=hidden, width=32).double().eval()


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("activation", EXACT)
def test_symmetries_are_not_seen(activation, seed, hidden):
    print(f"seed {seed}")
    spec = random_spec(activation, seed)
    model, weights = reader(spec, hidden), draw(spec, seed)
    with torch.no_grad():
        before = model(weights)
        after = model(moved_by(spec, weights, EXACT[activation][0], seed + 100))
    assert (after - before).abs().max() < 1e-10 * before.abs().max().clamp(min=1)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("activation", EXACT)
def test_other_functions_are_seen(activation, hidden):
    spec = NetworkSpec.mlp([2, 4, 6, 3], activation, omega=3.0)
    model, weights = reader(spec, hidden), draw(spec, 0)
    with torch.no_grad():
        for kind in EXACT[activation][1]:
            change = model(moved_by(spec, weights, (kind,), 1)) - model(weights)
            assert (change.abs().amax(dim=1) > 1e-6).all(), kind


def test_the_head_reads_the_answers_of_the_networks():
    spec = NetworkSpec.mlp([2, 4, 6, 3], omega=3.0, output_offset=0.5)
    model, weights = reader(spec, False), draw(spec, 0)
    with torch.no_grad():
        answers = forward(spec, weights, model.probes())
        assert_close(model(weights), model.head(answers.flatten(1)))


def test_two_neurons_that_cancel_are_seen_by_hidden_probes_alone():
    """The same function by other neurons: what `hidden` adds is more than the function."""
    spec = NetworkSpec.mlp([1, 2, 1], "tanh")

    def network(slope: float) -> Weights:
        inward = torch.tensor([[[slope], [slope]]], dtype=torch.float64)
        outward = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
        zeros = torch.zeros(1, 2, dtype=torch.float64)
        return Weights((inward, outward), (zeros, zeros[:, :1]))

    with torch.no_grad():
        for hidden in (False, True):
            model = reader(spec, hidden)
            same = torch.allclose(model(network(0.5)), model(network(2.0)))
            assert same != hidden


def on_a_lattice(axes: int, side: int = 5, **conventions: object) -> Probe:
    order = {2: "xy", 3: "xyz"}[axes]
    spec = NetworkSpec.mlp([axes, 6, 6, 2], omega=3.0, coord_order=order, **conventions)
    torch.manual_seed(0)
    return Probe(spec, 3, lattice=side, layers=2, width=16).double()


@pytest.mark.parametrize("axes", [2, 3])
def test_a_lattice_is_read_as_it_stands(axes):
    """Symmetries change nothing, and the answers lie where their points do."""
    model = on_a_lattice(axes).eval()
    spec, weights = model.spec, draw(model.spec, 0)
    with torch.no_grad():
        before = model(weights)
        after = model(moved_by(spec, weights, ("permutation", "sign"), 3))
    assert_close(after, before)
    # The network x -> w . x: its answers say which coordinate an axis is of.
    linear = NetworkSpec.mlp([axes, 1], coord_order=spec.coord_order)
    for axis in range(axes):
        slope = torch.eye(axes, dtype=torch.float64)[axis][None, None]
        plain = Weights((slope,), (torch.zeros(1, 1, dtype=torch.float64),))
        answers = forward(linear, plain, model.points)[0, :, 0].reshape((5,) * axes)
        along = answers.movedim(axis, 0)
        assert_close(along.flatten(1)[:, 0], torch.tensor([-0.8, -0.4, 0, 0.4, 0.8]).double())
        assert (along.flatten(1).std(dim=1) == 0).all()


def test_logits_are_read_as_what_they_stand_for():
    """A bias of the last layer far out moves a logit and hardly what it says."""
    spec = NetworkSpec.mlp([3, 6, 1], omega=3.0, coord_order="xyz", signal="udf", logits=True)
    weights = draw(spec, 0)
    far = [
        Weights(weights.weights, (weights.biases[0], weights.biases[1] + shift))
        for shift in (50, 500)
    ]
    for sizes in ({"probes": 8}, {"lattice": 4}):
        torch.manual_seed(0)
        model = Probe(spec, 2, layers=1, **sizes).double().eval()
        with torch.no_grad():
            assert_close(model(far[0]), model(far[1]))


def test_a_lattice_in_parts_is_the_whole(monkeypatch):
    model = on_a_lattice(3).eval()
    weights = draw(model.spec, 0)
    with torch.no_grad():
        whole = model(weights)
        monkeypatch.setattr(probe, "_ANSWERED", 7 * len(weights) * 6)
        assert_close(model(weights), whole)


def test_probes_are_trained_with_the_rest():
    for spec in (NetworkSpec.mlp([5, 4, 3], "relu"), NetworkSpec.cnn([1, 4, 4], 3)):
        model = Probe(spec, 2, probes=8, hidden=True)
        flat = torch.randn(NETS, spec.param_count)
        model(Weights.unflatten(flat, spec)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("activation", ["sin", "relu", "tanh", "gelu"])
def test_probes_of_encoded_networks_lie_among_their_coordinates(activation, hidden):
    spec = NetworkSpec.mlp([2, 4, 6, 3], activation, 3.0, frequencies=[[0.5, 0], [1, -1], [0, 2]])
    model, weights = reader(spec, hidden), draw(spec, 0)
    assert model.probes().shape == (16, 2)
    with torch.no_grad():
        before = model(weights)
        after = model(moved_by(spec, weights, EXACT[activation][0], 1))
    assert (after - before).abs().max() < 1e-10 * before.abs().max().clamp(min=1)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="lattice is for networks of two or three coordinates"):
        Probe(NetworkSpec.mlp([3, 3, 1]), 2, lattice=8)
    shape = NetworkSpec.mlp([3, 3, 1], coord_order="xyz")
    for wrong in ({"lattice": 3}, {"lattice": 8, "hidden": True}):
        with pytest.raises(ValueError, match="lattice is at least 4, and not with hidden"):
            Probe(shape, 2, **wrong)
    with pytest.raises(ValueError, match="at least 1"):
        Probe(NetworkSpec.mlp([2, 3, 1]), 2, probes=0)
