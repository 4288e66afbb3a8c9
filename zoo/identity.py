"""What runs know a zoo by, whatever Parquet view is made of it."""

import hashlib
from pathlib import Path

from zoo.shards import INDEX_FILE, json_text, read_json, sha256


def hashes(folder: Path) -> tuple[str, str]:
    """The sha256 of a zoo's index as it is without a Parquet view, and as it is.

    A view can be made later, and anew, of the same networks; so runs record the first. Those of
    before 2026-11-27 recorded the second.

    Raises:
        ZooError: if the index is no plain file of JSON.
    """
    path = folder / INDEX_FILE
    whole, plain = sha256(path), read_json(path)
    if not any(shard["parquet"] for shard in plain["shards"]):
        return whole, whole
    for shard in plain["shards"]:
        shard["parquet"] = None
    plain["plan"]["parquet"] = False
    return hashlib.sha256(json_text(plain).encode()).hexdigest(), whole
