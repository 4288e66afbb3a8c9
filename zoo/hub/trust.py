"""What a repository, a server or a file from elsewhere must be before anything believes it.

An index names the files that will be written here, so its names, sizes and hashes are held
against what a zoo can have, and against what the repository says that it holds. Nothing is
ever unpickled or executed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import schema, shards
from zoo.errors import ZooError
from zoo.shards import INDEX_FILE, File, Index

CARD_FILE = "README.md"
INDEX_BYTES = schema.JSON_BYTES
# Of a card, or of another text or picture.
TEXT_BYTES = 64 << 20
# Pictures of a card.
PICTURES = 100
# Of one file of a trained model.
MODEL_BYTES = 8 << 30

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
# Of a repository in which zoos lie side by side: a name of a config, too.
_FOLDER = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
# A picture of a card.
FIGURE = re.compile(r"figures/[A-Za-z0-9_][\w.-]*\.png", re.ASCII)


def is_repo_id(text: object) -> bool:
    """Whether a string names a zoo on the Hub and no folder that is there.

    >>> is_repo_id("user/mnist-inrs"), is_repo_id("user/inrs/mnist"), is_repo_id("./mnist-inrs")
    (True, True, False)
    """
    if not isinstance(text, str) or text.endswith("/") or Path(text).exists():
        return False
    repo, base = _parts(text)
    return _REPO_ID.fullmatch(repo) is not None and (
        not base or _FOLDER.fullmatch(base) is not None
    )


def _parts(text: str) -> tuple[str, str]:
    """User and name, and the folder after them if there is one."""
    words = text.split("/", 2)
    return "/".join(words[:2]), words[2] if len(words) == 3 else ""


def split_name(text: str) -> tuple[str, str]:
    """The repository of a zoo, and what the names of its files begin with there.

    >>> split_name("user/mnist-inrs"), split_name("user/inrs/mnist")
    (('user/mnist-inrs', ''), ('user/inrs', 'mnist/'))

    Raises:
        ValueError: if it is neither user/name nor user/name/folder.
    """
    repo, base = _parts(text)
    whole = not base and not text.endswith("/")
    if not _REPO_ID.fullmatch(repo) or not (whole or _FOLDER.fullmatch(base)):
        raise ValueError(
            f"expected a repository as user/name, or a zoo in it as user/name/folder, got {text!r}"
        )
    return repo, f"{base}/" if base else ""


def check_folder(name: str) -> None:
    """ValueError unless a zoo may lie in a folder of that name beside others."""
    if not _FOLDER.fullmatch(name):
        raise ValueError(
            f"--as: expected a name of letters, digits, _ and - such as mnist, got {name!r}"
        )
    if name in ("default", "weights", "data", "figures", "sample"):
        raise ValueError(f"--as: {name!r} is a part of every zoo; choose another name")


def inside(tree: Mapping[str, Any], base: str) -> dict[str, Any]:
    """Of the files of a repository those that lie under `base`, by their names there."""
    return {name.removeprefix(base): file for name, file in tree.items() if name.startswith(base)}


def check_name(repo_id: str) -> None:
    """ValueError unless a string has the form user/name."""
    if not _REPO_ID.fullmatch(repo_id):
        raise ValueError(f"expected a repository as user/name, got {repo_id!r}")


def read_index(repo_id: str, path: Path) -> Index:
    """An index that came from elsewhere; names, sizes and hashes of files are checked too."""
    try:
        index = Index.from_json(shards.read_json(path))
        if index.base:
            raise ZooError(f"{INDEX_FILE}: its files lie in {index.base}, where no zoo has them")
        _check_source(index)
    except ZooError as error:
        raise ZooError(f"{repo_id}: {error}".replace(f"{path}:", f"{INDEX_FILE}:")) from error
    return index


def _check_source(index: Index) -> None:
    """ZooError if the source is named by a path: `verify` and `show` would open it here."""
    name = str(index.source.get("name", ""))
    if ":" in name and re.search(r"[/\\~]", name):
        raise ZooError(f"{INDEX_FILE}: source.name: expected no path, got {name!r:.80}")


def check_against(repo_id: str, files: list[File], tree: Mapping[str, Any]) -> None:
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
