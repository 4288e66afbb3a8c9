"""How fast INRs are fitted: engines side by side, against the machine, as sizes grow.

    python benchmarks/fitting.py [--quick]

Run it on an idle machine. Competing timings are taken in turn within one round, several
rounds, and their medians are compared. One row fits the MNIST spec, 2-32-32-1 on 784
points, with torch alone, torch batched and compiled, and the cpu engine, in
microseconds per network and step on all cores; the rest shows how the cpu engine's cost
grows. GFLOP/s count the fit's matrix products alone: 6 * point * parameters of the
weights, less the input gradient of the first layer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import zoo
from zoo import nets
from zoo.engines import Adam, available_cores
from zoo.engines.cpu import CpuEngine
from zoo.making.plan import cpu_kind

SPEC = zoo.NetworkSpec.mlp([2, 32, 32, 1], output_offset=0.5, coord_order="xy")


def work(spec: zoo.NetworkSpec, networks: int, side: int) -> tuple[np.ndarray, ...]:
    """Initial networks, coordinates and smooth random pictures to fit."""
    index = np.arange(networks)
    params = nets.initialise(spec, "dws", 0, index, index * 0)
    inputs = nets.coordinates(spec, side, side)
    draw = np.random.default_rng(0)
    waves = draw.uniform(-4, 4, (networks, spec.inp, spec.out)).astype(np.float32)
    targets = 0.5 + 0.5 * np.sin(np.einsum("pc,nco->npo", inputs, waves))
    return params, inputs, targets.astype(np.float32)


def gflop(spec: zoo.NetworkSpec, points: int) -> float:
    """1e9 floating-point operations of the matrix products of one network and step."""
    products = [layer.inp * layer.out for layer in spec.layers]
    return 2 * points * (3 * sum(products) - products[0]) / 1e9


def one_at_a_time(steps: int) -> Callable[[], float]:
    """Plain torch.nn and torch.optim.Adam on a single network: seconds a step."""
    params, inputs, targets = work(SPEC, 1, 28)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets[0])

    def run() -> float:
        module = zoo.to_module(SPEC, zoo.Weights.unflatten(torch.from_numpy(params), SPEC))
        adam = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-4)
        begun = time.perf_counter()
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.mse_loss(module(x), y).backward()
            adam.step()
        return (time.perf_counter() - begun) / steps

    return run


def batched(networks: int, steps: int, compiled: bool) -> Callable[[], float]:
    """Batched torch, autograd and foreach Adam: seconds per network and step."""
    params, inputs, targets = work(SPEC, networks, 28)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
    start = zoo.Weights.unflatten(torch.from_numpy(params), SPEC)
    free = [t.clone().requires_grad_() for t in start.tensors().values()]
    adam = torch.optim.Adam(free, lr=1e-3, weight_decay=1e-4, foreach=True)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        weights = zoo.Weights(tensors[0::2], tensors[1::2])
        return (zoo.forward(SPEC, weights, x) - y).square().mean(dim=(1, 2)).sum()

    function = torch.compile(loss) if compiled else loss

    def run() -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            adam.zero_grad()
            function(*free).backward()
            adam.step()
        return (time.perf_counter() - begun) / steps / networks

    run()  # compiles, warms up
    return run


def engine(spec: zoo.NetworkSpec, networks: int, side: int, steps: int) -> Callable[[], float]:
    """The cpu engine on all cores: seconds per network and step."""
    params, inputs, targets = work(spec, networks, side)
    cpu = CpuEngine(available_cores())
    adam = Adam(lr=1e-3, steps=steps, weight_decay=1e-4)
    cpu.fit(spec, params[:2], inputs, targets[:2], Adam(lr=1e-3, steps=1))

    def run() -> float:
        begun = time.perf_counter()
        cpu.fit(spec, params, inputs, targets, adam)
        return (time.perf_counter() - begun) / steps / networks

    return run


def product() -> Callable[[], float]:
    """Seconds of one 2048^3 float32 product in torch on all cores."""
    a, b = torch.randn(2, 2048, 2048)

    def run() -> float:
        begun = time.perf_counter()
        for _ in range(5):
            a @ b
        return (time.perf_counter() - begun) / 5

    run()
    return run


def rounds(runs: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """The median of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            taken[name].append(run())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    quick = parser.parse_args().quick
    print(f"{cpu_kind()}, {available_cores()} cores, torch {torch.__version__}\n")

    found = rounds(
        {
            "one at a time, torch.nn": one_at_a_time(60),
            "batched torch, 64": batched(64, 8, compiled=False),
            "batched torch compiled, 64": batched(64, 15, compiled=True),
            "cpu engine, 64": engine(SPEC, 64, 28, 200),
            "2048^3": product(),
        },
        3 if quick else 7,
    )
    rate = 2 * 2048**3 / found.pop("2048^3") / 1e9
    best = found["cpu engine, 64"]
    print("2-32-32-1, 784 points        us per network-step   cpu engine is faster by")
    for name, seconds in found.items():
        print(f"{name:<28} {seconds * 1e6:>12.1f} {seconds / best:>22.1f}x")
    achieved = gflop(SPEC, 784) / best
    print(
        f"\ncpu engine {achieved:.0f} GFLOP/s in matrix products; torch's 2048^3 product "
        f"{rate:.0f}; ratio {achieved / rate:.2f}\n"
    )
    counts = (1, 16, 256) if quick else (1, 4, 16, 64, 256, 1024, 4096)
    grown: dict[str, tuple[zoo.NetworkSpec, int, int, int]] = {
        f"{count} networks": (SPEC, count, 28, max(2, 20_000 // count)) for count in counts
    }
    for width in (16, 32, 64, 128):
        spec = zoo.NetworkSpec.mlp([2, width, width, 1], output_offset=0.5, coord_order="xy")
        grown[f"width {width}"] = (spec, 64, 28, 60)
    for side in (14, 28, 56, 128):
        grown[f"{side * side} points"] = (SPEC, 64, side, max(5, 60 * 784 // side**2))
    seconds = rounds({name: engine(*size) for name, size in grown.items()}, 3)
    print("cpu engine          us per network-step      GFLOP/s   share of 2048^3")
    for name, (spec, _, side, _) in grown.items():
        achieved = gflop(spec, side * side) / seconds[name]
        print(f"{name:<20} {seconds[name] * 1e6:>14.1f} {achieved:>17.0f} {achieved / rate:>14.2f}")


if __name__ == "__main__":
    main()
