"""Brings published networks into zoos: `wszoo import FORMAT PATH`.

Each format is one module of this package with `OPTIONS`, the names of the options it
takes, and `find(path, options)`, which looks at what lies there and returns a `Published`:
spec, columns, and a function that reads rows. One writer makes zoos of them all, a shard
at a time, with the functions that `zoo.build` uses; the index comes last. Files from
outside are data here: nothing in them is run, and what is damaged or contradicts itself
ends in one `ZooError`.

Where the originals are at hand, the networks are held against them, so that a transposed
or shifted import does not pass: see `zoo.importers.checking`.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import machine, shards, writing
from zoo.errors import ZooError
from zoo.importers.checking import Originals, originals_of
from zoo.importers.published import Arrays, Options, Published, flag, limited
from zoo.making.plan import default_shard_rows, package_versions
from zoo.making.progress import Progress
from zoo.shards import PLAN_FILE, Column, Excluded, Index, Shard
from zoo.spec import NetworkSpec

# Format: module. The only list of them.
FORMATS = {
    "dws": "zoo.importers.dws",
    "nfn": "zoo.importers.nfn",
    "small-cnn-zoo": "zoo.importers.small_cnn_zoo",
    "fit-a-nef": "zoo.importers.fit_a_nef",
    "state-dicts": "zoo.importers.state_dicts",
}
IMPORT_KIND = "import"
NO_OPTIONS = Options()
SHARD_BYTES = 1 << 30


def find(format: str, path: str | Path, options: Options = NO_OPTIONS) -> Published:
    """What an importer finds at a path.

    Raises:
        ValueError: for an unknown format, or an option that the format does not take.
        ZooError: if the files are not what the format says.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    module = import_module(FORMATS[format])
    for option in fields(options):
        if getattr(options, option.name) is not None and option.name not in module.OPTIONS:
            takes = ", ".join(flag(name) for name in module.OPTIONS) or "none"
            raise ValueError(f"format {format} takes no {flag(option.name)}; it takes: {takes}")
    if not Path(path).exists():
        raise ValueError(f"{path} does not exist")
    found: Published = module.find(Path(path), options)
    return found


def import_zoo(
    format: str,
    path: str | Path,
    out: str | Path,
    *,
    options: Options = NO_OPTIONS,
    limit: int | None = None,
    shard_rows: int | None = None,
    check_against: str | None = None,
    data_root: str | Path | None = None,
    overwrite: bool = False,
    parquet: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Index:
    """Make a zoo in the folder `out` from the published networks at `path`.

    What an earlier import left unfinished there is thrown away and made again.

    Args:
        format: one of `FORMATS`.
        limit: networks in all, split in proportion, lowest indices first.
        shard_rows: networks of a shard; None chooses about 24 MB.
        check_against: name of the source of the originals, which must lie in `data_root`
            (nothing is downloaded). None takes the format's own source if `data_root` is
            given, else the networks of pictures are not held against theirs.
        overwrite: throw away a zoo that is already there.
        parquet: also write the view that `datasets.load_dataset` reads.
        progress: called after every shard.

    Raises:
        ValueError: for settings that make no sense, or a folder that holds something else.
        ZooError: if files are damaged, malicious, or not what the format or the originals
            say; or the folder is being written by someone else, or the disk fails.
    """
    if shard_rows is not None and shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
    machine.limit_torch()
    published = find(format, path, options)
    if check_against is None and data_root is not None:
        check_against = published.pictures
    originals = originals_of(published, check_against, data_root)
    rows = limited(published.rows, limit)
    columns = shards.zoo_columns(published.spec, {**published.columns, **originals.columns})
    row_bytes = _row_bytes(published.spec, columns)
    folder = Path(out)
    index = Index(
        name=folder.resolve().name,
        recipe={"kind": IMPORT_KIND, "name": format, **published.facts},
        spec=published.spec,
        columns=columns,
        shards=(),
        source={**published.source, **originals.source},
        plan={
            "limit": limit,
            "shard_rows": shard_rows or _shard_rows(row_bytes),
            "parquet": parquet,
        },
        packages=package_versions(),
        command=_command(format, Path(path), options, limit, check_against),
    )
    try:
        with shards.one_writer(folder):
            _open(folder, index, sum(rows.values()), overwrite)
            return _write(folder, index, published, originals, rows, progress)
    except OSError as error:
        raise ZooError(writing.disk_message(folder, error)) from error


def _row_bytes(spec: NetworkSpec, columns: Mapping[str, Column]) -> int:
    """Bytes of one network in memory."""
    return sum(
        columns[name].dtype().itemsize * prod(spec.tensors.get(name, ())) for name in columns
    )


def _shard_rows(row_bytes: int) -> int:
    """Rows of a shard; fewer than a hundred of large networks, which have to fit into memory."""
    return max(1, min(default_shard_rows(row_bytes), SHARD_BYTES // row_bytes))


def _command(
    format: str, path: Path, options: Options, limit: int | None, check: str | None
) -> str:
    words = ["wszoo", "import", format, path.resolve().name, *options.words()]
    words += ["--limit", str(limit)] if limit else []
    words += ["--check-against", check] if check else []
    return shlex.join(words)


def _open(folder: Path, index: Index, planned: int, overwrite: bool) -> None:
    """Clear the folder of what may be cleared, and mark it as unfinished."""
    theirs = {path.name for path in folder.iterdir()} - {shards.LOCK_FILE}
    plan = folder / shards.BUILD_FOLDER / PLAN_FILE
    if theirs and not theirs & {shards.INDEX_FILE, shards.BUILD_FOLDER}:
        raise ValueError(
            f"{folder} is not empty and not a zoo ({min(theirs)!r} lies there); "
            "choose another --out"
        )
    if theirs and not overwrite:
        finished = shards.INDEX_FILE in theirs
        kind = "" if finished or not plan.is_file() else shards.read_json(plan)["recipe"]["kind"]
        if finished or kind != IMPORT_KIND:
            what = "holds a zoo" if finished else "holds an unfinished zoo"
            raise ValueError(f"{folder} {what}; choose another --out, or give --overwrite")
    for name in writing.OURS:
        writing.remove(folder / name)
    shards.write_json(plan, {**index.to_json(), "planned": planned})


def _write(
    folder: Path,
    index: Index,
    published: Published,
    originals: Originals,
    rows: dict[str, int],
    progress: Callable[[Progress], None] | None,
) -> Index:
    made: list[Shard] = []
    excluded: list[Excluded] = []
    step = index.plan["shard_rows"]
    done, total = 0, sum(rows.values())
    for split, count in rows.items():
        for start in range(0, count, step):
            arrays = published.read(split, start, min(start + step, count))
            arrays |= originals.measure(arrays)
            arrays = _typed(arrays, index.columns)
            done += len(arrays["index"])
            arrays, lost = _finite(split, arrays)
            excluded += lost
            if len(arrays["index"]):
                shard = writing.write_shard(
                    folder, index, split, start // step, -(-count // step), arrays, "imported"
                )
                made.append(shard)
            if progress is not None:
                progress(Progress(done, total, done, originals.mean_psnr_db))
    if not made:
        raise ZooError(f"no network is left for {folder}: {excluded[0].reason}")
    originals.judge()
    index = replace(
        index,
        spec=originals.spec_found or index.spec,
        source={**index.source, **originals.measured, **_said(published, total)},
    )
    return writing.finish(folder, index, made, excluded, originals.samples)


def _said(published: Published, networks: int) -> dict[str, Any]:
    """What was read as what and what was passed over, as the index has it."""
    return {"read": published.told.lines(networks), "passed_over": published.passed.to_json()}


def rehearse(
    format: str,
    path: str | Path,
    *,
    options: Options = NO_OPTIONS,
    limit: int | None = None,
    each: Callable[[str, Arrays], None] | None = None,
) -> tuple[Published, dict[str, Any]]:
    """Read all that an import would read, and write nothing.

    Args:
        each: called with the split and the columns of some hundred rows at a time, as they
            would be stored; rows that are not finite, which an import leaves out, included.

    Returns:
        What was found, and what the import would say: `read` and `passed_over`.

    Raises:
        ValueError, ZooError: as `import_zoo`.
    """
    published = find(format, path, options)
    rows = limited(published.rows, limit)
    columns = shards.zoo_columns(published.spec, published.columns)
    step = _shard_rows(_row_bytes(published.spec, columns))
    for split, count in rows.items():
        for start in range(0, count, step):
            arrays = _typed(published.read(split, start, min(start + step, count)), columns)
            if each is not None:
                each(split, arrays)
    return published, _said(published, sum(rows.values()))


def _typed(arrays: Arrays, columns: Mapping[str, Column]) -> Arrays:
    """The columns in the index's order and types."""
    return {
        name: np.ascontiguousarray(arrays[name], column.dtype) for name, column in columns.items()
    }


def _finite(split: str, arrays: Arrays) -> tuple[Arrays, list[Excluded]]:
    """Rows without NaN and infinity, and the others with the reason."""
    keep = np.ones(len(arrays["index"]), bool)
    lost = []
    for name, array in arrays.items():
        flat: NDArray[Any] = array.reshape(len(keep), -1)
        good = np.isfinite(flat).all(axis=1)
        for row in np.flatnonzero(keep & ~good):
            key = int(arrays["index"][row]), int(arrays["view"][row])
            lost.append(Excluded(split, *key, f"{name} is not finite"))
        keep &= good
    if keep.all():
        return arrays, []
    return {name: array[keep] for name, array in arrays.items()}, lost
