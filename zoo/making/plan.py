"""What a zoo is to be, before the first network is fitted.

A plan is decided by recipe, source, seed and limit alone: the units of each split, cut into
shards. What is planned is a unit: an INR or a classifier, which is one row, or a run, which
is a known number of rows that stay together.
"""

import contextlib
import json
import platform
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo import machine, shards
from zoo.cards import may_be_passed_on
from zoo.figures import Samples
from zoo.kinds import Goal, Kind, Means, kind_of, open_source
from zoo.making.fitting import Arrays, Rows
from zoo.recipes import AnyRecipe, command_of, flags, recipe_class
from zoo.recipes import recipe as named_recipe
from zoo.shards import NAMES_FILE, Index
from zoo.sources import Source
from zoo.table import pictures_of

PACKAGES = ("wszoo", "numpy", "numba", "llvmlite", "torch", "safetensors", "pyarrow", "datasets")
# Memory that a parameter takes while its network is drawn and fitted: the draws in float64,
# the value, its gradient and both moments.
FIT_BYTES = 32
# Keys of a plan that are left out where they have these values.
_PLAN_DEFAULTS: dict[str, Any] = {"dtype": "float32", "part": None}
# What makes two sources the same one; where it lies and what it is called here do not.
_IDENTITY = ("kind", "title", "sha256")

# A shard: its split, and its number there.
Key: TypeAlias = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the networks of a zoo depend on beside recipe and source.

    Attributes:
        limit: units in all; None takes every item of the source.
        seed: of every random number.
        shard_rows: networks of a shard; None chooses about 24 MB.
        engine: by name; "auto" takes the fastest for the device.
        device: a torch device.
        parquet: whether shards have a Parquet view.
        pictures: whether the view of pictures begins with them.
        dtype: type that networks are kept in.

    Raises:
        ValueError: for a number out of its range.
    """

    limit: int | None = None
    seed: int = 0
    shard_rows: int | None = None
    engine: str = "auto"
    device: str = "cpu"
    parquet: bool = True
    pictures: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("limit", "shard_rows"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be at least 1, got {value}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in 0 .. 2**32 - 1, got {self.seed}")


DEFAULTS = Settings()


class Plan(ABC):
    """A zoo before its first network: its index, and how its units are cut into shards.

    Attributes:
        index: without shards.
        sizes: units of each shard, in the order of the index.
        totals: shards of each split, which their file names tell.
        unit_rows: rows of each unit.
    """

    index: Index
    totals: Mapping[str, int]
    unit_rows: int

    @property
    @abstractmethod
    def sizes(self) -> Mapping[Key, int]: ...

    @property
    def shown(self) -> bool:
        """Whether the card may show networks beside their originals."""
        return True

    @property
    def grows(self) -> bool:
        """Whether each unit is one network that its index and view decide."""
        return False

    @property
    def address(self) -> str | None:
        """The name of the source with where it lies on this machine, if it has an address."""
        return None

    @property
    def units(self) -> int:
        """Number of units in all shards."""
        return sum(self.sizes.values())

    def rows(self, key: Key) -> Rows | None:
        """The units of a shard, or None where only their number is known."""
        return None

    def samples(self, arrays: Arrays) -> Samples | None:
        """The networks that the card shows beside their originals."""
        return None

    def nameless(self) -> "Plan":
        """The same without file names, for a zoo that was begun when there were none."""
        return self

    def drawn(self, pictures: tuple[str, ...]) -> "Plan":
        """The same with these pictures in its view, for a zoo whose shards have them so."""
        return self

    def items(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Items of the source, at these positions; only where the view has originals."""
        raise AssertionError("only what is made of a source has originals at hand")

    def to_json(self) -> dict[str, Any]:
        """What stands in the folder while the zoo is made."""
        about: dict[str, Any] = {"planned": self.units, "unit_rows": self.unit_rows}
        if self.index.pictures:
            about["pictures"] = list(self.index.pictures)
        return {**self.index.to_json(), **about, "address": self.address}


@dataclass(frozen=True)
class Planned(Plan):
    """The plan of a zoo that a recipe makes of a source.

    Attributes:
        parts: the units of each shard, by split and number, in the order of the index.
    """

    index: Index
    goal: Goal
    source: Source
    kind: Kind
    parts: dict[Key, Rows]
    totals: dict[str, int]
    unit_rows: int

    @cached_property
    def sizes(self) -> Mapping[Key, int]:
        return {key: len(rows) for key, rows in self.parts.items()}

    @property
    def shown(self) -> bool:
        return self.kind.signals

    @property
    def grows(self) -> bool:
        return self.kind.signals and "part" not in self.index.plan

    @property
    def address(self) -> str | None:
        return self.source.address

    def nameless(self) -> "Planned":
        about = {key: value for key, value in self.index.source.items() if key != "names"}
        return replace(self, index=replace(self.index, source=about, names=None))

    def drawn(self, pictures: tuple[str, ...]) -> "Planned":
        return replace(self, index=replace(self.index, pictures=pictures))

    def items(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return self.source.items(index)

    def rows(self, key: Key) -> Rows | None:
        return self.parts[key]

    def task(self, rows: Rows) -> tuple[Any, ...]:
        """What is handed to a fitter for these units: all that it needs of the source."""
        return self.kind.task(self.source, rows)

    def samples(self, arrays: Arrays) -> Samples | None:
        return self.kind.samples(self.goal, self.source, arrays)

    def part(self, text: str) -> "Planned":
        """Only the shards of a part, such as "0-99/1000" or "7/10".

        Raises:
            ValueError: if the text means nothing, or there are fewer shards than parts.
        """
        first, last, of = shards.part_of(text)
        count = len(self.parts)
        if of > count:
            raise ValueError(
                f"--shards {text}: the zoo has {count} shards, which do not make {of} parts; ask "
                f"for at most {count}, or for smaller ones by --shard-rows"
            )
        kept = list(self.parts)[first * count // of : (last + 1) * count // of]
        index = replace(self.index, plan={**self.index.plan, "part": f"{first}-{last}/{of}"})
        return replace(self, index=index, parts={key: self.parts[key] for key in kept})


def plan_zoo(
    recipe: AnyRecipe | str | None,
    source: Source | str,
    name: str,
    settings: Settings = DEFAULTS,
    *,
    data_root: str | Path | None = None,
    elsewhere: bool = False,
    expect: str | None = None,
) -> Planned:
    """Open the source and plan the zoo called `name`.

    Args:
        data_root: where a named source lies.
        elsewhere: it is fitted on other machines, whose device cannot be tried here.
        expect: the sha256 that a named source had for the zoo that goes on, see
            `sources.load_images`.

    Raises:
        ValueError: for settings that make no sense.
    """
    if recipe is None or isinstance(recipe, str):
        recipe = named_recipe(recipe, source if isinstance(source, str) else source.name)
    if isinstance(source, str):
        source = open_source(recipe, source, settings.seed, data_root, expect)
    kind = kind_of(recipe)
    means = Means(
        settings.engine, settings.device, settings.dtype, not elsewhere, seed=settings.seed
    )
    goal, engine = kind.goal(recipe, source, means)
    if not elsewhere:
        _refuse_too_large(goal)
    columns = shards.zoo_columns(goal.spec, goal.columns, settings.dtype)
    plan: dict[str, Any] = {
        "seed": settings.seed,
        "engine": engine,
        "limit": settings.limit,
        "shard_rows": settings.shard_rows or default_shard_rows(row_bytes(goal, settings.dtype)),
        "parquet": settings.parquet,
    }
    if settings.dtype != "float32":
        plan["dtype"] = settings.dtype
    index = Index(
        name=name,
        recipe=recipe.to_json(),
        spec=goal.spec,
        columns=columns,
        shards=(),
        source=describe_source(source, recipe),
        plan=plan,
        packages=package_versions(),
        command=command_line(recipe, source.label, plan),
    )
    planned = plan_rows(recipe, source, settings.limit)
    if kind.signals and source.files:
        used = np.unique(np.concatenate([rows.index for rows in planned.values()]))
        names = {int(item): source.files[item] for item in used}
        about = {**index.source, "names": {"file": NAMES_FILE}}
        index = replace(index, source=about, names=names)
    if settings.pictures:
        index = replace(index, pictures=pictures_of(index, may_be_passed_on(index)))
    size = max(1, plan["shard_rows"] // goal.unit_rows)
    parts: dict[Key, Rows] = {}
    totals: dict[str, int] = {}
    for split, rows in planned.items():
        totals[split] = -(-len(rows) // size)
        for number in range(totals[split]):
            parts[split, number] = rows[number * size : (number + 1) * size]
    return Planned(index, goal, source, kind, parts, totals, goal.unit_rows)


def row_bytes(goal: Goal, dtype: str = "float32") -> int:
    """Size of a row in a shard."""
    columns = shards.zoo_columns(goal.spec, goal.columns, dtype)
    return sum(
        np.dtype(columns[name].stored).itemsize * int(np.prod(goal.spec.tensors.get(name, ())))
        for name in columns
    )


def _refuse_too_large(goal: Goal) -> None:
    """ValueError for networks of which not even one fits into memory while it is fitted."""
    rows = goal.unit_rows
    needed = goal.spec.param_count * (FIT_BYTES + 4 * (rows - 1))
    has = machine.memory_bytes()
    if has is not None and needed > has:
        what = "a network" if rows == 1 else f"a run of {rows:,} networks"
        raise ValueError(
            f"{what} of {goal.spec.param_count:,} parameters takes {needed / 1e9:,.0f} GB while it "
            f"is fitted, this machine has {has / 1e9:,.0f}: smaller --hidden or --layers"
        )


def plan_rows(recipe: AnyRecipe, source: Source, limit: int | None) -> dict[str, Rows]:
    """The units of each split: by index, then view; only training images have views.

    Raises:
        ValueError: if `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    items, views = kind_of(recipe).splits(recipe, source), kind_of(recipe).views(recipe)
    copies = {split: views if split == "train" else 1 for split in items}
    rows = {split: len(items[split]) * copies[split] for split in items}
    if limit is not None and limit < sum(rows.values()):
        rows = largest_remainder(limit, rows)
    planned = {}
    for split, chosen in items.items():
        number = np.arange(rows[split], dtype=np.int64)
        planned[split] = Rows(chosen.start + number // copies[split], number % copies[split])
    return planned


def largest_remainder(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """`total` split in the proportions of `sizes`, exactly.

    >>> largest_remainder(10, {"train": 55, "validation": 5, "test": 10})
    {'train': 8, 'validation': 1, 'test': 1}
    """
    whole = sum(sizes.values())
    shares = {name: total * size // whole for name, size in sizes.items()}
    left = sorted(sizes, key=lambda name: -(total * sizes[name] % whole))
    for name in left[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def default_shard_rows(spec_bytes: int) -> int:
    """Rows of a shard of about 24 MB: 5,000 of the MNIST INRs."""
    return int(np.clip(24e6 // spec_bytes // 100 * 100, 100, 50_000))


def describe_source(source: Source, recipe: AnyRecipe) -> dict[str, Any]:
    """What the index says of the source."""
    words = {key: getattr(source, key) for key in ("title", "license", "url", "citation")}
    named = {"name": source.label, **words, "sha256": source.sha256, "items": len(source)}
    return {**named, **kind_of(recipe).facts(recipe, source)}


def command_line(recipe: AnyRecipe, source: str, plan: Mapping[str, Any]) -> str:
    """The command that makes such a zoo again, wherever its source and folder are."""
    words = ["wszoo", command_of(recipe.name), source, "--recipe", recipe.name]
    words += flags(recipe, source)
    words += ["--seed", str(plan["seed"])] if plan["seed"] else []
    words += ["--limit", str(plan["limit"])] if plan["limit"] else []
    words += ["--dtype", plan["dtype"]] if plan.get("dtype") else []
    return shlex.join(words)


def differences(mine: Index, theirs: Mapping[str, Any]) -> list[str]:
    """How the plan of a zoo, as it stands in JSON, differs from the one asked for.

    Fields that theirs lacks have their defaults, so that a folder of an older wszoo goes on.
    """
    asked = json.loads(json.dumps(mine.to_json()))
    pairs = [
        ("", _recipe_fields(theirs["recipe"]), _recipe_fields(asked["recipe"])),
        ("", {**_PLAN_DEFAULTS, **theirs["plan"]}, {**_PLAN_DEFAULTS, **asked["plan"]}),
        *(
            ("source ", {key: theirs["source"].get(key)}, {key: asked["source"].get(key)})
            for key in _IDENTITY
        ),
    ]
    return [
        f"{what}{key} {old.get(key)!r} there, {new.get(key)!r} asked for"
        for what, old, new in pairs
        for key in {**new, **old}
        if old.get(key) != new.get(key)
    ]


def _recipe_fields(plain: dict[str, Any]) -> dict[str, Any]:
    """Every field of a recipe that stands in JSON, those too that it was written without."""
    kind = recipe_class(plain)
    defaults = [] if kind is None else [f for f in fields(kind) if f.default is not MISSING]
    return {**{field.name: field.default for field in defaults}, **plain}


def cpu_kind() -> str:
    """The kind of processor, which the bytes of a fit depend on."""
    from llvmlite import binding

    return f"{platform.machine()} {binding.get_host_cpu_name()}"


def processor(device: str) -> str:
    """The kind of processor that computes on a torch device, as the index records it."""
    if device.partition(":")[0] == "cuda":
        import torch

        return f"cuda {torch.cuda.get_device_name(device)}"
    return cpu_kind()


def package_versions() -> dict[str, str]:
    """Versions of what the bytes of a zoo depend on, where installed."""
    return {"python": platform.python_version(), **versions_of(PACKAGES)}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those that are installed, which a folder of sources on the path is not."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
