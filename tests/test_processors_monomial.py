"""Monomial-NFN: scales and signs leave its outputs alone, or go through to them."""

import pytest
import torch
from equivariance import (
    assert_breaks,
    assert_equivariant,
    assert_invariant,
    distance,
    random_weights,
)

from processors.monomial import DegreeZero, MonomialLayers, MonomialNFN
from zoo import NetworkSpec, symmetry

RELU = [NetworkSpec.mlp([2, 4, 3], "relu"), NetworkSpec.mlp([3, 2, 4, 3, 2], "relu")]
RELU += [NetworkSpec.cnn([1, 3, 4], 2)]
SINE = [NetworkSpec.mlp([2, 4, 3]), NetworkSpec.mlp([3, 2, 4, 3, 2])]
TANH = [NetworkSpec.cnn([1, 3, 4], 2, activation="tanh"), NetworkSpec.mlp([3, 4, 3, 1], "tanh")]
CNN_ZOO = [NetworkSpec.cnn([1, 16, 16, 16], 10, activation=name) for name in ("relu", "tanh")]
TINY = {"base_channels": [6, 5], "fourier": 8, "fourier_scale": 0.3}


def amplified(net):
    """Differences between networks, which constants of a fresh head would drown."""

    def see(weights):
        out = net(weights)
        return 1000 * (out - out.mean(dim=0))

    return see


def label(spec):
    return "-".join(map(str, spec.widths)) + spec.layers[0].activation


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def step(editor):
    with torch.no_grad():
        editor.step.scale.fill_(1.0)
    return lambda weights: editor(weights).map(torch.sub, weights)


@pytest.mark.parametrize("spec", RELU + TANH, ids=label)
def test_generalisation_sees_no_monomial_matrix(spec):
    torch.manual_seed(0)
    net = MonomialNFN(spec, 2, head=8).double().eval()
    assert net.kind == "generalisation"
    see = amplified(net)
    assert_invariant(see, spec, net.group, None)
    assert_breaks(see, spec, "np", None)
    assert_breaks(see, spec, "mono-sin" if net.group == "mono-relu" else "mono-relu", None)
    assert_invariant(net.float(), spec, net.group, None, dtype=torch.float32)


@pytest.mark.parametrize("spec", SINE, ids=label)
@pytest.mark.parametrize("base", ["hnp", "np"])
def test_classification_sees_no_signs(spec, base):
    torch.manual_seed(0)
    net = MonomialNFN(spec, 2, base=base, channels=[4, 4, 1], head=8, **TINY).double().eval()
    assert net.kind == "classification"
    see = amplified(net)
    assert_invariant(see, spec, "mono-sin", None)
    assert_breaks(see, spec, "mono-relu", None)
    assert_invariant(net.float(), spec, "mono-sin", None, dtype=torch.float32)


@pytest.mark.parametrize("spec", RELU + SINE + TANH, ids=label)
def test_our_editor_is_equivariant(spec):
    torch.manual_seed(0)
    editor = MonomialNFN(spec, None, channels=[4, 4], base_channels=[6, 5]).double().eval()
    assert editor.kind == "equivariant"
    edit = step(editor)
    assert_equivariant(edit, spec, editor.group, None)
    assert_breaks(edit, spec, "mono-sin" if editor.group == "mono-relu" else "mono-relu", None)
    assert_breaks(edit, spec, "np", None)
    editor.float()
    assert_equivariant(edit, spec, editor.group, None, dtype=torch.float32)


@pytest.mark.parametrize("spec", SINE, ids=label)
def test_the_published_editor_breaks_signs(spec):
    torch.manual_seed(0)
    edit = step(MonomialNFN(spec, None, kind="editing", **TINY).double().eval())
    assert_equivariant(edit, spec, "hnp", None)
    assert_breaks(edit, spec, "mono-sin", None)


def test_outputs_are_unmoved_by_rescaling_up_to_1e4():
    torch.manual_seed(0)
    spec = CNN_ZOO[0]
    net = MonomialNFN(spec, 1).double().eval()
    weights = random_weights(spec, None)
    drawn = symmetry.sample(spec, len(weights), ("scale",), log_scale=3.0, dtype=torch.float64)
    assert max(f.max() for f in drawn.factors) > 1e3
    with torch.no_grad():
        assert distance(net(symmetry.apply(drawn, weights)), net(weights)) < 1e-12


def test_normalisation_keeps_the_group_with_one_deviation_a_tensor():
    torch.manual_seed(0)
    spec = RELU[1]
    stats = {f"tensor.{kind}.{name}": torch.rand(1) + 1 for name in spec.tensors
             for kind in ("mean", "std")}  # fmt: skip
    net = MonomialNFN(spec, 2, stats=stats, head=8).double().eval()
    assert_invariant(net, spec, "mono-relu", None)


def test_parameters_are_the_published_counts():
    """0.25M (ReLU zoo) and 1.41M (tanh zoo).

    One layer of `mono-relu` with taps 9, 9, 9, 1 at n_0 = 1, n_L = 10, for each pair of
    channels: W_1 (9 + 1)^2 with its bias, then 81 + 1 for each inner layer, the last
    10^2 twice; 10 constants of the last bias.
    """
    pairs = [(1, 16), (16, 16), (16, 5)]
    layers = sum(a * b * (100 + 2 * 82 + 200) + 10 * b for a, b in pairs)
    features = 5 * (9 + 9 + 9 + 10 + 3 + 10)

    def head(width):
        return features * width + width + width * width + width + width + 1

    # gamma and beta of every tensor but the last bias, which the released code has too
    # but never uses: 10 parameters more.
    scales = 2 * 5 * (9 + 9 + 9 + 1 + 3)
    relu = MonomialNFN(CNN_ZOO[0], 1)
    assert count(relu) == layers + head(200) + scales == 254_609
    # The released tanh model takes the layers of the ReLU group, 1,416,699 parameters in
    # all, of which 1.41M is published, cut off. That of the sign group, which is ours, has
    # 2 n_L more for each pair of channels: b_{L-1} -> W_L and W_L -> b_{L-1}.
    tanh = MonomialNFN(CNN_ZOO[1], 1)
    assert layers + head(1000) == 1_416_699
    extra = sum(a * b * 20 for a, b in pairs)
    assert count(tanh) == layers + head(1000) + extra == 1_423_739
    as_released = MonomialNFN(
        CNN_ZOO[1], 1, group="mono-relu", activations=["identity"] * 3, head=1000
    )
    assert count(as_released) == 1_416_699 + scales


def test_degree_zero_has_unit_length_before_its_scales():
    spec = RELU[2]
    layer = DegreeZero(spec, 4)
    with torch.no_grad():
        for gamma, beta in zip(layer.gamma, layer.beta, strict=True):
            gamma.fill_(1.0)
            beta.zero_()
    weights = random_weights(spec, 4, dtype=torch.float32)
    out = layer(weights)
    for tensor in (*out.weights, *out.biases[:-1]):
        torch.testing.assert_close(tensor.norm(dim=-1), torch.ones(tensor.shape[:-1]))
    assert out.biases[-1].equal(weights.biases[-1])


def test_misuse_is_refused():
    spec = SINE[0]
    with pytest.raises(ValueError, match="unknown kind 'edit'; known: classification, "):
        MonomialNFN(spec, kind="edit")
    with pytest.raises(ValueError, match="'editing' does not fit out=3; editors have out=None"):
        MonomialNFN(spec, 3, kind="editing")
    with pytest.raises(ValueError, match="'classification' is for 'mono-sin', got 'mono-relu'"):
        MonomialNFN(RELU[0], 3, kind="classification")
    with pytest.raises(ValueError, match=r"commutes with 'mono-sin' \(sin, .*got 'relu'"):
        MonomialLayers(spec, "mono-sin", [2, 2], ["sin", "relu"])
    with pytest.raises(
        ValueError, match="all relu or leaky_relu, or all sin or tanh, got identity"
    ):
        MonomialNFN(NetworkSpec.mlp([2, 3, 1], "identity"))


def test_monomial_layers_begin_as_the_released_ones():
    """N(0, 2 / (fan-in + fan-out)) of the released groups of maps: 2 inputs, 1 output, 3 layers."""
    spec = NetworkSpec.mlp([2, 3, 3, 1], "sin")
    torch.manual_seed(0)
    (layer, _) = MonomialLayers(spec, "mono-sin", [200], ["sin"], inp=100)
    blocks = {(t.source, t.target): layer.block(t) for t in layer.terms}
    inp, out = 100, 200
    groups = {
        # Fans of each map, summed over what comes to one target where the code draws together.
        ("weight_0", "weight_0"): 2 * inp + 2 * out + inp + 2 * out,
        ("bias_0", "weight_0"): 2 * inp + 2 * out + inp + 2 * out,
        ("weight_0", "bias_0"): 2 * inp + out + inp + out,
        ("weight_1", "weight_1"): inp + out,
        ("weight_2", "bias_1"): inp + out,
        ("bias_1", "weight_2"): inp + out,
        ("bias_2", "bias_2"): inp + out + out,  # with the constants, which have a fan-out alone
    }
    for key, fans in groups.items():
        assert blocks[key].std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.03), key
    plain = MonomialLayers(spec, "mono-sin", [200], ["sin"], inp=100, initial="fan-in")[0]
    assert plain.block(next(t for t in plain.terms if t.target == "weight_1")).abs().max() <= 0.1
