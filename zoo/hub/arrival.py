"""Finds zoos wherever they lie: in a folder, on the Hub, at a URL.

`find` has the index of a zoo, and brings the files that somebody asks for: each is held
against the index when it arrives, lies in a cache, and is then mapped like any file.
`locate` is the folder of a whole zoo, or of one split. All verbs use these two.
"""

import contextlib
import difflib
import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import files, locks, shards, storage, table
from zoo.errors import ZooError, safe_line
from zoo.hub import client, trust
from zoo.hub.trust import CARD_FILE, TEXT_BYTES
from zoo.shards import INDEX_FILE, File, Index

if TYPE_CHECKING:
    from zoo.reader import Zoo

# Where zoos and runs go by default: such a name is meant as a folder.
_OUR_FOLDERS = ("zoos", "runs")


class Found(ABC):
    """A zoo whose index is here.

    Attributes:
        index: everything about the zoo but its weights.
    """

    index: Index

    @abstractmethod
    def bring(self, wanted: Sequence[File]) -> Path:
        """The folder in which these files of the index lie, after each was checked once.

        Raises:
            ZooError: if one is missing, damaged or contradicts the index, or the Hub or the
                store fails.
        """


def find(where: str | Path, revision: str | None = None) -> Found:
    """The zoo in a folder, on the Hub or at a URL; nothing but its index is read.

    A folder comes before a repository of the same name.

    Args:
        where: the folder that holds `zoo.json`, `user/name` (of several zoos in one repository
            `user/name/zoo`), or a URL such as s3://BUCKET/NAME.
        revision: branch, tag or commit of a repository.

    Raises:
        ZooError: if it is no finished zoo, or cannot be reached.
        ValueError: for a URL that fsspec does not know, or a revision of anything but a
            repository.
    """
    if not str(where).strip():
        raise ValueError(f"expected the folder, URL or user/name of a zoo, got {where!r}")
    if isinstance(where, str) and trust.is_repo_id(where):
        return OnHub(where, revision)
    if revision is not None:
        raise ValueError(f"{where} is a folder, and only repositories have revisions")
    return AtUrl(str(where)) if storage.is_url(where) else Here(storage.folder_of(where))


def locate(where: str | Path, split: str | None = None, revision: str | None = None) -> Path:
    """The folder of this machine that holds a zoo, or one split of it, wherever it lies.

    Args:
        where: as `find`.
        split: None brings all of them, with their Parquet views.

    Raises:
        ZooError: as `find` and `Found.bring`.
        ValueError: as `find`, and for a split that the zoo does not have.
    """
    found = find(where, revision)
    return found.bring(files_of(found.index, split))


def files_of(index: Index, split: str | None = None) -> list[File]:
    """The files of a split with the statistics; of None all that the index names."""
    if split is None:
        return index.files
    return [*table.shards_of(index, split), *index.extras]


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
        check_hashes: also read every file of the index that is there and compare its
            sha256; what comes from the Hub is always checked when it arrives.
        revision: branch, tag or commit of a repository.

    Raises:
        ZooError: if it is no finished zoo, a file is missing, damaged or contradicts
            the index, or the Hub cannot be reached.
        ValueError: for a split that the zoo does not have, or a revision of a folder.
    """
    from zoo import reader

    return reader.open_zoo(locate(path, split, revision), split, check_hashes)


def fetch_model(repo_id: str, names: Sequence[str], revision: str | None = None) -> Path:
    """The folder in the Hub's cache with these files of a model repository.

    Raises:
        ZooError: if one of them is not there, or the Hub cannot be reached.
        ValueError: if `repo_id` is not of the form user/name.
    """
    trust.check_name(repo_id)
    with client.speaking(repo_id, "model", revision):
        for number, name in enumerate(names):
            path = client.fetch(
                repo_id, name, revision or client.MAIN, most=trust.MODEL_BYTES, kind="model"
            )
            if number == 0:
                # All of them from one state of the repository.
                folder = path.parents[len(Path(name).parts) - 1]
                revision = folder.name
    return folder


def meant(folder: Path) -> str:
    """What may have been meant by a folder that is not there: " (did you mean ...?)", or ""."""
    with contextlib.suppress(OSError):
        beside = [each.name for each in folder.parent.iterdir() if each.is_dir()]
        if close := difflib.get_close_matches(folder.name, beside, 1):
            return f" (did you mean {safe_line(folder.with_name(close[0]), 300)}?)"
    return ""


class Here(Found):
    """A zoo in a folder."""

    def __init__(self, folder: Path):
        if folder.is_file():
            what = files.instead(folder) if folder.name != INDEX_FILE else ""
            raise ZooError(f"{folder} is a file{what}; a zoo is a folder that holds {INDEX_FILE}")
        if not folder.is_dir():
            raise ZooError(f"{folder} is not a zoo: it does not exist{meant(folder)}")
        self.folder = folder
        self.index = shards.read_index(folder)

    def bring(self, wanted: Sequence[File]) -> Path:
        return self.folder


class OnHub(Found):
    """A zoo in a repository; its files lie in the Hub's cache."""

    def __init__(self, name: str, revision: str | None):
        self.name, self.revision = name, revision
        self.repo_id, self.base = trust.split_name(name)
        # Whoever names a folder wants to hear at once that it is not there.
        folder = Path(name)
        hasty = folder.parts[0] in _OUR_FOLDERS or folder.parent.is_dir()
        repo_id = self.repo_id
        try:
            with client.speaking(repo_id, "dataset", revision):
                path = client.fetch_index(repo_id, revision or client.MAIN, hasty, self.base)
        except client.HubError as error:
            if not error.absent and not hasty:
                raise
            said = str(error).partition(client.KEPT)[0]  # nothing arrived
            raise ZooError(
                f"the folder {name} does not exist here{meant(folder)}, and {said}"
            ) from error.__cause__
        self.folder = path.parent
        self.commit = (self.folder.parent if self.base else self.folder).name
        self.index = trust.read_index(name, path)

    def bring(self, wanted: Sequence[File]) -> Path:
        from huggingface_hub import cached_assets_path

        with client.speaking(self.repo_id, "dataset", self.revision):
            self._fetch([file for file in wanted if not self._is_cached(file)])
            # Hashing takes longer than opening, so a file is hashed when it arrives and
            # again only if it was touched since.
            notes = cached_assets_path("wszoo", namespace=self.name, subfolder="verified")
            note = notes / f"{self.commit}.json"
            known = _read_note(note)
            fresh = dict(known)
            for file in wanted:
                path = self.folder / file.file
                if known.get(file.file) != _stamp(path):
                    self._check(file)
                    fresh[file.file] = _stamp(path)
            if fresh != known:
                shards.write_json(note, fresh)
        return self.folder

    def _is_cached(self, file: File) -> bool:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.repo_id, self.base + file.file, repo_type="dataset", revision=self.commit
        )
        return isinstance(found, str)

    def _fetch(self, wanted: list[File]) -> None:
        if not wanted:
            return
        tree = client.files_of(client.open_api(), self.repo_id, "dataset", self.commit)
        trust.check_against(self.name, wanted, trust.inside(tree, self.base))
        for _ in client.fetch_all(self.repo_id, wanted, self.commit, base=self.base):
            pass

    def _check(self, file: File) -> None:
        """Hold a file against the index; one that was damaged in the cache is fetched anew."""
        if shards.check_file(self.folder, file, hashes=True):
            name = self.base + file.file
            client.fetch(self.repo_id, name, self.commit, most=file.bytes, force=True)
        if wrong := shards.check_file(self.folder, file, hashes=True):
            raise ZooError(f"{self.name}: {wrong}; the repository contradicts its index")


class AtUrl(Found):
    """A zoo at a URL; its files lie in the cache of `huggingface_hub` ($HF_HOME/assets/wszoo)."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.place = storage.place(self.url)
        self.raw, self.index = storage.read_index(self.place)

    def bring(self, wanted: Sequence[File], texts: bool = False, cache: Path | None = None) -> Path:
        """As `Found.bring`; also card and figures, and into a folder of one's own."""
        cache = cache or self._cache()
        cache.mkdir(parents=True, exist_ok=True)
        with locks.held(cache.with_name(f"{cache.name}.lock"), wait=True):
            note = cache.with_name(f"{cache.name}.json")
            known = _read_note(note)
            try:
                for file in wanted:
                    here = cache / file.file
                    if here.is_file() and known.get(file.file) == [file.sha256, *_stamp(here)]:
                        continue
                    self._fetch(file, here)
                    known[file.file] = [file.sha256, *_stamp(here)]
            finally:
                shards.write_json(note, known)
            if texts:
                self._fetch_texts(cache)
            with shards.replacing(cache / INDEX_FILE) as temporary:
                temporary.write_bytes(self.raw)
        return cache

    def _cache(self) -> Path:
        from huggingface_hub import cached_assets_path

        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        cache = cached_assets_path("wszoo", namespace="copies", subfolder=digest)
        # Its name is part of what a zoo says of itself.
        return Path(cache) / (self.place.name or "zoo")

    def _fetch(self, file: File, here: Path) -> None:
        with self._arriving(file.file, here, file.bytes) as temporary:
            size = temporary.stat().st_size
            if size != file.bytes or shards.sha256(temporary) != file.sha256:
                what = files.instead(temporary)
                raise ZooError(
                    f"{self.url}/{file.file} does not have the sha256 of the index: its content "
                    f"has changed{what}"
                )

    def _fetch_texts(self, cache: Path) -> None:
        shutil.rmtree(cache / "figures", ignore_errors=True)
        names = sorted(n for n in self.place.sizes("figures") if trust.FIGURE.fullmatch(n))
        for name in [CARD_FILE, *names[: trust.PICTURES]]:
            with self._arriving(name, cache / name, TEXT_BYTES):
                pass

    @contextlib.contextmanager
    def _arriving(self, name: str, path: Path, most: int) -> Iterator[Path]:
        with shards.replacing(path) as temporary:
            try:
                self.place.fetch(name, temporary, most)
            except FileNotFoundError:
                raise ZooError(f"{self.url}/{name} is missing, though the zoo has it") from None
            yield temporary


def _read_note(note: Path) -> dict[str, Any]:
    """What was checked before; a note that is damaged knows nothing."""
    with contextlib.suppress(ZooError, OSError):
        known = shards.read_json(note) if note.is_file() else {}
        return known if isinstance(known, dict) else {}
    return {}


def _stamp(path: Path) -> list[int]:
    """What changes when a file is written to."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
