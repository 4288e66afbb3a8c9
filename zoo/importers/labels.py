"""Reads tables of labels as people write them, and makes columns of them.

CSV with commas, semicolons or tabs (UTF-8, or UTF-16 as Excel writes "Unicode text"), JSON as
`{file: label}`, `{file: {column: value}}`, a list of records, lists by column, pandas' own
form, lines of records, or the split files of DWSNets. The column that names the files is the
one whose every value does.

Types are not guessed. A column of whole numbers that is to be classes keeps them as class
numbers, also where they are written as floats (pandas does, once there was a gap); words are
classes, numbered in their order; a column that mixes both, or has gaps, is refused, and
`--column NAME=KIND` decides. All that was decided is said.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import schema
from zoo.errors import ZooError
from zoo.importers.files import natural
from zoo.importers.published import Arrays, Told
from zoo.schema import safe
from zoo.shards import Column

TABLE_BYTES = 256 << 20
# A JSON file is held whole, and ten times as large as Python objects.
JSON_BYTES = 64 << 20
FILE_NAMES = (
    "file", "filename", "file_name", "path", "filepath", "file_path", "name", "model",
    "checkpoint", "network", "id",
)  # fmt: skip
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
QUALITY = {"psnr_db": "dB", "mse": None, "train_loss": None, "test_loss": None,
           "test_accuracy": None, "train_accuracy": None}  # fmt: skip
FRACTIONS = ("test_accuracy", "train_accuracy")
KEYS = ("split", "index", "view")
KINDS = {
    "class": "class numbers, or words as classes",
    "words": "classes, also where they look like numbers",
    "real": "numbers",
    "skip": "left out",
}
MOST_CLASSES = 10_000
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Beyond it float32 leaves out whole numbers.
EXACT = 1 << 24


@dataclass(frozen=True)
class Table:
    """A table of labels: the file of each row, and the other columns as text.

    Attributes:
        where: what a message calls it.
        files: names of networks, each once.
        texts: by name of column, a text a row.
        comma: whether numbers have a comma where others have a point.
    """

    where: str
    files: list[str]
    texts: dict[str, list[str]]
    comma: bool = False


def read_table(path: Path, names: Sequence[str], told: Told) -> Table:
    """The table at `path`, held against the files of networks that are there.

    Raises:
        ValueError: if there is no such file.
        ZooError: if it is no table, or does not name every network once.
    """
    if not path.is_file():
        raise ValueError(f"--labels {path}: there is no such file")
    # Room is made for as much as may be read.
    content = schema.read_plain(path, min(TABLE_BYTES, max(path.stat().st_size, 1 << 20)))
    where = str(path)
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        header, rows, comma = *_from_json(content, where, names), False
    else:
        header, rows, comma = _from_text(content, where)
    texts = _columns(header, rows, where, told)
    key, files = _files(texts, names, where)
    if key.lower() != "file":
        told.say(f"files by the column {safe(key, 40)} of {path.name}")
    return Table(where, files, {name: t for name, t in texts.items() if name != key}, comma)


# ---- text


def _from_text(content: bytes, where: str) -> tuple[list[str], list[list[str]], bool]:
    """Names of columns, rows, and whether a comma stands where others put a point."""
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t|", key=lambda mark: (first.count(mark), mark == ","))
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [[cell.strip() for cell in line] for line in lines if line]
    except (ValueError, csv.Error) as error:
        raise ZooError(
            f"{where}: not a table of comma-separated text in UTF-8 ({safe(error, 120)}); "
            "save it as CSV UTF-8"
        ) from error
    if not rows:
        raise ZooError(f"{where}: empty; expected a first line of names, `file` among them")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(rows[0]):
            raise ZooError(
                f"{where}: row {number} has {len(row)} fields, expected {len(rows[0])}, as many as "
                "the first line"
            )
    return rows[0], rows[1:], delimiter == ";"


# ---- JSON


def _from_json(
    content: bytes, where: str, names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    if len(content) > JSON_BYTES:
        raise ZooError(f"{where}: more than {JSON_BYTES:,} bytes of JSON; write it as CSV")
    records = _records(_parse(content, where), where, set(names))
    if not records:
        raise ZooError(f"{where}: no rows")
    header = list(dict.fromkeys(name for record in records for name in record))
    if len(header) > 1000:
        raise ZooError(f"{where}: more than 1,000 columns")
    rows = [
        [_text(record.get(name), where, number, name) for name in header]
        for number, record in enumerate(records)
    ]
    return header, rows


def _parse(content: bytes, where: str) -> Any:
    """JSON, or a record of it a line."""
    try:
        return schema.parse(content, where)
    except ZooError:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].lstrip(b"\xef\xbb\xbf ").startswith(b"{"):
            raise
        try:
            json.loads(lines[0].decode("utf-8-sig"))
        except ValueError:
            raise ZooError(f"{where}: not JSON, and no lines of JSON") from None
        return [schema.parse(line, f"{where}: line {n}") for n, line in enumerate(lines, 1)]


def _records(plain: Any, where: str, names: set[str]) -> list[dict[str, Any]]:
    """One dict a network, whatever form the file has."""
    if isinstance(plain, list) and all(isinstance(record, dict) for record in plain):
        return plain
    if isinstance(plain, dict) and plain:
        values = list(plain.values())
        if all(name.lower() in SPLIT_NAMES for name in plain):
            return [
                record for split, part in plain.items() for record in _split(part, split, where)
            ]
        if all(isinstance(value, list) for value in values):
            if len({len(value) for value in values}) == 1:
                return [dict(zip(plain, row, strict=True)) for row in zip(*values, strict=True)]
        elif all(isinstance(value, dict) for value in values):
            if not any(_ends(name) in {_ends(n) for n in names} for name in plain):
                # pandas: by column, then by number of row.
                keys = list(values[0])
                if all(list(value) == keys for value in values):
                    return [{name: plain[name][key] for name in plain} for key in keys]
            return [{"file": name, **value} for name, value in plain.items()]
        elif not any(isinstance(value, list | dict) for value in values):
            return [{"file": name, "label": value} for name, value in plain.items()]
    raise ZooError(
        f"{where}: expected {{file: label}}, {{file: {{column: value}}}}, a list of records, or "
        "lists of equal length by column"
    )


def _split(part: Any, split: str, where: str) -> list[dict[str, Any]]:
    """The networks of one split, as DWSNets' files list them."""
    paths = part.get("path") if isinstance(part, dict) else part
    labels = part.get("label") if isinstance(part, dict) else None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ZooError(f"{where}: {split}: expected a list of paths")
    if labels is None:
        return [{"file": path, "split": split} for path in paths]
    if not isinstance(labels, list) or len(labels) != len(paths):
        raise ZooError(f"{where}: {split}: expected a label for each of {len(paths)} paths")
    return [
        {"file": path, "split": split, "label": label}
        for path, label in zip(paths, labels, strict=True)
    ]


def _text(value: Any, where: str, number: int, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | str | int | float):
        return str(value).strip()
    raise ZooError(
        f"{where}: record {number + 1}: {safe(name, 40)}: expected a number or a word, got "
        f"{schema.shown(value)}"
    )


# ---- names of columns and of files


def _columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], where: str, told: Told
) -> dict[str, list[str]]:
    """Texts by name; a column without a name, such as pandas' index, is passed over."""
    texts: dict[str, list[str]] = {}
    for place, name in enumerate(header):
        if not name or re.fullmatch(r"Unnamed: [0-9]+", name):
            told.say(f"column {place + 1} of the labels has no name and was left out")
            continue
        plain = re.sub(r"[ .\-]+", "_", name)
        if plain in texts:
            raise ZooError(
                f"{where}: expected a first line of different names, {safe(plain, 40)!r} is there "
                "twice"
            )
        if plain != name:
            told.say(f"column {safe(name, 40)!r} as {plain}")
        texts[plain] = [row[place] for row in rows]
    return texts


def _files(
    texts: Mapping[str, list[str]], names: Sequence[str], where: str
) -> tuple[str, list[str]]:
    """The column that names the files, and the file of each row."""
    by_end: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_end.setdefault(_ends(name), []).append(name)
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    known = [name for word in FILE_NAMES for name in texts if name.lower() == word]
    every = set(names)
    resolved = {}
    for column, values in texts.items():
        stems = by_stem if column in known else {}
        found = [_resolve(value, every, by_end, stems) for value in values]
        if None not in found:
            resolved[column] = [name for name in found if name is not None]
    right = [name for name in resolved if len(set(resolved[name])) == len(resolved[name])]
    chosen = next((name for name in known if name in right), None)
    if chosen is None and len(right) == 1:
        (chosen,) = right
    chosen = chosen or (known[0] if known else None)
    if chosen is None:
        raise ZooError(
            f"{where}: no column names the files: expected a first line of names, `file` among "
            f"them, got {', '.join(safe(name, 40) for name in texts)[:120] or 'nothing'}"
        )
    values, files = texts[chosen], resolved.get(chosen)
    if files is None:
        lost = [v for v in values if _resolve(v, every, by_end, by_stem) is None]
        raise ZooError(
            f"{where}: {chosen}: names {safe(lost[0], 100)}, which is not there, or several times "
            f"({len(lost)} such of {len(values)} rows)"
        )
    if len(set(files)) != len(files):
        counts: dict[str, int] = {}
        for name in files:
            counts[name] = counts.get(name, 0) + 1
        twice = next(name for name, count in counts.items() if count > 1)
        raise ZooError(f"{where}: {safe(twice, 100)} is there twice")
    if bare := sorted(every - set(files), key=natural):
        raise ZooError(
            f"{where}: does not name {safe(bare[0], 100)} ({len(bare)} such): it has no label; "
            "--match PATTERN leaves files out"
        )
    return chosen, files


def _ends(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _resolve(
    text: str,
    names: set[str],
    by_end: Mapping[str, Sequence[str]],
    by_stem: Mapping[str, Sequence[str]],
) -> str | None:
    """The file that a text names: a path there, or the end of one on another machine."""
    path = text.replace("\\", "/")
    path = path.removeprefix("./")
    if path in names:
        return path
    ends = by_end.get(_ends(path)) or by_stem.get(path) or ()
    if len(ends) == 1:
        return ends[0]
    tails = [n for n in ends if path.endswith(f"/{n}") or n.endswith(f"/{path}")]
    return tails[0] if len(tails) == 1 else None


# ---- what columns mean


def kinds_of(column: Sequence[str] | None, table: Table) -> dict[str, str]:
    """What the user says columns are, from NAME=KIND.

    Raises:
        ValueError: for a column that is not there, or an unknown kind.
    """
    kinds = {}
    for text in column or ():
        name, _, kind = text.partition("=")
        if name not in table.texts or name in KEYS:
            there = ", ".join(n for n in table.texts if n not in KEYS) or "none"
            raise ValueError(f"--column {text}: no column {name!r} in {table.where}, only {there}")
        if kind not in KINDS:
            known = ", ".join(f"{name} ({words})" for name, words in KINDS.items())
            raise ValueError(f"--column {text}: unknown kind {kind!r}; known: {known}")
        kinds[name] = kind
    return kinds


def columns_of(
    table: Table, kinds: Mapping[str, str], told: Told
) -> tuple[dict[str, Column], Arrays]:
    """The columns of a zoo, and their values in the order of the table's rows.

    Raises:
        ZooError: for values that cannot be what the column is.
        ValueError: where an option has to decide what a column is.
    """
    columns: dict[str, Column] = {}
    values: Arrays = {}
    for name, texts in table.texts.items():
        if name in KEYS:
            continue
        kind = kinds.get(name)
        if kind == "skip":
            told.say(f"column {name} left out, as --column says")
            continue
        if not re.fullmatch(r"[A-Za-z]\w{0,60}", name) or re.fullmatch(r"(weight|bias)_\d+", name):
            raise ZooError(
                f"{table.where}: {safe(name, 60)!r} cannot be the name of a column; rename it"
            )
        columns[name], values[name], words = _column(name, texts, kind, table)
        told.say(f"column {name}: {words}")
    return columns, values


def _column(
    name: str, texts: list[str], kind: str | None, table: Table
) -> tuple[Column, NDArray[Any], str]:
    where = f"{table.where}: {name}"
    gaps = [row for row, text in enumerate(texts) if text.lower() in ("", "nan", "none", "null")]
    if gaps and (kind != "words" or "" in texts):
        raise ZooError(
            f"{where}: {safe(table.files[gaps[0]], 100)} has no {name} ({len(gaps)} such): fill "
            f"it, or leave the column out by --column {name}=skip"
        )
    numbers = [_number(text, table.comma) for text in texts]
    plain = [number for number in numbers if number is not None]
    wanted = "real" if name in QUALITY else kind or ("class" if name == "label" else None)
    if wanted == "words" or not plain:
        if wanted == "real":
            raise ZooError(f"{where}: expected numbers, finite ones, got {safe(texts[0], 40)!r}")
        return _words(texts, where)
    if len(plain) < len(numbers):
        word = texts[numbers.index(None)]
        if wanted == "real":
            raise ZooError(f"{where}: expected numbers, finite ones, got {safe(word, 40)!r}")
        raise ValueError(
            f"{where}: holds numbers and words ({safe(word, 40)!r}): say by --column {name}=words "
            f"that all are names of classes, or leave it out by --column {name}=skip"
        )
    if wanted == "class":
        return _class_numbers(plain, name, where)
    return _real(plain, name, where)


def _number(text: str, comma: bool) -> float | None:
    text = text.replace(",", ".") if comma and text.count(",") == 1 else text
    return float(text) if NUMBER.fullmatch(text) else None


def _real(numbers: list[float], name: str, where: str) -> tuple[Column, NDArray[Any], str]:
    if any(abs(number) > EXACT and number.is_integer() for number in numbers):
        raise ValueError(
            f"{where}: whole numbers beyond {EXACT:,} lose digits as float32: give --column "
            f"{name}=words or --column {name}=skip"
        )
    with np.errstate(over="ignore"):
        values = np.array(numbers, np.float32)
    if not np.isfinite(values).all():
        raise ZooError(f"{where}: expected numbers, finite ones, that float32 holds")
    low, high = float(values.min()), float(values.max())
    if name in FRACTIONS and (low < 0 or high > 1):
        raise ZooError(
            f"{where}: expected fractions from 0 to 1, got {low if low < 0 else high:g}; divide "
            "per cent by 100"
        )
    role = "quality" if name in QUALITY else "target"
    words = f"{'a quality' if role == 'quality' else 'numbers'}, {low:g} to {high:g}"
    return Column(role, "real", unit=QUALITY.get(name)), values, words


def _class_numbers(numbers: list[float], name: str, where: str) -> tuple[Column, NDArray[Any], str]:
    """Whole numbers, however they are written, are the numbers of classes."""
    odd = [number for number in numbers if not number.is_integer()]
    if odd:
        raise ValueError(
            f"{where}: {odd[0]:g} is no class number: give --column {name}=real for numbers, or "
            f"--column {name}=words for names of classes"
        )
    low, high = min(numbers), max(numbers)
    if low < 0 or high >= MOST_CLASSES:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{where}: expected class numbers from 0 to {MOST_CLASSES - 1:,}, got {wrong:.0f}: "
            f"leave these rows out, or give --column {name}=words for names of classes"
        )
    values = np.array(numbers, np.int64)
    names = tuple(str(number) for number in range(int(high) + 1))
    used = len(np.unique(values))
    words = f"class numbers, {int(low)} to {int(high)}"
    words += f", {used} of {len(names)} used" if used < len(names) else ""
    return Column("target", "class", names=names), values, words


def _words(texts: list[str], where: str) -> tuple[Column, NDArray[Any], str]:
    names = sorted(set(texts), key=natural)
    if len(names) > MOST_CLASSES:
        raise ValueError(
            f"{where}: {len(names):,} different words are no classes: leave the column out by "
            f"--column {where.rpartition(': ')[2]}=skip"
        )
    place = {text: number for number, text in enumerate(names)}
    values = np.array([place[text] for text in texts], np.int64)
    shown = ", ".join(f"{number} {safe(name, 30)}" for number, name in enumerate(names[:6]))
    words = f"{len(names)} classes of words, {shown}{', ...' if len(names) > 6 else ''}"
    return Column("target", "class", names=tuple(names)), values, words


def whole_numbers(table: Table, name: str) -> NDArray[np.int64] | None:
    """The whole numbers of a key column, or None without it.

    Raises:
        ZooError: if there are others.
    """
    if name not in table.texts:
        return None
    numbers = [_number(text, table.comma) for text in table.texts[name]]
    for number, text in zip(numbers, table.texts[name], strict=True):
        if number is None or not number.is_integer() or not 0 <= number < 1 << 53:
            raise ZooError(
                f"{table.where}: {name}: expected whole numbers from 0, got {safe(text, 40)!r}"
            )
    return np.array(numbers, np.int64)


def splits_of(table: Table) -> list[str] | None:
    """The split of each row, by its name in a zoo, or None without such a column.

    Raises:
        ZooError: for a split that is none.
    """
    if "split" not in table.texts:
        return None
    found = []
    for file, text in zip(table.files, table.texts["split"], strict=True):
        if text.lower() not in SPLIT_NAMES:
            raise ZooError(
                f"{table.where}: {safe(file, 100)}: unknown split {safe(text, 40)!r}; known: "
                f"{', '.join(SPLIT_NAMES)}"
            )
        found.append(SPLIT_NAMES[text.lower()])
    return found
