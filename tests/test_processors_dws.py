"""DWSNets: equivariant end to end, counted to the last parameter, blocks as published."""

import pytest
import torch
from equivariance import assert_breaks, assert_equivariant, assert_invariant, random_weights
from torch import nn

from processors import base
from processors.attention import DeepSets, TwoSet
from processors.dws import VARIANTS, DWSLayer, DWSNet
from zoo import NetworkSpec

MNIST = NetworkSpec.mlp([2, 32, 32, 1])
SINE = NetworkSpec.mlp([1, 32, 32, 1])
SPECS = [
    NetworkSpec.mlp([2, 4, 3]),
    NetworkSpec.mlp([3, 4, 3, 1]),
    NetworkSpec.mlp([3, 2, 4, 3, 2]),
    NetworkSpec.cnn([1, 3, 4], 2),
]


def step_of(editor):
    return lambda weights: editor(weights).map(torch.sub, weights)


def shaken(module):
    """As after some training: statistics and scales of BatchNorm are not 0 and 1."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
    return module.eval()


def label(spec):
    return "-".join(map(str, spec.widths)) + spec.layers[0].activation


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=label)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reduced", [0, 2])
def test_models_keep_hnp_and_no_more(spec, variant, reduced):
    torch.manual_seed(0)
    options = {"variant": variant, "chan": 8, "layers": 2, "reduced": reduced, "mu": 2.0}
    net = shaken(DWSNet(spec, 3, **options)).double()
    assert_invariant(net, spec, "hnp", None)
    assert_breaks(net, spec, "np", None)
    assert_invariant(net.float(), spec, "hnp", None, dtype=torch.float32)
    editor = shaken(DWSNet(spec, None, **options)).double()
    assert_equivariant(step_of(editor), spec, "hnp", None)
    assert_breaks(step_of(editor), spec, "np", None)


# Published totals are those of the released code, which the formula below repeats.
PUBLISHED = [
    (MNIST, 10, 32, 5, {"attention": 552_650, "deepsets": 320_586}),
    (SINE, 1, 8, 3, {"attention": 15_057, "deepsets": 8_657}),
    (SINE, 16, 16, 5, {"attention": 103_600, "deepsets": 62_640}),
]


def redundant_biases(spec, variant):
    """Released bias vectors of one layer that add nothing, in units of its channels.

    Every block ends in a bias of its own (the two-set layer in four), where the sum of a
    target's blocks needs one. In attention the last map's bias stands inside a ReLU and
    is needed; the one that adds nothing is that of the keys, which cancels in the
    softmax. So each block of either kind has one too many, but one for every target.
    """
    slots = base.slots(spec, "hnp")
    total = 0
    for target in slots:
        wide = target.features(1)
        keys = ends = 0
        for source in slots:
            shared = len(set(source.sets) & set(target.sets))
            if variant == "attention" and shared == 1:
                keys += wide
            else:
                ends += 4 * wide if shared == 2 else wide
        total += keys + ends - wide
    return total


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("spec", "out", "chan", "layers", "published"), PUBLISHED)
def test_parameters_are_the_published_less_the_redundant(
    spec, out, chan, layers, published, variant
):
    with torch.device("meta"):
        net = DWSNet(spec, out, variant, chan, layers)
    # 45 vectors a layer for 7 orbits at n_0 = 2, less at n_0 = 1.
    redundant = layers * chan * redundant_biases(spec, variant)
    assert count(net) == published[variant] - redundant


def test_redundant_biases_at_the_mnist_spec():
    assert redundant_biases(MNIST, "deepsets") == 45 - 7
    assert redundant_biases(MNIST, "attention") == 45 - 7


def test_deepsets_blocks_are_the_published_layers():
    """Each block of the layer is a DeepSets, a two-set or a linear layer, and their sum."""
    torch.manual_seed(0)
    spec = NetworkSpec.mlp([2, 3, 4, 1])
    layer = DWSLayer(spec, 2, 3, "deepsets").double()
    linear = layer.linear.linear
    weights = random_weights(spec, 2)
    slots = {slot.name: slot for slot in base.slots(spec, "hnp")}
    total = {name: 0.0 for name in slots}
    for source in slots.values():
        x = source.fold(weights.tensors()[source.name])
        for target in slots.values():
            blocks = {t.kept: linear.block(t) for t in linear.terms
                      if (t.source, t.target) == (source.name, target.name)}  # fmt: skip
            shared = [axis for axis in target.sets if axis in source.sets]
            inp, out = source.features(2), target.features(3)
            if len(shared) == 2:
                two = TwoSet(inp, out, bias=False).double()
                rows, columns = source.sets
                order = [source.sets, (columns,), (rows,), ()]
                two.weight.data = torch.stack([blocks[kept].detach() for kept in order])
                y = two(x)
            elif len(shared) == 1:
                other = [p for p, axis in enumerate(source.sets) if axis not in shared]
                sets = DeepSets(inp, out, bias=False).double()
                sets.each.weight.data = blocks[tuple(shared)].detach()
                sets.pooled.weight.data = -blocks[()].detach()
                y = sets(x.amax(1 + other[0]) if other else x)
                for place, axis in enumerate(target.sets):
                    y = y if axis in shared else y.unsqueeze(1 + place)
            else:
                for _ in source.sets:
                    x_pooled = x.flatten(1, len(source.sets)).amax(1)
                y = (x_pooled if source.sets else x) @ blocks[()].T
                y = y.reshape(len(y), *(1 for _ in target.sets), -1)
            sizes = [target.sizes[target.axes.index(axis)] for axis in target.sets]
            total[target.name] = total[target.name] + y.expand(-1, *sizes, -1)
    found = layer(weights).tensors()
    none = layer(weights.map(torch.zeros_like)).tensors()
    for name, slot in slots.items():
        mine = slot.fold(found[name] - none[name]) * len(slots)
        torch.testing.assert_close(mine, total[name])


def test_initialisation_has_the_papers_spread():
    torch.manual_seed(0)
    layer = DWSLayer(MNIST, 32, 32, mu=1e-3)
    widest = max(layer.attention.attention[0].project, key=torch.numel)
    assert widest.abs().max() < 0.01
    for term in layer.linear.linear.terms:
        block = layer.linear.linear.block(term)
        out, inp = block.shape
        expected = 1e-3 * (2 * inp / out) ** 0.5 * (2 / (inp + out)) ** 0.5
        assert block.std().item() == pytest.approx(expected, rel=0.2)


def test_wide_inputs_are_reduced_by_default():
    spec = NetworkSpec.mlp([100, 3, 4, 2], activation="relu")
    with torch.device("meta"):
        net = DWSNet(spec, 3, chan=4, layers=2)
        assert net.layers[0].down.weight.shape == (16, 100)
        assert not hasattr(DWSNet(MNIST).layers[0], "down")
        assert count(DWSNet(spec, 3, chan=4, layers=2, reduced=0)) > count(net)


def test_ablations_drop_blocks():
    counts = {}
    for blocks in ("all", "diagonal", "both", "w2w", "b2b"):
        torch.manual_seed(0)
        spec = SPECS[1]
        net = shaken(DWSNet(spec, 2, chan=8, layers=2, blocks=blocks)).double()
        assert_invariant(net, spec, "hnp", None)
        counts[blocks] = count(net)
    assert counts["all"] > counts["diagonal"] > counts["both"] > counts["w2w"] > counts["b2b"]


def test_dropout_is_off_in_evaluation():
    net = DWSNet(SPECS[1], 2, chan=8, layers=2, dropout=0.5).eval()
    weights = random_weights(SPECS[1], None, dtype=torch.float32)
    torch.testing.assert_close(net(weights), net(weights))
    net.train()
    assert (net(weights) != net(weights)).any()


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="unknown variant 'set'; known: attention, deepsets"):
        DWSNet(MNIST, variant="set")
    with pytest.raises(ValueError, match="unknown blocks 'c2c'; known: all, "):
        DWSNet(MNIST, blocks="c2c")
    with pytest.raises(ValueError, match="at least one layer, got 0"):
        DWSNet(MNIST, layers=0)
