"""Reads JSON that others wrote, and holds it against a description of what it may say.

A file is opened only if it is a plain one (links to plain files will do: caches use them)
and read only up to a bound. A rule describes one value; `ListOf`, `MapOf` and `Record` put
rules together. What a rule refuses is one line that names file and field:

    zoo.json: shards[3].rows: expected an integer of at least 1, got 25.0

Nothing is converted: true is no integer, 25.0 is none either, "3" is no number, and
numbers are finite. Whatever a message repeats is cut, and its control characters escaped.
"""

import json
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from zoo.errors import ZooError, visible
from zoo.errors import safe_line as safe
from zoo.files import HEAD, instead

# A file of 100,000 shards takes 40 MB.
JSON_BYTES = 64 << 20
# Of safetensors.
_HEADER_BYTES = 16 << 20
# Values in one file; each takes some 250 bytes of memory at most, beside its own text.
JSON_VALUES = 4_000_000
# Characters that a message repeats of one value.
SHOWN = 60

# ---- plain files


def open_plain(path: Path) -> BufferedReader:
    """A plain file, opened to be read; never waits for a pipe and never reads a device.

    Raises:
        ZooError: if it is missing, cannot be opened, or is something else, such as a folder
            or a FIFO.
    """
    try:
        _refuse_special(path, path.stat().st_mode)
        # Between the two calls another could take its name: a FIFO must not block even so.
        kept = (
            getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        )
        descriptor = os.open(path, os.O_RDONLY | kept)
    except FileNotFoundError:
        raise ZooError(f"{safe(path)} is missing") from None
    except NotADirectoryError:
        raise ZooError(f"{safe(path)} is missing: a part of its path is a file") from None
    except ValueError as error:  # a name with a null character
        raise ZooError(f"{safe(path)}: {error}") from None
    except OSError as error:  # a link to itself, no permission
        raise ZooError(f"{safe(path)} cannot be opened: {error.strerror or error}") from error
    try:
        _refuse_special(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_special(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe (FIFO)",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    raise ZooError(f"{safe(path)}: expected a plain file, it is {kind}")


def read_plain(path: Path, limit: int = JSON_BYTES) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        ZooError: if it is missing, larger, or no plain file.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ZooError(f"{safe(path)} has {size:,} bytes; at most {limit:,} are read")
        try:
            # Not what is added meanwhile; what the system makes up has no size, but content.
            return file.read(size or 1)
        except OSError as error:
            raise ZooError(f"{safe(path)} cannot be read: {error.strerror or error}") from error


def check_length(path: Path) -> None:
    """ZooError if a safetensors file is larger or smaller than its header says.

    The library maps the whole file before it looks, a hash reads all of it, and a file of
    holes can be of any size.
    """
    name = safe(path)
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_HEADER_BYTES, size - 8):
            raise ZooError(f"{name} is damaged: a header of {length} bytes in a file of {size}")
        header = parse(file.read(length), name)
    entries = header.values() if isinstance(header, dict) else ()
    spans = [entry.get("data_offsets") for entry in entries if isinstance(entry, dict)]
    ends = [span[1] for span in spans if isinstance(span, list) and len(span) == 2]
    if not all(type(end) is int for end in ends) or 8 + length + max(ends, default=0) != size:
        raise ZooError(f"{name} is damaged: its {size} bytes are not those that its header says")


# ---- JSON


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """The content of a JSON file; see `parse`.

    Raises:
        ZooError: if it is missing, larger than `limit` bytes, no plain file, or not JSON.
    """
    return parse(read_plain(path, limit), safe(path))


def parse(content: bytes, name: str) -> Any:
    """JSON as plain data: UTF-8, every key of an object once, finite numbers.

    Args:
        name: of the file, for messages.

    Raises:
        ZooError: if it is anything else, nested too deeply, or of too many values.
    """
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if values > JSON_VALUES:
        raise ZooError(
            f"{name}: not JSON (some {values:,} values; at most {JSON_VALUES:,} are read)"
        )
    try:
        text = content.decode("utf-8")
        plain = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_float,
            parse_constant=_constant,
        )
        # Half a surrogate pair is text that nothing can write again, or print.
        if "\\ud" in text or "\\uD" in text:
            json.dumps(plain, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        what = instead(content[:HEAD], "JSON")
        raise ZooError(f"{name}: not JSON ({safe(error)}){what}") from None
    return plain


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {shown(key)} stands twice in one object")
            seen.add(key)
    return found


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:SHOWN]} is out of range")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


# ---- values in messages


def shown(value: object) -> str:
    """A value as a message repeats it, as JSON writes it, cut.

    >>> shown({"a": [1, None, True, "x"]})
    "{'a': [1, null, true, 'x']}"
    """
    text = "".join(_pieces(value, [SHOWN]))
    # Escapes are longer than what they stand for.
    text = visible(text[: 2 * SHOWN])
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _pieces(value: object, left: list[int]) -> list[str]:
    """The parts of a text, of a little more than `left` characters at most."""
    if value is None or isinstance(value, bool):
        parts = [{None: "null", True: "true", False: "false"}[value]]
    elif isinstance(value, str):
        parts = [repr(value[: SHOWN + 1])]
    elif isinstance(value, int):
        # Python refuses to write integers of more than 4,300 digits.
        parts = [
            str(value) if value.bit_length() < 300 else f"an integer of {value.bit_length()} bits"
        ]
    elif isinstance(value, Mapping | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
        opening, closing = "{}" if isinstance(value, Mapping) else "[]"
        parts = [opening]
        left[0] -= 1
        for number, (key, item) in enumerate(pairs):
            parts += [", "] if number else []
            parts += [f"{_pieces(key, left)[0]}: "] if isinstance(value, Mapping) else []
            parts += _pieces(item, left)
            if left[0] <= 0:
                break
        parts.append(closing)
        left[0] -= 2
        return parts
    else:
        try:
            parts = [repr(value)]
        except Exception:
            parts = [f"a {type(value).__name__}"]
    left[0] -= len(parts[0])
    return parts


# ---- rules


class Wrong(Exception):
    """A value that a rule refuses; `place` are the keys that lead to it, the last first."""

    def __init__(self, what: str):
        super().__init__(what)
        self.what = what
        self.place: list[str | int] = []

    def line(self) -> str:
        """The field and what is wrong there: `shards[3].rows: expected ...`."""
        path = ""
        for key in reversed(self.place):
            if isinstance(key, int):
                path += f"[{key}]"
            else:
                plain = re.fullmatch(r"[\w-]{1,60}", key)
                path += ("." if path else "") + (key if plain else shown(key))
        return f"{path}: {self.what}" if path else self.what


class Rule(ABC):
    """What a value may be."""

    @property
    @abstractmethod
    def words(self) -> str:
        """After "expected", such as "an integer of at least 1"."""

    @abstractmethod
    def check(self, value: Any) -> None:
        """Raise `Wrong` unless the value is right."""

    def passes(self, value: Any) -> bool:
        """Whether the value is right."""
        try:
            self.check(value)
        except Wrong:
            return False
        return True

    def refuse(self, value: Any) -> NoReturn:
        raise Wrong(f"expected {self.words}, got {shown(value)}")


def check(plain: Any, rule: Rule, name: str) -> None:
    """Hold plain data against a rule.

    Args:
        name: of the file, for the message.

    Raises:
        ZooError: naming the file, the field, what was expected and what came.
    """
    try:
        rule.check(plain)
    except Wrong as wrong:
        raise ZooError(f"{name}: {wrong.line()}") from None
    except RecursionError:
        raise ZooError(f"{name}: nested too deeply") from None


def _range(low: float | None, high: float | None, above: float | None, below: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    words = {"of at least": low, "of at most": high, "above": above, "below": below}
    parts = [f"{word} {value}" for word, value in words.items() if value is not None]
    return f" {' and '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Int(Rule):
    """An integer; true, false and 25.0 are none."""

    low: int | None = None
    high: int | None = None

    @property
    def words(self) -> str:
        return "an integer" + _range(self.low, self.high, None, None)

    def check(self, value: Any) -> None:
        if (
            type(value) is not int
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
        ):
            self.refuse(value)


@dataclass(frozen=True)
class Real(Rule):
    """A finite number; integers will do, true and false will not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def words(self) -> str:
        return "a finite number" + _range(self.low, self.high, self.above, self.below)

    def check(self, value: Any) -> None:
        if (
            type(value) not in (int, float)
            or not -MOST <= value <= MOST  # nan is not
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and not value > self.above)
            or (self.below is not None and not value < self.below)
        ):
            self.refuse(value)


# The greatest float64: an integer beyond it is as good as infinite.
MOST = 1.7976931348623157e308


@dataclass(frozen=True)
class Text(Rule):
    """A string.

    Attributes:
        pattern: a regular expression that all of it must match.
        what: the words for strings of that pattern, such as "a sha256 of 64 hex digits".
        most: characters at most.
        empty: whether "" will do.
    """

    pattern: str | None = None
    what: str = "a string"
    most: int = 1_000_000
    empty: bool = True
    _match: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.pattern is not None:
            object.__setattr__(self, "_match", re.compile(self.pattern).fullmatch)

    @property
    def words(self) -> str:
        what = self.what if self.empty or self.pattern else f"{self.what} that is not empty"
        return what if self.most >= 1_000_000 else f"{what} of at most {self.most} characters"

    def check(self, value: Any) -> None:
        if (
            type(value) is not str
            or len(value) > self.most
            or not (value or self.empty)
            or (self._match is not None and not self._match(value))
        ):
            self.refuse(value)


# A name: one printable line.
NAME = Text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+", "a name on one line", most=200)
SHA256 = Text(r"[0-9a-f]{64}", "a sha256 of 64 hex digits")


@dataclass(frozen=True)
class Bool(Rule):
    """true or false; 0 and 1 are neither."""

    @property
    def words(self) -> str:
        return "true or false"

    def check(self, value: Any) -> None:
        if value is not True and value is not False:
            self.refuse(value)


class Choice(Rule):
    """One of a few values, of the same type too: true is not 1.

    >>> Choice("a", "b").words
    "'a' or 'b'"
    """

    def __init__(self, *values: str | int | bool | None):
        self.values = values

    @property
    def words(self) -> str:
        *most, last = [shown(value) for value in self.values]
        return f"{', '.join(most)} or {last}" if most else last

    def check(self, value: Any) -> None:
        if not any(type(value) is type(known) and value == known for known in self.values):
            self.refuse(value)


@dataclass(frozen=True)
class Maybe(Rule):
    """null, or what another rule takes."""

    rule: Rule

    @property
    def words(self) -> str:
        return f"{self.rule.words} or null"

    def check(self, value: Any) -> None:
        if value is None:
            return
        try:
            self.rule.check(value)
        except Wrong as wrong:
            if wrong.place:
                raise
            self.refuse(value)


class Either(Rule):
    """What one of several rules takes."""

    def __init__(self, *rules: Rule):
        self.rules = rules

    @property
    def words(self) -> str:
        return " or ".join(rule.words for rule in self.rules)

    def check(self, value: Any) -> None:
        if not any(rule.passes(value) for rule in self.rules):
            self.refuse(value)


@dataclass(frozen=True)
class ListOf(Rule):
    """A list whose items follow one rule.

    Attributes:
        least, most: items.
        unique: what of an item no other may have; None lets items repeat.
        key: the words for it, such as "file", for the message.
    """

    item: Rule
    least: int = 0
    most: int | None = None
    unique: Callable[[Any], Hashable] | None = None
    key: str = "value"

    @property
    def words(self) -> str:
        return "a list" + (_range(self.least or None, self.most, None, None)
                           + " items" if self.least or self.most is not None else "")  # fmt: skip

    def check(self, value: Any) -> None:
        if type(value) is not list:
            self.refuse(value)
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            raise Wrong(f"expected {self.words}, got {len(value)}")
        number = 0
        try:
            for number, item in enumerate(value):  # noqa: B007
                self.item.check(item)
        except Wrong as wrong:
            wrong.place.append(number)
            raise
        if self.unique is not None:
            keys = [self.unique(item) for item in value]
            if len(set(keys)) != len(keys):
                _refuse_twice(keys, self.key)


def _refuse_twice(keys: list[Hashable], what: str) -> NoReturn:
    first: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        if key in first:
            wrong = Wrong(f"the {what} {shown(key)} stands at [{first[key]}] already")
            wrong.place.append(number)
            raise wrong
        first[key] = number
    raise AssertionError("no key stands twice")


class Tuple(Rule):
    """A list of fixed length, a rule an item."""

    def __init__(self, *rules: Rule):
        self.rules = rules

    @property
    def words(self) -> str:
        return f"a list of {len(self.rules)} ({', '.join(rule.words for rule in self.rules)})"

    def check(self, value: Any) -> None:
        if type(value) is not list or len(value) != len(self.rules):
            self.refuse(value)
        for number, (rule, item) in enumerate(zip(self.rules, value, strict=True)):
            try:
                rule.check(item)
            except Wrong as wrong:
                wrong.place.append(number)
                raise


@dataclass(frozen=True)
class MapOf(Rule):
    """An object whose keys are names and whose values follow one rule."""

    values: Rule
    keys: Rule = NAME
    least: int = 0
    most: int | None = None

    @property
    def words(self) -> str:
        return "an object"

    def check(self, value: Any) -> None:
        if type(value) is not dict:
            self.refuse(value)
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            wanted = _range(self.least or None, self.most, None, None)
            raise Wrong(f"expected an object{wanted} fields, got {len(value)}")
        for key, item in value.items():
            try:
                self.keys.check(key)
            except Wrong as wrong:
                raise Wrong(f"a key: {wrong.what}") from None
            try:
                self.values.check(item)
            except Wrong as wrong:
                wrong.place.append(key)
                raise


class Record(Rule):
    """An object of known fields.

    Attributes:
        fields: the rules of fields that must be there.
        optional: of fields that may be missing.
        others: the rule of any other field; None refuses them.

    >>> check({"rows": True}, Record({"rows": Int(low=1)}), "zoo.json")
    Traceback (most recent call last):
    zoo.errors.ZooError: zoo.json: rows: expected an integer of at least 1, got true
    """

    def __init__(
        self,
        fields: Mapping[str, Rule],
        optional: Mapping[str, Rule] | None = None,
        others: Rule | None = None,
    ):
        self.fields, self.optional, self.others = dict(fields), dict(optional or {}), others
        self._checks = [(name, rule.check) for name, rule in self.fields.items()]
        self._known: Collection[str] = frozenset({*self.fields, *self.optional})

    @property
    def words(self) -> str:
        return "an object"

    def check(self, value: Any) -> None:
        if type(value) is not dict:
            self.refuse(value)
        name = ""
        try:
            for name, rule in self._checks:
                if name not in value:
                    raise Wrong("is missing")
                rule(value[name])
            if len(value) > len(self._checks):
                for name, item in value.items():
                    if name in self.optional:
                        self.optional[name].check(item)
                    elif name not in self.fields:
                        self._other(item)
        except Wrong as wrong:
            wrong.place.append(name)
            raise

    def _other(self, item: Any) -> None:
        if self.others is None:
            known = ", ".join([*self.fields, *self.optional])
            raise Wrong(f"unknown field; known: {known}")
        self.others.check(item)


@dataclass(frozen=True)
class Json(Rule):
    """Any JSON; what `parse` gives is, and so finite."""

    @property
    def words(self) -> str:
        return "any value"

    def check(self, value: Any) -> None:
        """Take every value."""


@dataclass(frozen=True)
class Also(Rule):
    """What a rule takes, if a function of it finds nothing wrong.

    Attributes:
        wrong: gives what is wrong with a value that follows the rule, or None.
    """

    rule: Rule
    wrong: Callable[[Any], str | None]

    @property
    def words(self) -> str:
        return self.rule.words

    def check(self, value: Any) -> None:
        self.rule.check(value)
        what = self.wrong(value)
        if what is not None:
            raise Wrong(what)
