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
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from zoo import machine, shards, writing
from zoo.errors import ZooError
from zoo.figures import Samples
from zoo.importers.checking import Originals, originals_of
from zoo.importers.published import Arrays, Options, Published, flag, limited
from zoo.making.plan import Key, Plan, default_shard_rows, package_versions
from zoo.making.progress import Progress
from zoo.making.site import Site, refuse_foreign, refuse_started
from zoo.shards import Column, Index
from zoo.spec import NetworkSpec
from zoo.storage import Folder
from zoo.table import pictures_of

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
    pictures: bool = True,
    progress: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] | None = None,
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
        overwrite: replace a zoo that is already there; a finished one stays and opens until
            the new one stands whole, and both take room meanwhile.
        parquet: also write the view that `datasets.load_dataset` reads.
        pictures: begin its rows with what each network renders, where the shape of the
            pictures is known, which the originals tell.
        progress: called after every shard.
        warn: called with one line about anything that the caller should know.

    Raises:
        ValueError: for settings that make no sense, or a folder that holds something else.
        ZooError: if files are damaged, malicious, or not what the format or the originals
            say; or the folder is being written by someone else, or the disk fails.
    """
    if shard_rows is not None and shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
    machine.limit_torch()
    where = Folder(Path(out))
    refuse_foreign(where)
    refuse_started(where, overwrite)
    published = find(format, path, options)
    if check_against is None and data_root is not None:
        check_against = published.pictures
    originals = originals_of(published, check_against, data_root)
    rows = limited(published.rows, limit)
    columns = shards.zoo_columns(published.spec, {**published.columns, **originals.columns})
    row_bytes = _row_bytes(published.spec, columns)
    index = Index(
        name=where.name,
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
    if pictures:
        index = replace(index, pictures=pictures_of(index, originals=False))
    step = index.plan["shard_rows"]
    totals = {split: -(-count // step) for split, count in rows.items()}
    plan = ImportPlan(index, rows, totals, originals)
    try:
        with where.owned() as check:
            site = Site(where, plan, warn, check)
            site.start(overwrite)
            _write(site, plan, published.read, progress or (lambda state: None))
            if any(record.shard for record in site.records.values()):
                originals.judge()
            said = _said(published, plan.units)
            return site.finish(
                spec=originals.spec_found or index.spec,
                source={**index.source, **originals.measured, **said},
            )
    except OSError as error:
        raise ZooError(writing.disk_message(where, error)) from error


@dataclass(frozen=True)
class ImportPlan(Plan):
    """The plan of an import: of each split only the number of networks is known.

    Attributes:
        counts: networks of each split.
    """

    index: Index
    counts: dict[str, int]
    totals: dict[str, int]
    originals: Originals
    unit_rows: int = 1

    @property
    def step(self) -> int:
        """Networks of a shard."""
        return int(self.index.plan["shard_rows"])

    @cached_property
    def sizes(self) -> dict[Key, int]:
        return {
            (split, number): min(self.step, count - number * self.step)
            for split, count in self.counts.items()
            for number in range(self.totals[split])
        }

    def samples(self, arrays: Arrays) -> Samples | None:
        return self.originals.samples(arrays)


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


def _write(
    site: Site,
    plan: ImportPlan,
    read: Callable[[str, int, int], Arrays],
    progress: Callable[[Progress], None],
) -> None:
    """Read and write shard after shard, and measure what can be measured."""
    done = 0
    for (split, number), count in plan.sizes.items():
        start = number * plan.step
        arrays = read(split, start, start + count)
        arrays |= plan.originals.measure(arrays)
        arrays = _typed(arrays, plan.index.columns)
        site.put((split, number), [(*writing.finite(arrays), "imported")])
        done += count
        progress(Progress(done, plan.units, done, plan.originals.means))


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
