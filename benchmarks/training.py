"""What the training loop adds to a model's own work.

    python benchmarks/training.py [--rounds 7] [--updates 30] [--batch 512]

Run it on an idle machine. "Bare" is forward, loss, backward and the optimiser's step on
one batch that lies in memory, written down plainly; "loop" is an update of
`processors.train` on a zoo of the MNIST architecture with random weights: order, gathering,
seeds, accelerate and records. The same model, batch, optimiser and no augmentation in
both. Timings are taken in turn within a round; medians are printed, in milliseconds an
update, and the median of the rounds' ratios.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

# Beside this file lies one with the name of the package.
sys.path[0] = str(Path(__file__).parents[1])

import zoo  # noqa: E402
from benchmarks.storage import random_zoo  # noqa: E402
from processors import tasks  # noqa: E402
from processors import train as training  # noqa: E402
from processors.config import Request  # noqa: E402
from processors.rows import Rows  # noqa: E402
from processors.settings import Settings  # noqa: E402
from zoo.making.plan import cpu_kind  # noqa: E402

# Batches as published.
CASES = {"dws": 512, "nfn-np": 32}


def bare(model: Any, optimiser: Any, weights: zoo.Weights, labels: Any, updates: int) -> float:
    """Seconds an update."""
    begun = time.perf_counter()
    for _ in range(updates):
        loss = cross_entropy(model(weights).float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return (time.perf_counter() - begun) / updates


def in_the_loop(name: str, task: tasks.Task, settings: dict[str, Any], stats: Any) -> float:
    """Seconds an update, by the run's own clock, which stands while it validates."""
    with tempfile.TemporaryDirectory() as folder:
        request = Request("classify", name, "random", settings, {"augment": "none"}, preset="paper")
        usual, why = training._usual(request, task, None)
        task.settle(usual)
        config = training._settled(request, task, usual, None, stats, Path(folder))
        accelerator = training._accelerator(config.settings, "cpu", None, config.out)
        job = training._Job(
            task, config, accelerator, None, None, training._warn, stats, print, why
        )
        run = training._Run(job, config.settings, config.out, name)
        run.loop()
        return run.seconds / run.step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=30, help="of a timing with the large batch")
    parser.add_argument("--batch", type=int, help="instead of the published 512 and 32")
    given = parser.parse_args()
    print(f"{cpu_kind()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'model':<8} {'batch':>5} {'bare ms':>9} {'loop ms':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "random"
        random_zoo(folder, 4096, parquet=False)
        networks = zoo.open_zoo(folder)
        rows = Rows(networks)
        # A validation of few networks: it is not what is measured.
        data = {"train": rows, "validation": Rows(networks, limit=16)}
        stats = rows.stats()
        for model_name, published in CASES.items():
            batch = given.batch or published
            updates = given.updates * max(1, 128 // batch)
            plain = Settings(epochs=None, steps=updates, batch=batch, evaluations=1)
            torch.manual_seed(0)
            task = tasks.make("classify", data, {"augment": "none"})
            usual = task.chosen(model_name)
            model = task.module(model_name, stats, task.fitting_sizes(model_name, usual.sizes))
            model.train()
            optimiser = torch.optim.AdamW(model.parameters(), amsgrad=True)
            weights, columns = rows.batch(torch.arange(batch))
            taken: list[tuple[float, float]] = []
            for round_number in range(given.rounds + 1):
                pair = (
                    bare(model, optimiser, weights, columns["label"], updates),
                    in_the_loop(model_name, task, asdict(plain), stats),
                )
                if round_number:  # the first warms up
                    taken.append(pair)
            first, second = (statistics.median(times) for times in zip(*taken, strict=True))
            ratio = statistics.median(loop / plain for plain, loop in taken)
            print(
                f"{model_name:<8} {batch:>5} {1e3 * first:>9.2f} {1e3 * second:>9.2f}"
                f" {ratio:>6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
