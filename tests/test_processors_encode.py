import math

import pytest
import torch
from equivariance import assert_breaks, assert_equivariant

from processors import base, build, encode
from processors.linear import EquivariantLinear
from zoo import NetworkSpec, Weights, forward, render, symmetry
from zoo.stats import Moments, normalisation

SIREN = NetworkSpec.mlp([2, 8, 8, 3], coord_order="xy")
SINE = NetworkSpec.mlp([1, 6, 1], coord_order="x")
RELU = NetworkSpec.mlp([4, 6, 5, 2], activation="relu")
CNN = NetworkSpec.cnn([1, 3, 2], 4)


def random_networks(spec, nets=5, dtype=torch.float32):
    # Small enough that sines turn a few times only.
    return Weights.unflatten(0.3 * torch.randn(nets, spec.param_count, dtype=dtype), spec)


def statistics(spec, weights):
    moments = {name: Moments() for name in spec.tensors}
    for name, tensor in weights.tensors().items():
        moments[name].add(tensor.reshape(len(weights), *spec.tensors[name]).numpy())
    return {name: torch.tensor(values) for name, values in normalisation(moments).items()}


def test_raw_weights_are_read_as_they_are():
    weights = random_networks(CNN)
    plain = encode.Normalise(CNN, statistics(CNN, weights), "none")
    assert torch.equal(plain(weights).flatten(), weights.flatten())
    assert not plain.state_dict()


@pytest.mark.parametrize("spec", [SIREN, RELU, CNN, NetworkSpec.mlp([3, 4, 5, 2], "tanh")])
def test_a_canonical_network_is_the_same_for_all_signs_and_scales(spec):
    weights = random_networks(spec, dtype=torch.float64)
    found = encode.canonical(spec, weights)
    kinds = tuple(set(symmetry.kept_by(spec)) & {"sign", "scale"})
    moved = symmetry.apply(symmetry.sample(spec, 5, kinds, dtype=torch.float64), weights)
    torch.testing.assert_close(encode.canonical(spec, moved).flatten(), found.flatten())
    assert not torch.equal(moved.flatten(), weights.flatten())
    if all(layer.kind == "linear" for layer in spec.layers):
        x = torch.randn(7, spec.inp, dtype=torch.float64)
        torch.testing.assert_close(forward(spec, found, x), forward(spec, weights, x))


@pytest.mark.parametrize("model", ["dws", "nfn-hnp", "mlp", "mlp-align"])
def test_an_editor_of_canonical_networks_makes_the_same_functions_whatever_their_signs(model):
    weights = random_networks(SIREN)
    moved = symmetry.apply(symmetry.sample(SIREN, 5, ("sign",)), weights)
    x = torch.rand(9, 2)

    def edited(canonical):
        torch.manual_seed(0)
        editor = build(model, SIREN, None, statistics(SIREN, weights), canonical=canonical)
        return [forward(SIREN, editor(each), x) for each in (weights, moved)]

    first, second = edited(canonical=True)
    error = (first - second).abs().max()
    assert error < 1e-5
    assert (first - forward(SIREN, weights, x)).abs().max() > 20 * error
    first, second = edited(canonical=False)
    assert (first - second).abs().max() > 20 * error


def test_inputs_and_outputs_are_told_apart_in_front_of_a_layer():
    """Np layers do not see which input they are at, but with this before them they do."""
    layer = EquivariantLinear(SIREN, "np", 2, 2).double()
    told = torch.nn.Sequential(encode.InputOutputEmbedding(SIREN, 2).double(), layer)
    assert_equivariant(layer, SIREN, "np", 2)
    assert_breaks(told, SIREN, "np", 2)
    assert_equivariant(told, SIREN, "hnp", 2)
    wide = encode.InputOutputEmbedding(CNN, 2)
    lifted = encode.lift(random_networks(CNN)).map(lambda x: torch.cat([x, x], -1))
    assert wide(lifted).weights[0].shape == lifted.weights[0].shape
    assert torch.equal(wide(lifted).weights[1], lifted.weights[1])


@pytest.mark.parametrize("spec", [SIREN, CNN])
def test_normalised_entries_have_mean_0_and_std_1(spec):
    weights = random_networks(spec, 200).map(lambda tensor: 3 * tensor + 1)
    weights.biases[0][:, 0] = 7.0  # never varies
    y = encode.Normalise(spec, statistics(spec, weights))(weights)
    for name, tensor in y.tensors().items():
        spread = tensor.std(0, correction=0)
        torch.testing.assert_close(tensor.mean(0), torch.zeros_like(spread), atol=1e-4, rtol=0)
        expected = torch.ones_like(spread)
        if name == "bias_0":
            expected[0] = 0.0
        torch.testing.assert_close(spread, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", [SIREN, CNN])
def test_normalised_tensors_have_mean_0_and_std_1(spec):
    weights = random_networks(spec, 200).map(lambda tensor: 3 * tensor + 1)
    y = encode.Normalise(spec, statistics(spec, weights), kind="tensor")(weights)
    for tensor in y.tensors().values():
        assert tensor.mean().item() == pytest.approx(0, abs=1e-4)
        assert tensor.std(correction=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("group", ["hnp", "mono-relu", "mono-sin"])
def test_statistics_of_tensors_commute_with_the_group(group):
    weights = random_networks(SIREN, 20, torch.float64).map(lambda tensor: tensor + 1)
    layer = encode.Normalise(SIREN, statistics(SIREN, weights), "tensor", group)
    element = base.sample(SIREN, group, 20, torch.Generator().manual_seed(0), torch.float64)
    there = layer(base.act(element, weights))
    back = base.act(element, layer(weights))
    torch.testing.assert_close(there.flatten(), back.flatten(), rtol=1e-12, atol=1e-12)


def test_a_mean_would_break_signs():
    weights = random_networks(SIREN, 20).map(lambda tensor: tensor + 1)
    layer = encode.Normalise(SIREN, statistics(SIREN, weights), "tensor", "hnp")
    element = base.sample(SIREN, "mono-sin", 20, torch.Generator().manual_seed(0))
    there = layer(base.act(element, weights)).flatten()
    assert not torch.allclose(there, base.act(element, layer(weights)).flatten(), atol=1e-2)


def test_without_statistics_nothing_changes_and_loading_brings_them():
    weights = random_networks(CNN)
    fresh = encode.Normalise(CNN)
    assert torch.equal(fresh(weights).flatten(), weights.flatten())
    trained = encode.Normalise(CNN, statistics(CNN, random_networks(CNN, 30)))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(weights).flatten(), trained(weights).flatten())


def test_statistics_of_another_network_are_refused():
    stats = statistics(SIREN, random_networks(SIREN))
    with pytest.raises(ValueError, match=r"entry.mean.weight_0 of shape \(4, 2\), got \(8, 2\)"):
        encode.Normalise(NetworkSpec.mlp([2, 4, 1]), stats)
    with pytest.raises(ValueError, match="unknown statistics 'layer'; known: entry, tensor"):
        encode.Normalise(SIREN, stats, kind="layer")


@pytest.mark.parametrize("spec", [SIREN, CNN])
def test_lifting_adds_a_channel_that_can_be_dropped(spec):
    weights = random_networks(spec)
    lifted = encode.lift(weights)
    chans = [tensor.shape[-1] for tensor in lifted.weights]
    assert chans == list(base.weight_channels(spec, 1))
    assert torch.equal(encode.drop_channel(lifted, spec).flatten(), weights.flatten())
    with pytest.raises(ValueError, match="have a channel axis"):
        encode.lift(lifted)


@pytest.mark.parametrize("spec", [SIREN, CNN])
def test_fourier_features_are_of_each_entry(spec):
    x = encode.lift(random_networks(spec))
    layer = encode.FourierFeatures(spec, chan=16, scale=3.0)
    y = layer(x)
    assert [w.shape[-1] for w in y.weights] == list(base.weight_channels(spec, 16))
    taps = base.taps(spec)[0]
    got = y.weights[0].unflatten(-1, (16, taps))
    phase = 2 * math.pi * x.weights[0][..., None, :] * layer.frequencies[0][:, None]
    torch.testing.assert_close(got[..., :8, :], phase.sin(), atol=1e-5, rtol=0)
    torch.testing.assert_close(got[..., 8:, :], phase.cos(), atol=1e-5, rtol=0)
    assert not list(layer.parameters())
    assert list(layer.state_dict()) == ["frequencies"]


def test_fourier_features_take_several_channels_and_have_the_scale():
    layer = encode.FourierFeatures(SIREN, inp=3, chan=2000, scale=10.0)
    assert layer.frequencies.shape == (3, 1000)
    assert layer.frequencies.std().item() == pytest.approx(10, rel=0.05)
    x = torch.randn(2, 4, 3)
    expected = (2 * math.pi * x @ layer.frequencies).sin()
    torch.testing.assert_close(layer.encode(x, 1)[..., :1000], expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="must be even, got 3"):
        encode.FourierFeatures(SIREN, chan=3)


def test_fourier_features_keep_their_precision_under_autocast():
    x = encode.lift(random_networks(SIREN))
    layer = encode.FourierFeatures(SIREN, chan=8)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(x).weights[1]
    torch.testing.assert_close(cast.float(), layer(x).weights[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", [SIREN, CNN])
@pytest.mark.parametrize("make", [encode.IOEncoding, encode.LearnedEncoding])
def test_encodings_commute_with_hidden_permutations_only(spec, make):
    x = encode.FourierFeatures(spec, chan=4)(encode.lift(random_networks(spec)))
    layer = make(spec, 4)

    def agrees(group):
        element = base.sample(spec, group, len(x), torch.Generator().manual_seed(5))
        there, back = layer(base.act(element, x)), base.act(element, layer(x))
        pairs = zip(there.tensors().values(), back.tensors().values(), strict=True)
        return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)

    assert agrees("hnp")
    assert not agrees("np")


def test_sinusoidal_positions_are_concatenated():
    x = encode.lift(random_networks(CNN))
    layer = encode.IOEncoding(CNN, 1)
    y = layer(x)
    assert (layer.chan, layer.extra) == (14, 13)
    assert [w.shape[-1] for w in y.weights] == list(base.weight_channels(CNN, 14))
    torch.testing.assert_close(y.weights[0][..., :9], x.weights[0])
    # Its last channel is the position itself: -1 for the first layer, and the input's.
    assert y.weights[1][0, 0, 0, -1].item() == 0.0
    torch.testing.assert_close(y.biases[-1][0, :, -1], 1 + torch.linspace(-1, 1, 4))
    assert not layer.state_dict()
    plain = encode.IOEncoding(CNN, 1, layers=False)(x)
    assert not plain.weights[1][..., 9:].any()


# ---- augmentations

ROTATED = {
    "xy": SIREN,
    "ij": NetworkSpec.mlp([2, 8, 8, 3], coord_order="ij", coord_range=(0.0, 1.0)),
}


@pytest.mark.parametrize("order", ["xy", "ij"])
@pytest.mark.parametrize("turns", [1, 2, -1])
def test_a_turn_of_the_weights_is_a_turn_of_the_picture(order, turns):
    spec = ROTATED[order]
    weights = random_networks(spec, dtype=torch.float64)
    turned = encode.move_picture(spec, weights, degrees=90.0 * turns)
    expected = torch.rot90(render(spec, weights, 9, 9), turns, dims=(1, 2))
    torch.testing.assert_close(render(spec, turned, 9, 9), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ["xy", "ij"])
def test_a_shift_moves_right_and_down(order):
    spec = ROTATED[order]
    weights = random_networks(spec, dtype=torch.float64)
    step = (spec.coord_range[1] - spec.coord_range[0]) / 8
    moved = encode.move_picture(spec, weights, shift=torch.tensor([[2 * step, step]]))
    before, after = render(spec, weights, 9, 9), render(spec, moved, 9, 9)
    torch.testing.assert_close(after[:, 1:, 2:], before[:, :-1, :-2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ["xy", "ij"])
def test_a_zoom_enlarges_about_the_middle(order):
    spec = ROTATED[order]
    weights = random_networks(spec, dtype=torch.float64)
    large = render(spec, encode.move_picture(spec, weights, zoom=2.0), 9, 9)
    expected = render(spec, weights, 17, 17)[:, 4:13, 4:13]
    torch.testing.assert_close(large, expected, rtol=0, atol=1e-5)


def test_moves_are_of_each_network_on_its_own():
    weights = random_networks(SIREN)
    degrees, zoom = torch.tensor([0.0, 90, 0, 45, 10]), torch.tensor([1.0, 1, 2, 0.7, 1.2])
    shift = torch.randn(5, 2)
    together = encode.move_picture(SIREN, weights, degrees, shift, zoom).flatten()
    for net in range(5):
        one = slice(net, net + 1)
        alone = encode.move_picture(SIREN, weights[net], degrees[one], shift[one], zoom[one])
        torch.testing.assert_close(together[one], alone.flatten())


def test_autocast_does_not_blur_moves():
    weights = random_networks(SIREN)
    expected = encode.move_picture(SIREN, weights, 30.0, 0.1, 1.2).flatten()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encode.move_picture(SIREN, weights, 30.0, 0.1, 1.2).flatten(), expected)


def test_lines_move_and_zoom_but_do_not_turn():
    weights = random_networks(SINE, dtype=torch.float64)
    moved = encode.move_picture(SINE, weights, shift=0.5, zoom=2.0)
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None]
    expected = forward(SINE, weights, (x - 0.5) / 2)
    torch.testing.assert_close(forward(SINE, moved, x), expected)
    assert len(encode.MovePicture(SINE)(weights)) == 5
    with pytest.raises(ValueError, match="cannot be turned"):
        encode.move_picture(SINE, weights, degrees=10.0)
    with pytest.raises(ValueError, match="only networks of coordinates"):
        encode.move_picture(RELU, random_networks(RELU))


def test_networks_of_fourier_features_are_not_moved_by_their_first_layer():
    spec = NetworkSpec.mlp([2, 4, 1], "relu", coord_order="xy", frequencies=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="read 1 Fourier features cannot be moved: their first"):
        encode.move_picture(spec, random_networks(spec), degrees=10.0)


@pytest.mark.parametrize("spec", [SIREN, RELU, CNN, NetworkSpec.mlp([3, 5, 2], activation="tanh")])
def test_random_symmetries_keep_the_function(spec):
    weights = random_networks(spec, dtype=torch.float64)
    shape = (7, 1, 9, 9) if spec is CNN else (7, spec.inp)
    x = torch.randn(shape, dtype=torch.float64)
    changed = encode.RandomSymmetry(spec)(weights)
    assert not torch.equal(changed.flatten(), weights.flatten())
    difference = forward(spec, changed, x) - forward(spec, weights, x)
    assert difference.abs().max() < 1e-5
    with pytest.raises(ValueError, match="keep the function"):
        encode.RandomSymmetry(SIREN, ("scale",))


def test_noise_has_the_spread_asked_for_and_is_independent():
    torch.manual_seed(0)
    weights = Weights.unflatten(torch.randn(400, SIREN.param_count), SIREN)
    noise = encode.GaussianNoise(0.5, relative=False)(weights).flatten() - weights.flatten()
    assert noise.std().item() == pytest.approx(0.5, rel=0.01)
    assert noise.std(0).min() > 0.35  # not one number a tensor, nor one a network
    assert noise.std(1).min() > 0.35
    correlation = torch.corrcoef(noise.T) - torch.eye(noise.shape[1])
    assert correlation.abs().max() < 0.3
    assert abs(noise.mean().item()) < 0.01


def test_relative_noise_follows_each_tensor_of_each_network():
    weights = Weights.unflatten(torch.randn(50, SINE.param_count), SINE)
    loud = weights.map(lambda t: t * torch.arange(1, 51).reshape(-1, *(1 for _ in t.shape[1:])))
    wide = encode.GaussianNoise(0.1)
    draws = torch.stack([wide(loud).weights[0] - loud.weights[0] for _ in range(300)])
    expected = 0.1 * loud.weights[0].flatten(1).std(1, correction=0)
    torch.testing.assert_close(draws.std((0, 2, 3)), expected, rtol=0.1, atol=0)
    # A single entry has no spread to follow.
    assert torch.equal(wide(loud).biases[1], loud.biases[1])


def test_entry_dropout_keeps_the_mean():
    ones = Weights.unflatten(torch.ones(500, SINE.param_count), SINE)
    dropped = encode.EntryDropout(0.2)(ones).flatten()
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    with pytest.raises(ValueError, match=r"got 1\.0"):
        encode.EntryDropout(1.0)


AUGMENTATIONS = [
    encode.MovePicture(SIREN),
    encode.GaussianNoise(),
    encode.EntryDropout(0.5),
    encode.RandomSymmetry(SIREN),
]


@pytest.mark.parametrize("module", AUGMENTATIONS, ids=lambda module: type(module).__name__)
def test_augmentations_repeat_under_a_seed_and_rest_in_evaluation(module):
    weights = Weights.unflatten(torch.randn(1, SIREN.param_count).expand(4, -1), SIREN)

    def seeded(generator):
        return module.train()(weights, generator).flatten()

    first = seeded(torch.Generator().manual_seed(1))
    assert torch.equal(first, seeded(torch.Generator().manual_seed(1)))
    assert not torch.equal(first, seeded(torch.Generator().manual_seed(2)))
    torch.manual_seed(1)
    assert torch.equal(first, module(weights).flatten())
    assert not torch.equal(first[0], first[1])
    assert torch.equal(module.eval()(weights).flatten(), weights.flatten())
