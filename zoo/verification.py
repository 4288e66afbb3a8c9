"""Holds a zoo against its index, against its source, and against a fresh fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import engines, shards
from zoo.builder import cpu_kind, package_versions, plan_rows
from zoo.compare import evaluate, source_of
from zoo.errors import ZooError
from zoo.fitting import Rows, fit_rows
from zoo.objectives import Objective, objective, raw_items, target_columns
from zoo.recipes import recipe_from_json
from zoo.shards import Index
from zoo.sources import ImageSource, SineSource
from zoo.weights import Weights

# The engines' sines differ from torch's by a few ulp: far below a hundredth of a dB.
RENDER_TOLERANCE_DB = 0.02
# Across engines and machines the rounding differs from the first step on, and Adam
# amplifies it; single networks end up a few tenths of a dB apart, the mean does not.
REFIT_MEAN_TOLERANCE_DB = 0.25
REFIT_TOLERANCE_DB = 3.0
BYTE_PACKAGES = ("numpy", "numba", "llvmlite", "torch")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `detail` says what was found, in one line."""

    name: str
    passed: bool
    detail: str


def verify(
    path: str | Path,
    *,
    samples: int = 64,
    refit: int = 0,
    data_root: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[Check]:
    """Check a zoo on disk, yielding each check as it is done.

    Args:
        samples: rows whose pictures are rendered again and held against their quality.
        refit: rows that are fitted again. On the engine, kind of CPU and package
            versions of the index the bytes must be equal, elsewhere the PSNR must agree.
        data_root: where the source lies; needed for `samples` and `refit`.
        seed: of the choice of rows.

    Raises:
        ZooError: if there is no zoo, its index is unreadable, or its source is missing.
    """
    folder = Path(path)
    index = shards.read_index(folder)
    yield _check_files(folder, index)
    damaged = [s for s in index.shards if shards.check_file(folder, s, hashes=False)]
    if damaged:
        return
    rows: dict[str, list[dict[str, NDArray[Any]]]] = {}
    for shard in index.shards:
        try:
            rows.setdefault(shard.split, []).append(shards.read_tensors(folder / shard.file))
        except ZooError as error:
            yield Check("rows", False, str(error))
            return
    yield _check_rows(index, rows)
    if samples <= 0 and refit <= 0:
        return
    if index.recipe.get("kind") == "import":
        yield Check(
            "source", True, "skipped: imported networks are not made by a recipe to be run again"
        )
        return
    source = source_of(index, data_root)
    goal = objective(recipe_from_json(index.recipe), source)
    yield _check_plan(index, source, rows)
    chosen = np.random.default_rng(seed)
    if samples > 0:
        yield _check_quality(goal, source, _draw(rows, samples, chosen))
    if refit > 0:
        yield _check_refit(index, goal, source, _draw(rows, refit, chosen), device)


def _check_files(folder: Path, index: Index) -> Check:
    wrong = [line for file in index.files if (line := shards.check_file(folder, file, True))]
    listed = {file.file for file in index.files}
    there = {
        path.relative_to(folder).as_posix()
        for part in ("weights", "data")
        for path in (folder / part).glob("*")
    }
    wrong += [f"{folder / name} is not in the index" for name in sorted(there - listed)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Check("files", False, wrong[0] + more)
    total = sum(file.bytes for file in index.files)
    return Check("files", True, f"{len(index.files)} files, {total:,} bytes, every sha256 right")


def _check_rows(index: Index, rows: dict[str, list[dict[str, NDArray[Any]]]]) -> Check:
    """Names, shapes, finite values, row counts; the view's rows."""
    for shard, arrays in zip(
        index.shards, (a for parts in rows.values() for a in parts), strict=True
    ):
        if list(sorted(arrays)) != sorted(index.columns):
            return Check("rows", False, f"{shard.file}: its tensors are not the index's columns")
        for name, array in arrays.items():
            shape = (shard.rows, *index.spec.tensors.get(name, ()))
            if array.shape != shape or array.dtype != index.columns[name].dtype:
                got = f"{array.dtype} {array.shape}"
                return Check("rows", False, f"{shard.file}: {name} is {got}, expected {shape}")
            if not np.isfinite(array).all():
                return Check("rows", False, f"{shard.file}: {name} has values that are not finite")
    return Check("rows", True, f"{index.rows:,} rows, all finite, shapes as in the index")


def _check_plan(
    index: Index,
    source: ImageSource | SineSource,
    rows: dict[str, list[dict[str, NDArray[Any]]]],
) -> Check:
    """Every planned network once, in its split, in order, with the source's targets."""
    planned = plan_rows(recipe_from_json(index.recipe), source, index.plan["limit"])
    left_out = {(row.split, row.index, row.view) for row in index.excluded}
    for split, wanted in planned.items():
        keys = [
            key
            for key in zip(wanted.index.tolist(), wanted.view.tolist(), strict=True)
            if (split, *key) not in left_out
        ]
        parts = rows.get(split, [])
        got = [
            key
            for part in parts
            for key in zip(part["index"].tolist(), part["view"].tolist(), strict=True)
        ]
        if got != keys:
            return Check("plan", False, f"split {split} does not hold the rows of its recipe")
        for part in parts:
            for name, values in target_columns(source, part["index"]).items():
                if not np.array_equal(part[name], values):
                    return Check("plan", False, f"split {split}: {name} is not the source's")
    return Check("plan", True, "every planned network once, targets equal to the source's")


def _draw(
    rows: dict[str, list[dict[str, NDArray[Any]]]], count: int, chosen: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """`count` random rows of all splits."""
    parts = [part for pieces in rows.values() for part in pieces]
    ends = np.cumsum([len(part["index"]) for part in parts])
    picked = np.sort(chosen.choice(ends[-1], min(count, int(ends[-1])), replace=False))
    places = np.searchsorted(ends, picked, side="right")
    found: dict[str, NDArray[Any]] = {}
    for name in parts[0]:
        values = [
            parts[place][name][row - (ends[place - 1] if place else 0)]
            for place, row in zip(places, picked, strict=True)
        ]
        found[name] = np.stack(values)
    return found


def _weights(goal: Objective, arrays: dict[str, NDArray[Any]]) -> Weights:
    return Weights.from_tensors(
        {name: torch.from_numpy(arrays[name]) for name in goal.spec.tensors}
    )


def _decibels(goal: Objective, mse: NDArray[Any]) -> NDArray[np.float64]:
    """Quality on a logarithmic scale, whatever the columns record."""
    return goal.psnr_db(np.asarray(mse, np.float64))


def _check_quality(
    goal: Objective, source: ImageSource | SineSource, arrays: dict[str, NDArray[Any]]
) -> Check:
    _, _, mse = evaluate(goal, raw_items(source, arrays["index"]), _weights(goal, arrays))
    apart = np.abs(_decibels(goal, mse) - _decibels(goal, arrays["mse"]))
    worst = int(apart.argmax())
    key = f"index {arrays['index'][worst]} view {arrays['view'][worst]}"
    if apart[worst] > RENDER_TOLERANCE_DB:
        return Check("quality", False, f"{key} renders {apart[worst]:.2f} dB off its record")
    return Check(
        "quality", True, f"{len(mse)} rows rendered again, at most {apart[worst]:.4f} dB off"
    )


def _check_refit(
    index: Index,
    goal: Objective,
    source: ImageSource | SineSource,
    arrays: dict[str, NDArray[Any]],
    device: str,
) -> Check:
    engine = engines.load(index.plan["engine"], device)
    rows = Rows(arrays["index"], arrays["view"])
    raw = raw_items(source, rows.index)
    fitted = fit_rows(goal, engine, index.plan["seed"], rows, goal.targets(raw), {})
    if fitted.excluded:
        return Check("refit", False, f"index {fitted.excluded[0][0]} was kept but fails now")
    equal = np.ones(len(rows), bool)
    for name in goal.spec.tensors:
        equal &= (fitted.arrays[name] == arrays[name]).reshape(len(rows), -1).all(axis=1)
    here, there = package_versions(), index.packages
    same_place = {cpu_kind()} == {shard.cpu for shard in index.shards} and all(
        here.get(name) == there.get(name) for name in BYTE_PACKAGES
    )
    if same_place or equal.all():
        if equal.all():
            return Check("refit", True, f"{len(rows)} rows fitted again, equal to the byte")
        bad = int(np.flatnonzero(~equal)[0])
        which = f"index {rows.index[bad]} view {rows.view[bad]}"
        return Check("refit", False, f"{(~equal).sum()} of {len(rows)} differ, first {which}")
    apart = _decibels(goal, fitted.arrays["mse"]) - _decibels(goal, arrays["mse"])
    passed = (
        abs(apart.mean()) < REFIT_MEAN_TOLERANCE_DB and np.abs(apart).max() < REFIT_TOLERANCE_DB
    )
    detail = (
        f"{len(rows)} rows fitted again on another CPU or version: {apart.mean():+.3f} dB in the "
        f"mean, {np.abs(apart).max():.2f} dB at most"
    )
    return Check("refit", bool(passed), detail)
