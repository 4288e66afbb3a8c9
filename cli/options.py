"""Options that several commands share, and the ones made from recipe fields."""

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from zoo import machine
from zoo.recipes import ClassifierRecipe, ImageRecipe, SineRecipe, TrajectoryRecipe, flag

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# What each field of a recipe is, with its unit; the recipes' docstrings say more.
FIELD_HELP = {
    "hidden": "Neurons of each hidden layer.",
    "layers": "Linear layers, the last included.",
    "omega": "Factor in sin(omega * (W x + b)), the first layer included.",
    "output_offset": "Added to the output.",
    "init": "Initialisation: dws or nfn.",
    "shared_init": "One initialisation for all networks instead of one each.",
    "lr": "Adam's learning rate.",
    "weight_decay": "L2 term in the gradient.",
    "beta1": "Adam's first decay rate.",
    "beta2": "Adam's second decay rate.",
    "eps": "Adam's epsilon.",
    "steps": "Full-batch updates at most.",
    "coord_order": "xy (column, row) or ij (row, column).",
    "black": "Output value of a black pixel.",
    "white": "Output value of a white pixel.",
    "target_psnr_db": "Stop a network above this PSNR, in dB.",
    "min_psnr_db": "Leave out networks below this PSNR, in dB.",
    "views": "Independent initialisations of each training image.",
    "split": "Rule of the splits: dws or nfn.",
    "size": "Side in pixels that pictures are resized to.",
    "waves": "How many waves.",
    "points": "Samples of each wave.",
    "min_amplitude": "Least amplitude.",
    "max_amplitude": "Greatest amplitude.",
    "min_frequency": "Least frequency, in radians per unit.",
    "max_frequency": "Greatest frequency, in radians per unit.",
    "target_mse": "Stop a wave's network below this mean squared error.",
}

CLASSIFIER_HELP = {
    "network": "mlp or cnn.",
    "hidden": "Neurons, or channels, of each hidden layer.",
    "layers": "Layers of weights, the last included.",
    "activation": "relu or tanh.",
    "stride": "Of the convolutions, in pixels.",
    "epochs": "Passes over the training items at most.",
    "lr": "Learning rate; a range 1e-4..1e-2 is drawn log-uniformly.",
    "weight_decay": "L2 term in the gradient, or a range.",
    "optimiser": "adam, sgd or rmsprop, or a list a,b to draw from.",
    "beta1": "Adam's first decay rate.",
    "beta2": "Adam's second decay rate.",
    "eps": "Epsilon of Adam and RMSprop.",
    "batch": "Items of a minibatch, or a list.",
    "init": "torch, glorot, he, orthogonal or normal, or a list.",
    "init_scale": "Factor on the initial weights, or a range.",
    "init_std": "Standard deviation of init normal, or a range.",
    "fraction": "Part of the training items that is seen, or a list.",
    "dropout": "Chance that a feature is dropped, or a range, drawn uniformly.",
    "black": "Input of a black pixel.",
    "white": "Input of a white pixel.",
    "loss_items": "Training items at most that the train loss is measured on.",
    "size": "Side in pixels that pictures are resized to.",
    "networks": "How many classifiers.",
    "runs": "How many runs.",
    "checkpoints": "Which networks of a run are kept: every, random or tenths.",
    "interval": "Updates between checkpoints of every.",
    "kept": "Checkpoints of random.",
    "validation_share": "Part of the runs in the validation split.",
    "test_share": "Part of the runs in the test split.",
}


class OrNone(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """A number, or `none` to switch it off."""

    def __init__(self, kind: type):
        self.kind = kind
        self.name = f"{'integer' if kind is int else 'float'}|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or str(value).lower() == "none":
            return NONE
        try:
            return self.kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor none", param, ctx)


# click takes None for "not given".
NONE = object()


class PathOrUrl(click.ParamType):  # type: ignore[type-arg]
    """A path, or a URL such as s3://bucket/name, which stays a string."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, Path) or "://" in value else Path(value)


zoo_path = click.argument("path", type=PathOrUrl())


INRS = (ImageRecipe, SineRecipe)
TRAINED = (ClassifierRecipe, TrajectoryRecipe)


def recipe_fields(kinds: Sequence[type] = INRS) -> dict[str, Any]:
    """Every field that a flag can set, with its type, over some kinds of recipe."""
    found: dict[str, Any] = {}
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        found |= {f.name: hints[f.name] for f in fields(kind) if f.name != "name"}
    return found


def recipe_options(*kinds: type) -> Decorator:
    """One option for each field of these recipes; those not given stay the recipe's."""
    texts = FIELD_HELP if set(kinds) <= set(INRS) else CLASSIFIER_HELP

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, hint in reversed(recipe_fields(kinds).items()):
            settings: dict[str, Any] = {"default": None, "help": texts[name]}
            if hint is bool:
                settings["is_flag"] = True
                settings["default"] = False
            elif isinstance(hint, types.UnionType):
                inner = next(a for a in typing.get_args(hint) if a is not type(None))
                settings["type"] = OrNone(inner)
            else:
                settings["type"] = hint
            command = click.option(flag(name), name, **settings)(command)
        return command

    return decorate


def given_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe fields among a command's arguments that were given."""
    chosen = {k: v for k, v in values.items() if k in recipe_fields((*INRS, *TRAINED))}
    chosen = {k: v for k, v in chosen.items() if v is not None and v is not False}
    return {k: None if v is NONE else v for k, v in chosen.items()}


def data_root(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where sources lie."""
    return click.option(
        "--data-root",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the sources; missing ones are downloaded there.  "
        "[default: $WSZOO_DATA, else ~/.cache/wszoo]",
    )(command)


def _use_threads(ctx: click.Context, param: click.Parameter, count: int | None) -> None:
    ctx.with_resource(machine.throughout(count))


def threads(command: Callable[..., Any]) -> Callable[..., Any]:
    """How many threads a command computes with; it needs no argument for it."""
    return click.option(
        "--threads",
        type=click.IntRange(1, machine.MOST_THREADS),
        expose_value=False,
        callback=_use_threads,
        help="Threads to compute with.  [default: the cores that affinity, control group, "
        "OMP_NUM_THREADS and SLURM_CPUS_PER_TASK all allow]",
    )(command)


def storage(command: Callable[..., Any]) -> Callable[..., Any]:
    """How exactly networks are kept."""
    return click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "bfloat16"]),
        default="float32",
        show_default=True,
        help="Type that weights are kept in; float32 is exact, the others halve the files.",
    )(command)


def fitting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that makes a zoo."""
    options: list[Decorator] = [
        click.option("--recipe", help="Named recipe; see `wszoo recipes`."),
        click.option(
            "--out", type=PathOrUrl(),
            help="Folder of the zoo; with --cluster also a URL.  [default: zoos/NAME]",
        ),
        click.option("--limit", type=int, help="Networks (or runs) in all, split in proportion."),
        click.option(
            "--seed", type=int, default=0, show_default=True, help="Of every random number."
        ),
        click.option("--shard-rows", type=int, help="Networks of a shard.  [default: about 24 MB]"),
        click.option(
            "--workers", type=int, default=1, show_default=True,
            help="Processes that share the cores; 1 is fastest with the cpu engine.",
        ),
        click.option(
            "--engine", default="auto", show_default=True,
            help="auto, cpu, cuda, reference; for classifiers cpu, torch, reference.",
        ),
        click.option(
            "--device", default="cpu", show_default=True,
            help="cpu, cuda (all GPUs, a process each), cuda:1 ..., for engines other than cpu.",
        ),
        threads,
        data_root,
        click.option("--overwrite", is_flag=True, help="Throw away the zoo in --out first."),
        click.option("--no-parquet", is_flag=True, help="Leave out the view for load_dataset."),
        click.option(
            "--shards", "part", metavar="A-B/N",
            help="Fit only parts A to B of N, from 0, of the list of shards; see `wszoo merge`.",
        ),
        click.option(
            "--cluster", metavar="ADDRESS",
            help="Fit shards as Ray tasks: local (Ray on this machine), auto (the cluster it is "
            "in) or ray://HOST:PORT.",
        ),
        click.option(
            "--cpus-per-task", type=float, help="Cores of a cluster's task.  [default: 1]"
        ),
        click.option(
            "--gpus-per-task", type=float,
            help="GPUs of a cluster's task, fractions too.  [default: 1 for --device cuda, else 0]",
        ),
        click.option(
            "--in-flight", type=int,
            help="Tasks handed to the cluster at most.  [default: twice what fits]",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
