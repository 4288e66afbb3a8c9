"""Classifier engines: all give what torch.nn gives one at a time, to rounding."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from zoo import nets, philox
from zoo.engines import classifiers
from zoo.engines.classifiers import (
    BatchedEngine,
    CompiledEngine,
    Data,
    ReferenceEngine,
    Run,
    random_words,
)
from zoo.kinds.training import initial_weights
from zoo.shards import round_to
from zoo.spec import NetworkSpec

MLP = (NetworkSpec.mlp([50, 24, 18, 5], "relu"), (5, 5, 2))
DEEP = (NetworkSpec.mlp([36, 16, 16, 16, 3], "tanh"), (6, 6, 1))
CNN = (NetworkSpec.cnn([1, 16, 16], 4, activation="tanh"), (11, 9, 1))
WIDE = (NetworkSpec.cnn([3, 16, 6, 20], 7, stride=1, padding=1), (7, 8, 3))
SPECS = {"mlp": MLP, "deep": DEEP, "cnn": CNN, "padded-cnn": WIDE}


def data(shape: tuple[int, int, int], classes: int, items: int = 90) -> Data:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (items, int(np.prod(shape))), dtype=np.uint8)
    return Data(images, draw.integers(0, classes, items), shape, 2 / 255, -1.0)


def run(index: int = 3, **changes: Any) -> Run:
    """A run of two epochs of 70 items in minibatches of 32, 32 and 6."""
    plain = Run(
        key=(7, 0, index, 0),
        train_items=np.arange(70),
        loss_items=np.arange(0, 70, 2),
        test_items=np.arange(70, 90),
        steps=(0, 1, 3, 4, 6),
        batch=32,
        lr=2e-3,
        weight_decay=1e-3,
    )
    return replace(plain, **changes)


def start(spec: NetworkSpec, run: Run) -> NDArray[np.float32]:
    return initial_weights(spec, "torch", run.key, 1.0, 0.1)


def assert_alike(got: classifiers.Trained, want: classifiers.Trained, tolerance: float) -> None:
    scale = np.abs(want.params).max()
    np.testing.assert_allclose(got.params, want.params, atol=tolerance * scale)
    np.testing.assert_allclose(got.train_loss, want.train_loss, atol=tolerance)
    np.testing.assert_allclose(got.test_loss, want.test_loss, atol=tolerance)
    # One item of twenty may lie on a tie.
    assert np.abs(got.test_accuracy - want.test_accuracy).max() <= 0.051


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("optimiser", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("name", SPECS)
def test_compiled_equals_one_at_a_time(name, optimiser, dropout):
    spec, shape = SPECS[name]
    one = run(optimiser=optimiser, dropout=dropout, lr=2e-3 if optimiser != "sgd" else 0.05)
    given = start(spec, one)[None]
    pictures = data(shape, spec.out)
    torch.set_num_threads(1)
    want = ReferenceEngine(dtype=torch.float64).train(spec, pictures, given, [one])[0]
    got = CompiledEngine().train(spec, pictures, given, [one])[0]
    assert np.array_equal(got.params[0], given[0])
    assert np.abs(want.params[-1] - want.params[0]).max() > 1e-3
    # Adam and RMSprop divide by what may be near zero in the first steps.
    assert_alike(got, want, 1e-5 if optimiser == "sgd" else 2e-3)


# Tap rows that fill one panel, several, a part of the last one, or more than a panel; one to
# three panels of channels; taps that skip pixels or see nothing but padding.
GEOMETRIES = {
    "one panel": ([1, 32, 48, 16], {"kernel": 3, "padding": 1, "stride": 1}, (6, 5, 1)),
    "a short last panel": ([1, 16, 16], {"kernel": 5, "padding": 2, "stride": 3}, (13, 10, 1)),
    "a tap row a panel": ([3, 48, 16], {"kernel": 3, "padding": 2, "stride": 2}, (9, 12, 3)),
    "wider than a panel": ([3, 16, 32], {"kernel": 7, "padding": 3, "stride": 2}, (8, 9, 3)),
    "apart": ([2, 16, 16], {"kernel": 2, "padding": 1, "stride": 4}, (14, 17, 2)),
    "narrow": ([2, 16, 16], {"kernel": 5, "padding": 4, "stride": 1}, (3, 2, 2)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries_of_conv_layers(name):
    channels, sizes, shape = GEOMETRIES[name]
    spec = NetworkSpec.cnn(channels, 5, **sizes)
    one = run(optimiser="sgd", lr=0.05, steps=(0, 2, 6))
    given = start(spec, one)[None]
    pictures = data(shape, spec.out)
    torch.set_num_threads(1)
    want = ReferenceEngine(dtype=torch.float64).train(spec, pictures, given, [one])[0]
    got = CompiledEngine().train(spec, pictures, given, [one])[0]
    assert np.abs(want.params[-1] - want.params[0]).max() > 1e-3
    assert_alike(got, want, 1e-5)


def test_the_comparison_rejects_another_order_and_another_rate():
    spec, shape = MLP
    pictures = data(shape, spec.out)
    given = start(spec, run())[None]
    want = CompiledEngine().train(spec, pictures, given, [run()])[0]
    for other in (run(index=4), run(lr=2.5e-3), run(weight_decay=0.0, lr=2.2e-3)):
        got = CompiledEngine().train(spec, pictures, given, [other])[0]
        with pytest.raises(AssertionError):
            assert_alike(got, want, 2e-3)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_side_by_side_equals_one_at_a_time(name):
    spec, shape = SPECS[name]
    pictures = data(shape, spec.out)
    runs = [
        run(0),
        run(1, optimiser="sgd", lr=0.03, dropout=0.2),
        run(2, optimiser="rmsprop", steps=(2, 6)),
        run(3, train_items=np.arange(5, 65), batch=20),
    ]
    given = np.stack([start(spec, one) for one in runs])
    torch.set_num_threads(1)
    engine = BatchedEngine(threads=1)
    engine.batch = 3
    found = engine.train(spec, pictures, given, runs)
    for got, want in zip(
        found, ReferenceEngine(threads=1).train(spec, pictures, given, runs), strict=True
    ):
        assert_alike(got, want, 2e-3)


@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_bytes_do_not_depend_on_neighbours(engine):
    spec, shape = MLP
    pictures = data(shape, spec.out)
    runs = [run(index) for index in range(5)]
    given = np.stack([start(spec, one) for one in runs])
    loaded = classifiers.load(engine, threads=1)
    together = loaded.train(spec, pictures, given, runs)
    # A network that overflows must not touch the ones after it.
    wild = given.copy()
    wild[0] = 1e30
    beside = loaded.train(spec, pictures, wild, runs)
    for number in (1, 4):
        pairs = [(together[number], beside[number])]
        if engine == "cpu":  # torch rounds by the place in the batch too
            alone = loaded.train(spec, pictures, given[[number]], [runs[number]])[0]
            pairs.append((together[number], alone))
        for left, right in pairs:
            assert all(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))
    assert not np.isfinite(beside[0].train_loss).all()


def test_a_compiled_update_is_the_same():
    """As engines on a GPU compile it: without breaks, and with the roots as tensors."""
    draw = torch.Generator().manual_seed(0)
    p, grad, mean, square = torch.rand((4, 3, 7), generator=draw)
    one = torch.ones(3, 1)
    kinds = torch.tensor([[True], [False], [False]]), torch.tensor([[False], [True], [False]])
    rest = (0.1 * one, 0.01 * one, *kinds), (0.9, 0.999, 1e-8)
    plain = [tensor.clone() for tensor in (p, grad, mean, square)]
    classifiers.adjust(*plain, *rest, (0.19, 0.04))
    assert (plain[0] != p).any(dim=1).all()
    compiled = torch.compile(classifiers.adjust, backend="aot_eager", fullgraph=True)
    compiled(p, grad, mean, square, *rest, tuple(torch.tensor([0.19, 0.04])))
    for found, expected in zip((p, grad, mean, square), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_checkpoints_do_not_change_the_training():
    spec, shape = CNN
    pictures = data(shape, spec.out)
    given = start(spec, run())[None]
    often = CompiledEngine().train(spec, pictures, given, [run()])[0]
    once = CompiledEngine().train(spec, pictures, given, [run(steps=(6,))])[0]
    reduced = CompiledEngine().train(spec, pictures, given, [run(storage="bfloat16")])[0]
    assert once.params[-1].tobytes() == often.params[-1].tobytes()
    assert reduced.params.tobytes() == often.params.tobytes()
    assert (reduced.test_loss != often.test_loss).any()
    weights = nets.Weights.unflatten(torch.from_numpy(round_to(often.params, "bfloat16")), spec)
    items = run().test_items
    outputs = nets.forward(spec, weights, classifiers.pixels(pictures, spec, items, "cpu"))
    labels = torch.from_numpy(pictures.labels[items])
    for net, loss in enumerate(reduced.test_loss):
        expected = torch.nn.functional.cross_entropy(outputs[net].double(), labels)
        np.testing.assert_allclose(loss, float(expected), rtol=1e-5)


def test_compiled_words_are_those_of_philox():
    words = philox.words(5, 1, np.array([9]), np.array([2]), philox.DATA_ORDER, 30)[0]
    assert np.array_equal(random_words((5, 1, 9, 2), philox.DATA_ORDER, 30), words)
    assert np.array_equal(random_words((5, 1, 9, 2), philox.DATA_ORDER, 18, first=3), words[12:])


def test_every_epoch_sees_every_item_once():
    one = run(steps=(6,))
    seen = [items for items in classifiers.minibatches(one) if items is not None]
    assert [len(items) for items in seen] == [32, 32, 6] * 2
    epochs = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(70))
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("scheme", ["torch", "glorot", "he", "orthogonal", "normal"])
def test_initial_weights(scheme):
    spec = NetworkSpec.cnn([3, 40, 16], 10)
    flat = initial_weights(spec, scheme, (1, 0, 2, 0), 2.0, 0.3)
    named = nets.Weights.unflatten(torch.from_numpy(flat)[None], spec)
    weight = named.weights[1][0].flatten(1)  # 16 of 360
    deviation = {
        "torch": 2 / np.sqrt(3 * 360),
        "glorot": 2 * np.sqrt(2 / (360 + 144)),
        "he": 2 * np.sqrt(2 / 360),
        "orthogonal": 2 / np.sqrt(360),
        "normal": 0.6,
    }[scheme]
    np.testing.assert_allclose(float(weight.std()), deviation, rtol=0.05)
    assert bool(named.biases[0].any()) == (scheme == "torch")
    if scheme == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(16), atol=1e-5, rtol=0)
        tall = named.weights[0][0].flatten(1)  # 40 of 27
        torch.testing.assert_close(tall.T @ tall, 4 * torch.eye(27), atol=1e-5, rtol=0)


def test_misuse():
    with pytest.raises(ValueError, match="unknown engine 'jax'; known: auto, cpu, torch"):
        classifiers.choose("jax", "cpu")
    with pytest.raises(ValueError, match="does not run on device 'cuda'; use --engine torch"):
        classifiers.choose("cpu", "cuda")
    assert classifiers.choose("auto", "cuda") == "torch"
    spec = NetworkSpec.cnn([1, 4, 4, 4, 4], 2)
    with pytest.raises(ValueError, match="layer 2: a picture of 1 rows"):
        CompiledEngine().train(spec, data((8, 8, 1), 2), start(spec, run())[None], [run()])
