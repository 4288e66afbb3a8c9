"""Options that several commands share, and the ones made from fields of dataclasses."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from zoo import machine
from zoo.fields import About, about, defaults_of, types_of
from zoo.recipes import (
    ClassifierRecipe,
    ImageRecipe,
    ShapeRecipe,
    SineRecipe,
    SolidRecipe,
    TrajectoryRecipe,
    flag,
)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# click takes None for "not given".
NONE = object()
# What a field has whose value is to be found by a trial.
AUTO = "auto"


class Value(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """A value of a described field: a number in its range, one of its words, or `none`.

    Args:
        kind: int, float or str.
        about: its limits.
        optional: whether `none` switches it off.
    """

    def __init__(self, kind: type, about: About = About(), optional: bool = False):  # noqa: B008
        self.kind = kind
        self.about = about
        self.optional = optional
        self.name = {int: "integer", float: "float", str: "text"}[kind]
        self.name = about.form or self.name
        if optional:
            self.name += "|none"
        if about.auto:
            self.name += f"|{AUTO}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or value is NONE or (self.about.auto and value == AUTO):
            return value
        if self.optional and str(value).lower() == "none":
            return NONE
        found = value
        if isinstance(value, str) and self.kind is str and not value.strip():
            self.fail("it is empty", param, ctx)
        if isinstance(value, str) and self.kind is not str:
            try:
                found = self.kind(value)
            except ValueError:
                what = "a whole number" if self.kind is int else "a number"
                self.fail(f"must be {what}{' or none' * self.optional}, got {value!r}", param, ctx)
        problem = self.about.problem(found, self.kind)
        if problem:
            self.fail(problem, param, ctx)
        return found


def number(kind: type = int, **limits: Any) -> Value:
    """The type of an option that is a number within limits; see `zoo.fields.About`."""
    return Value(kind, About(**limits))


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """A text that a function of ours takes apart; its errors name the option.

    Args:
        parse: gives what the command gets, or raises ValueError.
    """

    name = "text"

    def __init__(self, parse: Callable[[str], Any], name: str = "text"):
        self.parse = parse
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(f"must be a path, got {text!r}")
    return Path(text)


# A file or folder, which has to have a name.
path = Parsed(_path, "path")


class PathOrUrl(click.ParamType):  # type: ignore[type-arg]
    """A path, or a URL such as s3://bucket/name, which stays a string."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Path):
            return value
        if not value:
            self.fail("it is empty; name a folder", param, ctx)
        return value if "://" in value else Path(value)


class FolderPath(click.ParamType):  # type: ignore[type-arg]
    """A folder that is there or is to be made; an empty word is none."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not isinstance(value, Path) and not value:
            self.fail("it is empty; name a folder", param, ctx)
        path = Path(value)
        inner = next(each for each in (path, *path.absolute().parents) if each.exists())
        if not inner.is_dir():
            self.fail(f"{str(inner)!r} is a file, not a folder", param, ctx)
        return path


class FilePath(click.ParamType):  # type: ignore[type-arg]
    """A file that is to be written, in the place of one that is there."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not isinstance(value, Path) and (not value or "\0" in value):
            self.fail(f"must be the path of a file, got {value!r}", param, ctx)
        path = Path(value)
        if path.is_dir():
            self.fail(f"{str(path)!r} is a folder; name a file in it", param, ctx)
        inner = next(each for each in path.absolute().parents if each.exists())
        if not inner.is_dir():
            self.fail(f"{str(inner)!r} is a file, not a folder", param, ctx)
        return path


class Word(click.ParamType):  # type: ignore[type-arg]
    """A text that is not empty, of one of several words if they are given."""

    name = "text"

    def __init__(self, what: str, pattern: str = "", known: Sequence[str] = ()):
        self.what, self.pattern, self.known = what, re.compile(pattern), known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if self.known and value not in self.known:
            self.fail(f"unknown {self.what} {value!r}; known: {', '.join(self.known)}", param, ctx)
        if not value.strip() or (self.pattern.pattern and not self.pattern.fullmatch(value)):
            self.fail(f"expected {self.what}, got {value!r}", param, ctx)
        return str(value)


# What git takes as the name of a branch, a tag or a commit, and what a path cannot be.
REVISION = r"(?!-)(?!.*(?:\.\.|//|@\{|\.lock$|/$|\.$))[\w][\w./+@=-]{0,250}"


def revision(text: str) -> Decorator:
    """Which state of a repository."""
    kind = Word("the name of a branch, a tag or a commit", REVISION)
    return click.option("--revision", type=kind, help=text)


def split(text: str) -> Decorator:
    """Which part of a zoo."""
    kind = Word("split", known=("train", "validation", "test"))
    return click.option("--split", type=kind, help=text)


def no_pictures(command: Callable[..., Any]) -> Callable[..., Any]:
    """Whether the view of pictures is to begin with them."""
    return click.option(
        "--no-pictures",
        is_flag=True,
        help="Leave the pictures out of the view for load_dataset.",
    )(command)


def overwrite(command: Callable[..., Any]) -> Callable[..., Any]:
    """Whether a zoo that is there is to be replaced."""
    return click.option(
        "--overwrite",
        is_flag=True,
        help="Replace the zoo in --out; it stays until the new one is finished.",
    )(command)


zoo_path = click.argument("path", type=PathOrUrl())


INRS = (ImageRecipe, SineRecipe, ShapeRecipe, SolidRecipe)
TRAINED = (ClassifierRecipe, TrajectoryRecipe)


def recipe_fields(kinds: Sequence[type] = INRS) -> dict[str, About]:
    """Every field that a flag can set, over some kinds of recipe."""
    found: dict[str, About] = {}
    for kind in kinds:
        found |= {name: each for name, each in about(kind).items() if name != "name"}
    return found


def dataclass_options(kind: type, *, defaults: bool = False) -> list[Decorator]:
    """One option for each described field of a dataclass; those not given are None.

    Args:
        defaults: whether the help shows the dataclass's own.
    """
    found: list[Decorator] = []
    for name, each in about(kind).items():
        hint, optional = types_of(kind)[name]
        default = defaults_of(kind).get(name)
        text = each.words[:1].upper() + each.words[1:]
        if each.choices and not all(word in text for word in each.choices):
            text += f": {', '.join(each.choices)}"
        text += f"; {AUTO}: {each.auto}" if each.auto else ""
        text += "" if text.endswith((".", "]")) else "."
        if defaults and default is not None and hint is not bool and "default:" not in text:
            text += f"  [default: {default}]"
        settings: dict[str, Any] = {"default": None, "help": text}
        if hint is bool:
            settings["is_flag"] = True
        else:
            settings["type"] = Value(
                hint, each, optional and (hint is not str or each.values is not None)
            )
        found.append(click.option(flag(name), name, **settings))
    return found


def recipe_options(*kinds: type) -> Decorator:
    """One option for each field of these recipes; those not given stay the recipe's."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Decorator] = {}
        for kind in kinds:
            options |= dict(zip(about(kind), dataclass_options(kind), strict=True))
        del options["name"]
        for option in reversed(options.values()):
            command = option(command)
        return command

    return decorate


def given(values: dict[str, Any], *kinds: type) -> dict[str, Any]:
    """The fields of these dataclasses among a command's arguments that were given."""
    names = {name for kind in kinds for name in about(kind)}
    chosen = {k: v for k, v in values.items() if k in names and v is not None and v is not False}
    return {k: None if v is NONE else v for k, v in chosen.items()}


def given_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe fields among a command's arguments that were given."""
    return given(values, *INRS, *TRAINED)


def data_root(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where sources lie."""
    return click.option(
        "--data-root",
        type=FolderPath(),
        help="Folder of the sources; missing ones are downloaded there.  "
        "[default: $WSZOO_DATA, else ~/.cache/wszoo]",
    )(command)


def source_address(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the source of a zoo lies, if it is a folder."""

    def known(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        from zoo import sources

        try:
            return sources.resolve(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return click.option(
        "--source",
        metavar="SOURCE",
        callback=known,
        help="What the zoo was fitted to, such as imagefolder:PATH, if it was moved since.",
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


def _part(text: str) -> str:
    from zoo.shards import part_of

    part_of(text)
    return text


def _cluster(text: str) -> str:
    if not re.fullmatch(r"local|auto|ray://\S+", text):
        raise ValueError(f"unknown cluster {text!r}; expected local, auto or ray://HOST:PORT")
    return text


def fitting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that makes a zoo."""
    return _with(_OF_FITTING.values(), command)


def planning(command: Callable[..., Any]) -> Callable[..., Any]:
    """Those of them that say which networks a zoo has, and with what they are fitted."""
    names = ("recipe", "limit", "seed", "engine", "device", "threads", "data_root")
    return _with([_OF_FITTING[name] for name in names], command)


def _with(options: Iterable[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(list(options)):
        command = option(command)
    return command


_OF_FITTING: dict[str, Decorator] = {
    "recipe": click.option(
        "--recipe", type=Word("the name of a recipe"), help="Named recipe; see `wszoo recipes`."
    ),
    "out": click.option(
        "--out", type=PathOrUrl(),
        help="Folder of the zoo; with --cluster also a URL.  [default: zoos/NAME]",
    ),
    "limit": click.option(
        "--limit", type=number(least=1),
        help="Networks (or runs) in all, split in proportion.",
    ),
    "seed": click.option(
        "--seed", type=number(least=0, most=2**32 - 1), default=0, show_default=True,
        help="Key of all random numbers.",
    ),
    "shard_rows": click.option(
        "--shard-rows", type=number(least=1),
        help="Networks of a shard.  [default: about 24 MB]",
    ),
    "workers": click.option(
        "--workers", type=number(least=1, most=256), default=1, show_default=True,
        help="Processes that share the cores; 1 is fastest with the cpu engine.",
    ),
    "engine": click.option(
        "--engine", default="auto", show_default=True,
        type=Word("engine", known=("auto", "cpu", "cuda", "torch", "reference")),
        help="auto, cpu, cuda, reference; for classifiers cpu, torch, reference.",
    ),
    "device": click.option(
        "--device", default="cpu", show_default=True,
        help="cpu, cuda (all GPUs, a process each), cuda:1 ..., for engines other than cpu.",
    ),
    "threads": threads,
    "data_root": data_root,
    "overwrite": overwrite,
    "no_parquet": click.option(
        "--no-parquet", is_flag=True, help="Leave out the view for load_dataset."
    ),
    "no_pictures": no_pictures,
    "part": click.option(
        "--shards", "part", metavar="A-B/N", type=Parsed(_part),
        help="Fit only parts A to B of N, from 0, of the list of shards; see `wszoo merge`.",
    ),
    "cluster": click.option(
        "--cluster", metavar="ADDRESS", type=Parsed(_cluster),
        help="Fit shards as Ray tasks: local (Ray on this machine), auto (the cluster it is "
        "in) or ray://HOST:PORT.",
    ),
    "cpus_per_task": click.option(
        "--cpus-per-task", type=number(float, above=0),
        help="Cores of a cluster's task.  [default: 1]",
    ),
    "gpus_per_task": click.option(
        "--gpus-per-task", type=number(float, least=0),
        help="GPUs of a cluster's task, fractions too.  [default: 1 for --device cuda, else 0]",
    ),
    "in_flight": click.option(
        "--in-flight", type=number(least=1),
        help="Tasks handed to the cluster at most.  [default: twice what fits]",
    ),
}  # fmt: skip
