"""Holds a zoo against its index, against its source, and against a fresh fit."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import machine, shards, stats, table
from zoo.compare import source_of
from zoo.errors import ZooError
from zoo.hub.arrival import AtUrl, Here, find
from zoo.hub.client import HubError
from zoo.kinds import Check, Kind, Made, Means, kind_of
from zoo.making.fitting import Rows
from zoo.making.plan import cpu_kind, package_versions, plan_rows
from zoo.recipes import recipe_from_json
from zoo.shards import Index, widen
from zoo.sources import ImageSource

# Sums of float64 in another order.
STATS_TOLERANCE = 1e-9
BYTE_PACKAGES = ("numpy", "numba", "llvmlite", "torch")


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
    if index.imported:
        yield Check(
            "source", True, "skipped: imported networks are not made by a recipe to be run again"
        )
        return
    opened = source_of(index, data_root, source)
    chosen = np.random.default_rng(seed)
    recipe = recipe_from_json(index.recipe)
    kind = kind_of(recipe)
    # What is no fast engine's is not to be told again.
    engine = "reference" if index.plan["engine"] == "reference" else "auto"
    dtype, drawn = index.plan.get("dtype", "float32"), index.plan["seed"]
    means = Means(engine, "cpu", dtype, here=True, seed=drawn)
    goal, _ = kind.goal(recipe, opened, means)
    made = Made(index, rows, opened, goal, device, _same_place(index, device))
    yield _check_plan(kind, made)
    if samples > 0:
        yield kind.check_quality(made, made.drawn(samples, chosen))
    if refit > 0:
        yield kind.check_refit(made, refit, chosen)


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


def _check_plan(kind: Kind, made: Made) -> Check:
    """Every planned network once, in its split, in order, with the source's targets."""
    index = made.index
    planned = plan_rows(recipe_from_json(index.recipe), made.source, index.plan["limit"])
    left_out = {(row.split, row.index, row.view) for row in index.excluded}
    for split, wanted in planned.items():
        keys = [
            key
            for key in wanted.pairs()
            if (split, *key) not in left_out
            for _ in range(made.goal.unit_rows)
        ]
        parts = made.rows.get(split, [])
        got = [key for part in parts for key in Rows(part["index"], part["view"]).pairs()]
        if got != keys:
            return Check("plan", False, f"split {split} does not hold the rows of its recipe")
        for part in parts:
            if wrong := kind.contradiction(made, part):
                return Check("plan", False, f"split {split}: {wrong}")
    return Check("plan", True, kind.planned)


def _same_place(index: Index, device: str) -> bool:
    """Whether a refit must give the bytes again: on a CPU like the index's, never on a GPU."""
    here, there = package_versions(), index.packages
    return (
        device == "cpu"
        and {cpu_kind()} == {shard.cpu for shard in index.shards}
        and all(here.get(name) == there.get(name) for name in BYTE_PACKAGES)
    )
