"""Opens zoos wherever they lie: in a folder, on the Hub, at a URL.

A repository is downloaded to the Hub's cache once, held against its index, and then mapped
like any folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from zoo import shards, storage, table
from zoo.errors import ZooError
from zoo.hub import client, trust
from zoo.shards import INDEX_FILE, File, Index

if TYPE_CHECKING:
    from zoo.reader import Zoo


def open_zoo(
    path: str | Path,
    split: str = "train",
    check_hashes: bool = False,
    revision: str | None = None,
) -> "Zoo":
    """One split of a zoo, in a folder, on the Hub or at a URL.

    A repository is downloaded to the Hub's cache once and then mapped like any folder;
    later calls only ask whether it has changed, and do without if they cannot. So is a
    zoo at a URL, which has to answer.

    Args:
        path: the folder that holds `zoo.json`, `user/name`, or a URL such as
            s3://BUCKET/NAME.
        split: "train", "validation" or "test"; of a repository only this one is fetched.
        check_hashes: also read every shard of the split and compare its sha256 with
            the index; what comes from the Hub is always checked when it arrives.
        revision: branch, tag or commit of a repository.

    Raises:
        ZooError: if it is no finished zoo, a file is missing, damaged or contradicts
            the index, or the Hub cannot be reached.
        ValueError: for a split that the zoo does not have, or a revision of a folder.
    """
    from zoo import reader

    if isinstance(path, str) and trust.is_repo_id(path):
        path = download(path, split, revision)
    elif revision is not None:
        raise ValueError(f"{path} is a folder, and only repositories have revisions")
    else:
        path = storage.local_copy(path, split)
    return reader.open_zoo(path, split, check_hashes)


def remote_index(repo_id: str, revision: str | None = None) -> Index:
    """The index of a zoo on the Hub; nothing else is fetched.

    Raises:
        ZooError: if there is no such zoo, or the Hub cannot be reached.
    """
    with client.speaking(repo_id, "dataset", revision):
        path = client.fetch_index(repo_id, revision or client.MAIN)
    return trust.read_index(repo_id, path)


def download(repo_id: str, split: str, revision: str | None = None) -> Path:
    """A split of a zoo on the Hub, in the Hub's cache, every file checked once.

    Returns:
        The folder of the revision's snapshot, with `zoo.json`, shards and statistics.

    Raises:
        ZooError: as `open_zoo`.
        ValueError: for a split that the zoo does not have.
    """
    from huggingface_hub import cached_assets_path, try_to_load_from_cache

    with client.speaking(repo_id, "dataset", revision):
        folder = client.fetch_index(repo_id, revision or client.MAIN).parent
        index = trust.read_index(repo_id, folder / INDEX_FILE)
        files: list[File] = [*table.shards_of(index, split)]
        files += [index.stats] if index.stats else []
        commit = folder.name

        def cached(file: File) -> bool:
            found = try_to_load_from_cache(repo_id, file.file, repo_type="dataset", revision=commit)
            return isinstance(found, str)

        if not all(cached(file) for file in files):
            trust.check_against(
                repo_id, files, client.files_of(client.open_api(), repo_id, "dataset", commit)
            )
            for file in files:
                client.fetch(repo_id, file.file, commit)
        # Hashing takes longer than opening, so a file is hashed when it arrives and
        # again only if it was touched since.
        notes = cached_assets_path("wszoo", namespace=repo_id, subfolder="verified")
        note = notes / f"{commit}.json"
        known = shards.read_json(note) if note.is_file() else {}
        fresh = dict(known)
        for file in files:
            path = folder / file.file
            if known.get(file.file) == _stamp(path):
                continue
            if shards.check_file(folder, file, hashes=True):
                client.fetch(repo_id, file.file, commit, force=True)
            if wrong := shards.check_file(folder, file, hashes=True):
                raise ZooError(f"{repo_id}: {wrong}; the repository contradicts its index")
            fresh[file.file] = _stamp(path)
        if fresh != known:
            shards.write_json(note, fresh)
    return folder


def _stamp(path: Path) -> list[int]:
    """What changes when a file is written to."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
