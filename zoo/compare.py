"""Sets networks beside what they were fitted to, for cards, `show` and `verify`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import machine
from zoo.errors import ZooError
from zoo.figures import sample_grid, wave_grid
from zoo.hub.arrival import Found, files_of, find
from zoo.kinds import kind_of, look_like, objective, open_source
from zoo.reader import Batch, Row, Zoo, open_zoo
from zoo.recipes import recipe_from_json
from zoo.shards import Index, check_file
from zoo.sources import ImageSource, Source
from zoo.table import shards_of


def source_of(
    index: Index,
    data_root: str | Path | None = None,
    address: str | ImageSource | None = None,
) -> Source:
    """The source a zoo was fitted to, opened again.

    Args:
        data_root: where published sources lie.
        address: what it is opened by, such as "imagefolder:PATH"; None takes what the folder
            of the zoo remembers, else the name in the index. Or the source itself, such as
            `zoo.sources.of_arrays` makes of pictures that lie in no file.

    Raises:
        ZooError: if it cannot be opened, or its content is no longer the same.
    """
    _refuse_imported(index)
    recipe = recipe_from_json(index.recipe)
    name = address or index.address or index.source["name"]
    try:
        expect = index.source["sha256"]
        source = (
            name
            if not isinstance(name, str)
            else open_source(recipe, name, index.plan["seed"], data_root, expect)
        )
    except (ValueError, ZooError) as error:
        kind, colon, _ = index.source["name"].partition(":")
        hint = f"; say where it lies by --source {kind}:PATH" if colon else ""
        raise ZooError(f"the source of {index.name} cannot be opened: {error}{hint}") from error
    if source.sha256 != index.source["sha256"]:
        raise ZooError(
            f"source {source.name} is not what {index.name} was fitted to: its sha256 is "
            f"{source.sha256[:12]}, the index says {index.source['sha256'][:12]}"
        )
    return source


def _refuse_imported(index: Index) -> None:
    if index.imported:
        raise ZooError(
            f"{index.name} was imported, not fitted by a recipe; zoo.original(row) opens the "
            "picture of a row, and the card shows some"
        )


def original(
    row: Row, data_root: str | Path | None = None, source: str | None = None
) -> NDArray[Any]:
    """What a row of a zoo was fitted to.

    Args:
        data_root: where published sources lie.
        source: what the source is opened by, such as "imagefolder:PATH", if it no longer lies
            where it lay when the zoo was made here.

    Returns:
        The picture, uint8 `row column chan`; float32 `point 1` of a wave; or what the network of
        a shape should say, float32 `x y z`, on the points of `row.render()`.

    Raises:
        ZooError: if the source cannot be opened or has changed.
    """
    root = Path(data_root) if data_root else None
    return look_like(row.columns, row.spec).original(row, root, source)


def rows_of(found: Found, split: str, rows: NDArray[np.int64]) -> Batch:
    """These rows of a split, ascending; of a zoo elsewhere only the shards come that hold them.

    Raises:
        ZooError: if a shard is missing or damaged.
    """
    listed = shards_of(found.index, split)
    sizes = np.array([shard.rows for shard in listed])
    places = np.searchsorted(np.cumsum(sizes), rows, side="right")
    used = np.unique(places)
    few = tuple(listed[place] for place in used)
    folder = found.bring(few)
    for shard in few:
        if wrong := check_file(folder, shard, hashes=False):
            raise ZooError(wrong)
    # Where each shard begins among all of them, and among those that are used.
    before, after = np.cumsum(sizes) - sizes, np.cumsum(sizes[used]) - sizes[used]
    networks = Zoo(folder, split, replace(found.index, shards=few))
    return networks.batch(rows - before[places] + after[np.searchsorted(used, places)])


def draw(
    path: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    count: int = 16,
    seed: int = 0,
    data_root: str | Path | None = None,
    source: str | None = None,
    revision: str | None = None,
) -> None:
    """Write a picture of random networks beside their originals, with their quality.

    Of classifiers the whole split is drawn: how accurate they are, over the steps of their
    runs or by pair of classes.

    Args:
        path: a folder, a URL or a repository, of which only what is drawn is fetched.
        split: None takes the last one that the zoo has.
        count: networks.
        source: what the source is opened by, if it does not lie where it lay.
        revision: branch, tag or commit of a repository.

    Raises:
        ValueError: for an unknown split, or a count below 1.
        ZooError: if the zoo or its source is not what it should be.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    machine.limit_torch()
    found_zoo = find(path, revision)
    index = found_zoo.index
    _refuse_imported(index)
    split = split or list(index.splits)[-1]
    recipe = recipe_from_json(index.recipe)
    kind = kind_of(recipe)
    if kind.drawn:
        networks = open_zoo(found_zoo.bring(files_of(index, split)), split)
        found = {name: networks.column(name) for name in kind.drawn}
        kind.figure(Path(out), {networks.split: found}, index.columns)
        return
    opened = source_of(index, data_root, source)
    goal = objective(recipe, opened, index.plan["seed"])
    rows = sum(shard.rows for shard in shards_of(index, split))
    chosen = np.random.default_rng(seed).choice(rows, min(count, rows), replace=False)
    weights, columns = rows_of(found_zoo, split, np.sort(chosen))
    arrays = {name: tensor.numpy() for name, tensor in columns.items()}
    for name, tensor in weights.tensors().items():
        arrays[name] = tensor.numpy()
    shown = kind.samples(goal, opened, arrays)
    assert shown is not None
    if shown.x is None:
        sample_grid(Path(out), shown.originals, shown.reconstructions, shown.captions)
    else:
        wave_grid(Path(out), shown.x, shown.originals, shown.reconstructions, shown.captions)
