"""Fetches a zoo from the Hub into a folder of one's own, resumably.

Every file is checked as it arrives and `zoo.json` comes last: a folder with an index is
whole.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo import locks, shards, storage, succession, table
from zoo.errors import ZooError
from zoo.hub import client, trust
from zoo.hub.client import Progress
from zoo.hub.trust import CARD_FILE
from zoo.shards import INDEX_FILE, File, Index

PULL_FOLDER = ".pull"


def pull(
    name: str,
    out: str | Path,
    *,
    split: str | None = None,
    revision: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Index:
    """Fetch a zoo from the Hub into a folder of one's own, or what is missing there.

    Every file is checked as it arrives and `zoo.json` comes last, so a folder with an
    index is whole; a pull that was cut goes on with the next file. With `split` the
    index stays that of the whole zoo: only this split opens, and a later pull without
    it fetches the rest.

    Args:
        name: `user/name`, or of several zoos in one repository `user/name/zoo`.
        out: a new or empty folder, an earlier pull, or the same zoo.
        split: None fetches all.
        revision: branch, tag or commit; None takes the main branch.
        overwrite: replace another zoo in `out`, which stays until this one stands.
        progress: called with bytes done and bytes in all.

    Raises:
        ZooError: if there is no such zoo, its files are not those of its index, or the
            Hub or the disk fails.
        ValueError: for an unknown split, a folder that holds something else, or if
            `name` is not of the form user/name.
    """
    repo_id, base = trust.split_name(name)
    folder = Path(out)
    report = progress or (lambda done, total: None)
    with client.speaking(repo_id, "dataset", revision):
        api = client.open_api()
        info = client.retrying(
            lambda: api.repo_info(repo_id, repo_type="dataset", revision=revision)
        )
        commit = str(info.sha)
        tree = trust.inside(client.files_of(api, repo_id, "dataset", commit), base)
        _refuse_foreign(folder)
        if INDEX_FILE not in tree:
            raise ZooError(
                f"{name} holds no {INDEX_FILE} at {revision or client.MAIN}: it is no zoo"
            )
        if tree[INDEX_FILE].size > trust.INDEX_BYTES:
            raise ZooError(f"{name}: {INDEX_FILE} has {tree[INDEX_FILE].size} bytes, no index")
        texts = _texts(name, tree)
        home = storage.Folder(folder)
        with shards.one_writer(folder), _staging(folder) as staging:
            succession.settle(home)
            more: dict[str, Any] = {"folder": staging}
            index_file = base + INDEX_FILE
            path = client.fetch(repo_id, index_file, commit, most=trust.INDEX_BYTES, **more)
            index = trust.read_index(name, path)
            chosen = index.shards if split is None else tuple(table.shards_of(index, split))
            views = [shard.parquet for shard in chosen if shard.parquet]
            files: list[File] = [*chosen, *views, *index.extras]
            trust.check_against(name, files, tree)
            target = _target(home, path, overwrite)
            missing = [file for file in files if not _is_there(home, target, file)]
            total = sum(file.bytes for file in files)
            done = total - sum(file.bytes for file in missing)
            report(done, total)
            for file, arrived in client.fetch_all(repo_id, missing, commit, base=base, **more):
                _check(name, staging / base, index, file)
                _move(arrived, target / file.file)
                done += file.bytes
                report(done, total)
            for text in texts:
                arrived = client.fetch(repo_id, base + text, commit, most=trust.TEXT_BYTES, **more)
                _move(arrived, target / text)
            _remove_strays(target, index)
            _move(path, target / INDEX_FILE)
            succession.settle(home)
    return index


def _texts(repo_id: str, tree: Mapping[str, Any]) -> list[str]:
    """Card and pictures of a repository, which its index does not vouch for."""
    names = sorted(name for name in tree if name == CARD_FILE or trust.FIGURE.fullmatch(name))
    if len(names) > trust.PICTURES:
        raise ZooError(f"{repo_id} has {len(names):,} pictures; a zoo has {trust.PICTURES} at most")
    for name in names:
        if tree[name].size > trust.TEXT_BYTES:
            raise ZooError(
                f"{repo_id}: {name} has {tree[name].size:,} bytes; at most {trust.TEXT_BYTES:,} "
                "are fetched"
            )
    return names


def _check(repo_id: str, staging: Path, index: Index, file: File) -> None:
    """ZooError unless a file that arrived is what the index says, and opens as such."""
    if wrong := shards.check_file(staging, file, hashes=True):
        raise ZooError(f"{repo_id}: {wrong}")
    if isinstance(file, shards.Shard):
        table.map_shard(staging, index, file)
    elif file.file.endswith(".safetensors"):
        shards.read_tensors(staging / file.file)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Where files arrive; it stays behind to mark a pull that was cut after it began."""
    staging = folder / PULL_FOLDER
    whole = (folder / INDEX_FILE).exists() or not staging.exists()
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
    except BaseException:
        parts = [folder / INDEX_FILE, folder / "weights", folder / "data"]
        if whole and ((folder / INDEX_FILE).exists() or not any(p.exists() for p in parts)):
            shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(staging)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that a pull must not write into."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out")
    if not folder.is_dir():
        return
    names = locks.names(folder)
    # What an overwriting pull left lies beside the old zoo, and has no plan of a fit.
    replacing = INDEX_FILE in names and not (folder / succession.NEW / shards.BUILD_FOLDER).exists()
    if shards.BUILD_FOLDER in names and not replacing:
        raise ValueError(f"{folder} holds a zoo that is being made; choose another --out")
    if names and not names & {INDEX_FILE, PULL_FOLDER}:
        raise ValueError(
            f"{folder} is not empty and not a zoo ({min(names)!r} lies there); choose another --out"
        )


def _target(home: storage.Folder, index: Path, overwrite: bool) -> Path:
    """Where the files go: beside another zoo, which stands until the new one does.

    Raises:
        ValueError: if another zoo is there that is not to be replaced.
    """
    there = home.path / INDEX_FILE
    if not there.is_file() or there.read_bytes() == index.read_bytes():
        return home.path
    if not overwrite:
        raise ValueError(
            f"{home} holds another zoo, or an older state of this one; choose another --out, "
            "or replace it with --overwrite"
        )
    return home.inside(succession.NEW).path


def _is_there(home: storage.Folder, target: Path, file: File) -> bool:
    """Whether a file has arrived before; the zoo that is replaced may have it too."""
    if not shards.check_file(target, file, hashes=True):
        return True
    if target == home.path or shards.check_file(home.path, file, hashes=True):
        return False
    (target / file.file).parent.mkdir(parents=True, exist_ok=True)
    home.copy(file.file, f"{succession.NEW}/{file.file}")
    return True


def _remove_strays(folder: Path, index: Index) -> None:
    """Remove shards of an earlier zoo."""
    listed = {file.file for file in index.files}
    for part in ("weights", "data"):
        for path in (folder / part).glob("*"):
            if path.is_file() and f"{part}/{path.name}" not in listed:
                path.unlink()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
