"""Holds a zoo against its index, against its source, and against a fresh fit."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import engines, machine, nets, shards, stats, table
from zoo.compare import source_of
from zoo.engines import classifiers
from zoo.errors import ZooError
from zoo.hub.arrival import AtUrl, Here, find
from zoo.hub.client import HubError
from zoo.kinds import Means, evaluate, kind_of, objective
from zoo.making.fitting import Rows, fit_rows
from zoo.making.plan import cpu_kind, package_versions, plan_rows
from zoo.objectives import Objective
from zoo.recipes import TrajectoryRecipe, recipe_from_json
from zoo.shards import Index, widen
from zoo.sources import ImageSource, SineSource
from zoo.training import Classification
from zoo.weights import Weights

# The engines' sines differ from torch's by a few ulp: far below a hundredth of a dB.
RENDER_TOLERANCE_DB = 0.02
# Across engines and machines the rounding differs from the first step on, and Adam
# amplifies it; single networks end up a few tenths of a dB apart, the mean does not.
REFIT_MEAN_TOLERANCE_DB = 0.25
REFIT_TOLERANCE_DB = 3.0
# The engines round differently from torch, which can turn a tie between two classes.
ACCURACY_TOLERANCE = 0.002
LOSS_TOLERANCE = 1e-3  # of 1 + loss
# Across machines and engines the rounding of the first steps grows; accuracies stay alike.
REFIT_MEAN_ACCURACY_TOLERANCE = 0.03
REFIT_ACCURACY_TOLERANCE = 0.15
# Sums of float64 in another order.
STATS_TOLERANCE = 1e-9
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
    source: str | ImageSource | None = None,
    revision: str | None = None,
) -> Iterator[Check]:
    """Check a zoo, yielding each check as it is done.

    Args:
        path: its folder; from a URL every file is fetched anew to be checked; of a zoo on the
            Hub all that is not in the cache yet, and what is there is hashed again.
        samples: rows whose pictures are rendered again and held against their quality.
        refit: rows that are fitted again. On the engine, kind of CPU and package
            versions of the index the bytes must be equal, elsewhere and on a GPU the PSNR
            must agree.
        data_root: where the source lies; needed for `samples` and `refit`.
        seed: of the choice of rows.
        source: what the source is opened by, such as "imagefolder:PATH"; None takes what the
            folder remembers, else the name in the index.
        revision: branch, tag or commit of a zoo on the Hub.

    Raises:
        ZooError: if there is no zoo, its index is unreadable, or its source is missing.
    """
    machine.limit_torch()
    found = find(path, revision)
    if not isinstance(found, Here):
        with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
            try:
                cache = {"cache": Path(scratch) / "zoo"} if isinstance(found, AtUrl) else {}
                folder = found.bring(found.index.files, **cache)
            except HubError:  # which says nothing about the zoo
                raise
            except ZooError as error:
                yield Check("files", False, str(error))
                return
            settings: dict[str, Any] = {"data_root": data_root, "seed": seed, "device": device}
            settings["source"] = source
            yield from verify(folder, samples=samples, refit=refit, **settings)
        return
    folder, index = found.folder, found.index
    yield _check_files(folder, index)
    damaged = [s for s in index.shards if shards.check_file(folder, s, hashes=False)]
    if damaged:
        return
    rows: dict[str, list[dict[str, NDArray[Any]]]] = {}
    for shard in index.shards:
        try:
            # Mapped, not read: a zoo may be larger than memory.
            rows.setdefault(shard.split, []).append(table.map_shard(folder, index, shard))
        except ZooError as error:
            yield Check("rows", False, str(error))
            return
    yield (sound := _check_rows(index, rows))
    if sound.passed:
        yield _check_statistics(folder, index, rows)
    if samples <= 0 and refit <= 0:
        return
    if index.recipe.get("kind") == "import":
        yield Check(
            "source", True, "skipped: imported networks are not made by a recipe to be run again"
        )
        return
    opened = source_of(index, data_root, source)
    chosen = np.random.default_rng(seed)
    recipe = recipe_from_json(index.recipe)
    if not kind_of(recipe).signals:
        means = Means("auto", "cpu", index.plan.get("dtype", "float32"), here=True)
        trained, _ = kind_of(recipe).goal(recipe, opened, means)
        assert isinstance(trained, Classification)
        yield _check_plan(index, opened, rows, trained)
        if samples > 0:
            yield _check_accuracy(trained, index, _draw(rows, samples, chosen))
        if refit > 0:
            yield _check_retraining(trained, index, rows, refit, chosen, device)
        return
    goal = objective(recipe, opened)
    yield _check_plan(index, opened, rows, None)
    if samples > 0:
        yield _check_quality(goal, opened, _draw(rows, samples, chosen))
    if refit > 0:
        yield _check_refit(index, goal, opened, _draw(rows, refit, chosen), device)


def _check_files(folder: Path, index: Index) -> Check:
    wrong = [line for file in index.files if (line := shards.check_file(folder, file, True))]
    # While it takes the place of an older zoo, files of that one still have its names.
    listed = {file.file for file in index.files}
    there = {
        path.relative_to(folder).as_posix()
        for part in (() if index.base else ("weights", "data"))
        for path in (folder / part).glob("*")
    }
    wrong += [f"{folder / name} is not in the index" for name in sorted(there - listed)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Check("files", False, wrong[0] + more)
    total = sum(file.bytes for file in index.files)
    detail = f"{len(index.files)} files, {total:,} bytes, every sha256 right"
    detail += "; README.md and figures have none"
    if index.base:
        detail += "; it was taking an older zoo's place: run the command that makes it to end that"
    return Check("files", True, detail)


def _check_rows(index: Index, rows: dict[str, list[dict[str, NDArray[Any]]]]) -> Check:
    """Names, shapes, finite values, row counts; the view's rows."""
    for shard, arrays in zip(
        index.shards, (a for parts in rows.values() for a in parts), strict=True
    ):
        if list(sorted(arrays)) != sorted(index.columns):
            return Check("rows", False, f"{shard.file}: its tensors are not the index's columns")
        for name, array in arrays.items():
            shape = (shard.rows, *index.spec.tensors.get(name, ()))
            if array.shape != shape or array.dtype != index.columns[name].stored:
                got = f"{array.dtype} {array.shape}"
                return Check("rows", False, f"{shard.file}: {name} is {got}, expected {shape}")
            if not np.isfinite(widen(array)).all():
                return Check("rows", False, f"{shard.file}: {name} has values that are not finite")
    return Check("rows", True, f"{index.rows:,} rows, all finite, shapes as in the index")


def _check_statistics(
    folder: Path, index: Index, rows: dict[str, list[dict[str, NDArray[Any]]]]
) -> Check:
    """The statistics and the index's summaries of quality, computed from the rows again."""
    name = "stats"
    if index.stats is not None:
        try:
            found = shards.read_stats(folder, index)
        except ZooError as error:
            return Check(name, False, str(error))
        moments = {key: stats.Moments() for key in index.spec.tensors}
        for part in rows.get("train", []):
            for key, moment in moments.items():
                moment.add(widen(part[key]))
        for key, values in stats.normalisation(moments).items():
            if not np.allclose(found[key], values, rtol=STATS_TOLERANCE, atol=STATS_TOLERANCE):
                path = folder / index.stats.file
                return Check(name, False, f"{path}: {key} is not that of the training rows")
    for split, columns in index.quality.items():
        for key, summary in columns.items():
            again = stats.summary(np.concatenate([part[key] for part in rows[split]]))
            for what, value in again.items():
                if not math.isclose(value, summary[what], rel_tol=1e-6, abs_tol=1e-9):
                    place = f"{shards.INDEX_FILE}: quality.{split}.{key}.{what}"
                    return Check(name, False, f"{place} is {summary[what]:g}, the rows' {value:g}")
    return Check(name, True, "means, deviations and quality are those of the rows")


def _check_plan(
    index: Index,
    source: ImageSource | SineSource,
    rows: dict[str, list[dict[str, NDArray[Any]]]],
    trained: Classification | None,
) -> Check:
    """Every planned network once, in its split, in order, with the source's targets."""
    planned = plan_rows(recipe_from_json(index.recipe), source, index.plan["limit"])
    seed, unit_rows = index.plan["seed"], trained.unit_rows if trained else 1
    left_out = {(row.split, row.index, row.view) for row in index.excluded}
    for split, wanted in planned.items():
        keys = [
            key
            for key in zip(wanted.index.tolist(), wanted.view.tolist(), strict=True)
            if (split, *key) not in left_out
            for _ in range(unit_rows)
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
            targets = (
                trained.target_columns(seed, part["index"])
                if trained
                else source.columns(part["index"])
            )
            for name, values in targets.items():
                if not np.array_equal(part[name], values):
                    whose = "what its seed draws" if trained else "the source's"
                    return Check("plan", False, f"split {split}: {name} is not {whose}")
            if trained and isinstance(trained.recipe, TrajectoryRecipe):
                for unit in np.unique(part["index"]):
                    steps = trained.steps(seed, trained.unit(seed, int(unit)))
                    if part["step"][part["index"] == unit].tolist() != list(steps):
                        detail = f"run {unit} does not hold the steps of its recipe"
                        return Check("plan", False, detail)
    if trained:
        what = "runs" if "step" in index.columns else "networks"
        return Check("plan", True, f"all planned {what} once, with the settings of their seed")
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
            widen(parts[place][name][row - (ends[place - 1] if place else 0)][None])[0]
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
    _, _, mse = evaluate(goal, source.items(arrays["index"]), _weights(goal, arrays))
    apart = np.abs(_decibels(goal, mse) - _decibels(goal, arrays["mse"]))
    worst = int(apart.argmax())
    key = f"index {arrays['index'][worst]} view {arrays['view'][worst]}"
    if apart[worst] > RENDER_TOLERANCE_DB:
        return Check("quality", False, f"{key} renders {apart[worst]:.2f} dB off its record")
    return Check(
        "quality", True, f"{len(mse)} rows rendered again, at most {apart[worst]:.4f} dB off"
    )


def _same_place(index: Index, device: str) -> bool:
    """Whether a refit must give the bytes again: on a CPU like the index's, never on a GPU."""
    here, there = package_versions(), index.packages
    return (
        device == "cpu"
        and {cpu_kind()} == {shard.cpu for shard in index.shards}
        and all(here.get(name) == there.get(name) for name in BYTE_PACKAGES)
    )


def _check_refit(
    index: Index,
    goal: Objective,
    source: ImageSource | SineSource,
    arrays: dict[str, NDArray[Any]],
    device: str,
) -> Check:
    name = index.plan["engine"]
    if name != "reference" and (name == "cpu") != (device == "cpu"):
        name = "auto"  # the zoo's engine does not run on this device
    engine = engines.load(engines.choose(name, device, goal.spec), device)
    rows = Rows(arrays["index"], arrays["view"])
    raw = source.items(rows.index)
    fitted = fit_rows(goal, engine, index.plan["seed"], rows, goal.targets(raw), {})
    if fitted.excluded:
        return Check("refit", False, f"index {fitted.excluded[0][0]} was kept but fails now")
    equal = np.ones(len(rows), bool)
    for name in goal.spec.tensors:
        equal &= (fitted.arrays[name] == arrays[name]).reshape(len(rows), -1).all(axis=1)
    if _same_place(index, device) or equal.all():
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
        f"{len(rows)} rows fitted again on a GPU, another CPU or version: {apart.mean():+.3f} dB "
        f"in the mean, {np.abs(apart).max():.2f} dB at most"
    )
    return Check("refit", bool(passed), detail)


def _check_accuracy(goal: Classification, index: Index, arrays: dict[str, NDArray[Any]]) -> Check:
    """Evaluate networks again, with plain torch."""
    weights = Weights.from_tensors(
        {name: torch.from_numpy(arrays[name]) for name in goal.spec.tensors}
    )
    worst, key = 0.0, ""
    for row, unit in enumerate(arrays["index"].tolist()):
        run = goal.run(index.plan["seed"], unit)
        items = {"test": run.test_items, "train": run.loss_items}
        found = {name: _evaluate(goal, weights[row], part) for name, part in items.items()}
        step = f" step {arrays['step'][row]}" if "step" in arrays else ""
        key = f"index {unit}{step}"
        accuracy = abs(found["test"][1] - float(arrays["test_accuracy"][row]))
        worst = max(worst, accuracy)
        for name, (loss, _) in found.items():
            recorded = float(arrays[f"{name}_loss"][row])
            if abs(loss - recorded) > LOSS_TOLERANCE * (1 + recorded):
                detail = f"{key} has a {name} loss of {loss:.5f}, its record says {recorded:.5f}"
                return Check("quality", False, detail)
        if accuracy > ACCURACY_TOLERANCE:
            detail = f"{key} has an accuracy {accuracy:.4f} off its record"
            return Check("quality", False, detail)
    detail = f"{len(arrays['index'])} rows evaluated again, accuracy at most {worst:.5f} off"
    return Check("quality", True, detail)


def _evaluate(
    goal: Classification, weights: Weights, items: NDArray[np.int64], batch: int = 1000
) -> tuple[float, float]:
    """Mean loss and accuracy of one network."""
    total, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            x = classifiers.pixels(goal.data, goal.spec, part, "cpu")
            outputs = nets.forward(goal.spec, weights, x)[0].double()
            labels = torch.from_numpy(goal.data.labels[part])
            total += float(torch.nn.functional.cross_entropy(outputs, labels, reduction="sum"))
            right += int((outputs.argmax(dim=1) == labels).sum())
    return total / len(items), right / len(items)


def _check_retraining(
    goal: Classification,
    index: Index,
    rows: dict[str, list[dict[str, NDArray[Any]]]],
    count: int,
    chosen: np.random.Generator,
    device: str,
) -> Check:
    """Train classifiers or runs again, each with all its networks."""
    units = [
        (part, unit) for ps in rows.values() for part in ps for unit in np.unique(part["index"])
    ]
    picked = chosen.choice(len(units), min(count, len(units)), replace=False)
    engine = classifiers.load(index.plan["engine"], device)
    same_place = _same_place(index, device)
    what = "runs" if "step" in index.columns else "networks"
    different: list[int] = []
    apart: list[NDArray[np.float64]] = []
    for number in np.sort(picked):
        part, unit = units[number]
        mask = part["index"] == unit
        one = Rows(np.array([unit]), np.zeros(1, np.int64))
        fitted = goal.train(engine, index.plan["seed"], one)
        if fitted.excluded:
            return Check("refit", False, f"index {unit} was kept but fails now")
        equal = all(
            np.array_equal(fitted.arrays[name], widen(part[name][mask]))
            for name in goal.spec.tensors
        )
        different += [] if equal else [int(unit)]
        recorded = part["test_accuracy"][mask].astype(np.float64)
        apart.append(fitted.arrays["test_accuracy"] - recorded)
    if not different:
        return Check("refit", True, f"{len(picked)} {what} trained again, equal to the byte")
    if same_place:
        detail = f"{len(different)} of {len(picked)} {what} differ, first index {different[0]}"
        return Check("refit", False, detail)
    errors = np.concatenate(apart)
    passed = (
        abs(errors.mean()) < REFIT_MEAN_ACCURACY_TOLERANCE
        and np.abs(errors).max() < REFIT_ACCURACY_TOLERANCE
    )
    detail = (
        f"{len(picked)} {what} trained again on a GPU, another CPU or version: accuracy "
        f"{errors.mean():+.4f} in the mean, {np.abs(errors).max():.4f} at most"
    )
    return Check("refit", bool(passed), detail)
