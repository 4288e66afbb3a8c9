"""Turns rows into the files of a zoo: what every maker of zoos shares.

A shard is written with its Parquet view and described, and a note is taken of it: all that
`finish` needs to end the work with statistics, card and index, in this order, without
reading the shard again.
"""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import cards, shards, stats
from zoo.figures import Samples
from zoo.kinds import DRAWN
from zoo.reached import Reached
from zoo.shards import Index, Shard

CARD_SAMPLES = 16
# Everything that a maker of zoos puts into the folder, the index first: without it the
# rest is no zoo, even if a removal is killed half way.
OURS = (shards.INDEX_FILE, *shards.ZOO_FILES, shards.BUILD_FOLDER)

Arrays = dict[str, NDArray[Any]]
# The items of a source by their positions there.
Items = Callable[[NDArray[np.int64]], NDArray[Any]]


def write_shard(
    folder: Path,
    index: Index,
    split: str,
    number: int,
    total: int,
    arrays: Mapping[str, NDArray[Any]],
    cpu: str,
    items: Items | None = None,
) -> Shard:
    """Write the rows of one shard, and their Parquet view if the plan wants one.

    Args:
        items: pictures of the source's items, if the view shows them.
    """
    ordered = {name: arrays[name] for name in index.columns}
    name = shards.shard_file(split, number, total)
    stored = {
        key: shards.narrow(array, index.columns[key].storage or "float32")
        for key, array in ordered.items()
    }
    shards.write_tensors(folder / name, stored, {"wszoo_format": "1"})
    del stored  # the view needs as much memory again
    view = None
    if index.plan["parquet"]:
        from zoo.table import write_parquet

        data = shards.shard_file(split, number, total, parquet=True)
        shown = items(ordered["index"]) if items and "original" in index.pictures else None
        write_parquet(folder / data, ordered, index, shown)
        view = shards.describe(folder, data)
    return Shard(
        **asdict(shards.describe(folder, name)),
        split=split,
        rows=len(ordered["index"]),
        cpu=cpu,
        parquet=view,
    )


def note_of(
    index: Index, split: str, arrays: Mapping[str, NDArray[Any]], shown: bool = False
) -> Arrays:
    """All that `finish` needs of a shard: small beside it.

    Args:
        shown: whether the card may show its first networks.

    Returns:
        `column.NAME` of the columns that are summarised or drawn, `row`; of a training
        shard `mean.NAME` and `squares.NAME` too, the moments of each tensor's entries; of
        one that may be shown `shown.NAME`, its first rows.
    """
    note = {f"column.{name}": arrays[name] for name in _noted(index)}
    if split == "train":
        for name in index.spec.tensors:
            moment = stats.Moments()
            moment.add(arrays[name])
            note |= {f"mean.{name}": moment.mean, f"squares.{name}": moment.squares}
    if shown:
        note |= {f"shown.{name}": arrays[name][:CARD_SAMPLES] for name in index.columns}
    return note


def shown_rows(note: Mapping[str, NDArray[Any]]) -> Arrays:
    """The rows that a note keeps for the card; none if it keeps none."""
    return {k.removeprefix("shown."): v for k, v in note.items() if k.startswith("shown.")}


def _measured(index: Index) -> list[str]:
    return [name for name, column in index.columns.items() if column.role == "quality"]


def _noted(index: Index) -> list[str]:
    named = dict.fromkeys([*_measured(index), *DRAWN])
    return [name for name in named if name in index.columns]


def finish(
    folder: Path,
    index: Index,
    notes: Iterable[Arrays],
    samples: Callable[[], Samples | None],
    reached: Sequence[Reached] = (),
) -> Index:
    """Write statistics, card and index, the index last.

    Args:
        index: with its shards, at least one, and what was excluded.
        notes: what `note_of` gives of each shard, in order.
        samples: the networks to be drawn in the card; called when the notes are read.
        reached: what models reach on the zoo, for the card.
    """
    moments = {name: stats.Moments() for name in index.spec.tensors}
    measured = _measured(index)
    quality: dict[str, dict[str, list[NDArray[Any]]]] = {}
    for shard, note in zip(index.shards, notes, strict=True):
        if shard.split == "train":
            for name, moment in moments.items():
                moment.merge(shard.rows, note[f"mean.{name}"], note[f"squares.{name}"])
        for name in _noted(index):
            column = quality.setdefault(shard.split, {}).setdefault(name, [])
            column.append(note[f"column.{name}"])
    joined = {
        split: {name: np.concatenate(parts) for name, parts in columns.items()}
        for split, columns in quality.items()
    }
    found = values = None
    if next(iter(moments.values())).count:
        values = stats.normalisation(moments)
        shards.write_tensors(folder / shards.STATS_FILE, values)
        found = shards.describe(folder, shards.STATS_FILE)
    index = replace(
        index,
        quality={
            split: {name: stats.summary(columns[name]) for name in measured}
            for split, columns in joined.items()
        },
        stats=found,
    )
    if index.names:
        from zoo.table import write_names

        write_names(folder / shards.NAMES_FILE, index.names)
        named = asdict(shards.describe(folder, shards.NAMES_FILE))
        index = replace(index, source={**index.source, "names": named})
    cards.write_card(folder, index, joined, samples(), reached, values)
    shards.write_index(folder, index)
    return index


def disk_message(folder: object, error: OSError) -> str:
    """One line about an error of the file system, and what to do."""
    what = error.strerror or str(error)
    where = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full; what is finished is kept: free some space, then run the same"
        return f"{folder}: {what} command again to go on"
    return f"cannot write {where}: {what}"


def finite(arrays: Arrays) -> tuple[Arrays, list[tuple[int, int, str]]]:
    """Rows without NaN and infinity, and the others with the reason."""
    keep = np.ones(len(arrays["index"]), bool)
    lost = []
    for name, array in arrays.items():
        flat: NDArray[Any] = array.reshape(len(keep), -1)
        good = np.isfinite(flat).all(axis=1)
        for row in np.flatnonzero(keep & ~good):
            key = int(arrays["index"][row]), int(arrays["view"][row])
            lost.append((*key, f"{name} is not finite"))
        keep &= good
    if keep.all():
        return arrays, []
    return {name: array[keep] for name, array in arrays.items()}, lost
