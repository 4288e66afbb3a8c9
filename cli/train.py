"""Commands that train and measure models: `train TASK`, `eval`."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cli import progress
from cli.listing import TASKS
from cli.options import dataclass_options, given, threads
from processors.options import OPTIONS
from processors.settings import Settings

TASK_HELP = {name: line for name, (_, line) in TASKS.items()}


def _common() -> list[Callable[..., Any]]:
    return [
        click.option("--model", required=True, help="Name of the model; see the README."),
        click.option(
            "--out", type=click.Path(path_type=Path),
            help="Folder of the run.  [default: runs/TASK-MODEL-ZOO-SEED]",
        ),
        click.option("--seed", default=0, show_default=True, help="Of every random number."),
        click.option(
            "--set", "sizes", multiple=True, metavar="NAME=VALUE",
            help="An argument of the model's class, such as chan=16 or blocks=b2b; repeatable.",
        ),
        click.option(
            "--lr-grid", help="Rates with commas; the best after a tenth of the run is taken."
        ),
        click.option(
            "--split-limit",
            help="Networks of each split at most: a number, or train=100,test=50.",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."
        ),
        click.option(
            "--log-with", help="Tracker beside metrics.jsonl: tensorboard, wandb, ..."
        ),
        threads,
        click.option("--overwrite", is_flag=True, help="Throw away the run in --out first."),
    ]  # fmt: skip


def parse_sizes(words: Sequence[str]) -> dict[str, Any]:
    """Arguments by name; values are JSON, or text where they are none.

    >>> parse_sizes(["chan=16", "channels=[8,8]", "blocks=b2b", "norm=false"])
    {'chan': 16, 'channels': [8, 8], 'blocks': 'b2b', 'norm': False}

    Raises:
        ValueError: for a word without "=".
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set takes NAME=VALUE, such as chan=16, got {word!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def parse_grid(text: str | None) -> list[float]:
    """Learning rates.

    >>> parse_grid("5e-3,1e-3")
    [0.005, 0.001]

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--lr-grid takes learning rates such as 5e-3,1e-3, got {text!r}"
        ) from None


@contextmanager
def training(
    what: str, how_to_go_on: Callable[[], str]
) -> Iterator[tuple[progress.Meter, Callable[[Any], None]]]:
    """A meter, and what shows the progress of trainings on it: loss, metric, what is left."""
    with progress.shown(what, "step", how_to_go_on) as meter:

        def report(state: Any) -> None:
            words = []
            if state.loss is not None:
                words.append(f"loss {state.loss:.4g}")
            if state.best is not None:
                words.append(f"best {state.metric} {state.best:.4g}")
            meter.update(
                state.step, state.steps, label=state.label, unit=state.unit, words=", ".join(words)
            )

        yield meter, report


def print_summary(folder: Path, summary: dict[str, Any]) -> None:
    """The lines that stand for a finished run."""
    for split in ("validation", "test"):
        found = "  ".join(f"{name} {value:.4g}" for name, value in summary[split].items())
        click.echo(f"{split:<10}  {found}")
    click.echo(
        f"{folder}: {summary['model']} for {summary['task']}, {summary['networks']:,} networks, "
        f"{summary['epochs']:g} epochs, {summary['minutes']:.1f} min"
    )


@click.group()
def train() -> None:
    """Train a model for a TASK on a zoo, a folder or one on the Hub.

    Settings that are not given are the papers'. Run the same command again after a stop
    of any kind: it goes on where it was. Several GPUs: accelerate launch -m cli.main
    train ...
    """


def _make(task: str) -> click.Command:
    def command(zoo: str, model: str, out: Path | None, seed: int, sizes: tuple[str, ...],
                lr_grid: str | None, split_limit: str | None, device: str,
                log_with: str | None, overwrite: bool, **values: Any) -> None:  # fmt: skip
        grid, arguments = parse_grid(lr_grid), parse_sizes(sizes)
        from processors import runs
        from processors.train import train as start

        name = f"{task}-{model}-{Path(zoo).name}-{seed}"
        folder = out or Path("runs") / name

        before = runs.stamp(folder)

        def how_to_go_on() -> str:
            return runs.how_to_go_on(folder, before, overwrite)

        with training(f"{folder}", how_to_go_on) as (_, report):
            summary = start(
                task, model, zoo, folder,
                settings=given(values, Settings),
                options=given(values, OPTIONS[task]),
                sizes=arguments, seed=seed, split_limit=split_limit, lr_grid=grid,
                device=device, log_with=log_with, overwrite=overwrite, progress=report,
            )  # fmt: skip
        # Of several processes one speaks.
        if os.environ.get("RANK", "0") == "0":
            print_summary(folder, summary)

    command.__doc__ = (
        f"{TASK_HELP[task]}\n\nZOO is a folder, or the USER/NAME of a zoo on the Hub. Settings "
        "that are not given are those of the model's paper."
    )
    decorators: list[Callable[..., Any]] = [
        click.argument("zoo"),
        *_common(),
        *dataclass_options(OPTIONS[task], defaults=True),
        *dataclass_options(Settings),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return click.command(task, short_help=TASK_HELP[task])(command)


for _task in OPTIONS:
    train.add_command(_make(_task))


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("zoo")
@click.option("--split", default="test", show_default=True, help="Which networks.")
@click.option("--split-limit", help="Networks at most, the first.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@threads
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE",
    help="An option of the task, over the run's, such as rescale=2; repeatable.",
)  # fmt: skip
@click.option(
    "--keep", type=click.Path(path_type=Path),
    help="Also keep the result in this JSON file: `wszoo report` gives it a row.",
)  # fmt: skip
def eval_(
    run: Path,
    zoo: str,
    split: str,
    split_limit: str | None,
    device: str,
    options: tuple[str, ...],
    keep: Path | None,
) -> None:
    """Measure the best model of a finished RUN on a split of ZOO."""
    chosen = parse_sizes(options)
    from processors.train import evaluate

    metrics = evaluate(
        run, zoo, split, split_limit=split_limit, options=chosen, device=device, keep=keep
    )
    for name, value in metrics.items():
        click.echo(f"{name} {value:.6g}")
