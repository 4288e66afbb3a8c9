"""Zoos of rows of other zoos: chosen by a condition, or of several zoos together.

    zoo.select("zoos/mnist-inrs", "psnr_db > 25 and label in (3, 8)", "zoos/good")
    zoo.concat(["zoos/a", "zoos/b"], "zoos/both")
    zoo.select(z[:100], None, "zoos/hundred")             # a view of an opened zoo

Rows keep their keys, values and splits. The results open, verify by their hashes, train and
push; no recipe made them as they are, so they cannot be fitted again, but the one that fitted
their networks stands in the index, for who chooses settings by it.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import shards, stopping
from zoo.hub import open_zoo
from zoo.reader import Zoo
from zoo.recipes import FITTED_BY, fitted_by, recipe_class
from zoo.shards import Column, Index
from zoo.where import Condition
from zoo.writer import Writer

# Rows that are read at a time, by bytes of their tensors.
_BYTES = 64 << 20
ORIGIN = "origin"


def select(
    path: str | Path | Zoo,
    where: str | None,
    out: str | Path,
    *,
    parquet: bool = True,
    pictures: bool = True,
    overwrite: bool = False,
) -> Index:
    """Make a zoo in the folder `out` of the rows of a zoo that meet a condition.

    Args:
        path: a folder, a zoo on the Hub or at a URL; or an opened one, or a view of it, of whose
            split alone the new zoo is.
        where: see `zoo.where`; None for all rows.
        parquet, pictures: as for `zoo.Writer`.

    Raises:
        ValueError: if the condition cannot be read, no row meets it, or `out` is not free.
        ZooError: if there is no zoo, or it is damaged.
    """
    opened = _splits(path)
    index = _index(opened)
    chosen = {split: np.arange(len(each)) for split, each in opened.items()}
    if where is not None:
        condition = Condition(where, index.columns)
        chosen = {split: np.flatnonzero(condition(each.table)) for split, each in opened.items()}
    if not sum(len(rows) for rows in chosen.values()):
        meets = f"meets {where!r}" if where is not None else "is chosen"
        raise ValueError(f"no network of {_name(path)} {meets}")
    writer = Writer(
        out,
        index.spec,
        _others(index),
        source=index.source,
        facts={
            "name": "select",
            **({"where": where} if where else {}),
            "of": index.name,
            **_fitted_by([index]),
        },
        command=_command(path, where, out),
        parquet=parquet,
        pictures=pictures,
        dtype=index.plan.get("dtype", "float32"),
        overwrite=overwrite,
    )
    with writer:
        for split, rows in chosen.items():
            for part in _parts(rows, index):
                weights, columns = opened[split].batch(part)
                writer.write(split, weights, columns)
    return _made(writer)


def concat(
    paths: Sequence[str | Path | Zoo],
    out: str | Path,
    *,
    equal_keys: bool = False,
    parquet: bool = True,
    pictures: bool = True,
    overwrite: bool = False,
) -> Index:
    """Make a zoo in the folder `out` of all rows of several zoos, one after the other.

    The column `origin` says which zoo a row comes from.

    Args:
        paths: folders, zoos on the Hub or at URLs, or opened ones and views, of whose split
            alone rows are taken; all of one spec and alike in columns.
        equal_keys: take rows that have the same index and view in several of them.
        parquet, pictures: as for `zoo.Writer`.

    Raises:
        ValueError: for fewer than two zoos, zoos that do not fit together, equal keys unless
            they are wanted, or if `out` is not free.
        ZooError: if there is no zoo, or it is damaged.
    """
    if len(paths) < 2:
        raise ValueError("expected at least two zoos to put together")
    opened = [_splits(path) for path in paths]
    indices = [_index(splits) for splits in opened]
    names, named = _names(indices), [_name(path) for path in paths]
    for name, index in zip(named[1:], indices[1:], strict=True):
        _refuse_other(named[0], indices[0], name, index)
    if not equal_keys:
        _refuse_equal(named, opened)
    first = indices[0]
    one = all(index.source["sha256"] == first.source["sha256"] for index in indices)
    source = first.source if one and first.source["sha256"] else _several(indices)
    words = ["wszoo", "concat", *named, "--out", Path(out).name]
    words += ["--equal-keys"] if equal_keys else []
    views = any(isinstance(path, Zoo) for path in paths)
    writer = Writer(
        out,
        first.spec,
        {**_others(first), ORIGIN: Column("key", "class", names)},
        source=source,
        facts={
            "name": "concat",
            "of": [index.name for index in indices],
            **_fitted_by(indices),
        },
        command="" if views else shlex.join(words),
        parquet=parquet,
        pictures=pictures,
        dtype=first.plan.get("dtype", "float32"),
        overwrite=overwrite,
    )
    with writer:
        for split in shards.SPLITS:
            for number, splits in enumerate(opened):
                if split not in splits:
                    continue
                for part in _parts(np.arange(len(splits[split])), first):
                    weights, columns = splits[split].batch(part)
                    origin = np.full(len(part), number, np.int64)
                    writer.write(split, weights, {**columns, ORIGIN: origin})
    return _made(writer)


def _made(writer: Writer) -> Index:
    assert writer.index is not None
    return writer.index


def _name(path: str | Path | Zoo) -> str:
    return str(path.folder if isinstance(path, Zoo) else path)


def _command(path: str | Path | Zoo, where: str | None, out: str | Path) -> str:
    """The command line that makes the same; none does of a view, or without a condition."""
    if isinstance(path, Zoo) or where is None:
        return ""
    return shlex.join(["wszoo", "select", str(path), "--where", where, "--out", Path(out).name])


def _splits(path: str | Path | Zoo) -> dict[str, Zoo]:
    """All splits of a zoo, wherever it lies; the rows of one that is opened."""
    if isinstance(path, Zoo):
        return {path.split: path}
    opened, wrong = {}, None
    for split in shards.SPLITS:
        try:
            opened[split] = open_zoo(path, split)
        except ValueError as error:  # a zoo need not have every split
            wrong = error
    if not opened and wrong is not None:
        raise wrong
    return opened


def _index(opened: Mapping[str, Zoo]) -> Index:
    return next(iter(opened.values())).index


def _others(index: Index) -> dict[str, Column]:
    """The columns of a row but its keys and tensors."""
    return {
        name: column
        for name, column in index.columns.items()
        if column.kind != "tensor" and name not in ("index", "view")
    }


def _parts(rows: NDArray[np.int64], index: Index) -> Iterator[NDArray[np.int64]]:
    step = max(1, _BYTES // (4 * index.spec.param_count))
    for start in range(0, len(rows), step):
        stopping.check()
        yield rows[start : start + step]


def _names(indices: Sequence[Index]) -> tuple[str, ...]:
    """A name of its own for each zoo."""
    names = [index.name for index in indices]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names)]
    return tuple(names)


def _refuse_other(one: str, first: Index, path: str, index: Index) -> None:
    """ValueError for zoos whose rows do not go together, naming what differs."""
    if index.spec != first.spec:
        if index.spec == replace(first.spec, frequencies=index.spec.frequencies):
            raise ValueError(
                f"{path} and {one} read Fourier features of different frequencies, which the seed "
                "of a zoo draws"
            )
        raise ValueError(f"{path} and {one} hold networks of different specs")
    if ORIGIN in first.columns or ORIGIN in index.columns:
        whose = one if ORIGIN in first.columns else path
        raise ValueError(f"{whose} has a column {ORIGIN!r} already")
    for name in {**first.columns, **index.columns}:
        if first.columns.get(name) != index.columns.get(name):
            raise ValueError(f"{path} and {one} differ in column {name!r}")


def _refuse_equal(paths: Sequence[str], opened: Sequence[Mapping[str, Zoo]]) -> None:
    """ValueError for a row that two of the zoos have."""
    seen: dict[tuple[int, ...], int] = {}
    for number, splits in enumerate(opened):
        for each in splits.values():
            named = [name for name, column in each.columns.items() if column.role == "key"]
            keys = zip(*(each.column(name).tolist() for name in named), strict=True)
            for key in keys:
                if seen.setdefault(key, number) != number:
                    words = ", ".join(f"{n} {v}" for n, v in zip(named, key, strict=True))
                    raise ValueError(
                        f"{paths[seen[key]]} and {paths[number]} both have {words}; to take such "
                        "rows all the same, say equal_keys=True (--equal-keys)"
                    )


def _fitted_by(indices: Sequence[Index]) -> dict[str, Any]:
    """The recipe that all networks were fitted by, if one recipe fitted them all."""
    first, *more = (dict(fitted_by(index.recipe)) for index in indices)
    known = recipe_class(first) is not None and all(each == first for each in more)
    return {FITTED_BY: first} if known else {}


def _several(indices: Sequence[Index]) -> dict[str, Any]:
    """The source of zoos that were made from different ones."""
    titles = list(dict.fromkeys(str(index.source.get("title", "")) for index in indices))
    licences = list(dict.fromkeys(str(index.source.get("license", "")) for index in indices))
    return {
        "kind": "several",
        "name": " + ".join(dict.fromkeys(str(index.source["name"]) for index in indices)),
        "title": ", ".join(filter(None, titles)),
        "license": licences[0] if len(licences) == 1 else "other",
    }
