"""What of a folder is published: which files, and which words of its texts.

Hidden files never are, and neither is where a folder of pictures lies.
"""

import hashlib
import json
import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from zoo import files, schema, shards, table
from zoo.errors import ZooError, safe_line
from zoo.hub import trust
from zoo.hub.trust import CARD_FILE, TEXT_BYTES
from zoo.shards import INDEX_FILE, File, Index

# A few rows of a zoo in one small file, read by load_dataset(name, "sample").
SAMPLE = "sample"
SAMPLE_FILE = f"{SAMPLE}/train-00000-of-00001.parquet"
SAMPLE_ROWS, SAMPLE_BYTES = 1_000, 64 << 20
# Of the card that stands above several zoos.
_TOP_BYTES = 1 << 20
# A zoo in that card.
_LISTED = re.compile(r"\| \[`([\w-]+)`\]\(\1/README\.md\) \|.*")
# The Hub's limits; a commit may hold 25,000 large files, which two full folders fit in.
FOLDER_FILES = 10_000

_OF_MODELS = re.compile(
    r"(?:[A-Za-z0-9_][\w.-]*/)*(?:LICENSE|[A-Za-z0-9_][\w.-]*\.(?:safetensors|jsonl?|md|txt))",
    re.ASCII,
)
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")


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


def zoo_files(folder: Path, repo_id: str, base: str = "") -> list[Upload]:
    """The files of a verified zoo, weights first, then the view, then the small ones.

    Args:
        base: what their names begin with in the repository, such as "mnist/".

    Raises:
        ZooError: if the zoo is damaged, or a file is anything but a plain one.
    """
    files.plain_file(folder, INDEX_FILE)
    index = shards.read_index(folder)
    if not os.path.lexists(card := folder / CARD_FILE):
        raise ZooError(f"{card} is missing; run the command that made the zoo again")
    small = files.pictures(folder)
    for file in index.files:
        files.plain_file(folder, file.file)
        if wrong := shards.check_file(folder, file, hashes=False):
            raise ZooError(f"{wrong}; {_MAKE_AGAIN}")
    for file in index.files:
        if wrong := shards.check_file(folder, file, hashes=True):
            raise ZooError(f"{wrong}; {_MAKE_AGAIN}")
    for shard in index.shards:
        table.map_shard(folder, index, shard)
    found = [Upload(f.file, f.bytes, f.sha256, folder / f.file) for f in index.files]
    found.sort(key=lambda file: file.file.endswith(".parquet"))
    sample = _sample(folder, index)
    if sample is not None:
        found.append(upload_of(SAMPLE_FILE, sample))
    small |= _public_texts(folder, index, repo_id, base, sample is not None)
    found += [upload_of(name, content) for name, content in small.items()]
    return [replace(file, file=base + file.file) for file in found]


def _sample(folder: Path, index: Index) -> bytes | None:
    """A Parquet file of the view's first rows; None without a view.

    Raises:
        ZooError: if the view is no Parquet, or its shards differ in columns.
    """
    first = table.shards_of(index, next(iter(index.splits)))
    if not all(shard.parquet for shard in index.shards):
        return None
    # Its types of columns are then known, on which the bytes depend.
    import datasets  # noqa: F401
    import pyarrow as pa
    import pyarrow.parquet as pq

    most = min(SAMPLE_ROWS, max(1, SAMPLE_BYTES // shards.row_bytes(index)))
    parts: list[Any] = []
    try:
        for shard in first:
            assert shard.parquet is not None
            with pq.ParquetFile(folder / shard.parquet.file) as opened:
                for batch in opened.iter_batches(batch_size=most):
                    left = most - sum(len(part) for part in parts)
                    parts.append(batch.slice(0, left))
                    if len(batch) >= left:
                        break
            if sum(len(part) for part in parts) >= most:
                break
        rows = pa.Table.from_batches(parts)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, **table.PARQUET)
    except (OSError, pa.ArrowException) as error:
        raise ZooError(
            f"{folder}: its Parquet view cannot be read ({schema.safe(error)}); `wszoo view` makes "
            "it anew"
        ) from error
    return bytes(sink.getvalue())


_MAKE_AGAIN = "run the command that made the zoo again before you push it"


def model_files(folder: Path) -> list[Upload]:
    """The files of a model's folder, weights first; hidden ones stay here.

    Raises:
        ZooError: for anything that is not a plain file such as a model has.
    """
    small = files.pictures(folder)
    found = []
    for name in _names(folder):
        path = files.plain_file(folder, name)
        if not _OF_MODELS.fullmatch(name):
            raise ZooError(
                f"{path} is no file of a model (README.md, LICENSE, *.safetensors, *.json, "
                "*.jsonl, *.md, *.txt, figures/*.png): move it away, it is not published"
            )
        if name.endswith(".safetensors"):
            _check_tensors(path)
            found.append(Upload(name, path.stat().st_size, shards.sha256(path), path))
            continue
        small[name] = files.read_plain_file(folder, name, TEXT_BYTES)
        _check_text(path, small[name])
    return found + [upload_of(name, content) for name, content in small.items()]


def _names(folder: Path) -> list[str]:
    """Every file below a folder but pictures and hidden ones; links are not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if os.path.islink(Path(place, name))]
        visible = (name for name in [*names, *links] if not name.startswith("."))
        found += [(inside / name).as_posix() for name in visible]
        if place == str(folder):
            folders[:] = [name for name in folders if name != "figures"]
    return sorted(name for name in found if name != "figures")


def _check_tensors(path: Path) -> None:
    """ZooError unless a file has the header of a safetensors file, and its size."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as opened:
            opened.keys()
    except SafetensorError as error:
        what = files.instead(path, "a safetensors file")
        raise ZooError(
            f"{path} is no safetensors file ({error}){what}; it is not published"
        ) from None


def _check_text(path: Path, content: bytes) -> None:
    """ZooError unless a text is one, and JSON is JSON."""
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            json.loads(text)
        for line in text.splitlines() if path.suffix == ".jsonl" else ():
            json.loads(line)
    except (ValueError, RecursionError) as error:
        what = {".json": "JSON", ".jsonl": "lines of JSON"}.get(path.suffix, "UTF-8 text")
        raise ZooError(
            f"{path} is not {what} ({error}){files.instead(content)}; it is not published"
        ) from None


def upload_of(name: str, content: bytes) -> Upload:
    """A small file as it is to stand in the repository."""
    return Upload(name, len(content), hashlib.sha256(content).hexdigest(), content)


def _public_texts(
    folder: Path, index: Index, repo_id: str, base: str, sampled: bool
) -> dict[str, bytes]:
    """Card and index as they are published.

    A folder of pictures is named by its path, because `verify` and `show` open it
    again; the path tells of the machine, so the folder's name alone goes out. The
    card's examples name the repository.
    """
    raw = files.read_plain_file(folder, INDEX_FILE, trust.INDEX_BYTES)
    text = files.read_plain_file(folder, CARD_FILE, TEXT_BYTES)
    _check_text(folder / CARD_FILE, text)
    card = text.decode("utf-8")
    name = str(index.source.get("name", ""))
    kind, _, given = name.partition(":")
    short = f"{kind}:{Path(given).expanduser().resolve().name}"
    if kind == "imagefolder" and given and short != name:
        words = [short if word == name else word for word in shlex.split(index.command)]
        command = shlex.join(words)
        card = card.replace(index.command, command) if index.command else card
        # Markdown puts a backslash before some characters, and one blank for several.
        letters = [r"\s+" if c.isspace() else r"\\?" + re.escape(c) for c in name]
        card = re.sub("".join(letters), lambda match: short, card)
        plain = {**json.loads(raw), "command": command}
        raw = (json.dumps(_replaced(plain, name, short), indent=1) + "\n").encode()
    own, chosen = shlex.quote(index.name), f" --include '{base}*'" if base else ""
    card = card.replace(f"hf download USER/{own} ", f"hf download {repo_id}{chosen} ")
    own = json.dumps(index.name, ensure_ascii=False)
    within = [json.dumps(part) for part in (repo_id, base[:-1]) if part]
    card = card.replace(f"load_dataset({own}", f"load_dataset({', '.join(within)}")
    place = json.dumps("/".join(filter(None, (repo_id, base[:-1]))))
    card = card.replace(f"open_zoo({own}", f"open_zoo({place}")
    if sampled:
        card = _with_sample(card, repo_id, base)
    return {CARD_FILE: card.encode(), INDEX_FILE: raw}


def _with_sample(card: str, repo_id: str, base: str) -> str:
    """A card that tells of the sample, once; one that was pulled may do so already."""
    name = f"{base[:-1]}-{SAMPLE}" if base else SAMPLE
    configs = _CONFIGS.search(card)
    if not base and configs and f"config_name: {SAMPLE}\n" not in configs[0]:
        # The last one: a copy without the sample, as a pull makes it, opens by the first.
        card = card[: configs.end()] + _SAMPLE_CONFIG + card[configs.end() :]
    words = f"; `load_dataset({json.dumps(repo_id)}, {json.dumps(name)})` has the first "
    return card if words in card else card.replace(_DATASETS, f"{_DATASETS}{words}{_FEW}", 1)


# How a card's example of datasets begins.
_DATASETS = "With `datasets`, which also takes the repository's name instead of the folder"
_FEW = f"{SAMPLE_ROWS:,} rows alone"
# The list of configs in a card's header.
_CONFIGS = re.compile(r"(?<=\n)configs:\n(?:(?:- |  ).*\n)+")
_SAMPLE_CONFIG = f"""\
- config_name: {SAMPLE}
  data_files:
  - split: train
    path: {SAMPLE_FILE}
"""


def top_card(before: bytes | None, repo_id: str, base: str, index: Index) -> bytes:
    """The card of a repository with several zoos, with this one in it.

    Args:
        before: the card that is there; what else it says is kept.

    Raises:
        ZooError: if that is no card.
    """
    from huggingface_hub import DatasetCard
    from huggingface_hub.utils import yaml_dump

    name = base[:-1]
    header: dict[str, Any] = {}
    body = (
        f"# {repo_id.partition('/')[2]}\n\nZoos of neural networks, each in a folder of its own.\n"
    )
    if before is not None:
        try:
            if len(before) > _TOP_BYTES:
                raise ValueError(f"{len(before):,} bytes")
            card = DatasetCard(before.decode("utf-8"), ignore_metadata_errors=False)
            header, body = card.data.to_dict(), card.text.strip("\n") + "\n"
        except Exception as error:  # whatever a foreign text makes of a parser of YAML
            raise ZooError(f"{repo_id}: {CARD_FILE} is no card ({schema.safe(error)})") from error
    sampled = all(shard.parquet for shard in index.shards)
    configs = {
        str(each.get("config_name") if isinstance(each, dict) else each): each
        for each in header.get("configs") or []
    }
    if sampled:  # in the place that they had, so that nothing changes where nothing did
        files = [{"split": s, "path": f"{base}data/{s}-*.parquet"} for s in index.splits]
        few = [{"split": "train", "path": base + SAMPLE_FILE}]
        configs[name] = {"config_name": name, "data_files": files}
        configs[f"{name}-{SAMPLE}"] = {"config_name": f"{name}-{SAMPLE}", "data_files": few}
    else:
        configs.pop(name, None)
        configs.pop(f"{name}-{SAMPLE}", None)
    tags = dict.fromkeys([*(header.get("tags") or []), "weight-space-learning", "wszoo"])
    header |= {"configs": list(configs.values()), "tags": list(tags)}
    title = str(index.source.get("title") or index.source.get("name", ""))
    words = re.sub(r"[|`\[\]<>]", " ", safe_line(title, 200))
    call = f'`load_dataset("{repo_id}", "{name}")`' if sampled else ""
    line = (
        f"| [`{name}`]({name}/README.md) | {index.rows:,} networks, {words} | {call} "
        f'`zoo.open_zoo("{repo_id}/{name}")` |'
    )
    lines = body.split("\n")
    listed = {found[1]: at for at, each in enumerate(lines) if (found := _LISTED.fullmatch(each))}
    if name in listed:
        lines[listed[name]] = line
    elif listed:
        lines.insert(max(listed.values()) + 1, line)
    else:
        lines += ["| zoo | what it is | how it opens |", "| --- | --- | --- |", line, ""]
    text = "\n".join(lines)
    return f"---\n{yaml_dump(header, sort_keys=False)}---\n\n{text}".encode()


def _replaced(plain: Any, old: str, new: str) -> Any:
    """JSON with a string replaced inside every string."""
    if isinstance(plain, str):
        return plain.replace(old, new)
    if isinstance(plain, list):
        return [_replaced(part, old, new) for part in plain]
    if isinstance(plain, dict):
        return {key: _replaced(part, old, new) for key, part in plain.items()}
    return plain


def check_limits(folder: Path, uploads: list[Upload]) -> None:
    """ZooError for more files in one folder than the Hub takes."""
    counts = Counter(str(PurePosixPath(file.file).parent) for file in uploads)
    part, count = counts.most_common(1)[0]
    if count > FOLDER_FILES:
        raise ZooError(
            f"{folder / part} has {count:,} files, the Hub takes {FOLDER_FILES:,} in a folder; "
            "make the zoo again with larger --shard-rows"
        )


def refuse_token(uploads: list[Upload], token: str) -> None:
    """ZooError if a text that is to be published holds this token, or another of the Hub."""
    for file in uploads:
        if file.bytes > trust.INDEX_BYTES or file.file.endswith((".safetensors", ".parquet")):
            continue
        found = content(file)
        if token.encode() in found:
            raise ZooError(f"{file.file} holds your Hugging Face token; take it out, and revoke it")
        if _TOKEN.search(found):
            raise ZooError(f"{file.file} holds a Hugging Face token; take it out, and revoke it")


def content(file: Upload) -> bytes:
    """The bytes of a file, read if it lies on disk."""
    return file.content if isinstance(file.content, bytes) else file.content.read_bytes()
