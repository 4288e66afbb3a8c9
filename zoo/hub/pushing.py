"""Makes a repository on the Hub equal to a folder, in one commit.

The commit stands on top of the one it was compared with: the repository shows the old zoo
or the new one, never something between. Large files go ahead of it, weights before Parquet,
because the Hub's storage then finds the view's bytes among those it has. What is there
already is not sent, so a push that was cut goes on where it was, and a grown zoo costs its
new shards.
"""

import contextlib
import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from zoo import shards, storage, succession
from zoo.errors import ZooError
from zoo.hub import arrival, client, publication, trust
from zoo.hub.client import Progress
from zoo.hub.publication import Upload
from zoo.hub.trust import CARD_FILE
from zoo.shards import INDEX_FILE

# Files go up in groups: progress is told, and a cut is mended, group by group.
GROUP_BYTES = 64 << 20
GROUP_FILES = 32

# What a push may remove from a repository that holds a zoo: files that only wszoo makes.
_OURS = re.compile(
    r"weights/\w+-\d{5,}-of-\d{5,}\.safetensors|data/\w+-\d{5,}-of-\d{5,}\.parquet"
    r"|figures/(psnr_db|mse|test_accuracy|samples|accuracy_pairs|accuracy_steps|results-\d+)\.png|stats\.safetensors|names\.parquet"
    r"|sample/train-00000-of-00001\.parquet",
    re.ASCII,
)
# A repository with nothing but these is free to take a zoo.
_HOUSEKEEPING = (".gitattributes", ".gitignore", CARD_FILE, "LICENSE")


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


def push(
    path: str | Path,
    repo_id: str,
    *,
    within: str | None = None,
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
        within: folder of the repository in which the zoo lies beside others; it opens as
            user/name/folder, and by `load_dataset("user/name", "folder")`.
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

    trust.check_name(repo_id)
    if within is not None:
        trust.check_folder(within)
    base = f"{within}/" if within else ""
    folder = _folder_of(path)
    report = progress or (lambda done, total: None)
    kind = "dataset" if publication.is_zoo(folder) else "model"
    if within and kind == "model":
        raise ValueError(f"--as: {folder} is a model, which has a repository of its own")
    lock = folder / shards.LOCK_FILE
    # Nobody changes a folder that we may not write in ourselves.
    guard = shards.one_writer(folder) if os.access(lock, os.W_OK) else contextlib.nullcontext()
    with client.speaking(repo_id, kind, revision), guard:
        if kind == "dataset" and not isinstance(guard, contextlib.nullcontext):
            succession.settle(storage.Folder(folder))
        files = (
            publication.zoo_files(folder, repo_id, base)
            if kind == "dataset"
            else publication.model_files(folder)
        )
        publication.check_limits(folder, files)
        token = get_token()
        url = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if token is None:
            if dry_run:
                files += _tops(folder, repo_id, base, None)
                return Pushed(tuple(files), (), (), (), url, compared=False)
            raise ZooError(
                "no Hugging Face token is there: log in with `hf auth login`, or set HF_TOKEN"
            )
        publication.refuse_token(files, token)
        return _Push(folder, repo_id, kind, revision, create_pr, base).run(
            files, url, public, message, dry_run, report
        )


def _tops(folder: Path, repo_id: str, base: str, before: bytes | None) -> list[Upload]:
    """The card above several zoos, with the one in this folder; none for a zoo alone."""
    if not base:
        return []
    card = publication.top_card(before, repo_id, base, shards.read_index(folder))
    return [publication.upload_of(CARD_FILE, card)]


def _folder_of(path: str | Path) -> Path:
    """The folder itself, or a checked copy of a zoo at a URL, card and pictures too."""
    if not storage.is_url(path):
        return storage.folder_of(path)
    zoo = arrival.AtUrl(str(path))
    return zoo.bring(zoo.index.files, texts=True)


class _Push:
    """One push to a repository; the methods are its steps."""

    def __init__(
        self,
        folder: Path,
        repo_id: str,
        kind: str,
        revision: str | None,
        create_pr: bool,
        base: str = "",
    ):
        self.folder, self.repo_id, self.kind, self.base = folder, repo_id, kind, base
        self.revision, self.create_pr = revision, create_pr
        self.api = client.open_api()
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
        if created and (self.revision not in (None, client.MAIN) or self.create_pr):
            raise ZooError(
                f"{self.repo_id} does not exist; push it once without --revision and --create-pr"
            )
        if created and dry_run:
            files += _tops(self.folder, self.repo_id, self.base, None)
            return Pushed(tuple(files), (), (), (), url, created=True, private=not public)
        if head is None:
            head = self._create(public)
        parent, private = head
        tree = client.files_of(self.api, self.repo_id, self.kind, parent)
        files = [*files, *_tops(self.folder, self.repo_id, self.base, self._card(tree, parent))]
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
            info = client.retrying(lambda: self.api.repo_info(**self.where, revision=self.revision))
        except RepositoryNotFoundError:
            if missing_ok:
                return None
            raise
        return str(info.sha), info.private

    def _card(self, tree: Mapping[str, Any], commit: str) -> bytes | None:
        """The card above several zoos as it is there."""
        if not self.base or CARD_FILE not in tree:
            return None
        with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
            most, folder = trust.TEXT_BYTES, Path(scratch)
            return client.fetch(
                self.repo_id, CARD_FILE, commit, most=most, folder=folder
            ).read_bytes()

    def _create(self, public: bool) -> tuple[str, bool | None]:
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        try:
            client.retrying(lambda: self.api.create_repo(**self.where, private=not public))
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
        inside = trust.inside(tree, self.base)
        self._refuse_others(tree, inside)
        wanted = {file.file for file in files}
        ours = (self.base + name for name in inside if _OURS.fullmatch(name))
        return tuple(sorted(name for name in ours if name not in wanted))

    def _refuse_others(self, tree: Mapping[str, Any], inside: Mapping[str, Any]) -> None:
        """ZooError if the repository holds something that this zoo has no place beside."""
        others = [name for name in tree if name not in _HOUSEKEEPING]
        zoos = sorted(n.partition("/")[0] for n in tree if re.fullmatch(r"[^/]+/zoo\.json", n))
        if not others or (INDEX_FILE in tree and not self.base):
            return
        if INDEX_FILE in tree:
            raise ZooError(
                f"{self.repo_id} holds a zoo at its top, beside which no others can lie; choose "
                "another repository, or push without --as"
            )
        if zoos and not self.base:
            raise ZooError(
                f"{self.repo_id} holds zoos in folders ({', '.join(zoos[:9])}); say by --as which "
                "of them this is, or a name of its own"
            )
        if not zoos or (inside and INDEX_FILE not in inside):
            strange = min(inside if self.base and inside else others)
            raise ZooError(
                f"{self.repo_id} holds something that is no zoo ({strange}); choose another name "
                "for the repository"
            )

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
        for attempt in range(client.TRIES):
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
                cause = client.cause_of(error)
                stale = isinstance(cause, HfHubHTTPError) and cause.response.status_code == 412
                if not stale and not client.is_transient(error):
                    raise
                if self.create_pr and not stale and not client.is_refusal(cause):
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
                if stale or attempt == client.TRIES - 1:
                    raise
                client.wait(error, attempt)
        raise AssertionError

    def _shows(self, commit: str, files: list[Upload], removed: tuple[str, ...]) -> bool:
        tree = client.files_of(self.api, self.repo_id, self.kind, commit)
        there = all(_same(file, tree.get(file.file)) for file in files)
        return there and not any(name in tree for name in removed)


def _same(file: Upload, there: Any) -> bool:
    """Whether the repository's file has these bytes, by the hash it shows."""
    if there is None or there.size != file.bytes:
        return False
    if there.lfs:
        return bool(there.lfs.sha256 == file.sha256)
    content = publication.content(file)
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
