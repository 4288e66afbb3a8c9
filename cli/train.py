"""Commands that train and measure models: `train TASK`, `eval`."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cli import progress
from cli.listing import MODELS, TASKS
from cli.options import (
    FilePath,
    FolderPath,
    Parsed,
    data_root,
    dataclass_options,
    given,
    number,
    path,
    threads,
)
from cli.output import say
from processors.config import SPLITS, Request, parse_limit
from processors.options import OPTIONS, symmetries
from processors.own import is_own
from processors.presets import PAPER_NETWORKS, PRESETS, READERS, READERS_NETWORKS, SMALL_TASKS
from processors.records import how_to_go_on, stamp
from processors.settings import DEVICES, SEEDS, Settings
from processors.sizes import check_sizes
from zoo.fields import about

TASK_HELP = {name: line for name, (_, line) in TASKS.items()}


def parse_sizes(words: Sequence[str]) -> dict[str, Any]:
    """Arguments by name; values are JSON, or text where they are none.

    >>> parse_sizes(["chan=16", "channels=[8,8]", "blocks=b2b", "norm=false"])
    {'chan': 16, 'channels': [8, 8], 'blocks': 'b2b', 'norm': False}

    Raises:
        ValueError: for a word without "=", or a name that stands twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"takes NAME=VALUE, such as chan=16, got {word!r}")
        if name in found:
            raise ValueError(f"{name} stands there twice")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def parse_grid(text: str) -> list[float]:
    """Learning rates.

    >>> parse_grid("5e-3,1e-3")
    [0.005, 0.001]

    Raises:
        ValueError: for anything else.
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"takes learning rates such as 5e-3,1e-3, got {text!r}") from None
    lr = about(Settings)["lr"]
    if wrong := [problem for rate in rates if (problem := lr.problem(rate, float))]:
        raise ValueError(f"{wrong[0]} in {text!r}")
    if len(set(rates)) < len(rates):
        raise ValueError(f"has the same rate twice in {text!r}")
    return rates


def _sizes(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of the model's class, as far as they can be checked without it."""
    try:
        sizes = parse_sizes(words)
        if not is_own(str(ctx.params.get("model", ""))):
            check_sizes(sizes, str(ctx.params.get("model", "")))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return sizes


def _options(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    try:
        return parse_sizes(words)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _limit(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> str | None:
    """All that was given as one text, such as one limit for each split."""
    text = ",".join(words) if words else None
    try:
        parse_limit(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return text


def _model(text: str) -> str:
    if not is_own(text) and text not in MODELS:
        raise ValueError(
            f"unknown model {text!r}; known: {', '.join(MODELS)}, or package.module:Class"
        )
    return text


def _own(text: str) -> str:
    if not is_own(text):
        raise ValueError(f"must be package.module:name, got {text!r}")
    return text


def _zoo(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"must be a folder or USER/NAME, got {text!r}")
    return text


device = click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="What to compute on.",
)  # fmt: skip
zoo_argument = click.argument("zoo", type=Parsed(_zoo))
split_limit = click.option(
    "--split-limit", multiple=True, metavar="TEXT", callback=_limit,
    help="Networks of each split at most, the first: a number, or train=100,test=50; "
    "repeatable.",
)  # fmt: skip
_COMMON: list[Callable[..., Any]] = [
    click.option(
        "--preset", type=click.Choice(PRESETS),
        help="What is not asked for: as the model's paper, or what learns from few networks in "
        f"minutes.  [default: small for {', '.join(SMALL_TASKS)}, else paper from "
        f"{PAPER_NETWORKS:,} training networks on; for {' and '.join(READERS)} always paper from "
        f"{READERS_NETWORKS:,} on]",
    ),
    click.option(
        "--model", required=True, type=Parsed(_model), is_eager=True,
        help=f"{', '.join(MODELS)}; or package.module:Class, one of your own.",
    ),
    click.option(
        "--out", type=FolderPath(), help="Folder of the run.  [default: runs/TASK-MODEL-ZOO-SEED]"
    ),
    click.option(
        "--seed", type=number(least=0, most=SEEDS - 1), default=0, show_default=True,
        help="Seed of all random numbers.",
    ),
    click.option(
        "--set", "sizes", multiple=True, metavar="NAME=VALUE", callback=_sizes,
        help="An argument of the model's class, such as chan=16 or blocks=b2b; repeatable.",
    ),
    click.option(
        "--lr-grid", type=Parsed(parse_grid),
        help="Rates with commas; the best after a tenth of the run is taken.",
    ),
    split_limit,
    device,
    data_root,
    click.option(
        "--task", "own_task", type=Parsed(_own),
        help="package.module:Class, a task of your own that is told what this one is.",
    ),
    click.option("--log-with", help="Tracker beside metrics.jsonl: tensorboard, wandb, ..."),
    threads,
    click.option(
        "--overwrite", is_flag=True,
        help="Take the place of the run in --out, once this one has begun.",
    ),
]  # fmt: skip


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
        words = {name: f"{name} {value:.4g}" for name, value in summary[split].items()}
        if split == "test" and (constant := summary.get("constant")):
            words[summary["metric"]] += f", {constant['name']} {constant['score']:.4g}"
        say(f"{split:<10}  {'  '.join(words.values())}")
    say(
        f"{folder}: {summary['model']} for {summary['task']}, {summary['networks']:,} networks, "
        f"{summary['epochs']:g} epochs, {summary['minutes']:.1f} min"
    )


@click.group()
def train() -> None:
    """Train a model for a TASK on a zoo, a folder or one on the Hub.

    Settings that are not given are those of --preset: of the model's paper, or what learns
    from few networks in minutes. Run the same command again after a stop of any kind: it goes
    on where it was. Several GPUs: accelerate launch --no_python
    wszoo train ...
    """


def _make(task: str) -> click.Command:
    def command(
        zoo: str, out: Path | None, sizes: dict[str, Any], lr_grid: list[float] | None,
        own_task: str | None, **values: Any,
    ) -> None:  # fmt: skip
        if lr_grid and values["lr"] is not None:
            raise ValueError("--lr and --lr-grid say the learning rate twice; leave one out")
        request = Request(
            own_task or task, values["model"], zoo, given(values, Settings),
            given(values, OPTIONS[task]), sizes, values["seed"], values["split_limit"],
            lr_grid or (), values["preset"],
        )  # fmt: skip
        plain = ("device", "data_root", "log_with", "overwrite")
        _train(request, out, {name: values[name] for name in plain})

    command.__doc__ = (
        f"{TASK_HELP[task]}\n\nZOO is a folder, or the USER/NAME of a zoo on the Hub. Settings "
        "that are not given are those of --preset. With more --epochs or --steps a run "
        "that is there goes on, where its schedule is constant."
    )
    decorators: list[Callable[..., Any]] = [
        zoo_argument,
        *_COMMON,
        *dataclass_options(OPTIONS[task], defaults=True),
        *dataclass_options(Settings),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return click.command(task, short_help=TASK_HELP[task])(command)


def _train(request: Request, out: Path | None, others: dict[str, Any]) -> None:
    """Train what is asked for, and print what came out."""
    folder = out or request.default_out()
    from processors.train import fit_model

    before, overwrite = stamp(folder), others["overwrite"]

    with training(f"{folder}", lambda: how_to_go_on(folder, before, overwrite)) as (_, report):
        summary = fit_model(
            request.task, request.model, request.zoo, folder,
            settings=request.settings, options=request.options, sizes=request.sizes,
            seed=request.seed, split_limit=request.split_limit, lr_grid=request.lr_grid,
            preset=request.preset, progress=report, tell=progress.tell, say=progress.tell, **others,
        )  # fmt: skip
    # Of several processes one speaks.
    if os.environ.get("RANK", "0") == "0":
        print_summary(folder, summary)


for _task in OPTIONS:
    train.add_command(_make(_task))


@click.command("eval")
@click.argument("run", type=path)
@zoo_argument
@click.option(
    "--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Which networks."
)
@split_limit
@device
@data_root
@threads
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", callback=_options,
    help="An option of the task, over the run's, such as rescale=2; repeatable.",
)  # fmt: skip
@click.option(
    "--randomise", type=Parsed(symmetries), default=(), metavar="KINDS",
    help="Measure again after a random symmetry of each network: permutation, sign, scale, "
    "phase, with commas; those that keep what the networks compute.",
)  # fmt: skip
@click.option(
    "--keep", type=FilePath(),
    help="Also keep the result in this JSON file: `wszoo report` gives it a row.",
)  # fmt: skip
@click.option(
    "--trust", is_flag=True,
    help="Run code that is not wszoo's: import the classes that the run names as its own.",
)  # fmt: skip
def eval_(run: Path, zoo: str, split: str, **values: Any) -> None:
    """Measure the best model of a finished RUN on a split of ZOO."""
    from processors.evaluation import evaluate

    for name, value in evaluate(run, zoo, split, **values).items():
        say(f"{name} {value:.6g}")
