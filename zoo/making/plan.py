"""What a zoo is to be, before the first network is fitted.

A plan is decided by recipe, source, seed and limit alone: the units of each split, cut into
shards. What is planned is a unit: an INR or a classifier, which is one row, or a run, which
is a known number of rows that stay together.
"""

import json
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from zoo import engines, shards, sources
from zoo.compare import samples
from zoo.figures import Samples
from zoo.making.fitting import Arrays, Rows
from zoo.objectives import Objective, objective, open_source, raw_items, target_columns
from zoo.recipes import (
    AnyRecipe,
    ClassifierRecipe,
    ImageRecipe,
    SineRecipe,
    TrajectoryRecipe,
    command_of,
    flags,
)
from zoo.recipes import recipe as named_recipe
from zoo.shards import Index
from zoo.sources import ImageSource, SineSource
from zoo.training import Classification

PACKAGES = ("wszoo", "numpy", "numba", "llvmlite", "torch", "safetensors", "pyarrow", "datasets")


@dataclass(frozen=True)
class Planned:
    """A zoo before the first fit: what is to be made, shard by shard.

    Attributes:
        index: without shards; the whole plan.
        parts: the units of each shard, by split and number, in the order of the index.
        totals: shards of each split, which their file names tell.
        unit_rows: rows of each unit.
    """

    index: Index
    goal: Objective | Classification
    source: ImageSource | SineSource
    parts: dict[tuple[str, int], Rows]
    totals: dict[str, int]
    unit_rows: int

    @property
    def units(self) -> int:
        """Of all shards."""
        return sum(len(part) for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """What stands in the folder while the zoo is made."""
        return {**self.index.to_json(), "planned": self.units, "unit_rows": self.unit_rows}

    def task(self, rows: Rows) -> tuple[Any, ...]:
        """What is handed to a fitter for these units: all that it needs of the source."""
        if isinstance(self.goal, Classification):
            return (rows,)
        raw = raw_items(self.source, rows.index)
        return rows, raw, target_columns(self.source, rows.index)

    def samples(self, arrays: Arrays) -> Samples | None:
        """The networks that the card shows beside their originals."""
        if isinstance(self.goal, Objective):
            return samples(self.goal, self.source, arrays)
        return None

    def part(self, text: str) -> "Planned":
        """Only the shards of a part, such as "0-99/1000" or "7/10".

        Raises:
            ValueError: if the text means nothing, or there are fewer shards than parts.
        """
        found = re.fullmatch(r"(\d+)(?:-(\d+))?/(\d+)", text)
        first, last, of = (int(word or found[1]) for word in found.groups()) if found else (0, 0, 0)
        if not first <= last < of:
            raise ValueError(
                f"expected shards as FIRST-LAST/PARTS, counted from 0, such as 0-99/1000, got "
                f"{text!r}"
            )
        count = len(self.parts)
        if of > count:
            raise ValueError(
                f"shards {text}: the zoo has {count} shards, which do not make {of} parts; ask "
                f"for at most {count}, or for smaller ones by --shard-rows"
            )
        kept = list(self.parts)[first * count // of : (last + 1) * count // of]
        index = replace(self.index, plan={**self.index.plan, "part": f"{first}-{last}/{of}"})
        return replace(self, index=index, parts={key: self.parts[key] for key in kept})


def plan_zoo(
    recipe: AnyRecipe | str | None,
    source: ImageSource | SineSource | str,
    name: str,
    *,
    data_root: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    shard_rows: int | None = None,
    engine: str = "auto",
    device: str = "cpu",
    parquet: bool = True,
    dtype: str = "float32",
    elsewhere: bool = False,
) -> Planned:
    """Open the source and plan the zoo called `name`; the arguments are those of `build`.

    Args:
        elsewhere: it is fitted on other machines, whose device cannot be tried here.

    Raises:
        ValueError: for settings that make no sense.
    """
    if shard_rows is not None and shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in 0 .. 2**32 - 1, got {seed}")
    if recipe is None or isinstance(recipe, str):
        recipe = named_recipe(recipe, source if isinstance(source, str) else source.name)
    if isinstance(source, str):
        source = open_source(recipe, source, seed, data_root)
    goal: Objective | Classification
    # A device that is not there shows before the work starts.
    if isinstance(recipe, ClassifierRecipe | TrajectoryRecipe):
        from zoo.engines import classifiers

        if not isinstance(source, ImageSource):
            raise ValueError(f"recipe {recipe.name!r} is for pictures, {source.name} has none")
        engine = classifiers.choose(engine, device)
        if device != "cpu" and not elsewhere:
            classifiers.load(engine, device)
        goal = Classification(recipe, source, dtype)
    else:
        if dtype != "float32":
            raise ValueError(f"dtype {dtype!r} is for classifiers; INRs are kept in float32")
        goal = objective(recipe, source)
        engine = engines.choose(engine, device, goal.spec)
        if device != "cpu" and not elsewhere:
            engines.load(engine, device)
    columns = shards.zoo_columns(goal.spec, goal.columns, dtype)
    row_bytes = sum(
        np.dtype(columns[name].stored).itemsize * int(np.prod(goal.spec.tensors.get(name, ())))
        for name in columns
    )
    plan: dict[str, Any] = {
        "seed": seed,
        "engine": engine,
        "limit": limit,
        "shard_rows": shard_rows or default_shard_rows(row_bytes),
        "parquet": parquet,
    }
    if dtype != "float32":
        plan["dtype"] = dtype
    index = Index(
        name=name,
        recipe=recipe.to_json(),
        spec=goal.spec,
        columns=columns,
        shards=(),
        source=describe_source(source, recipe),
        plan=plan,
        packages=package_versions(),
        command=command_line(recipe, source.name, plan),
    )
    unit_rows = goal.unit_rows if isinstance(goal, Classification) else 1
    size = max(1, plan["shard_rows"] // unit_rows)
    parts: dict[tuple[str, int], Rows] = {}
    totals: dict[str, int] = {}
    for split, rows in plan_rows(recipe, source, limit).items():
        totals[split] = -(-len(rows) // size)
        for number in range(totals[split]):
            parts[split, number] = rows[number * size : (number + 1) * size]
    return Planned(index, goal, source, parts, totals, unit_rows)


def plan_rows(
    recipe: AnyRecipe, source: ImageSource | SineSource, limit: int | None
) -> dict[str, Rows]:
    """The units of each split: by index, then view; only training images have views.

    Raises:
        ValueError: if `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    items = split_items(recipe, source)
    views = recipe.views if isinstance(recipe, ImageRecipe) else 1
    copies = {split: views if split == "train" else 1 for split in items}
    rows = {split: len(items[split]) * copies[split] for split in items}
    if limit is not None and limit < sum(rows.values()):
        rows = largest_remainder(limit, rows)
    planned = {}
    for split, chosen in items.items():
        number = np.arange(rows[split], dtype=np.int64)
        planned[split] = Rows(chosen.start + number // copies[split], number % copies[split])
    return planned


def split_items(recipe: AnyRecipe, source: ImageSource | SineSource) -> dict[str, range]:
    """Which items of the source, or which classifiers or runs, make up each split."""
    if isinstance(recipe, ClassifierRecipe | TrajectoryRecipe):
        validation, test = (round(share * recipe.units) for share in recipe.shares)
        first = recipe.units - validation - test
        return {
            "train": range(first),
            "validation": range(first, first + validation),
            "test": range(first + validation, recipe.units),
        }
    if isinstance(recipe, SineRecipe):
        return sources.split_items(len(source), len(source), "80-10-10")
    assert isinstance(source, ImageSource)
    rule = sources.split_rule(recipe.split, source.name)
    return sources.split_items(source.train_items, len(source), rule)


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


def describe_source(source: ImageSource | SineSource, recipe: AnyRecipe) -> dict[str, Any]:
    """What the index says of the source."""
    plain: dict[str, Any] = {
        key: getattr(source, key) for key in ("name", "title", "license", "url", "citation")
    }
    plain |= {"sha256": source.sha256, "items": len(source)}
    if isinstance(source, ImageSource):
        plain |= {
            "kind": "image",
            "size": getattr(recipe, "size", None),
            "shape": list(source.shape),
            "train_items": source.train_items,
            "class_names": list(source.class_names),
        }
    else:
        plain |= {"kind": "sine", "points": len(source.inputs)}
    return plain


def command_line(recipe: AnyRecipe, source: str, plan: Mapping[str, Any]) -> str:
    """The command that makes such a zoo again, wherever its source and folder are."""
    words = ["wszoo", command_of(recipe.name), source, "--recipe", recipe.name]
    words += flags(recipe, source)
    words += ["--seed", str(plan["seed"])] if plan["seed"] else []
    words += ["--limit", str(plan["limit"])] if plan["limit"] else []
    words += ["--dtype", plan["dtype"]] if plan.get("dtype") else []
    return shlex.join(words)


def differences(mine: Index, theirs: Mapping[str, Any]) -> list[str]:
    """How the plan of a zoo, as it stands in JSON, differs from the one asked for."""
    asked = json.loads(json.dumps(mine.to_json()))
    found = []
    for part, keys in (
        ("recipe", {**asked["recipe"], **theirs["recipe"]}),
        ("plan", {**asked["plan"], **theirs["plan"]}),
        ("source", ("name", "sha256")),
    ):
        for key in keys:
            old, new = theirs[part].get(key), asked[part].get(key)
            if old != new:
                name = key if part != "source" else f"source {key}"
                found.append(f"{name} {old!r} there, {new!r} asked for")
    return found


def refuse_other(folder: object, mine: Index, theirs: Mapping[str, Any]) -> None:
    """ValueError if a folder holds a zoo of another recipe, source or plan."""
    if differing := differences(mine, theirs):
        raise ValueError(
            f"{folder} holds a zoo made otherwise: {'; '.join(differing)}. "
            "Choose another --out, or start afresh with --overwrite"
        )


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
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
