"""NFN: invariant and equivariant end to end, parameters beside the published counts."""

from itertools import pairwise

import pytest
import torch
from equivariance import assert_breaks, assert_equivariant, assert_invariant, random_weights

from processors import encode, nfn
from processors.encode import lift
from processors.linear import EquivariantLinear
from processors.nfn import NFN, Features, Lifting
from zoo import NetworkSpec, Weights

SPECS = [
    NetworkSpec.mlp([2, 4, 3]),
    NetworkSpec.mlp([3, 2, 4, 3, 2]),
    NetworkSpec.cnn([2, 3, 4], 2),
]
CIFAR = NetworkSpec.mlp([2, 32, 32, 3])
CNN_ZOO = NetworkSpec.cnn([1, 16, 16, 16], 10)
TINY = {"channels": [6, 4], "fourier": 8, "fourier_scale": 0.3, "head": 8, "head_dropout": 0.0}
GENERALISATION = {"channels": (16, 16, 5), "fourier": 0, "positions": "none"}


def step(editor):
    """What the editor adds, as large as the weights."""
    with torch.no_grad():
        editor.step.scale.fill_(1.0)
    return lambda weights: editor(weights).map(torch.sub, weights)


def label(spec):
    return "-".join(map(str, spec.widths)) + spec.layers[0].activation


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=label)
@pytest.mark.parametrize("symmetry", ["np", "hnp", "pointwise"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_models_keep_hnp_and_no_more(spec, symmetry, positions):
    torch.manual_seed(0)
    options = {**TINY, "symmetry": symmetry, "positions": positions}
    net = NFN(spec, 3, **options).double().eval()
    assert_invariant(net, spec, "hnp", None)
    assert_invariant(net.float(), spec, "hnp", None, dtype=torch.float32)
    editor = step(NFN(spec, None, **options).double().eval())
    assert_equivariant(editor, spec, "hnp", None)
    assert_breaks(editor, spec, "np", None)


@pytest.mark.parametrize("spec", SPECS, ids=label)
@pytest.mark.parametrize("symmetry", ["np", "hnp", "pointwise"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_features_that_are_never_kept_are_the_same(spec, symmetry, positions, pool):
    torch.manual_seed(0)
    lifting = Lifting(spec, 1, 8, 0.3, positions)
    features = Features(spec, symmetry, lifting.chan, (6, 4), pool=pool)
    model = torch.nn.ModuleList([lifting, features]).double()
    found = []
    for run in (lambda x: features(lifting(x)), lambda x: features.lifted(lifting, x)):
        x = lift(random_weights(spec, None)).map(lambda t: t.detach().requires_grad_())
        y = run(x)
        model.zero_grad()
        sum(tensor.square().sum() for tensor in y.tensors().values()).backward()
        grads = [p.grad for p in model.parameters()] + [t.grad for t in x.tensors().values()]
        found.append([*y.tensors().values(), *grads])
        torch.manual_seed(0)
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("symmetry", ["np", "hnp", "pointwise"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "learned-each", "none"])
@pytest.mark.parametrize("more", [{}, {"head_norm": True}, {"channels": []}])
def test_pieces_of_a_batch_are_the_batch(symmetry, positions, more, monkeypatch):
    torch.manual_seed(0)
    spec = NetworkSpec.mlp([2, 4, 5, 3])
    net = NFN(spec, 3, symmetry, **{**TINY, "positions": positions, **more}).double()
    weights = random_weights(spec, None, nets=7)
    outputs = []
    for size in (2**22, 6 * 20 * 2):
        monkeypatch.setitem(nfn._PIECE, "cpu", size)
        net.zero_grad()
        out = net(weights)
        out.square().sum().backward()
        outputs.append([out, *(p.grad for p in net.parameters())])
    # And layer by layer, each as it is by itself.
    net.zero_grad()
    x = net.lifting(lift(net.normalise(weights)))
    for module in net.features:
        x = module(x)
    out = net.head(x)
    out.square().sum().backward()
    plain = [out, *(p.grad for p in net.parameters())]
    assert sum(1 for _ in net.features.in_pieces(net.lifting, lift(weights))) > 1
    for found in outputs:
        for mine, expected in zip(found, plain, strict=True):
            torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("spec", SPECS, ids=label)
@pytest.mark.parametrize("symmetry", ["np", "hnp", "pointwise"])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("out", [1, 3])
def test_a_last_layer_takes_the_pools_that_are_known(spec, symmetry, pool, out):
    torch.manual_seed(0)
    features = Features(spec, symmetry, 2, [3, 4], pool=pool).double()
    last = EquivariantLinear(spec, symmetry, features.chan, out, pool=pool).double()
    weights = random_weights(spec, 2)
    found = []
    for known in (features.pooled(weights), features(weights)):
        given = last(known).tensors()
        total = sum((tensor * tensor.detach().cos()).sum() for tensor in given.values())
        parameters = [*features.parameters(), *last.parameters()]
        found.append([*given.values(), *torch.autograd.grad(total, parameters)])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)


def test_training_keeps_less_than_the_fourier_features():
    spec = NetworkSpec.mlp([2, 32, 32, 1])
    net = NFN(spec, 10, channels=(8, 8), head=8)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t,
        lambda t: t,
    ):
        out = net(random_weights(spec, None, nets=16, dtype=torch.float32))
    entries = sum(tensor[0].numel() for tensor in random_weights(spec, None).tensors().values())
    assert out.requires_grad
    assert sum(kept.values()) < 16 * entries * 4 * 256


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_without_positions_editing_keeps_its_own_group(spec):
    torch.manual_seed(0)
    for symmetry in ("np", "hnp", "pointwise"):
        editor = NFN(spec, None, symmetry=symmetry, **{**TINY, "positions": "none"})
        edit = step(editor.double().eval())
        assert_equivariant(edit, spec, "hnp" if symmetry == "hnp" else "np", None)
        if symmetry == "pointwise":
            assert_equivariant(edit, spec, "pointwise", None)
        else:
            assert_breaks(edit, spec, "pointwise" if symmetry == "np" else "np", None)


def head_count(spec, chan, out, width=1000):
    """The perceptron behind the hnp pool: c (taps of each tensor, n_0 and n_L times)."""
    taps = [int(torch.Size(shape[2:]).numel()) for shape in spec.weight_shapes]
    weights = spec.inp * taps[0] + sum(taps[1:-1]) + spec.out * taps[-1]
    features = chan * (weights + len(taps) - 1 + spec.out)
    return features * width + width + width * width + width + width * out + out


def test_np_on_cifar_is_the_published_count():
    """47.7M. One NP layer of L = 3 has 4 L^2 + 10 L - 4 = 62 matrices and 2 L constants."""
    with torch.device("meta"):
        net = NFN(CIFAR)
    channels = (256 + 13, 512, 512, 512)
    layers = sum(62 * a * b + 6 * b for a, b in pairwise(channels))
    assert count(net) == layers + head_count(CIFAR, 512, 10) == 47_698_218


def released_np(taps, inp, out):
    """Parameters of NFN's released NPLinear, biases included."""
    total = 0
    pooled = len(taps) + sum(taps)
    for layer, tap in enumerate(taps):
        rows, columns = tap, tap + 1
        rows += taps[layer - 1] + 1 if layer else 0
        columns += taps[layer + 1] if layer + 1 < len(taps) else 0
        # Pointwise, rows and columns pooled, rows, columns: four maps with a bias each.
        total += tap * out * ((tap + pooled + rows + columns) * inp + 4)
        total += out * ((columns + pooled) * inp + 2)
    return total


def test_np_on_the_cnn_zoo_is_the_published_count():
    """2.03M. Four biases for each weight and two for each bias where one is enough.

    And grey pictures have a single input channel, so that to pool over it or to keep it
    is the same: with two channels of input the layer has all the released maps.
    """
    taps, channels = (9, 9, 9, 1), (1, 16, 16, 5)
    pairs = list(pairwise(channels))
    released = sum(released_np(taps, a, b) for a, b in pairs)
    assert released + head_count(CNN_ZOO, 5, 1) == 2_030_433
    colour = NetworkSpec.cnn([2, 16, 16, 16], 10)
    with torch.device("meta"):
        layers = [EquivariantLinear(colour, "np", a, b) for a, b in pairs]
        net = NFN(CNN_ZOO, 1, "np", **GENERALISATION)
    biases = sum(b * (3 * sum(taps) + len(taps)) for _, b in pairs)
    assert sum(map(count, layers)) == released - biases
    # From W_1 to itself two of four maps remain, of 9 x 9 taps; to and from others, which
    # do not have its inputs, none is double.
    double = sum(81 * a * b * 2 for a, b in pairs)
    assert count(net) == released - biases - double + head_count(CNN_ZOO, 5, 1) == 1_970_153


def test_hnp_is_complete_and_smaller_than_released():
    """113.5M and 2.59M; released 135.1M and 2.81M, see PROCESSORS.md."""
    with torch.device("meta"):
        assert count(NFN(CIFAR, symmetry="hnp")) == 113_484_586
        assert count(NFN(CNN_ZOO, 1, "hnp", **GENERALISATION)) == 2_586_819
    # 163 matrices at 2-n-n-3, counted by brute force in test_processors_linear, and
    # n_0 + 1 + n_L + 1 + 1 + n_L constants.
    channels = (256, 512, 512, 512)
    maps = sum(a * b for a, b in pairwise(channels))
    layers = 113_484_586 - head_count(CIFAR, 512, 10)
    assert layers == maps * 163 + sum(channels[1:]) * (2 + 1 + 3 + 1 + 1 + 3)


def test_editing_starts_near_the_identity_and_learns_scales():
    editor = NFN(CIFAR, None, channels=[4], fourier=8)
    weights = random_weights(CIFAR, None, dtype=torch.float32)
    edited = editor(weights)
    for before, after in zip(weights.tensors().values(), edited.tensors().values(), strict=True):
        assert 0 < (after - before).abs().max() < 0.2
    edited.biases[0].sum().backward()
    assert editor.step.scale.shape == (2, 3)
    assert editor.step.scale.grad[1, 0] != 0
    torch.testing.assert_close(editor.step.scale.detach(), torch.full((2, 3), 0.01))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="unknown group 'mono-sin'; known: np, hnp, pointwise"):
        NFN(CIFAR, symmetry="mono-sin")
    with pytest.raises(ValueError, match="unknown positions 'x'; known: sinusoidal, learned, "):
        NFN(CIFAR, positions="x", channels=[1])


def test_positions_of_every_kind_tell_inputs_apart():
    spec = NetworkSpec.mlp([3, 4, 4, 2], "sin")
    weights = random_weights(spec, None, dtype=torch.float32)
    swapped = Weights((weights.weights[0][..., [1, 0, 2]], *weights.weights[1:]), weights.biases)
    for positions in ("sinusoidal", "learned", "learned-each", "none"):
        torch.manual_seed(0)
        model = NFN(spec, 5, "np", [4, 4], fourier=8, head=8, positions=positions).eval()
        with torch.no_grad():
            same = torch.allclose(model(weights), model(swapped), atol=1e-6)
        # The head's pool tells inputs apart by itself; what is before it, by positions alone.
        with torch.no_grad():
            features = [model.features(model.lifting(encode.lift(w))) for w in (weights, swapped)]
        middle = [each.weights[1] for each in features]
        assert torch.allclose(*middle, atol=1e-6) == (positions == "none"), positions
        assert not same


def test_layer_numbers_are_in_positions_if_they_are_asked_for():
    spec = NetworkSpec.mlp([2, 4, 4, 1], "sin")
    assert not NFN(spec, layers=False, channels=[2]).lifting[1].weight_1.any()
    assert NFN(spec, layers=True, channels=[2]).lifting[1].weight_1.any()
    with pytest.raises(ValueError, match="layers says whether positions have the layer's number"):
        NFN(spec, layers=3)


def test_the_head_may_normalise_what_it_pooled():
    spec = NetworkSpec.mlp([2, 4, 4, 1], "sin")
    model = NFN(spec, 3, "hnp", [4], fourier=8, head=8, head_norm=True)
    weights = random_weights(spec, None, nets=64, dtype=torch.float32).map(lambda x: 0.01 * x)
    pooled = model.head[0](model.features(model.lifting(encode.lift(weights))))
    torch.testing.assert_close(pooled.mean(0), torch.zeros(pooled.shape[1]), atol=1e-4, rtol=0)
