"""What recipe `fast` reaches over width, steps and pixels, beside the papers' recipes.

    python benchmarks/recipes.py [--quick] [--source mnist] [--figure docs/recipes.png]

The table, in Markdown, is of parts of the two photographs that come with scikit-learn,
without a stop at a target. The figure is of a source: quality over the time of a network, of
`fast` and of the papers' recipes, with the cpu engine and, for the first two, with batched torch.
Times are processor time of one thread, which other work on the machine hardly changes, and
half of it where two cores are named. Of batched torch only the time is taken: its quality is
that of the cpu engine after as many steps.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from fitting import batched
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

import zoo
from zoo import engines, kinds, nets
from zoo.kinds import Objective
from zoo.making.plan import cpu_kind
from zoo.sources import of_arrays

PIXELS = ((28, 1), (32, 3), (64, 3), (128, 3))
WIDTHS = (16, 32, 64, 128)
STEPS = (100, 375, 1500)
# Steps of the figure's points, by recipe; of a falling rate each point is a fit of its own.
POINTS = {
    "fast": (20, 30, 40, 60, 80, 120, 200, 375),
    "dws": (47, 94, 188, 375, 750, 1500),
    "dws-paper": (62, 125, 250, 500, 1000),
    "nfn": (156, 312, 625, 1250, 2500, 5000),
}


def photographs(side: int, chan: int, count: int) -> NDArray[np.uint8]:
    """`item row column chan`: parts of both photographs, of as many of their pixels as asked."""
    whole = load_sample_images().images
    size = min(427, 3 * side)
    corners = np.linspace(0, 1, count // 2 + 1)
    found = []
    for number in range(count):
        image, at = whole[number % 2], corners[number // 2]
        y, x = round(at * (427 - size)), round((1 - at) * (640 - size))
        part = cv2.resize(image[y : y + size, x : x + size], (side, side), None, 0, 0, 3)
        found.append(part if chan == 3 else part.mean(axis=2, keepdims=True).astype(np.uint8))
    return np.stack(found)


def fitted(goal: Objective, raw: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    """Quality of each network in dB, and processor time of one."""
    index = np.arange(len(raw))
    params = nets.initialise(goal.spec, goal.recipe.init, 0, index, index * 0)
    targets = goal.targets(raw)
    engine = engines.load("cpu", threads=1)
    begun = time.process_time()
    fit = engine.fit(goal.spec, params, goal.inputs, targets, goal.adam)
    return goal.psnr_db(fit.mse), (time.process_time() - begun) / len(raw)


def rows(count: int, quick: bool) -> Iterator[str]:
    """Lines of the table."""
    steps = STEPS[:1] if quick else STEPS
    heads = [f"{each:,} steps" for each in steps]
    yield "| pixels | width | numbers | " + " | ".join(heads) + " | s a network |"
    yield "|---" * (4 + len(steps)) + "|"
    for side, chan in PIXELS[:2] if quick else PIXELS:
        raw = photographs(side, chan, max(2, min(count, 2**14 // side**2)))
        for hidden in WIDTHS[:2] if quick else WIDTHS:
            cells, seconds = [], 0.0
            for each in steps:
                chosen = zoo.recipe("fast", "own", hidden=hidden, steps=each, target_psnr_db=None)
                goal = kinds.objective(chosen, of_arrays(raw))
                found, spent = fitted(goal, raw)
                cells.append(f"{found.mean():.1f}")
                seconds = spent / 2 if each == min(375, steps[-1]) else seconds
            what = f"{side} x {side} {'grey' if chan == 1 else 'RGB'}"
            cells = [what, f"{hidden}", f"{goal.spec.param_count:,}", *cells, f"{seconds:.3f}"]
            yield f"| {' | '.join(cells)} |"


def draw(source: str, count: int, quick: bool, path: Path) -> None:
    """The figure; its points go to stdout."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    torch.set_num_threads(1)
    # Its own times are of the wall clock.
    networks, updates = (8, 2) if quick else (64, 10)
    run = batched(networks, updates, compiled=False)
    begun = time.process_time()
    run()
    step = (time.process_time() - begun) / updates / networks
    print(f"batched torch {step * 1e6:.0f} us of processor time a network and step", flush=True)
    for number, (name, points) in enumerate(POINTS.items()):
        seconds, decibels = [], []
        for steps in points[:2] if quick else points:
            chosen = zoo.recipe(name, source, steps=steps, target_psnr_db=None)
            pictures = kinds.open_source(chosen, source, seed=0)
            goal = kinds.objective(chosen, pictures)
            found, spent = fitted(goal, pictures.items(np.arange(count)))
            seconds.append(spent)
            decibels.append(found.mean())
            print(
                f"{name:<10} {steps:>5} steps {spent * 1e3:8.1f} ms {found.mean():6.2f} dB",
                flush=True,
            )
        axes.plot(seconds, decibels, "o-", color=f"C{number}", label=name, markersize=3)
        if number < 2:
            slow = [step * steps for steps in points[: len(seconds)]]
            label = f"{name}, batched torch"
            axes.plot(slow, decibels, "x--", color=f"C{number}", label=label, markersize=4)
    axes.set(xscale="log", xlabel="processor time of a network [s]", ylabel="mean PSNR [dB]")
    axes.set_ylim(10, 60)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one point of each, in seconds")
    parser.add_argument("--source", default="mnist", help="of the figure")
    parser.add_argument("--networks", type=int, default=8, help="of a line of the table at most")
    parser.add_argument("--figure", type=Path, help="where it is written; none by default")
    given = parser.parse_args()
    print(f"{cpu_kind()}, one thread\n", flush=True)
    count = 2 if given.quick else given.networks
    photographs_goal = kinds.objective(
        zoo.recipe("fast", "own", steps=1), of_arrays(photographs(28, 1, 2))
    )
    fitted(photographs_goal, photographs(28, 1, 2))  # compiles
    for line in rows(count, given.quick):
        print(line, flush=True)
    if given.figure:
        print(flush=True)
        draw(given.source, count if given.quick else 24, given.quick, given.figure)


if __name__ == "__main__":
    main()
