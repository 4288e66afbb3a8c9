"""How fast classifiers are trained: one at a time with torch against ours, in one run.

    python benchmarks/classifiers.py [--rounds 5] [--threads 2]

Run it on an idle machine. "One at a time" is what people write: torch.nn and torch.optim
(its default, multi-tensor Adam) with all pictures as float32 tensors in memory, minibatches
by indexing, torch using all threads. Ours is the cpu engine, one run per thread, order and
pictures of bytes included. Timings are taken in turn within a round; medians and the median
of the rounds' ratios are printed, in milliseconds per network and update.
"""

import argparse
import statistics
import threading
import time

import numpy as np
import torch
from torch import nn

import zoo
from zoo import nets
from zoo.engines import available_cores
from zoo.engines.classifiers import CompiledEngine, Data, Run
from zoo.kinds.training import initial_weights
from zoo.making.plan import cpu_kind

SPEC = zoo.NetworkSpec
# Name: network, picture, batch, updates of a timing.
CASES = {
    "CIFAR-10 pair, 3072-64-64-64-64-10": (
        SPEC.mlp([3072, 64, 64, 64, 64, 10], "relu"), (32, 32, 3), 128, 80,
    ),
    "trajectory, 784-128-128-128-10": (
        SPEC.mlp([784, 128, 128, 128, 10], "relu"), (28, 28, 1), 1024, 30,
    ),
    "nfn-mlp3, 784-128-128-10": (SPEC.mlp([784, 128, 128, 10], "relu"), (28, 28, 1), 128, 150),
    "small CNN, 1-16-16-16-10": (SPEC.cnn([1, 16, 16, 16], 10), (28, 28, 1), 128, 60),
    "small CNN, 3-16-16-16-10": (SPEC.cnn([3, 16, 16, 16], 10), (32, 32, 3), 128, 40),
}  # fmt: skip
ITEMS = 10_000


def one_at_a_time(spec: zoo.NetworkSpec, data: Data, batch: int, steps: int) -> float:
    """Seconds an update."""
    start = initial_weights(spec, "torch", (0, 0, 0, 0), 1.0, 1.0)
    module = nets.to_module(spec, zoo.Weights.unflatten(torch.from_numpy(start)[None], spec))
    x = torch.from_numpy(data.images).float() * data.scale + data.shift
    if spec.layers[0].kind == "conv":
        row, col, chan = data.shape
        x = x.reshape(-1, row, col, chan).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(data.labels)
    adam = torch.optim.Adam(module.parameters(), lr=1e-3)
    order = torch.randperm(len(x))
    begun = time.perf_counter()
    for step in range(steps):
        start_at = step * batch % (len(x) - batch)
        items = order[start_at : start_at + batch]
        adam.zero_grad()
        nn.functional.cross_entropy(module(x[items]), y[items]).backward()
        adam.step()
    return (time.perf_counter() - begun) / steps


def ours(spec: zoo.NetworkSpec, data: Data, batch: int, steps: int, threads: int) -> float:
    """Seconds per network and update."""
    items = np.arange(ITEMS)
    start = initial_weights(spec, "torch", (0, 0, 0, 0), 1.0, 1.0)[None]

    def work(index: int) -> None:
        run = Run((0, 0, index, 0), items, items[:1], items[:1], (steps,), batch)
        CompiledEngine().train(spec, data, start, [run])

    crew = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    begun = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return (time.perf_counter() - begun) / steps / threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{cpu_kind()}, {given.threads} threads, torch {torch.__version__}")
    print(f"{'network':<38}{'batch':>6}{'torch.nn':>10}{'ours':>8}{'ratio':>7}  [ms]")
    draw = np.random.default_rng(0)
    for name, (spec, shape, batch, steps) in CASES.items():
        images = draw.integers(0, 256, (ITEMS, int(np.prod(shape))), dtype=np.uint8)
        data = Data(images, draw.integers(0, 10, ITEMS), shape, 2 / 255, -1.0)
        pairs = []
        for number in range(given.rounds + 1):
            pair = (
                one_at_a_time(spec, data, batch, steps),
                ours(spec, data, batch, steps, given.threads),
            )
            if number:  # the first round compiles and warms up
                pairs.append(pair)
        theirs, mine = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:<38}{batch:>6}{theirs:>10.3f}{mine:>8.3f}{ratio:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
