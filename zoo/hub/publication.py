"""What of a folder is published: which files, and which words of its texts.

Hidden files never are, and neither is where a folder of pictures lies.
"""

import hashlib
import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zoo import shards, table
from zoo.errors import ZooError
from zoo.hub import trust
from zoo.hub.trust import CARD_FILE
from zoo.shards import INDEX_FILE, File, Index

# The Hub's limits; a commit may hold 25,000 large files, which two full folders fit in.
FOLDER_FILES = 10_000


@dataclass(frozen=True)
class Upload(File):
    """A file as it is to stand in the repository; `content` is where its bytes are."""

    content: Path | bytes


def is_zoo(folder: Path) -> bool:
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


def zoo_files(folder: Path, repo_id: str) -> list[Upload]:
    """The files of a verified zoo, weights first, then the view, then the small ones."""
    index = shards.read_index(folder)
    trust.check_files(index)
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
        if trust.FIGURE.fullmatch(name := f"figures/{path.name}"):
            files.append(_upload(name, path.read_bytes()))
    texts = _public_texts(folder, index, repo_id)
    files.append(_upload(CARD_FILE, texts[CARD_FILE]))
    files.append(_upload(INDEX_FILE, texts[INDEX_FILE]))
    return files


def plain_files(folder: Path) -> list[Upload]:
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


def check_limits(folder: Path, files: list[Upload]) -> None:
    """ZooError for more files in one folder than the Hub takes."""
    counts = Counter(str(PurePosixPath(file.file).parent) for file in files)
    part, count = counts.most_common(1)[0]
    if count > FOLDER_FILES:
        raise ZooError(
            f"{folder / part} has {count:,} files, the Hub takes {FOLDER_FILES:,} in a folder; "
            "make the zoo again with larger --shard-rows"
        )


def refuse_token(files: list[Upload], token: str) -> None:
    """ZooError if a text that is to be published holds the token."""
    for file in files:
        if file.bytes > trust.INDEX_BYTES or file.file.endswith((".safetensors", ".parquet")):
            continue
        if token.encode() in content(file):
            raise ZooError(f"{file.file} holds your Hugging Face token; take it out, and revoke it")


def content(file: Upload) -> bytes:
    """The bytes of a file, read if it lies on disk."""
    return file.content if isinstance(file.content, bytes) else file.content.read_bytes()
