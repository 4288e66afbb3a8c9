import pytest
import torch
from torch import nn

from processors import base, pointwise
from processors.encode import lift
from zoo import NetworkSpec, Weights

MLP = NetworkSpec.mlp([2, 4, 3, 1])
CNN = NetworkSpec.cnn([1, 3, 2], 4)


def random_features(spec, chan, nets=6, dtype=torch.float32):
    def draw(shape, taps):
        return torch.randn(nets, *shape[:2], chan * taps, dtype=dtype)

    return Weights(
        tuple(map(draw, spec.weight_shapes, base.taps(spec))),
        tuple(draw(shape, 1) for shape in spec.bias_shapes),
    )


def modules(spec, chan):
    return [
        pointwise.Activation("tanh"),
        pointwise.BatchNorm(spec, chan),
        pointwise.LayerNorm(spec, chan),
        pointwise.Dropout(0.5).eval(),
        pointwise.ChannelDropout(0.5).eval(),
        pointwise.ChannelMixing(spec, chan, 5),
    ]


@pytest.mark.parametrize("spec", [MLP, CNN])
def test_all_commute_with_permutations(spec):
    x = random_features(spec, 4, dtype=torch.float64)
    element = base.sample(spec, "np", len(x), torch.Generator().manual_seed(3))
    for module in modules(spec, 4):
        module.double()
        there = module(base.act(element, x))
        back = base.act(element, module(x))
        for name, tensor in there.tensors().items():
            torch.testing.assert_close(tensor, back.tensors()[name], rtol=0, atol=1e-12)


def test_signs_commute_with_odd_activations_only():
    x = random_features(MLP, 2)
    for name in pointwise.ACTIVATIONS:
        layer = pointwise.Activation(name)
        odd = torch.allclose(layer(x).weights[0], -layer(x.map(torch.neg)).weights[0])
        assert odd == (name in ("identity", "sin", "tanh"))


def test_an_unknown_activation_lists_the_known():
    with pytest.raises(ValueError, match="'gelu'; known: abs, identity, relu"):
        pointwise.Activation("gelu")


def test_batch_norm_gives_each_channel_of_each_tensor_mean_0_and_std_1():
    x = random_features(CNN, 3).map(lambda tensor: 5 * tensor + 2)
    for tensor in pointwise.BatchNorm(CNN, 3)(x).tensors().values():
        entries = tensor.reshape(-1, tensor.shape[-1])
        torch.testing.assert_close(
            entries.mean(0), torch.zeros(entries.shape[1]), atol=1e-5, rtol=0
        )
        spread = entries.var(0, correction=0)
        torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-3, rtol=0)


def test_layer_norm_gives_the_channels_of_each_entry_mean_0_and_std_1():
    x = random_features(CNN, 30).map(lambda tensor: 5 * tensor + 2)
    normed = pointwise.LayerNorm(CNN, 30)(x)
    for name, tensor in normed.tensors().items():
        assert tensor.shape == x.tensors()[name].shape
        means, spread = tensor.mean(-1), tensor.var(-1, correction=0)
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-5, rtol=0)
        torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-3, rtol=0)


def test_channel_dropout_drops_whole_channels_of_weights():
    x = random_features(MLP, 50, nets=40).map(torch.ones_like)
    dropped = pointwise.ChannelDropout(0.25)(x)
    for weight in dropped.weights:
        assert torch.equal(weight, weight[:, :1, :1].expand_as(weight))
        assert 0.2 < (weight == 0).float().mean() < 0.3
        assert weight.max() == pytest.approx(1 / 0.75)
    bias = dropped.biases[0]
    assert not torch.equal(bias, bias[:, :1].expand_as(bias))


def test_entry_dropout_is_off_in_evaluation():
    x = random_features(MLP, 2)
    layer = pointwise.Dropout(0.5)
    assert not torch.equal(layer(x).weights[0], x.weights[0])
    assert torch.equal(layer.eval()(x).weights[0], x.weights[0])


def test_mixing_is_one_matrix_a_tensor():
    layer = pointwise.ChannelMixing(CNN, 2, 3, bias=False)
    x = random_features(CNN, 2)
    assert [tuple(module.weight.shape) for module in layer.weights] == [(27, 18), (27, 18), (3, 2)]
    expected = torch.einsum("noic,dc->noid", x.weights[1], layer.weights[1].weight)
    torch.testing.assert_close(layer(x).weights[1], expected)


def test_lifted_weights_go_through_a_stack_in_bfloat16():
    plain = Weights.unflatten(torch.randn(4, CNN.param_count), CNN)
    stack = nn.Sequential(
        pointwise.ChannelMixing(CNN, 1, 4), pointwise.BatchNorm(CNN, 4), pointwise.Activation()
    )
    with torch.autocast("cpu", torch.bfloat16):
        y = stack(lift(plain))
    y.weights[0].float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in stack[0].weights[0].parameters())
