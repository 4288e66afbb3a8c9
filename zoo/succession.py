"""How a new zoo takes the place of an old one, in the same folder or at the same URL.

The new zoo is made in `.build/new/` of the old one, as a whole zoo of its own whose index is
written last. The old one is not touched until then. `put_in_place` makes the change:

1. `zoo.json` becomes the new index with every file under `.build/new/`: one write, before
   which the old zoo is there and after which the new one is, whole, for every reader.
2. The old files go, and the new ones get their own names: hard links in a folder, copies
   where it has none and in a store.
3. `zoo.json` becomes the new index as it was written, and `.build/` goes.

A kill leaves the old zoo or the new one; after a kill from step 1 on, `settle` goes on. Both
lie there side by side meanwhile, so an overwriting takes the room of two zoos. Of a store
only what a store can: whoever read the old index and asks for its files after step 1 does
not find them.
"""

import json
from typing import Any

from zoo import schema, shards
from zoo.shards import BUILD_FOLDER, INDEX_FILE, NEW_FOLDER
from zoo.storage import Place

NEW = NEW_FOLDER


def stands(where: Place) -> bool:
    """Whether a new zoo stands whole that was not put in place yet, or not to the end."""
    return INDEX_FILE in where.inside(NEW).names()


def settle(where: Place) -> bool:
    """Put a new zoo in place that stands whole, if there is one; the place must be held.

    Returns:
        Whether there was one.
    """
    found = stands(where)
    if found:
        put_in_place(where)
    return found


def put_in_place(where: Place) -> None:
    """Make the whole zoo in `.build/new/` the zoo of this place; the place must be held.

    Raises:
        ZooError: if its index is not JSON.
    """
    (final,) = where.read([f"{NEW}/{INDEX_FILE}"])
    where.remove(f"{NEW}/{BUILD_FOLDER}")
    moved = _moved(schema.parse(final, f"{where}/{NEW}/{INDEX_FILE}"))
    where.write(INDEX_FILE, (json.dumps(moved, indent=1) + "\n").encode())
    for name in sorted(where.names() & set(shards.ZOO_FILES)):
        where.remove(name)
    for name in sorted(where.inside(NEW).sizes()):
        if name != INDEX_FILE:
            where.copy(f"{NEW}/{name}", name)
    where.write(INDEX_FILE, final)
    # First the mark that there is something to put in place, then what it stood for.
    where.remove(f"{NEW}/{INDEX_FILE}")
    where.remove(BUILD_FOLDER)


def _moved(index: Any) -> Any:
    """An index, as JSON, whose files lie in `.build/new/`."""

    def file(plain: Any) -> Any:
        return {**plain, "file": f"{NEW}/{plain['file']}"} if plain else plain

    listed = [{**file(shard), "parquet": file(shard["parquet"])} for shard in index["shards"]]
    # The table of file names is found beside the shards, see `Index.base`.
    return {**index, "shards": listed, "stats": file(index.get("stats"))}
