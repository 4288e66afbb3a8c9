"""Moves a finished folder to the Hugging Face Hub and back, and opens zoos that lie there.

A push is one commit on top of the commit it was compared with: the repository shows
the old zoo or the new one, never something between. Large files go ahead of it,
weights before Parquet, because the Hub's storage then finds the view's bytes among
those it has. What is there already is not sent, so a push that was cut goes on where
it was, and a grown zoo costs its new shards.

What comes from a repository is held against its index before anything reads it: names,
sizes, sha256, the headers of the shards. Nothing is ever unpickled or executed. No
token is printed or stored; it lives where `hf auth login` put it.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from zoo import remote, shards, storage, table
from zoo.errors import ZooError
from zoo.shards import INDEX_FILE, File, Index

if TYPE_CHECKING:
    from zoo.reader import Zoo

# Bytes that are done, bytes in all.
Progress: TypeAlias = Callable[[int, int], None]

CARD_FILE = "README.md"
PULL_FOLDER = ".pull"
# Files go up in groups: progress is told, and a cut is mended, group by group.
GROUP_BYTES = 64 << 20
GROUP_FILES = 32
# The Hub's limits; a commit may hold 25,000 large files, which two full folders fit in.
FOLDER_FILES = 10_000
INDEX_BYTES = 256 << 20

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIGURE = re.compile(r"figures/[A-Za-z0-9_][\w.-]*\.png", re.ASCII)
# What a push may remove from a repository that holds a zoo: files that only wszoo makes.
_OURS = re.compile(
    r"weights/\w+-\d{5,}-of-\d{5,}\.safetensors|data/\w+-\d{5,}-of-\d{5,}\.parquet"
    r"|figures/(psnr_db|mse|test_accuracy|samples)\.png|stats\.safetensors",
    re.ASCII,
)
# A repository with nothing but these is free to take a zoo.
_HOUSEKEEPING = (".gitattributes", ".gitignore", CARD_FILE, "LICENSE")


@dataclass(frozen=True)
class Upload(File):
    """A file as it is to stand in the repository; `content` is where its bytes are."""

    content: Path | bytes


@dataclass(frozen=True)
class Pushed:
    """What a push did, or would do.

    Attributes:
        send: files whose content the repository lacks, in the order they go.
        move: files whose content it has under another name, which costs nothing.
        keep: files that are there already.
        remove: paths of files that are no longer part of the zoo.
        url: of the repository, or of the pull request.
        commit: what the repository shows now; None if nothing was done.
        created: whether the repository is new.
        private: None if that is not known.
        compared: False for a dry run that could not look at the repository.
    """

    send: tuple[Upload, ...]
    move: tuple[Upload, ...]
    keep: tuple[Upload, ...]
    remove: tuple[str, ...]
    url: str
    commit: str | None = None
    created: bool = False
    private: bool | None = None
    compared: bool = True

    @property
    def send_bytes(self) -> int:
        """Bytes of all files in `send`."""
        return sum(file.bytes for file in self.send)


def is_repo_id(text: object) -> bool:
    """Whether a string names a repository and no folder that is there.

    >>> is_repo_id("user/mnist-inrs"), is_repo_id("./mnist-inrs"), is_repo_id("a/b/c")
    (True, False, False)
    """
    return (
        isinstance(text, str) and _REPO_ID.fullmatch(text) is not None and not Path(text).exists()
    )


def _check_name(repo_id: str) -> None:
    if not _REPO_ID.fullmatch(repo_id):
        raise ValueError(f"expected a repository as user/name, got {repo_id!r}")


# ---- opening


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

    if isinstance(path, str) and is_repo_id(path):
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
    with remote.speaking(repo_id, "dataset", revision):
        path = remote.fetch_index(repo_id, revision or remote.MAIN)
    return _read_remote_index(repo_id, path)


def download(repo_id: str, split: str, revision: str | None = None) -> Path:
    """A split of a zoo on the Hub, in the Hub's cache, every file checked once.

    Returns:
        The folder of the revision's snapshot, with `zoo.json`, shards and statistics.

    Raises:
        ZooError: as `open_zoo`.
        ValueError: for a split that the zoo does not have.
    """
    from huggingface_hub import cached_assets_path, try_to_load_from_cache

    with remote.speaking(repo_id, "dataset", revision):
        folder = remote.fetch_index(repo_id, revision or remote.MAIN).parent
        index = _read_remote_index(repo_id, folder / INDEX_FILE)
        files: list[File] = [*table.shards_of(index, split)]
        files += [index.stats] if index.stats else []
        commit = folder.name

        def cached(file: File) -> bool:
            found = try_to_load_from_cache(repo_id, file.file, repo_type="dataset", revision=commit)
            return isinstance(found, str)

        if not all(cached(file) for file in files):
            _check_against(
                repo_id, files, remote.files_of(remote.open_api(), repo_id, "dataset", commit)
            )
            for file in files:
                remote.fetch(repo_id, file.file, commit)
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
                remote.fetch(repo_id, file.file, commit, force=True)
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


# ---- pulling


def pull(
    repo_id: str,
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
        out: a new or empty folder, an earlier pull, or the same zoo.
        split: None fetches all.
        revision: branch, tag or commit; None takes the main branch.
        overwrite: replace another zoo in `out`.
        progress: called with bytes done and bytes in all.

    Raises:
        ZooError: if there is no such zoo, its files are not those of its index, or the
            Hub or the disk fails.
        ValueError: for an unknown split, a folder that holds something else, or if
            `repo_id` is not of the form user/name.
    """
    _check_name(repo_id)
    folder = Path(out)
    report = progress or (lambda done, total: None)
    with remote.speaking(repo_id, "dataset", revision):
        api = remote.open_api()
        info = remote.retrying(
            lambda: api.repo_info(repo_id, repo_type="dataset", revision=revision)
        )
        commit = str(info.sha)
        tree = remote.files_of(api, repo_id, "dataset", commit)
        _refuse_foreign(folder)
        if INDEX_FILE not in tree:
            raise ZooError(
                f"{repo_id} holds no {INDEX_FILE} at {revision or remote.MAIN}: it is no zoo"
            )
        if tree[INDEX_FILE].size > INDEX_BYTES:
            raise ZooError(f"{repo_id}: {INDEX_FILE} has {tree[INDEX_FILE].size} bytes, no index")
        with shards.one_writer(folder), _staging(folder) as staging:
            path = remote.fetch(repo_id, INDEX_FILE, commit, staging)
            index = _read_remote_index(repo_id, path)
            chosen = index.shards if split is None else tuple(table.shards_of(index, split))
            views = [shard.parquet for shard in chosen if shard.parquet]
            files: list[File] = [*chosen, *views, *([index.stats] if index.stats else [])]
            _check_against(repo_id, files, tree)
            _make_room(folder, path, overwrite)
            total = sum(file.bytes for file in files)
            done = 0
            report(done, total)
            for file in files:
                if shards.check_file(folder, file, hashes=True):
                    arrived = remote.fetch(repo_id, file.file, commit, staging)
                    if wrong := shards.check_file(staging, file, hashes=True):
                        raise ZooError(f"{repo_id}: {wrong}")
                    if isinstance(file, shards.Shard):
                        table.map_shard(staging, index, file)
                    elif file.file.endswith(".safetensors"):
                        shards.read_tensors(arrived)
                    _move(arrived, folder / file.file)
                done += file.bytes
                report(done, total)
            for name in sorted(tree):
                if name == CARD_FILE or _FIGURE.fullmatch(name):
                    _move(remote.fetch(repo_id, name, commit, staging), folder / name)
            _remove_strays(folder, index)
            _move(path, folder / INDEX_FILE)
    return index


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
            shutil.rmtree(staging)
        raise
    shutil.rmtree(staging)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that a pull must not write into."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out")
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()} - {shards.LOCK_FILE}
    if shards.BUILD_FOLDER in names:
        raise ValueError(f"{folder} holds a zoo that is being made; choose another --out")
    if names and not names & {INDEX_FILE, PULL_FOLDER}:
        raise ValueError(
            f"{folder} is not empty and not a zoo ({min(names)!r} lies there); choose another --out"
        )


def _make_room(folder: Path, index: Path, overwrite: bool) -> None:
    """Refuse another zoo, or take its index away: from then on it is an unfinished pull."""
    there = folder / INDEX_FILE
    if not there.is_file() or there.read_bytes() == index.read_bytes():
        return
    if not overwrite:
        raise ValueError(
            f"{folder} holds another zoo, or an older state of this one; choose another --out, "
            "or replace it with --overwrite"
        )
    there.unlink()


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


def _read_remote_index(repo_id: str, path: Path) -> Index:
    """An index that came from elsewhere: also the names, sizes and hashes in it are checked."""
    try:
        index = Index.from_json(shards.read_json(path))
        table.row_shapes(index)
        _check_files(index)
    except ZooError as error:
        raise ZooError(f"{repo_id}: {error}".replace(f"{path}:", f"{INDEX_FILE}:")) from error
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ZooError(f"{repo_id}: {INDEX_FILE} is not an index: {error}") from error
    return index


def _check_files(index: Index) -> None:
    """ZooError unless every file of the index is one that a zoo can have.

    The index names the files to be written here, so a name must not reach anything
    else: no hidden file, no other kind of file, none twice.
    """
    seen = set()
    for file in index.files:
        plain = PurePosixPath(file.file)
        if (
            str(plain) != file.file
            or not all(_PART.fullmatch(part) for part in plain.parts)
            or plain.suffix not in (".safetensors", ".parquet")
            or plain.parts[0].lower() == "figures"
        ):
            raise ZooError(f"{INDEX_FILE}: {file.file!r} is no name for a file of a zoo")
        if file.file.lower() in seen:
            raise ZooError(f"{INDEX_FILE}: {file.file} is listed twice")
        seen.add(file.file.lower())
        if type(file.bytes) is not int or file.bytes < 0:
            raise ZooError(f"{INDEX_FILE}: {file.file}: expected bytes, got {file.bytes!r}")
        if not isinstance(file.sha256, str) or not _SHA256.fullmatch(file.sha256):
            raise ZooError(f"{INDEX_FILE}: {file.file}: expected a sha256, got {file.sha256!r:.80}")
    for shard in index.shards:
        if type(shard.rows) is not int or shard.rows < 1:
            raise ZooError(f"{INDEX_FILE}: {shard.file}: expected rows, got {shard.rows!r:.40}")


def _check_against(repo_id: str, files: list[File], tree: Mapping[str, Any]) -> None:
    """ZooError unless the repository has these files, so far as it says what it has."""
    for file in files:
        there = tree.get(file.file)
        if there is None:
            raise ZooError(f"{repo_id}: {file.file} is missing, though {INDEX_FILE} lists it")
        if there.size != file.bytes:
            raise ZooError(
                f"{repo_id}: {file.file} has {there.size} bytes, {INDEX_FILE} says {file.bytes}"
            )
        if there.lfs and there.lfs.sha256 != file.sha256:
            raise ZooError(f"{repo_id}: {file.file} has another sha256 than {INDEX_FILE} says")


# ---- pushing


def push(
    path: str | Path,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Make a repository on the Hub equal to a folder, in one commit.

    A zoo becomes a dataset repository, verified first; a folder with a card and
    safetensors but no `zoo.json` becomes a model repository. Hidden files are never
    sent. Where the source is a folder of pictures, only that folder's name is
    published, not where it lies. The visibility of a repository that exists is left
    as it is.

    Args:
        path: the folder, or the URL of a zoo, which is copied here first.
        public: make a new repository public; private otherwise.
        revision: branch that the commit goes onto; None takes the main branch.
        message: of the commit.
        create_pr: propose the commit as a pull request.
        dry_run: only say what would be done. Without a token that is everything.
        progress: called with bytes done and bytes in all.

    Raises:
        ZooError: if the zoo does not pass, there is no token, or the Hub refuses.
        ValueError: if `repo_id` is not of the form user/name.
    """
    from huggingface_hub import constants, get_token

    _check_name(repo_id)
    folder = storage.local_copy(path, texts=True)
    report = progress or (lambda done, total: None)
    kind = "dataset" if _is_zoo(folder) else "model"
    lock = folder / shards.LOCK_FILE
    # Nobody changes a folder that we may not write in ourselves.
    guard = shards.one_writer(folder) if os.access(lock, os.W_OK) else contextlib.nullcontext()
    with remote.speaking(repo_id, kind, revision), guard:
        files = _zoo_files(folder, repo_id) if kind == "dataset" else _plain_files(folder)
        _check_limits(folder, files)
        token = get_token()
        url = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if token is None:
            if dry_run:
                return Pushed(tuple(files), (), (), (), url, compared=False)
            raise ZooError(
                "no Hugging Face token is there: log in with `hf auth login`, or set HF_TOKEN"
            )
        _refuse_token(files, token)
        return _Push(folder, repo_id, kind, revision, create_pr).run(
            files, url, public, message, dry_run, report
        )


class _Push:
    """One push to a repository; the methods are its steps."""

    def __init__(
        self, folder: Path, repo_id: str, kind: str, revision: str | None, create_pr: bool
    ):
        self.folder, self.repo_id, self.kind = folder, repo_id, kind
        self.revision, self.create_pr = revision, create_pr
        self.api = remote.open_api()
        self.where: dict[str, Any] = {"repo_id": repo_id, "repo_type": kind}

    def run(
        self,
        files: list[Upload],
        url: str,
        public: bool,
        message: str | None,
        dry_run: bool,
        report: Progress,
    ) -> Pushed:
        head = self._head(missing_ok=True)
        created = head is None
        if created and (self.revision not in (None, remote.MAIN) or self.create_pr):
            raise ZooError(
                f"{self.repo_id} does not exist; push it once without --revision and --create-pr"
            )
        if created and dry_run:
            return Pushed(tuple(files), (), (), (), url, created=True, private=not public)
        if head is None:
            head = self._create(public)
        parent, private = head
        tree = remote.files_of(self.api, self.repo_id, self.kind, parent)
        keep = [file for file in files if _same(file, tree.get(file.file))]
        kept = {file.file for file in keep}
        changed = [file for file in files if file.file not in kept]
        contents = {entry.lfs.sha256 for entry in tree.values() if entry.lfs}
        done = Pushed(
            send=tuple(file for file in changed if file.sha256 not in contents),
            move=tuple(file for file in changed if file.sha256 in contents),
            keep=tuple(keep),
            remove=self._removals(files, tree),
            url=url,
            commit=parent,
            created=created,
            private=private,
        )
        if dry_run or not (changed or done.remove):
            return done
        operations = self._upload(changed, report)
        commit, request = self._commit(operations, done.remove, parent, files, message)
        return replace(done, commit=commit, url=request or url)

    def _head(self, missing_ok: bool = False) -> tuple[str, bool | None] | None:
        """The commit that the branch shows, and whether the repository is private."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = remote.retrying(lambda: self.api.repo_info(**self.where, revision=self.revision))
        except RepositoryNotFoundError:
            if missing_ok:
                return None
            raise
        return str(info.sha), info.private

    def _create(self, public: bool) -> tuple[str, bool | None]:
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        try:
            remote.retrying(lambda: self.api.create_repo(**self.where, private=not public))
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
        try:
            head = self._head()
        except RepositoryNotFoundError as error:
            raise ZooError(
                f"{self.repo_id} exists, but this token may not see it (409); choose another "
                "name, or log in as its owner with `hf auth login`"
            ) from error
        assert head is not None
        return head

    def _removals(self, files: list[Upload], tree: Mapping[str, Any]) -> tuple[str, ...]:
        """Files in the repository that belonged to the zoo and do no longer."""
        if self.kind != "dataset":
            return ()
        others = [name for name in tree if name not in _HOUSEKEEPING]
        if others and INDEX_FILE not in tree:
            raise ZooError(
                f"{self.repo_id} holds something that is no zoo ({min(others)}); choose another "
                "name for the repository"
            )
        wanted = {file.file for file in files}
        return tuple(sorted(n for n in tree if _OURS.fullmatch(n) and n not in wanted))

    def _upload(self, send: list[Upload], report: Progress) -> list[Any]:
        """Send what is large; the commit carries the rest. The client repeats these calls."""
        from huggingface_hub import CommitOperationAdd

        total = sum(file.bytes for file in send)
        done = 0
        operations = []
        report(done, total)
        for group in _groups(send):
            adds = []
            for file in group:
                add = CommitOperationAdd(file.file, file.content)
                # The client would hash the file again; a file that changed since it was
                # verified does not arrive under this hash.
                add.upload_info.sha256 = bytes.fromhex(file.sha256)
                adds.append(add)
            self.api.preupload_lfs_files(
                additions=adds,
                revision=self.revision,
                create_pr=self.create_pr,
                free_memory=False,
                **self.where,
            )
            # The client would leave these out of the commit without a word.
            if ignored := [add.path_in_repo for add in adds if add._should_ignore]:
                raise ZooError(
                    f"the .gitignore in {self.repo_id} keeps out {ignored[0]}; change it first"
                )
            operations += adds
            done += sum(file.bytes for file in group)
            report(done, total)
        return operations

    def _commit(
        self,
        operations: list[Any],
        remove: tuple[str, ...],
        parent: str,
        files: list[Upload],
        message: str | None,
    ) -> tuple[str, str | None]:
        """The one commit: its id, and the address of the pull request if it is one."""
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        deletes = [CommitOperationDelete(name, is_folder=False) for name in remove]
        text = message or f"Push {self.folder.resolve().name} with wszoo"
        for attempt in range(remote.TRIES):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # on metadata that is optional
                    info = self.api.create_commit(
                        operations=[*operations, *deletes],
                        commit_message=text,
                        revision=self.revision,
                        create_pr=self.create_pr,
                        parent_commit=parent,
                        **self.where,
                    )
                return str(info.oid), info.pr_url
            except Exception as error:
                cause = remote.cause_of(error)
                stale = isinstance(cause, HfHubHTTPError) and cause.response.status_code == 412
                if not stale and not remote.is_transient(error):
                    raise
                if self.create_pr and not stale and not remote.is_refusal(cause):
                    # It may have been made; a second try would make a second one.
                    raise ZooError(
                        f"the answer of the Hub was lost; see whether {self.repo_id} has the pull "
                        "request before you try again"
                    ) from error
                if not self.create_pr:
                    # The commit may have been made and only the answer lost.
                    head = self._head()
                    assert head is not None
                    if head[0] != parent:
                        if self._shows(head[0], files, remove):
                            return head[0], None
                        raise ZooError(
                            f"{self.repo_id} was changed by someone else during this push (412); "
                            "run the same command again"
                        ) from error
                if stale or attempt == remote.TRIES - 1:
                    raise
                remote.wait(error, attempt)
        raise AssertionError

    def _shows(self, commit: str, files: list[Upload], removed: tuple[str, ...]) -> bool:
        tree = remote.files_of(self.api, self.repo_id, self.kind, commit)
        there = all(_same(file, tree.get(file.file)) for file in files)
        return there and not any(name in tree for name in removed)


def _is_zoo(folder: Path) -> bool:
    """Whether it is a zoo, or else a folder with a card and weights.

    Raises:
        ZooError: if it is neither.
    """
    if (folder / INDEX_FILE).is_file():
        return True
    model = (folder / CARD_FILE).is_file() and any(folder.rglob("*.safetensors"))
    if not model or (folder / shards.BUILD_FOLDER).exists() or (folder / "weights").exists():
        shards.read_index(folder)  # raises, and says what it is instead
    return False


def _zoo_files(folder: Path, repo_id: str) -> list[Upload]:
    """The files of a verified zoo, weights first, then the view, then the small ones."""
    index = shards.read_index(folder)
    _check_files(index)
    for file in index.files:
        if wrong := shards.check_file(folder, file, hashes=True):
            raise ZooError(f"{wrong}; run the command that made the zoo again before you push it")
    for shard in index.shards:
        table.map_shard(folder, index, shard)
    files = [Upload(f.file, f.bytes, f.sha256, folder / f.file) for f in index.files]
    files.sort(key=lambda file: file.file.endswith(".parquet"))
    card = folder / CARD_FILE
    if not card.is_file():
        raise ZooError(f"{card} is missing; run the command that made the zoo again")
    for path in sorted((folder / "figures").glob("*.png")):
        if _FIGURE.fullmatch(name := f"figures/{path.name}"):
            files.append(_upload(name, path.read_bytes()))
    texts = _public_texts(folder, index, repo_id)
    files.append(_upload(CARD_FILE, texts[CARD_FILE]))
    files.append(_upload(INDEX_FILE, texts[INDEX_FILE]))
    return files


def _plain_files(folder: Path) -> list[Upload]:
    """Every file of a model's folder that is not hidden, weights first."""
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ZooError(f"{path} is a link that leaves the folder; replace it by the file")
        files.append(Upload(name.as_posix(), path.stat().st_size, shards.sha256(path), path))
    return sorted(files, key=lambda file: not file.file.endswith(".safetensors"))


def _upload(name: str, content: bytes) -> Upload:
    return Upload(name, len(content), hashlib.sha256(content).hexdigest(), content)


def _public_texts(folder: Path, index: Index, repo_id: str) -> dict[str, bytes]:
    """Card and index as they are published.

    A folder of pictures is named by its path, because `verify` and `show` open it
    again; the path tells of the machine, so the folder's name alone goes out. The
    card's examples name the repository.
    """
    plain = shards.read_json(folder / INDEX_FILE)
    raw = (folder / INDEX_FILE).read_bytes()
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    name = str(index.source.get("name", ""))
    kind, _, given = name.partition(":")
    if kind == "imagefolder" and given:
        short = f"{kind}:{Path(given).expanduser().resolve().name}"
        words = [short if word == name else word for word in shlex.split(index.command)]
        command = shlex.join(words)
        card = card.replace(index.command, command) if index.command else card
        # Markdown puts a backslash before some characters, and one blank for several.
        letters = [r"\s+" if c.isspace() else r"\\?" + re.escape(c) for c in name]
        card = re.sub("".join(letters), lambda match: short, card)
        plain["command"] = command
        raw = (json.dumps(_replaced(plain, name, short), indent=1) + "\n").encode()
    own = shlex.quote(index.name)
    card = card.replace(f"hf download USER/{own} ", f"hf download {repo_id} ")
    for call in ("load_dataset", "open_zoo"):
        own = json.dumps(index.name, ensure_ascii=False)
        card = card.replace(f"{call}({own}", f"{call}({json.dumps(repo_id)}")
    return {CARD_FILE: card.encode(), INDEX_FILE: raw}


def _replaced(plain: Any, old: str, new: str) -> Any:
    """JSON with a string replaced inside every string."""
    if isinstance(plain, str):
        return plain.replace(old, new)
    if isinstance(plain, list):
        return [_replaced(part, old, new) for part in plain]
    if isinstance(plain, dict):
        return {key: _replaced(part, old, new) for key, part in plain.items()}
    return plain


def _check_limits(folder: Path, files: list[Upload]) -> None:
    """ZooError for more files in one folder than the Hub takes."""
    counts = Counter(str(PurePosixPath(file.file).parent) for file in files)
    part, count = counts.most_common(1)[0]
    if count > FOLDER_FILES:
        raise ZooError(
            f"{folder / part} has {count:,} files, the Hub takes {FOLDER_FILES:,} in a folder; "
            "make the zoo again with larger --shard-rows"
        )


def _refuse_token(files: list[Upload], token: str) -> None:
    """ZooError if a text that is to be published holds the token."""
    for file in files:
        if file.bytes > INDEX_BYTES or file.file.endswith((".safetensors", ".parquet")):
            continue
        if token.encode() in _content(file):
            raise ZooError(f"{file.file} holds your Hugging Face token; take it out, and revoke it")


def _content(file: Upload) -> bytes:
    return file.content if isinstance(file.content, bytes) else file.content.read_bytes()


def _same(file: Upload, there: Any) -> bool:
    """Whether the repository's file has these bytes, by the hash it shows."""
    if there is None or there.size != file.bytes:
        return False
    if there.lfs:
        return bool(there.lfs.sha256 == file.sha256)
    content = _content(file)
    # git's name of a blob
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


def _groups(files: list[Upload]) -> Iterator[list[Upload]]:
    """Files in order, in groups of so many bytes and files, no weights beside Parquet."""
    group: list[Upload] = []
    size = 0
    for file in files:
        mixed = group and PurePosixPath(group[-1].file).suffix != PurePosixPath(file.file).suffix
        if mixed or len(group) == GROUP_FILES or (group and size + file.bytes > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.bytes
    if group:
        yield group
