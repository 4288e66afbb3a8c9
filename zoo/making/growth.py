"""Zoos that grow: the rows of a finished zoo become rows of a larger one of its recipe.

A network of a picture or a wave is decided by recipe, seed, index and view alone. So a zoo
that differs from the one asked for in `--limit` or `--views` alone has rows that the larger
one needs: they are copied, and only the others are fitted. The larger zoo is made beside the
old one, which opens until the new one stands, and is the zoo that a single run makes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import shards, table
from zoo.making.fitting import Fitted, Rows
from zoo.making.plan import Plan, differences
from zoo.shards import Index
from zoo.storage import Folder, Place


class Donor:
    """The networks of a finished zoo that a larger one may take over.

    Args:
        warn: called with one line about each shard that is damaged, whose networks are
            fitted again.
    """

    def __init__(self, folder: Folder, index: Index, warn: Callable[[str], None]):
        self._columns = tuple(index.columns)
        self._lost = {(row.index, row.view): row.reason for row in index.excluded}
        self._shards: list[dict[str, NDArray[Any]]] = []
        self._machines: list[str] = []
        # (index, view) to the shard and the row in it.
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        for shard in index.shards:
            if wrong := shards.check_file(folder.path, shard, hashes=True):
                warn(f"{wrong}; its networks are fitted again")
                continue
            arrays = table.map_shard(folder.path, index, shard)
            for row, key in enumerate(
                zip(arrays["index"].tolist(), arrays["view"].tolist(), strict=True)
            ):
                self._places[key] = len(self._shards), row
            self._shards.append(arrays)
            self._machines.append(shard.cpu)

    def __len__(self) -> int:
        """Networks that can be taken over, those included that are left out."""
        return len(self._places) + len(self._lost)

    def has(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of these rows need no fit, `row`."""
        return np.array([key in self._places or key in self._lost for key in rows.pairs()], bool)

    def take(self, rows: Rows) -> tuple[Fitted, str]:
        """Rows that are all there, as they go to disk, and the machines that fitted them."""
        keys = rows.pairs()
        found = [self._places[key] for key in keys if key in self._places]
        arrays = {
            name: np.stack([self._shards[shard][name][row] for shard, row in found])
            if found
            else np.empty((0, *self._shards[0][name].shape[1:]), self._shards[0][name].dtype)
            for name in self._columns
        }
        lost = [(*key, self._lost[key]) for key in keys if key in self._lost]
        machines = sorted({self._machines[shard] for shard, _ in found})
        return Fitted(arrays, lost), ", ".join(machines)


def merged(rows: Rows, first: Fitted, second: Fitted) -> Fitted:
    """Two chunks that have all of these rows between them, as one in their order."""
    place = {key: number for number, key in enumerate(rows.pairs())}
    arrays = {
        name: np.concatenate([first.arrays[name], second.arrays[name]]) for name in first.arrays
    }
    there = Rows(arrays["index"], arrays["view"])
    order = np.argsort([place[key] for key in there.pairs()])
    return Fitted(
        {name: array[order] for name, array in arrays.items()},
        sorted([*first.excluded, *second.excluded]),
    )


def donor(where: Place, found: Index, plan: Plan, warn: Callable[[str], None]) -> Donor | None:
    """The zoo that stands there, if the planned one is a larger one of its kind; else None."""
    if not (isinstance(where, Folder) and plan.grows and _is_larger(plan.index, found)):
        return None
    return Donor(where, found, warn)


def _is_larger(mine: Index, found: Index) -> bool:
    """Whether only `limit`, or without one `views`, differ, and are larger."""
    asked, had = mine.plan["limit"], found.plan.get("limit")
    same = replace(mine, plan={**mine.plan, "limit": had})
    if asked == had:
        if asked is not None or not mine.recipe.get("views", 0) > found.recipe.get("views", 0):
            return False
        same = replace(same, recipe={**mine.recipe, "views": found.recipe["views"]})
    elif had is None or (asked is not None and asked < had):
        return False
    return not differences(same, found.to_json())
