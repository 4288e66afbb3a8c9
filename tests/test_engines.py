"""Every engine fits each network as plain torch would fit it alone, to the byte the same."""

import math
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images
from torch import nn

from zoo import engines, kinds, nets, philox
from zoo.engines import CAP, TARGET, Adam, Draws, Engine, Fit
from zoo.engines.cpu import CpuEngine
from zoo.engines.reference import ReferenceEngine
from zoo.machine import Notice
from zoo.recipes import recipe
from zoo.sources import of_arrays
from zoo.spec import NetworkSpec

BOTH = pytest.mark.parametrize("name", ["cpu", "reference"])


def engine(name: str, threads: int = 1) -> Engine:
    return engines.load(name, threads=threads)


def exact() -> ReferenceEngine:
    """The yardstick: the reference engine in float64."""
    return ReferenceEngine(dtype=torch.float64)


def problem(
    spec: NetworkSpec, points: int, net: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Fresh networks, inputs in [-1, 1] and smooth targets around 1/2."""
    draw = np.random.default_rng(seed)
    params = nets.initialise(spec, "nfn", seed, np.arange(net), np.zeros(net, np.int64))
    inputs = draw.uniform(-1, 1, (points, spec.inp)).astype(np.float32)
    waves = draw.normal(0, 2, (net, spec.inp, spec.out))
    phase = draw.uniform(0, 6, (net, 1, spec.out))
    targets = 0.5 + 0.5 * np.sin(np.einsum("pi,nio->npo", inputs, waves) + phase)
    return params, inputs, targets.astype(np.float32)


class Siren(nn.Module):
    """A SIREN as anyone would write it, without anything of this package."""

    def __init__(self, widths: tuple[int, ...], omega: float, offset: float):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(inp, out) for inp, out in pairwise(widths))
        self.omega = omega
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.linears[:-1]:
            x = torch.sin(self.omega * linear(x))
        return self.linears[-1](x) + self.offset


def siren(spec: NetworkSpec, params: NDArray[np.float32], dtype: torch.dtype) -> Siren:
    module = Siren(spec.widths, spec.layers[0].omega, spec.output_offset).to(dtype)
    # A copy: the parameters become views of the vector.
    vector = torch.tensor(params, dtype=dtype)
    nn.utils.vector_to_parameters(vector, module.parameters())
    return module


def factor(adam: Adam, step: int) -> float:
    """What the rate of an update is multiplied by, as --schedule and --lr-warmup say it."""
    if step < adam.warmup:
        return (step + 1) / adam.warmup
    if adam.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - adam.warmup) / max(1, adam.steps - adam.warmup))) / 2


def fit_alone(
    spec: NetworkSpec, params, inputs, targets, adam: Adam, dtype: torch.dtype
) -> tuple[NDArray[np.float64], float, int, int]:
    """One network in a plain loop: its parameters, error, steps and stop."""
    module = siren(spec, params, dtype)
    x, y = torch.from_numpy(inputs).to(dtype), torch.from_numpy(targets).to(dtype)
    optimiser = torch.optim.Adam(
        module.parameters(),
        lr=adam.lr,
        betas=(adam.beta1, adam.beta2),
        eps=adam.eps,
        weight_decay=adam.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: factor(adam, step))
    taken, stop = 0, CAP
    while True:
        loss = nn.functional.mse_loss(module(x), y)
        if adam.target_mse is not None and loss.item() < adam.target_mse:
            stop = TARGET
            break
        if taken == adam.steps:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
        taken += 1
    flat = nn.utils.parameters_to_vector(module.parameters()).detach().double().numpy()
    return flat, loss.item(), taken, stop


def evaluate(spec: NetworkSpec, fit: Fit, inputs, targets) -> NDArray[np.float64]:
    """The error of the parameters that came back, in float64."""
    x = torch.from_numpy(inputs).double()
    with torch.no_grad():
        outputs = [siren(spec, row, torch.float64)(x).numpy() for row in fit.params]
    return np.square(np.stack(outputs) - targets).mean(axis=(1, 2))


def relative(spec: NetworkSpec, start, found, expected) -> dict[str, float]:
    """Per tensor, the worst network's norm of the difference over norm of the update."""
    worst, place = {}, 0
    for name, shape in spec.tensors.items():
        part = slice(place, place + int(np.prod(shape)))
        place = part.stop
        first, a, b = (v[:, part].astype(np.float64) for v in (start, found, expected))
        ratio = np.linalg.norm(a - b, axis=1) / np.linalg.norm(b - first, axis=1)
        worst[name] = float(ratio.max())
    return worst


# --- the reference engine against plain torch -----------------------------------------------

ALONE = [
    ("mnist", NetworkSpec.mlp([2, 32, 32, 1], output_offset=0.5), 49, Adam(1e-3, 20)),
    (
        "decay",
        NetworkSpec.mlp([3, 7, 5, 9, 2], omega=5.0),
        20,
        Adam(5e-3, 20, weight_decay=0.1, beta1=0.8, beta2=0.99, eps=1e-6),
    ),
    (
        "cosine",
        NetworkSpec.mlp([2, 16, 16, 1], output_offset=0.5),
        49,
        Adam(5e-3, 20, weight_decay=1e-4, schedule="cosine", warmup=5),
    ),
    (
        "warmup",
        NetworkSpec.mlp([1, 7, 2], omega=10.0),
        30,
        Adam(5e-3, 9, schedule="constant", warmup=12),
    ),
    ("stop", NetworkSpec.mlp([1, 16, 1], omega=10.0), 30, Adam(5e-3, 60, target_mse=0.05)),
    (
        "cosine-stop",
        NetworkSpec.mlp([1, 16, 1], omega=10.0),
        30,
        Adam(5e-3, 60, target_mse=0.05, schedule="cosine"),
    ),
]


@pytest.mark.parametrize("case", ALONE, ids=lambda case: case[0])
def test_many_at_once_equal_each_alone(case):
    _, spec, points, adam = case
    params, inputs, targets = problem(spec, points, net=5)
    found = exact().fit(spec, params, inputs, targets, adam)
    for net in range(5):
        flat, mse, steps, stop = fit_alone(
            spec, params[net], inputs, targets[net], adam, torch.float64
        )
        # The engine rounds its float64 result to float32 once, at the end.
        np.testing.assert_allclose(found.params[net], flat.astype(np.float32), rtol=3e-7, atol=1e-9)
        assert found.mse[net] == pytest.approx(mse, rel=1e-9)
        assert (found.steps[net], found.stop[net]) == (steps, stop)


@BOTH
@pytest.mark.parametrize("case", [0, 1, 2, 3], ids=["mnist", "decay", "cosine", "warmup"])
def test_float32_equals_each_alone_loosely(name, case):
    _, spec, points, adam = ALONE[case]
    params, inputs, targets = problem(spec, points, net=3)
    found = engine(name).fit(spec, params, inputs, targets, adam)
    alone = [
        fit_alone(spec, params[net], inputs, targets[net], adam, torch.float32) for net in range(3)
    ]
    ratios = relative(spec, params, found.params, np.stack([flat for flat, *_ in alone]))
    assert max(ratios.values()) < 1e-2, ratios
    np.testing.assert_allclose(found.mse, [mse for _, mse, *_ in alone], rtol=1e-3)


def test_the_reference_engine_fits_other_networks_too():
    spec = NetworkSpec.mlp([5, 6, 3], activation="tanh")
    params, inputs, targets = problem(spec, 15, net=2)
    found = exact().fit(spec, params, inputs, targets, Adam(1e-2, 5))
    for net in range(2):
        module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        vector = torch.from_numpy(params[net]).double()
        nn.utils.vector_to_parameters(vector, module.parameters())
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(5):
            optimiser.zero_grad()
            error = module(torch.from_numpy(inputs).double()) - torch.from_numpy(targets[net])
            error.square().mean().backward()
            optimiser.step()
        expected = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
        np.testing.assert_allclose(found.params[net], expected, rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("own", [False, True])
def test_encoded_networks_equal_each_alone(own):
    """Fourier features once for all, or of points that each step draws, as plain torch has them."""
    turns = np.random.default_rng(3).normal(0, 2, (5, 2)).astype(np.float32)
    spec = NetworkSpec.mlp([2, 6, 1], "relu", frequencies=turns)
    draw = np.random.default_rng(4)
    inputs = draw.uniform(-1, 1, (2, 31, 2) if own else (31, 2)).astype(np.float32)
    targets = draw.uniform(0, 1, (2, 31, 1)).astype(np.float32)
    params = nets.initialise(spec, "torch", 0, np.arange(2), np.zeros(2, np.int64))
    draws = Draws(9, 5, 0, np.arange(2), np.arange(2)) if own else None
    found = exact().fit(spec, params, inputs, targets, Adam(1e-2, 6), draws)
    for net in range(2):
        module = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 1)).double()
        vector = torch.from_numpy(params[net]).double()
        nn.utils.vector_to_parameters(vector, module.parameters())
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        phase = 2 * np.pi * (inputs[net] if own else inputs).astype(np.float64) @ turns.T
        features = torch.from_numpy(np.concatenate([np.sin(phase), np.cos(phase)], axis=1))
        for step in range(6):
            taken = slice(None) if draws is None else draws.at(step, 31)[net]
            optimiser.zero_grad()
            error = module(features[taken]) - torch.from_numpy(targets[net][taken])
            error.square().mean().backward()
            optimiser.step()
        expected = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
        np.testing.assert_allclose(found.params[net], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "sin"])
def test_bytes_of_encoded_networks_do_not_depend_on_their_neighbours(name):
    turns = np.random.default_rng(3).normal(0, 2, (5, 3))
    spec = NetworkSpec.mlp([3, 7, 1], name, frequencies=turns)
    draw = np.random.default_rng(4)
    inputs = draw.uniform(-1, 1, (70, 33, 3)).astype(np.float32)
    targets = draw.uniform(0, 1, (70, 33, 1)).astype(np.float32)
    params = nets.initialise(spec, "nfn", 0, np.arange(70), np.zeros(70, np.int64))
    for own in (inputs[0], inputs):
        whole = engine("reference").fit(spec, params, own, targets, Adam(1e-2, 4))
        for chosen in ([69], [3, 68, 0]):
            part = own if own.ndim == 2 else own[chosen]
            found = engine("reference").fit(
                spec, params[chosen], part, targets[chosen], Adam(1e-2, 4)
            )
            assert_same_bytes(found, whole, chosen)


def pools(
    widths: list[int], net: int, pool: int = 301, points: int = 50
) -> tuple[NetworkSpec, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], Draws]:
    """Fresh networks, each with a pool of points and targets in [0, 1] of its own."""
    spec = NetworkSpec.mlp(widths, omega=5.0, output_offset=0.25)
    draw = np.random.default_rng(len(widths))
    index = np.arange(net) * 7
    params = nets.initialise(spec, "nfn", 0, index, index * 0)
    inputs = draw.uniform(-1, 1, (net, pool, spec.inp)).astype(np.float32)
    targets = draw.uniform(0, 1, (net, pool, spec.out)).astype(np.float32)
    return spec, params, inputs, targets, Draws(points, 5, 0, index, index * 0 + 1)


def test_points_are_drawn_by_the_words_of_their_own_stream():
    draws = Draws(10, 3, 2, np.array([4, 9]), np.array([0, 1]))
    for step in (0, 1, 41):
        words = philox.words(3, 2, draws.index, draws.view, philox.BATCH, 12 * 42)
        expected = words[:, 12 * step : 12 * step + 10].astype(np.float64) * 77 // 2**32
        assert (draws.at(step, 77) == expected).all()
    assert (draws[np.array([1])].at(5, 77) == draws.at(5, 77)[1:]).all()


@pytest.mark.parametrize("loss", ["squared", "bce"])
def test_drawn_points_and_logits_equal_each_alone(loss):
    """A plain loop on the points of each step, with torch's own losses."""
    spec, params, inputs, targets, draws = pools([3, 9, 2], net=3)
    adam = Adam(1e-2, 8, loss=loss)
    found = exact().fit(spec, params, inputs, targets, adam, draws)
    measure = {
        "squared": nn.functional.mse_loss,
        "bce": nn.functional.binary_cross_entropy_with_logits,
    }
    for net in range(3):
        module = siren(spec, params[net], torch.float64)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for step in range(9):
            chosen = draws.at(step, 301)[net]
            x, y = (torch.from_numpy(v[net, chosen]).double() for v in (inputs, targets))
            value = measure[loss](module(x), y)
            if step < 8:
                optimiser.zero_grad()
                value.backward()
                optimiser.step()
        flat = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
        np.testing.assert_allclose(found.params[net], flat.astype(np.float32), rtol=3e-7, atol=1e-9)
        assert found.mse[net] == pytest.approx(value.item(), rel=1e-9)


# --- the cpu engine against the float64 reference -------------------------------------------

# widths, points, omega, weight decay, output offset
SPECS = [
    ([2, 32, 32, 1], 784, 30.0, 0.0, 0.5),
    ([2, 32, 32, 1], 784, 30.0, 1e-4, 0.5),
    ([2, 32, 32, 3], 1024, 30.0, 0.0, 0.0),
    ([1, 32, 32, 1], 2000, 30.0, 1e-4, 0.5),
    ([1, 5, 1], 7, 1.0, 0.0, 0.0),
    ([1, 1, 1], 1, 1.0, 0.0, 0.0),
    ([2, 17, 1], 100, 30.0, 0.1, 0.0),
    ([3, 33, 19, 2], 301, 1.0, 0.0, -0.5),
    ([4, 9, 31, 4], 113, 30.0, 1e-2, 0.0),
    ([4, 16, 16, 16, 1], 111, 10.0, 0.0, 0.5),
    ([2, 15, 1, 16, 3], 57, 1.0, 1e-3, 0.0),
    ([3, 8, 40, 7, 23, 2], 225, 5.0, 0.0, 0.25),
    ([2, 65, 48, 33, 17, 4], 500, 30.0, 0.0, 0.0),
    ([2, 128, 128, 1], 130, 30.0, 0.0, 0.5),
    ([1, 100, 3], 997, 30.0, 0.0, 0.0),
]


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("case", SPECS, ids=str)
def test_cpu_agrees_with_float64(case, steps):
    widths, points, omega, decay, offset = case
    spec = NetworkSpec.mlp(widths, omega=omega, output_offset=offset)
    params, inputs, targets = problem(spec, points, net=2, seed=len(widths))
    adam = Adam(1e-3, steps, weight_decay=decay)
    found = engine("cpu", threads=2).fit(spec, params, inputs, targets, adam)
    expected = exact().fit(spec, params, inputs, targets, adam)
    ratios = relative(spec, params, found.params, expected.params)
    assert max(ratios.values()) < 1e-3, ratios
    np.testing.assert_allclose(found.mse, expected.mse, rtol=1e-4)
    assert found.steps.tolist() == [steps] * 2


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("loss", ["squared", "bce"])
@pytest.mark.parametrize("widths", [[3, 128, 1], [3, 33, 19, 2], [2, 5, 1]], ids=str)
def test_cpu_agrees_on_drawn_points_and_logits(widths, loss, drawn):
    spec, params, inputs, targets, draws = pools(widths, net=2)
    given = draws if drawn else None
    adam = Adam(1e-3, 10, weight_decay=1e-3, loss=loss)
    found = engine("cpu", threads=2).fit(spec, params, inputs, targets, adam, given)
    expected = exact().fit(spec, params, inputs, targets, adam, given)
    ratios = relative(spec, params, found.params, expected.params)
    assert max(ratios.values()) < 1e-3, ratios
    np.testing.assert_allclose(found.mse, expected.mse, rtol=1e-4)
    other = exact().fit(spec, params, inputs, targets, adam, None if drawn else draws)
    assert max(relative(spec, params, found.params, other.params).values()) > 1e-3


@pytest.mark.parametrize("logit", [-300.0, -87.0, -20.0, -1e-3, 0.0, 0.5, 15.0, 89.0, 300.0])
def test_logits_of_any_size_have_their_loss(logit):
    """A network whose output is one bias, so that loss and gradient are those of the logit."""
    spec = NetworkSpec.mlp([1, 1, 1], omega=1.0)
    params = np.array([[0, 0, 0, logit]], np.float32)
    inputs, targets = np.zeros((3, 1), np.float32), np.array([[[0.0], [0.3], [1.0]]], np.float32)
    # Adam's first update is rate * gradient / (|gradient| + eps): with a large eps, a gradient.
    adam = Adam(1.0, 1, eps=100.0, loss="bce")
    for steps in (0, 1):
        found, expected = (
            each.fit(spec, params, inputs, targets, replace(adam, steps=steps))
            for each in (engine("cpu"), exact())
        )
        assert found.mse[0] == pytest.approx(expected.mse[0], rel=2e-6)
        moved, wanted = (each.params[0, -1] - logit for each in (found, expected))
        assert moved == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@BOTH
def test_a_logit_that_is_no_number_ends_the_fit(name):
    spec = NetworkSpec.mlp([1, 1, 1], omega=1.0)
    params = np.array([[0, 0, 0, np.nan], [0, 0, 0, np.inf]], np.float32)
    inputs, targets = np.zeros((3, 1), np.float32), np.full((2, 3, 1), 0.5, np.float32)
    found = engine(name).fit(spec, params, inputs, targets, Adam(1e-3, 5, loss="bce"))
    assert not np.isfinite(found.mse).any()
    assert found.steps.tolist() == [0, 0]


@BOTH
def test_bytes_of_drawn_points_depend_on_keys_alone(name):
    spec, params, inputs, targets, draws = pools([3, 16, 1], net=70)
    adam = Adam(1e-3, 6, loss="bce")
    whole = engine(name, threads=2).fit(spec, params, inputs, targets, adam, draws)
    rows = np.array([69, 3, 20])
    few = engine(name).fit(spec, params[rows], inputs[rows], targets[rows], adam, draws[rows])
    assert_same_bytes(few, whole, rows)
    other = replace(draws, view=draws.view + 1)[rows]
    fresh = engine(name).fit(spec, params[rows], inputs[rows], targets[rows], adam, other)
    assert (fresh.params != few.params).any(axis=1).all()


def test_draws_without_keys_or_words_are_refused():
    spec, params, inputs, targets, draws = pools([3, 4, 1], net=2)
    for name in ("cpu", "reference"):
        with pytest.raises(ValueError, match="expected keys of 2 networks, got 1 and 1"):
            engine(name).fit(spec, params, inputs, targets, Adam(1e-3, 1), draws[:1])
        with pytest.raises(ValueError, match="0 points at each of 1 steps cannot be drawn"):
            engine(name).fit(spec, params, inputs, targets, Adam(1e-3, 1), replace(draws, points=0))
        with pytest.raises(ValueError, match="inputs of each network's own"):
            engine(name).fit(spec, params, inputs[0], targets, Adam(1e-3, 1), draws)
    with pytest.raises(ValueError, match="expected one of squared, bce, got 'l1'"):
        engine("cpu").fit(spec, params, inputs, targets, Adam(1e-3, 1, loss="l1"))


def test_the_measure_sees_a_wrong_update():
    """The rejected case of the test above: no weight decay where there should be some."""
    spec = NetworkSpec.mlp([2, 17, 1], omega=1.0)
    params, inputs, targets = problem(spec, 100, net=2)
    found = engine("cpu").fit(spec, params, inputs, targets, Adam(1e-3, 10))
    expected = exact().fit(spec, params, inputs, targets, Adam(1e-3, 10, weight_decay=1e-2))
    assert max(relative(spec, params, found.params, expected.params).values()) > 1e-3


def test_the_measure_sees_a_wrong_rate():
    """The rejected case of the tests above: a schedule that one engine did not hear of."""
    spec = NetworkSpec.mlp([2, 17, 1], omega=1.0)
    params, inputs, targets = problem(spec, 100, net=2)
    expected = exact().fit(spec, params, inputs, targets, Adam(1e-3, 10, schedule="cosine"))
    for other in (Adam(1e-3, 10), Adam(1e-3, 10, schedule="cosine", warmup=1)):
        found = engine("cpu").fit(spec, params, inputs, targets, other)
        assert max(relative(spec, params, found.params, expected.params).values()) > 1e-3


@pytest.mark.parametrize("warmup", [0, 1, 7, 20, 500])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@BOTH
def test_rates_are_keyed_by_the_step_alone(name, schedule, warmup):
    """On a plateau that is flat but for a bias, Adam moves by exactly its rate."""
    spec = NetworkSpec.mlp([1, 1, 1], omega=1.0)
    params = np.array([[0, 0, 0, 0]], np.float32)
    inputs, targets = np.zeros((1, 1), np.float32), np.full((1, 1, 1), 1e6, np.float32)
    adam = Adam(0.5, 20, beta1=0.0, beta2=0.0, schedule=schedule, warmup=warmup)
    moved = engine(name).fit(spec, params, inputs, targets, adam).params[0, -1]
    assert moved == pytest.approx(sum(0.5 * factor(adam, step) for step in range(20)), rel=1e-5)
    assert adam.rates(np.arange(20)) == pytest.approx(
        [0.5 * factor(adam, step) for step in range(20)], rel=1e-12
    )


def test_final_quality_of_whole_fits_agrees():
    """A full fit is chaotic in its digits, not in its quality: 24 pictures of digits."""
    chosen = recipe("dws", "digits", steps=300, target_psnr_db=None)
    digits = kinds.open_source(chosen, "digits", seed=0)
    goal = kinds.objective(chosen, digits)
    assert mean_psnr_difference_db(goal, digits, np.arange(24)) < 0.05


@pytest.mark.real
def test_final_quality_on_mnist_agrees():
    chosen = recipe("dws", "mnist", steps=300)
    mnist = kinds.open_source(chosen, "mnist", seed=0)
    goal = kinds.objective(chosen, mnist)
    assert mean_psnr_difference_db(goal, mnist, np.arange(32)) < 0.05


def qualities_db(name: str, source: str, items: NDArray[np.int64], raw=None, **fields):
    """What a recipe reaches on pictures, each in dB."""
    chosen = recipe(name, source, **fields)
    if raw is None:
        pictures = kinds.open_source(chosen, source, seed=0)
        goal, raw = kinds.objective(chosen, pictures), pictures.items(items)
    else:
        goal = kinds.objective(chosen, of_arrays(raw))
    params = nets.initialise(goal.spec, chosen.init, 0, items, items * 0)
    fit = engine("cpu", threads=2).fit(goal.spec, params, goal.inputs, goal.targets(raw), goal.adam)
    assert fit.steps.max() <= chosen.steps
    assert np.isfinite(fit.mse).all()
    return goal.psnr_db(fit.mse)


def assert_as_good(found: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    assert found.mean() >= other.mean(), (found.mean(), other.mean())
    assert np.quantile(found, 0.1) >= np.quantile(other, 0.1)


def test_fast_is_as_good_as_the_papers_recipes_in_a_quarter_of_their_steps():
    """On photographs that come with scikit-learn, cut to 32 x 32, RGB and grey."""
    photographs = load_sample_images().images
    tiles = np.stack(
        [cv2.resize(image[y : y + 96, x : x + 96], (32, 32), interpolation=cv2.INTER_AREA)
         for image in photographs for y in (0, 256) for x in (0, 250, 500)]
    )  # fmt: skip
    items = np.arange(len(tiles))
    for raw, widths in (
        (tiles, (16, 32)),
        (tiles.mean(axis=3, keepdims=True).astype(np.uint8), (32,)),
    ):
        for hidden in widths:
            found = qualities_db("fast", "own", items, raw, hidden=hidden)
            assert recipe("fast", "own").steps * 4 <= recipe("dws", "own").steps
            assert_as_good(found, qualities_db("dws", "own", items, raw, hidden=hidden))


@pytest.mark.real
def test_fast_on_mnist_and_fashion_mnist():
    """The means of `dws` in a quarter of its steps: 25.7 dB in 375, 36.4 dB in 2,750."""
    items = np.arange(24)
    found = qualities_db("fast", "mnist", items)
    assert_as_good(found, qualities_db("dws", "mnist", items))
    assert found.mean() > 25.7
    assert qualities_db("fast", "fashion-mnist", items).mean() > 36.4


@pytest.mark.parametrize(("layers", "hidden"), [(2, 128), (3, 128), (6, 32), (5, 128)])
def test_fast_learns_at_any_depth_and_width(layers, hidden):
    """Twice its rate leaves deep networks at the mean grey, 10 to 15 dB."""
    found = qualities_db("fast", "digits", np.arange(4), layers=layers, hidden=hidden)
    assert found.min() > 20


def mean_psnr_difference_db(goal, source, items: NDArray[np.int64]) -> float:
    targets = goal.targets(source.items(items))
    params = nets.initialise(goal.spec, goal.recipe.init, 0, items, items * 0)
    means = []
    for name in ("cpu", "reference"):
        runner = engine(name)
        runner.batch = len(items)  # the reference engine then has nothing to pad
        fit = runner.fit(goal.spec, params, goal.inputs, targets, goal.adam)
        assert np.isfinite(fit.mse).all()
        means.append(goal.psnr_db(fit.mse).mean())
    print(f"mean PSNR in dB: {means}")
    assert means[0] > 15
    return abs(means[0] - means[1])


# --- when a network ends ----------------------------------------------------------------------

STOPPING = NetworkSpec.mlp([1, 16, 16, 1], omega=10.0)


@BOTH
def test_a_network_stops_at_the_first_step_below_its_target(name):
    params, inputs, targets = problem(STOPPING, 40, net=6)
    adam = Adam(2e-3, 20, target_mse=0.02)
    found = engine(name).fit(STOPPING, params, inputs, targets, adam)
    assert set(found.stop) == {CAP, TARGET}  # the case holds both kinds
    assert len(set(found.steps)) > 2
    assert ((found.mse < 0.02) == (found.stop == TARGET)).all()
    assert (found.steps[found.stop == CAP] == 20).all()
    np.testing.assert_allclose(found.mse, evaluate(STOPPING, found, inputs, targets), rtol=1e-4)
    for net in range(6):
        # Without a target, the same number of steps ends at the same bytes ...
        part = (params[net : net + 1], inputs, targets[net : net + 1])
        steps = int(found.steps[net])
        free = engine(name).fit(STOPPING, *part, Adam(2e-3, steps))
        assert np.array_equal(free.params[0], found.params[net])
        assert free.mse[0] == found.mse[net]
        # ... and one step earlier it was not there yet.
        if steps:
            earlier = engine(name).fit(STOPPING, *part, Adam(2e-3, steps - 1))
            assert earlier.mse[0] >= 0.02


def test_engines_stop_alike():
    params, inputs, targets = problem(STOPPING, 40, net=6)
    adam = Adam(2e-3, 20, target_mse=0.02)
    fits = [
        one.fit(STOPPING, params, inputs, targets, adam)
        for one in (engine("cpu"), engine("reference"), exact())
    ]
    for fit in fits[:2]:
        assert fit.steps.tolist() == fits[2].steps.tolist()
        assert fit.stop.tolist() == fits[2].stop.tolist()


@BOTH
def test_a_target_met_by_the_last_step_counts(name):
    params, inputs, targets = problem(STOPPING, 40, net=1)
    before, after = (
        engine(name).fit(STOPPING, params, inputs, targets, Adam(2e-3, steps)).mse[0]
        for steps in (4, 5)
    )
    assert after < before
    adam = Adam(2e-3, 5, target_mse=float(before + after) / 2)
    found = engine(name).fit(STOPPING, params, inputs, targets, adam)
    assert (found.steps[0], found.stop[0], found.mse[0]) == (5, TARGET, after)


@BOTH
@pytest.mark.parametrize("adam", [Adam(1e-3, 0), Adam(1e-3, 9, target_mse=1e9)], ids=["0", "met"])
def test_no_step_changes_nothing(name, adam):
    params, inputs, targets = problem(STOPPING, 40, net=3)
    given = params.copy()
    found = engine(name).fit(STOPPING, params, inputs, targets, adam)
    assert np.array_equal(found.params, given)
    assert np.array_equal(params, given)
    assert found.steps.tolist() == [0, 0, 0]
    assert found.stop.tolist() == [CAP if adam.target_mse is None else TARGET] * 3
    np.testing.assert_allclose(found.mse, evaluate(STOPPING, found, inputs, targets), rtol=1e-5)


@BOTH
def test_what_comes_back_has_the_contracts_types(name):
    params, inputs, targets = problem(STOPPING, 40, net=2)
    given = [array.copy() for array in (params, inputs, targets)]
    found = engine(name).fit(STOPPING, params, inputs, targets, Adam(1e-3, 3))
    assert [column.dtype for column in found] == [np.float32, np.float64, np.int64, np.int64]
    assert [column.shape for column in found] == [params.shape, (2,), (2,), (2,)]
    assert all(column.flags.writeable for column in found)
    for array, before in zip((params, inputs, targets), given, strict=True):
        assert np.array_equal(array, before)  # engines leave their arguments alone


@BOTH
def test_a_rate_that_explodes_ends_non_finite(name):
    params, inputs, targets = problem(STOPPING, 40, net=3)
    found = engine(name).fit(STOPPING, params, inputs, targets, Adam(1e30, 50))
    assert not np.isfinite(found.mse).any()
    assert (found.steps < 50).all()
    assert (found.stop == CAP).all()


@BOTH
def test_one_that_diverges_does_not_touch_its_neighbours(name):
    params, inputs, targets = problem(STOPPING, 40, net=3)
    alone = engine(name).fit(STOPPING, params, inputs, targets, Adam(1e-3, 20))
    params[1, -1] = np.inf
    found = engine(name).fit(STOPPING, params, inputs, targets, Adam(1e-3, 20))
    assert not np.isfinite(found.mse[1])
    assert found.steps.tolist() == [20, 0, 20]
    for net in (0, 2):
        assert np.array_equal(found.params[net], alone.params[net])
        assert found.mse[net] == alone.mse[net]


# --- a network's bytes are its own ------------------------------------------------------------

# Sizes that fill no vector and no tile.
OWN = NetworkSpec.mlp([2, 13, 11, 3], output_offset=0.5)
OWN_ADAM = Adam(4e-3, 12, weight_decay=1e-3, target_mse=0.06, schedule="cosine", warmup=2)


def assert_same_bytes(found: Fit, expected: Fit, chosen) -> None:
    for column, whole in zip(found, expected, strict=True):
        assert column.tobytes() == np.ascontiguousarray(whole[chosen]).tobytes()


@pytest.fixture(scope="module")
def own():
    return problem(OWN, 59, net=65)


@pytest.fixture(scope="module", params=["cpu", "reference"])
def whole(request, own) -> tuple[str, Fit]:
    params, inputs, targets = own
    found = engine(request.param).fit(OWN, params, inputs, targets, OWN_ADAM)
    assert set(found.stop) == {CAP, TARGET}  # some stop while their neighbours go on
    return request.param, found


@pytest.mark.parametrize("count", [1, 3, 64])
def test_bytes_do_not_depend_on_the_number_of_networks(own, whole, count):
    params, inputs, targets = own
    name, expected = whole
    for chosen in (slice(count), slice(65 - count, 65)):
        found = engine(name).fit(OWN, params[chosen], inputs, targets[chosen], OWN_ADAM)
        assert_same_bytes(found, expected, chosen)


def test_bytes_do_not_depend_on_order_and_neighbours(own, whole):
    params, inputs, targets = own
    name, expected = whole
    order = np.random.default_rng(1).permutation(65)
    found = engine(name).fit(OWN, params[order], inputs, targets[order], OWN_ADAM)
    assert_same_bytes(found, expected, order)


def test_inputs_may_be_each_networks_own(own, whole):
    """The same as each alone on its inputs, to the byte; shared ones handed out are the same."""
    params, inputs, targets = own
    name, expected = whole
    handed = np.repeat(inputs[None], 65, axis=0)
    assert_same_bytes(engine(name).fit(OWN, params, handed, targets, OWN_ADAM), expected, ...)
    drawn = np.random.default_rng(2).uniform(-1, 1, handed.shape).astype(np.float32)
    found = engine(name, 2).fit(OWN, params, drawn, targets, OWN_ADAM)
    assert not np.array_equal(found.params[7], expected.params[7])
    for net in (0, 7, 64):
        one = slice(net, net + 1)
        alone = engine(name).fit(OWN, params[one], drawn[net], targets[one], OWN_ADAM)
        assert_same_bytes(alone, found, one)


@pytest.mark.parametrize("threads", [2, 3])
def test_bytes_do_not_depend_on_threads(own, whole, threads):
    params, inputs, targets = own
    name, expected = whole
    found = engine(name, threads).fit(OWN, params, inputs, targets, OWN_ADAM)
    assert_same_bytes(found, expected, slice(None))


def test_bytes_at_the_size_of_mnist():
    """Where torch's own threading and blocking set in."""
    spec = NetworkSpec.mlp([2, 32, 32, 1], output_offset=0.5)
    params, inputs, targets = problem(spec, 784, net=4)
    for name in ("cpu", "reference"):
        expected = engine(name).fit(spec, params, inputs, targets, Adam(1e-3, 4))
        for threads, chosen in ((2, [2]), (2, [3, 1]), (1, [1, 0])):
            found = engine(name, threads).fit(
                spec, params[chosen], inputs, targets[chosen], Adam(1e-3, 4)
            )
            assert_same_bytes(found, expected, chosen)


# --- choosing and refusing --------------------------------------------------------------------


def test_auto_takes_the_cpu_engine_where_it_can():
    assert engines.choose("auto", "cpu", OWN) == "cpu"
    assert engines.choose("auto", "mps", OWN) == "reference"
    for other in (
        NetworkSpec.mlp([5, 8, 1]),
        NetworkSpec.mlp([2, 8, 5]),
        NetworkSpec.mlp([2, 8, 1], activation="relu"),
        NetworkSpec.mlp([2, 1]),
        NetworkSpec.cnn([1, 4], 2),
        # Four numbers enter its first layer, which the engine would take for coordinates.
        NetworkSpec.mlp([2, 8, 1], frequencies=[[1, 0], [0, 1]]),
    ):
        with pytest.warns(Notice, match="^engine 'cpu' fits .* only: fitted by 'reference'"):
            assert engines.choose("auto", "cpu", other) == "reference"
        with pytest.raises(ValueError, match="1-4 plain inputs and outputs only; use --engine ref"):
            engines.choose("cpu", "cpu", other)
    assert engines.choose("reference", "cpu", OWN) == "reference"


def test_engines_that_are_not_there():
    with pytest.raises(ValueError, match="unknown engine 'gpu'; known: auto, cpu, reference"):
        engines.choose("gpu", "cpu", OWN)
    with pytest.raises(ValueError, match="unknown engine 'auto'; known: cpu, reference"):
        engines.load("auto")
    with pytest.raises(ValueError, match="'cpu' does not run on device 'cuda'; use --engine ref"):
        engines.choose("cpu", "cuda", OWN)
    with pytest.raises(ValueError, match=r"device 'nonsense' cannot be used: .*nonsense"):
        engines.load("reference", "nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device 'cuda' cannot be used: [^\n]+$"):
            engines.load("reference", "cuda")


def test_engines_take_all_cores_unless_told_otherwise():
    assert CpuEngine(3).threads == 3
    assert engines.load("cpu").threads == engines.available_cores()
    assert engines.available_cores() >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, x, y: (p[:, 1:], x, y), r"params: expected shape \(2, 229\), got \(2, 228\)"),
        (lambda p, x, y: (p, x[:, :1], y), r"inputs: expected shape \(20, 2\), got \(20, 1\)"),
        (lambda p, x, y: (p, x, y[:, 1:]), r"targets: expected shape \(2, 20, 3\), got \(2, 19"),
        (lambda p, x, y: (p, x[:0], y[:, :0]), "got 0 points"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    params, inputs, targets = problem(OWN, 20, net=2)
    with pytest.raises(ValueError, match=message):
        engine("cpu").fit(OWN, *change(params, inputs, targets), Adam(1e-3, 1))
