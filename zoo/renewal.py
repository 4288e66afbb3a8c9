"""Makes the Parquet view and the data card of a finished zoo anew, from its shards.

Rows, statistics and everything else stay as they are; the index comes last, as always.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo import shards, stopping, table, writing
from zoo.cards import may_be_passed_on
from zoo.compare import source_of
from zoo.errors import ZooError
from zoo.figures import Samples
from zoo.kinds import kind_of, objective
from zoo.reached import Reached
from zoo.recipes import recipe_from_json
from zoo.shards import Index, Shard
from zoo.sources import Source
from zoo.storage import Folder
from zoo.table import pictures_of


def renew(
    path: str | Path,
    *,
    view: bool = False,
    pictures: bool = True,
    data_root: str | Path | None = None,
    source: str | None = None,
    warn: Callable[[str], None] | None = None,
    reached: Sequence[Reached] = (),
) -> Index:
    """Make the card anew, and with `view` the Parquet view too.

    Args:
        path: the folder of a finished zoo.
        view: write the view of every shard, also where the zoo had none.
        pictures: begin its rows with pictures, as for `zoo.build`; a card alone leaves the view
            as it is.
        data_root, source: where the originals lie that the card shows, see `zoo.verify`.
        warn: called with one line if they cannot be shown.
        reached: what models reach on the zoo, for the card; without, the card shows none.

    Returns:
        The index, with the files of the view.

    Raises:
        ZooError: if there is no zoo, it is damaged, held by another, or the disk fails.
    """
    folder = Folder(Path(path))
    shards.read_index(folder.path)
    try:
        with folder.owned():
            index = shards.read_index(folder.path)
            for shard in index.shards:
                if wrong := shards.check_file(folder.path, shard, hashes=True):
                    raise ZooError(f"{wrong}; a card of it would be untrue")
            opened = _opened(index, data_root, source, warn or (lambda line: None))
            if view:
                index = replace(index, plan={**index.plan, "parquet": True})
                originals = opened is not None and may_be_passed_on(index)
                drawn = pictures_of(index, originals) if pictures else ()
                index = replace(index, pictures=drawn)
                parts = tuple(_viewed(folder.path, index, shard, opened) for shard in index.shards)
                index = replace(index, shards=parts)
            elif views := [each.parquet for each in index.shards if each.parquet]:
                drawn = table.pictures_in(folder.path / views[0].file)
                index = replace(index, pictures=drawn)
            shown = None if opened is None else _samples(folder.path, index, opened)
            notes = _notes(folder.path, index)
            return writing.finish(folder.path, index, notes, lambda: shown, reached)
    except OSError as error:
        raise ZooError(writing.disk_message(folder, error)) from error


def _arrays(folder: Path, index: Index, shard: Shard) -> dict[str, Any]:
    mapped = table.map_shard(folder, index, shard)
    return {name: shards.widen(mapped[name]) for name in index.columns}


def _viewed(folder: Path, index: Index, shard: Shard, opened: Source | None) -> Shard:
    """A shard with its view, written anew."""
    stopping.check()
    number, total = Path(shard.file).stem.split("-")[1::2]
    name = shards.shard_file(shard.split, int(number), int(total), parquet=True)
    arrays = _arrays(folder, index, shard)
    originals = None
    if opened is not None and "original" in index.pictures:
        originals = opened.items(arrays["index"])
    table.write_parquet(folder / name, arrays, index, originals)
    return replace(shard, parquet=shards.describe(folder, name))


def _notes(folder: Path, index: Index) -> Iterator[dict[str, Any]]:
    for shard in index.shards:
        stopping.check()
        yield writing.note_of(index, shard.split, _arrays(folder, index, shard))


def _opened(
    index: Index,
    data_root: str | Path | None,
    source: str | None,
    warn: Callable[[str], None],
) -> Source | None:
    """What the networks were fitted to, if that is at hand."""
    try:
        return source_of(index, data_root, source)
    except (ZooError, OSError) as error:
        warn(f"no originals are shown: {error}")
        return None


def _samples(folder: Path, index: Index, opened: Source) -> Samples | None:
    """The first networks of the last split beside their originals."""
    recipe = recipe_from_json(index.recipe)
    if not kind_of(recipe).signals:
        return None
    goal = objective(recipe, opened, index.plan["seed"])
    last = list(index.splits)[-1]
    first = next(shard for shard in index.shards if shard.split == last)
    rows = {
        name: np.array(array[: writing.CARD_SAMPLES])
        for name, array in _arrays(folder, index, first).items()
    }
    return kind_of(recipe).samples(goal, opened, rows)
