"""How fast INRs of shapes are fitted, by recipe `udf`: one network at a time, batched, compiled.

    python benchmarks/shapes.py [--networks 64] [--rounds 5]

Run it on an idle machine. 3-128-1 on 2,000 points a step, drawn anew from a pool of 100,000 of
each network's own, cross-entropy on logits. Timings are taken in turn within one round, several
rounds, and their medians are compared; microseconds per network and step on all cores. Pools and
distances, which all three need, are made before and timed beside.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from fitting import rounds
from torch import nn

import zoo
from zoo import kinds
from zoo.engines import Adam, Draws, available_cores
from zoo.engines.cpu import CpuEngine
from zoo.kinds.objectives import adam
from zoo.making.fitting import Rows
from zoo.making.plan import cpu_kind
from zoo.nets import initialise
from zoo.recipes import recipe

RECIPE = recipe("udf", "shapes")


def one_at_a_time(
    spec: zoo.NetworkSpec, params: np.ndarray, pool: np.ndarray, labels: np.ndarray, steps: int
) -> Callable[[], float]:
    """Plain torch.nn, torch.randint and torch.optim.Adam on a single network: seconds a step."""
    x, y = torch.from_numpy(pool[0]), torch.from_numpy(labels[0])
    start = zoo.Weights.unflatten(torch.from_numpy(params[:1]), spec)

    def run() -> float:
        module = zoo.to_module(spec, start)
        optimiser = torch.optim.Adam(module.parameters(), lr=RECIPE.lr)
        begun = time.perf_counter()
        for _ in range(steps):
            drawn = torch.randint(len(x), (RECIPE.batch_points,))
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(module(x[drawn]), y[drawn])
            loss.backward()
            optimiser.step()
        return (time.perf_counter() - begun) / steps

    run()
    return run


def batched(
    spec: zoo.NetworkSpec, params: np.ndarray, pool: np.ndarray, labels: np.ndarray, steps: int
) -> Callable[[], float]:
    """The same of all networks at once, autograd and foreach Adam: seconds a network and step."""
    x, y = torch.from_numpy(pool), torch.from_numpy(labels)
    start = zoo.Weights.unflatten(torch.from_numpy(params), spec)
    rows = torch.arange(len(x))[:, None]

    def run() -> float:
        free = [tensor.clone().requires_grad_() for tensor in start.tensors().values()]
        optimiser = torch.optim.Adam(free, lr=RECIPE.lr, foreach=True)
        begun = time.perf_counter()
        for _ in range(steps):
            drawn = torch.randint(x.shape[1], (len(x), RECIPE.batch_points))
            optimiser.zero_grad()
            out = zoo.forward(
                spec, zoo.Weights(tuple(free[0::2]), tuple(free[1::2])), x[rows, drawn]
            )
            loss = nn.functional.binary_cross_entropy_with_logits(
                out, y[rows, drawn], reduction="none"
            )
            loss.mean(dim=(1, 2)).sum().backward()
            optimiser.step()
        return (time.perf_counter() - begun) / steps / len(x)

    run()
    return run


def compiled(
    spec: zoo.NetworkSpec, params: np.ndarray, pool: np.ndarray, labels: np.ndarray, how: Adam
) -> Callable[[], float]:
    """The cpu engine: seconds per network and step."""
    cpu, index = CpuEngine(available_cores()), np.arange(len(params))
    draws = Draws(RECIPE.batch_points, 0, 0, index, index * 0)

    def run() -> float:
        begun = time.perf_counter()
        cpu.fit(spec, params, pool, labels, how, draws)
        return (time.perf_counter() - begun) / how.steps / len(params)

    run()
    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    source = kinds.open_source(RECIPE, "shapes", 0)
    goal = kinds.objective(RECIPE, source)
    index = np.arange(asked.networks)
    begun = time.perf_counter()
    pool, labels = goal.data(0, Rows(index, index * 0), goal.prepared(source.items(index)))
    pools = (time.perf_counter() - begun) / asked.networks
    params = initialise(goal.spec, RECIPE.init, 0, index, index * 0)
    how = adam(recipe("udf", "shapes", steps=100))
    given = goal.spec, params, pool, labels
    name = f"batched torch, {asked.networks}"
    found = rounds(
        {
            "one at a time, torch.nn": one_at_a_time(*given, 60),
            name: batched(*given, 8),
            f"cpu engine, {asked.networks}": compiled(*given, how),
        },
        asked.rounds,
    )
    print(f"{cpu_kind()}, {available_cores()} cores, torch {torch.__version__}\n")
    print("3-128-1, 2,000 points a step   us per network-step   cpu engine is faster by")
    best = found[f"cpu engine, {asked.networks}"]
    for row, seconds in found.items():
        print(f"{row:<30} {seconds * 1e6:>15.1f} {seconds / best:>23.1f}x")
    print(f"\npool and distances: {pools * 1e3:.0f} ms a network on one core")


if __name__ == "__main__":
    main()
