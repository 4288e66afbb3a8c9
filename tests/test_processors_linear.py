"""Equivariant layers: complete, equivariant, and to no larger group.

Completeness is held against a brute force that shares no code with the layer: it takes
generators of the group as permutations and factors of flat entries and counts what
commutes with all of them.
"""

import random
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from equivariance import (
    assert_breaks,
    assert_coupled,
    assert_equivariant,
    equivariance_error,
    random_weights,
)
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch.func import functional_call, vmap

from processors import base
from processors import pool as pools
from processors.linear import BLOCKS, EquivariantLinear, Term, terms
from zoo import NetworkSpec, Weights

GROUPS = ("hnp", "np", "mono-relu", "mono-sin")


# The brute force.


def generators(spec, group, chan):
    """Generators g of the group as (order, factor), (g x)[e] = factor[e] * x[order[e]]."""
    shapes = [
        (axes, (*shape[: len(axes)], chan * int(np.prod(shape[len(axes) :]))))
        for layer in range(len(spec.layers))
        for axes, shape in (
            ((layer + 1, layer), spec.weight_shapes[layer]),
            ((layer + 1,), spec.bias_shapes[layer]),
        )
    ]
    count = sum(int(np.prod(shape)) for _, shape in shapes)
    acted_on = range(len(spec.widths)) if group == "np" else range(1, len(spec.layers))

    def flat(change):
        """`change` of every tensor's array of entry numbers, side by side."""
        entries, start = [], 0
        for axes, shape in shapes:
            array = np.arange(start, start + np.prod(shape)).reshape(shape)
            start += array.size
            entries.append(change(axes, array).ravel())
        return np.concatenate(entries)

    for layer in acted_on:
        neurons = np.arange(spec.widths[layer])
        for cycle in (np.roll(neurons, 1), np.r_[neurons[:2][::-1], neurons[2:]]):

            def permute(axes, array, layer=layer, cycle=cycle):
                for axis, over in enumerate(axes):
                    array = array.take(cycle, axis) if over == layer else array
                return array

            yield flat(permute).astype(int), np.ones(count)
        if group.startswith("mono"):

            def multiply(axes, array, layer=layer):
                factor = np.ones(array.shape)
                for axis, over in enumerate(axes):
                    if over == layer:
                        first = np.moveaxis(factor, axis, 0)[0]
                        first *= -1 if group == "mono-sin" else 2.0 if axis == 0 else 0.5
                return factor

            yield np.arange(count), flat(multiply)


def orbits(spec, group, chan_in, chan_out):
    """The orbit of each entry of an affine map `out (inp 1)`, -1 where it must vanish.

    A map commutes with g if A[o', i'] = A[o, i] for the entries that a permutation
    carries over, and (f[o] / f[i] - 1) A[o, i] = 0 for factors.
    """
    outs = list(generators(spec, group, chan_out))
    # The last input is the constant 1, on which nothing acts.
    inps = [
        (np.r_[order, len(order)], np.r_[factor, 1.0])
        for order, factor in generators(spec, group, chan_in)
    ]
    rows, columns = len(outs[0][0]), len(inps[0][0])
    pairs = np.arange(rows * columns).reshape(rows, columns)
    moved = [pairs[o[0]][:, i[0]].ravel() for o, i in zip(outs, inps, strict=True)]
    edges = np.concatenate(moved), np.tile(pairs.ravel(), len(moved))
    graph = coo_matrix((np.ones(len(edges[0])), edges), (pairs.size, pairs.size))
    label = connected_components(graph, directed=False)[1].reshape(rows, columns)
    for (_, out), (_, inp) in zip(outs, inps, strict=True):
        label[np.isin(label, label[out[:, None] != inp[None, :]])] = -1
    kept, compact = np.unique(label, return_inverse=True)
    return compact.reshape(label.shape) - int(kept[0] == -1)


def dense_dimension(spec, group):
    """The dimension of the same space, by the singular values of all conditions at once."""
    conditions = []
    for order, factor in generators(spec, group, 1):
        rho = factor[:, None] * np.eye(len(order))[order]
        wide = np.eye(len(order) + 1)
        wide[:-1, :-1] = rho
        conditions.append(np.kron(rho, np.eye(len(wide))) - np.kron(np.eye(len(rho)), wide.T))
    values = np.linalg.svd(np.concatenate(conditions), compute_uv=False)
    return int((values < 1e-9).sum())


def family(layer):
    """`param out (inp 1)`: the affine map of each unit vector of parameters."""
    spec, layer = layer.spec, layer.double()
    slots = base.slots(spec, "hnp")
    wide = sum(int(np.prod(slot.shape(layer.chan_in))) for slot in slots)
    basis = torch.cat([torch.eye(wide), torch.zeros(1, wide)]).double()
    pieces = basis.split([int(np.prod(slot.shape(layer.chan_in))) for slot in slots], 1)
    inputs = base.rebuild(
        {
            slot.name: piece.unflatten(1, slot.shape(layer.chan_in))
            for slot, piece in zip(slots, pieces, strict=True)
        }
    )
    parameters = dict(layer.named_parameters())
    count = sum(parameter.numel() for parameter in parameters.values())
    units = torch.eye(count).double().split([p.numel() for p in parameters.values()], 1)
    stacked = {
        name: unit.reshape(count, *parameter.shape)
        for (name, parameter), unit in zip(parameters.items(), units, strict=True)
    }

    def evaluate(one):
        out = functional_call(layer, one, (inputs,))
        return torch.cat([tensor.flatten(1) for tensor in out.tensors().values()], 1)

    with torch.no_grad():
        values = vmap(evaluate)(stacked)
    constant = values[:, -1:]
    return torch.cat([values[:, :-1] - constant, constant], 1).transpose(1, 2)


def rank_and_dimension(layer):
    """Of the layer's family and of the whole space; every member has to be in it."""
    orbit = torch.from_numpy(orbits(layer.spec, layer.group, layer.chan_in, layer.chan_out))
    dimension = int(orbit.max()) + 1
    maps = family(layer).flatten(1)
    orbit = orbit.flatten()
    first = torch.zeros(dimension, dtype=torch.int64)
    alive = (orbit >= 0).nonzero()[:, 0]
    first[orbit[alive]] = alive
    coefficients = maps[:, first]
    expected = torch.zeros_like(maps)
    expected[:, alive] = coefficients[:, orbit[alive]]
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-12)
    return int(torch.linalg.matrix_rank(coefficients)), dimension


def tiny_specs(layers):
    return [
        NetworkSpec.mlp([inp, *hidden, out])
        for hidden in product((2, 3), repeat=layers - 1)
        for inp, out in product(range(1, 5), repeat=2)
    ]


# Widths 2-3 inside, 1-4 outside: 224 networks, and of the 256 deepest every third.
EVERY = [spec for layers in (2, 3, 4) for spec in tiny_specs(layers)] + tiny_specs(5)[::3]


# Complete.


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("widths", [(2, 2, 1), (1, 3, 2), (2, 2, 2, 1), (2, 1, 2, 1)])
def test_counting_orbits_is_solving_for_the_nullspace(group, widths):
    spec = NetworkSpec.mlp(widths)
    assert orbits(spec, group, 1, 1).max() + 1 == dense_dimension(spec, group)


@pytest.mark.parametrize("group", GROUPS)
def test_spans_all_equivariant_maps_with_as_many_parameters(group):
    for spec in EVERY:
        layer = EquivariantLinear(spec, group, 1, 1)
        rank, dimension = rank_and_dimension(layer)
        count = sum(parameter.numel() for parameter in layer.parameters())
        assert rank == dimension == count, (spec.widths, rank, dimension, count)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec.mlp([1, 1, 1]),
        NetworkSpec.mlp([2, 1, 2, 1]),
        NetworkSpec.mlp([1, 2, 1, 1, 3]),
        NetworkSpec.cnn([1, 2], 2, kernel=2),
        NetworkSpec.cnn([2, 2, 1], 2, kernel=2),
    ],
    ids=lambda spec: "-".join(map(str, spec.widths)),
)
def test_spans_with_channels_taps_and_widths_of_one(group, spec):
    layer = EquivariantLinear(spec, group, 2, 1)
    rank, dimension = rank_and_dimension(layer)
    assert rank == dimension == sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_as_many_parameters_as_orbits_on_every_spec(group, layers):
    for spec in tiny_specs(layers):
        layer = EquivariantLinear(spec, group, 1, 1)
        count = sum(parameter.numel() for parameter in layer.parameters())
        assert count == orbits(spec, group, 1, 1).max() + 1, spec.widths


@pytest.mark.parametrize(
    ("group", "counts"),
    [
        ("hnp", (30, 17, 17, 11, 7)),
        ("np", (20, 13, 13, 11, 6)),
        ("mono-relu", (6, 2, 2, 3, 1)),
        ("mono-sin", (6, 3, 3, 3, 1)),
        ("pointwise", (3, 0, 0, 3, 6)),
    ],
)
def test_counts_at_2_3_4_1(group, counts):
    layer = EquivariantLinear(NetworkSpec.mlp([2, 3, 4, 1]), group, 1, 1)
    found = {kinds: 0 for kinds in ("ww", "wb", "bw", "bb")}
    for term in layer.terms:
        found[term.source[0] + term.target[0]] += layer.block(term).numel()
    constants = sum(p.numel() for name, p in layer.named_parameters() if name.endswith("bias"))
    assert (*found.values(), constants) == counts


@pytest.mark.parametrize("layers", [2, 3, 4, 5, 6])
def test_counts_in_general(layers):
    spec = NetworkSpec.mlp([3, *[2, 4, 2, 3, 2][: layers - 1], 2])
    inp, out = spec.inp, spec.out

    def count(group):
        return sum(p.numel() for p in EquivariantLinear(spec, group, 1, 1).parameters())

    # Closed forms of DWSNets' and NFN's layers, and of Monomial-NFN, App. C and D.
    assert count("np") == 4 * layers**2 + 10 * layers - 4 + 2 * layers
    relu = inp**2 + 2 * inp + 2 * out**2 + 2 * layers - 3
    assert count("mono-relu") == relu + out
    sin = relu + 2 * out if layers > 2 else (inp + out + 1) ** 2 + out**2
    assert count("mono-sin") == sin + out


@pytest.mark.parametrize("group", GROUPS)
def test_a_layer_with_a_term_or_its_constants_removed_is_too_small(group):
    spec = NetworkSpec.mlp([2, 3, 2, 2])
    every = terms(spec, group)
    for victim in random.Random(0).sample(every, min(len(every), 12)):
        rank, dimension = rank_and_dimension(
            EquivariantLinear(spec, group, 1, 1, blocks=lambda term, gone=victim: term != gone)
        )
        assert rank < dimension, victim
    rank, dimension = rank_and_dimension(EquivariantLinear(spec, group, 1, 1, bias=False))
    assert rank < dimension


# Equivariant.


def random_spec(seed, least_width=1):
    draw = random.Random(seed)
    width = lambda: draw.randint(least_width, 5)  # noqa: E731
    if draw.random() < 0.4:
        channels = [width() for _ in range(draw.randint(2, 4))]
        return NetworkSpec.cnn(channels, width(), kernel=draw.randint(1, 3))
    return NetworkSpec.mlp([width() for _ in range(draw.randint(3, 6))])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("group", base.GROUPS)
def test_equivariant(group, dtype):
    for seed, pool in product(range(6), ("mean", "sum", "max")):
        spec = random_spec(seed)
        print("seed", seed, spec.widths, pool)
        layer = EquivariantLinear(spec, group, 2, 3, pool).to(dtype)
        assert_equivariant(layer, spec, group, 2, seed=seed, dtype=dtype)


@pytest.mark.parametrize(
    ("group", "larger"),
    [
        ("hnp", "np"),
        ("hnp", "mono-relu"),
        ("hnp", "mono-sin"),
        ("np", "pointwise"),
        ("np", "mono-sin"),
        ("mono-relu", "np"),
        ("mono-sin", "np"),
        ("mono-sin", "mono-relu"),
        ("mono-relu", "pointwise"),
        ("pointwise", "mono-sin"),
    ],
)
def test_not_equivariant_to_a_larger_group(group, larger):
    for seed in range(4):
        spec = random_spec(seed, least_width=3)
        print("seed", seed, spec.widths)
        layer = EquivariantLinear(spec, group, 2, 3).double()
        assert_breaks(layer, spec, larger, 2, seed=seed)


@pytest.mark.parametrize("group", ["hnp", "np", "mono-relu", "mono-sin"])
def test_sensitive_to_permutations_that_are_not_coupled(group):
    for spec in (NetworkSpec.mlp([2, 4, 5, 3]), NetworkSpec.mlp([2, 4, 3, 5, 2])):
        assert_coupled(EquivariantLinear(spec, group, 2, 3).double(), spec, 2)


def test_a_layer_that_ignores_the_coupling_of_neighbours_is_rejected():
    """It passes every test of equivariance."""
    spec = NetworkSpec.mlp([2, 4, 5, 3])

    def apart(term: Term) -> bool:
        return term.source == term.target or not term.kept

    for group in ("hnp", "np"):
        layer = EquivariantLinear(spec, group, 2, 3, blocks=apart).double()
        assert_equivariant(layer, spec, group, 2)
        with pytest.raises(AssertionError, match="blind to the coupling of neighbours"):
            assert_coupled(layer, spec, 2)
    pointwise = EquivariantLinear(spec, "pointwise", 2, 3).double()
    with pytest.raises(AssertionError, match="blind"):
        assert_coupled(pointwise, spec, 2)


def released_specs() -> list[NetworkSpec]:
    """2-3-4-3, 2-4-3, 2-3-4-3-2, and 2-3-4-3 with kernels of 2 x 2 and 2 x 1."""
    conv = NetworkSpec.cnn([2, 3, 4], 3, kernel=2)
    first, second, last = conv.layers
    conv = replace(conv, layers=(first, replace(second, kernel=(2, 1)), last))
    plain = [NetworkSpec.mlp(widths) for widths in ([2, 3, 4, 3], [2, 4, 3], [2, 3, 4, 3, 2])]
    return [*plain, conv]


# Dimensions of the spaces that the released layers span, one channel, constants included:
# NFN ce78322, Monomial-NFN 43aa468, measured in float64. Where ours is larger, both stand there.
@pytest.mark.parametrize(
    ("group", "blocks", "released", "ours"),
    [
        ("hnp", "nfn-hnp", (171, 123, 173, 500), (171, 123, 173, 500)),
        ("hnp", "all", (171, 123, 173, 500), (174, 126, 175, 503)),
        ("hnp", "all", (168, None, 171, None), (174, 126, 175, 503)),  # DWSNets 2001d52
        ("np", "all", (68, 36, 108, 216), (68, 36, 108, 216)),
        ("pointwise", "all", (12, 8, 16, 34), (12, 8, 16, 34)),
        ("mono-relu", "all", (32, 30, 23, 107), (32, 30, 23, 107)),
        ("mono-sin", "all", (38, 33, 27, None), (38, 48, 27, 113)),
    ],
)
def test_the_released_layers_span_no_more(group, blocks, released, ours):
    for spec, theirs, mine in zip(released_specs(), released, ours, strict=True):
        layer = EquivariantLinear(spec, group, 1, 1, blocks=blocks)
        assert sum(parameter.numel() for parameter in layer.parameters()) == mine
        assert theirs is None or theirs <= mine
        if blocks == "all" and group != "pointwise":
            rank, dimension = rank_and_dimension(layer)
            assert rank == dimension == mine


def test_a_layer_without_the_rule_is_rejected():
    spec = NetworkSpec.mlp([2, 4, 3, 2])
    layer = EquivariantLinear(spec, "hnp", 2, 2).double()

    def wrong(weights):
        """One neuron is treated apart."""
        out = layer(weights)
        out.weights[1][:, 0] *= 1.01
        return out

    assert_equivariant(layer, spec, "hnp", 2)
    with pytest.raises(AssertionError, match="not equivariant by"):
        assert_equivariant(wrong, spec, "hnp", 2)
    with pytest.raises(AssertionError, match="equivariant to"):
        assert_breaks(layer, spec, "hnp", 2)
    assert equivariance_error(wrong, spec, "hnp", 2) > 1e-3


@pytest.mark.parametrize("group", base.GROUPS)
def test_a_group_keeps_the_function_it_should(group):
    """Hidden neurons only move, grow or flip: the networks compute what they did."""
    import zoo

    activation = {"mono-relu": "relu"}.get(group, "sin")
    spec = NetworkSpec.mlp([3, 5, 4, 2], activation, omega=2.0)
    weights = random_weights(spec, None)
    x = torch.randn(7, 3, dtype=torch.float64)
    moved = base.act(base.sample(spec, group, 3, dtype=torch.float64), weights)
    error = (zoo.forward(spec, moved, x) - zoo.forward(spec, weights, x)).abs().max()
    assert error < 1e-12 if group not in ("np", "pointwise") else error > 1e-3


# The rest.


def test_linear_in_each_of_its_parameters():
    spec = NetworkSpec.mlp([2, 3, 4, 1])
    weights = random_weights(spec, 2)
    layer = EquivariantLinear(spec, "hnp", 2, 3, pool="max").double()
    first = {name: torch.randn_like(p) for name, p in layer.named_parameters()}
    second = {name: torch.randn_like(p) for name, p in layer.named_parameters()}
    both = {name: 2 * first[name] - 3 * second[name] for name in first}
    a, b, c = (functional_call(layer, each, (weights,)) for each in (first, second, both))
    torch.testing.assert_close(
        [*c.tensors().values()], [*a.map(lambda x, y: 2 * x - 3 * y, b).tensors().values()]
    )


def test_pools_differ_only_by_their_normalisation():
    spec = NetworkSpec.mlp([2, 3, 3, 2])
    weights = random_weights(spec, 1)
    mean = EquivariantLinear(spec, "hnp", 1, 1).double()
    total = EquivariantLinear(spec, "hnp", 1, 1, "sum").double()
    total.load_state_dict(mean.state_dict())
    sizes = {name: len(t[0, ..., 0].flatten()) for name, t in weights.tensors().items()}
    with torch.no_grad():
        for term in total.terms:
            slots = {slot.name: slot for slot in base.slots(spec, "hnp")}
            dropped = set(slots[term.source].sets) - set(term.kept)
            total.block(term).div_(3 ** len(dropped))
    assert sizes["weight_1"] == 9
    torch.testing.assert_close(
        [*total(weights).tensors().values()], [*mean(weights).tensors().values()]
    )


def test_initially_bounded_by_the_fan_in_of_the_target():
    spec = NetworkSpec.mlp([2, 8, 8, 1])
    layer = EquivariantLinear(spec, "np", 16, 16)
    # All 2 L tensors pooled, its rows and columns with their neighbours, and itself;
    # one output: the axis of the last layer does not count.
    fan_in = 16 * (6 + 3 + 3 + 1)
    drawn = torch.cat([layer.block(t).flatten() for t in layer.terms if t.target == "weight_1"])
    bound = fan_in**-0.5
    assert 0.98 * bound < drawn.abs().max() <= bound
    assert abs(drawn.mean()) < 0.05 * bound


@pytest.mark.parametrize("name", BLOCKS)
def test_published_restrictions(name):
    spec = NetworkSpec.mlp([2, 3, 4, 3])
    layer = EquivariantLinear(spec, "hnp", 1, 1, blocks=name)
    removed = {"all": 0, "nfn-hnp": 3}
    full = EquivariantLinear(spec, "hnp", 1, 1)
    count, whole = (sum(p.numel() for p in each.parameters()) for each in (layer, full))
    assert whole - count == removed[name] if name in removed else count < whole
    assert_equivariant(layer.double(), spec, "hnp", 1)
    if name == "b2b":
        assert {(t.source[0], t.target[0]) for t in layer.terms} == {("b", "b")}
    if name == "diagonal":
        assert Term("bias_0", "weight_1", (1,)) in layer.terms
        assert Term("bias_0", "weight_1", ()) in layer.terms
        assert not any({t.source, t.target} == {"bias_0", "bias_1"} for t in layer.terms)


@pytest.mark.parametrize("group", base.GROUPS)
def test_no_networks_and_autocast(group):
    spec = NetworkSpec.cnn([1, 3, 2], 2, kernel=2)
    layer = EquivariantLinear(spec, group, 2, 3)
    assert len(layer(random_weights(spec, 2, nets=0, dtype=torch.float32))) == 0
    weights = random_weights(spec, 2, dtype=torch.float32)
    plain = layer(weights).tensors()
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(weights).tensors()
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16}
    for name, tensor in half.items():
        torch.testing.assert_close(tensor.float(), plain[name], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("group", GROUPS)
def test_other_devices_put_pooled_tensors_side_by_side(group, monkeypatch):
    """Where every launch costs: as many products as there are kinds of axes to keep."""
    spec = NetworkSpec.mlp([2, 3, 4, 1])
    layer, weights = EquivariantLinear(spec, group, 2, 5), random_weights(spec, 2)
    monkeypatch.setattr(pools, "joined", None)
    there = layer.double().to("meta")(weights.map(lambda tensor: tensor.to("meta")))
    shapes = {name: tensor.shape for name, tensor in random_weights(spec, 5).tensors().items()}
    assert {name: tensor.shape for name, tensor in there.tensors().items()} == shapes


def test_compiles_whole():
    # In a process of its own: what checks annotations here cannot be compiled.
    script = """
import torch
from processors import base
from processors.linear import EquivariantLinear
from zoo import NetworkSpec
spec = NetworkSpec.mlp([2, 3, 4, 1])
for group in base.GROUPS:
    layer = EquivariantLinear(spec, group, 2, 3)
    slots = base.slots(spec, group)
    weights = base.rebuild({slot.name: torch.randn(3, *slot.shape(2)) for slot in slots})
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(weights).tensors(), layer(weights).tensors())
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("group", base.GROUPS)
def test_gradients(group):
    spec = NetworkSpec.mlp([2, 2, 3, 2])
    layer = EquivariantLinear(spec, group, 1, 1).double()
    weights = random_weights(spec, 1, nets=1)

    def evaluate(*tensors):
        named = dict(zip(weights.tensors(), tensors, strict=True))
        return tuple(layer(base.rebuild(named)).tensors().values())

    inputs = tuple(tensor.requires_grad_() for tensor in weights.tensors().values())
    assert torch.autograd.gradcheck(evaluate, inputs)


def test_misuse_is_named():
    spec = NetworkSpec.mlp([2, 3, 1])
    with pytest.raises(ValueError, match="unknown group 'sn'; known: hnp, np"):
        EquivariantLinear(spec, "sn", 1, 1)
    with pytest.raises(ValueError, match="unknown pool 'median'; known: mean"):
        EquivariantLinear(spec, "np", 1, 1, "median")
    with pytest.raises(ValueError, match="unknown blocks 'w2b'; known: all"):
        EquivariantLinear(spec, "np", 1, 1, blocks="w2b")
    with pytest.raises(ValueError, match="at least 2 layers"):
        EquivariantLinear(NetworkSpec.mlp([2, 1]), "np", 1, 1)
    layer = EquivariantLinear(spec, "np", 4, 1)
    with pytest.raises(
        ValueError, match=r"weight_0: expected \(net, 3, 2, 4\), got \(3, 3, 2, 1\)"
    ):
        layer(random_weights(spec, 1))
    with pytest.raises(ValueError, match="expected 2 layers, got 3"):
        layer(random_weights(NetworkSpec.mlp([2, 3, 3, 1]), 4))
    with pytest.raises(ValueError, match="no such term"):
        layer.block(Term("bias_0", "bias_9", ()))


def test_weights_without_channels_are_refused():
    spec = NetworkSpec.mlp([2, 3, 1])
    plain = random_weights(spec, None)
    assert isinstance(plain, Weights)
    with pytest.raises(ValueError, match="the last axis holds the channels"):
        EquivariantLinear(spec, "np", 1, 1)(plain)
