"""Damage, drawn from a seed: to bytes, to JSON field by field, to the files of a folder.

A `Folder` is damaged and made whole again thousands of times; a `Damage` says what was done
and which differences a reader may then show without being wrong.
"""

import copy
import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Stands in JSON for text that json.dumps would not write.
_RAW = "\u0001raw\u0001"


@dataclass(frozen=True)
class Damage:
    """One thing that was done.

    Attributes:
        kind: of damage, as the counts name it.
        what: in words, with the file.
        allows: what may be read differently afterwards: "data" of tensors, "text" that
            nothing depends on, "spec" where the index alone knows it, or "all", where the
            file is another valid one.
    """

    kind: str
    what: str
    allows: frozenset[str] = frozenset()


SECRET = "secret.txt"
NOTHING: frozenset[str] = frozenset()
# The names of pictures are found by numbers in the data.
DATA = frozenset({"data", "names"})
SPEC = frozenset({"spec"})
TEXT = frozenset({"text"})
ALL = frozenset({"all"})


@dataclass
class Folder:
    """A folder whose files can be damaged, and put back as they were.

    Attributes:
        path: where it lies, by preference in memory.
        files: what belongs there, by name.
        folders: those that belong there, empty ones too.
    """

    path: Path
    files: dict[str, bytes]
    folders: tuple[str, ...]
    touched: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, source: Path, path: Path) -> "Folder":
        """A copy of `source` at `path`."""
        files = {
            str(p.relative_to(source)): p.read_bytes() for p in sorted(source.rglob("*"))
            if p.is_file()
        }  # fmt: skip
        folders = tuple(str(p.relative_to(source)) for p in sorted(source.rglob("*")) if p.is_dir())
        found = cls(path, files, folders)
        found.path.mkdir(parents=True)
        for name in folders:
            (path / name).mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return found

    def touch(self, name: str) -> Path:
        """The path of a file that is about to be changed.

        Raises:
            NotADirectoryError: if earlier damage made a link of a folder above it, through
                which something of this machine could be changed.
        """
        for above in Path(name).parents:
            if (self.path / above).is_symlink():
                raise NotADirectoryError(f"{self.path / above} is a link")
        self.touched.add(name)
        return self.path / name

    def write(self, name: str, content: bytes) -> None:
        """Other content for a file, which may be a new one; a link is replaced."""
        path = self.touch(name)
        _remove(path)
        path.write_bytes(content)

    def remove(self, name: str) -> None:
        """Take away a file, or a folder with all that is in it."""
        _remove(self.touch(name))

    def restore(self) -> None:
        """Everything as it was; what has come is gone."""
        for name in sorted(self.touched, key=len):
            # A parent that was replaced goes first, with the file under it.
            if os.path.lexists(path := self.path / name):
                _remove(path)
        known = {*self.files, *self.folders}
        for folder, folders, files in os.walk(self.path):
            stem = os.path.relpath(folder, self.path)
            for name in [*folders, *files]:
                if (name if stem == "." else f"{stem}/{name}") not in known:
                    _remove(Path(folder, name))
            folders[:] = [name for name in folders if os.path.isdir(os.path.join(folder, name))]
        for name in self.folders:
            os.makedirs(self.path / name, exist_ok=True)
        for name, content in self.files.items():
            if name in self.touched or not os.path.lexists(self.path / name):
                (self.path / name).write_bytes(content)
        self.touched.clear()

    def whole(self) -> bool:
        """Whether all is as it was; reading must not change anything."""
        found = {
            os.path.relpath(os.path.join(folder, name), self.path)
            for folder, _, files in os.walk(self.path)
            for name in files
        }
        return found == set(self.files) and all(
            (self.path / name).read_bytes() == content for name, content in self.files.items()
        )


class Elsewhere:
    """A folder beside the damaged one, which links lead to and nobody may change."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True)
        (path / SECRET).write_text("not to be read, not to be changed")
        self.before = self._content()

    def _content(self) -> dict[str, bytes]:
        found = [p for p in self.path.rglob("*") if p.is_file()]
        return {str(p.relative_to(self.path)): p.read_bytes() for p in found}

    def spoiled(self) -> str | None:
        """What was changed here, which is put right again; None if nothing was."""
        found = self._content()
        if found == self.before:
            return None
        for path in list(self.path.iterdir()):
            _remove(path)
        (self.path / SECRET).write_bytes(self.before[SECRET])
        return f"written through a link: {sorted({*found} ^ {*self.before}) or SECRET}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- bytes


def flip(content: bytes, draw: random.Random) -> tuple[bytes, list[int]]:
    """One to eight flipped bits, and the bytes that they are in."""
    if not content:
        return b"\x01", [0]
    changed = bytearray(content)
    places = [draw.randrange(len(content)) for _ in range(draw.choice((1, 1, 1, 2, 8)))]
    for place in places:
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed), places


def cut(content: bytes, draw: random.Random) -> bytes:
    """Less of it: from the end, from the beginning, or a piece of the middle."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return draw.choice((content[:start], content[:-1], content[end:],
                        content[:start] + content[end:],
                        b""))  # fmt: skip


def stretch(content: bytes, draw: random.Random) -> bytes:
    """More of it: at the end, in the middle, twice."""
    more = draw.choice(
        (b"\0", b"\n", b"x", b"\0" * 4096, bytes(draw.randrange(256) for _ in range(64)))
    )
    place = draw.randrange(len(content) + 1)
    return draw.choice((content + more, content[:place] + more + content[place:], content * 2,
                        more + content))  # fmt: skip


def smear(content: bytes, draw: random.Random) -> tuple[bytes, int]:
    """A piece of it overwritten, the length kept; where the piece begins."""
    if not content:
        return b"\x01", 0
    start = draw.randrange(len(content))
    length = min(len(content) - start, draw.choice((1, 2, 8, 64, 512)))
    fill = draw.choice((b"\0", b"\xff", b" ", b"9", None))
    piece = bytes(draw.randrange(256) for _ in range(length)) if fill is None else fill * length
    return content[:start] + piece + content[start + length :], start


# ---- JSON


def nodes(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a JSON document, the whole included."""
    yield path
    inner: Any = ()
    if isinstance(plain, dict):
        inner = plain.items()
    elif isinstance(plain, list):
        inner = enumerate(plain)
    for key, value in inner:
        yield from nodes(value, (*path, key))


def pattern(path: tuple[Any, ...]) -> str:
    """The field that a path stands for; places in lists are alike."""
    return ".".join("*" if isinstance(part, int) else str(part) for part in path)


def value_at(plain: Any, path: tuple[Any, ...]) -> Any:
    """What stands there."""
    for part in path:
        plain = plain[part]
    return plain


def replaced(plain: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value there."""
    if not path:
        return value
    found = copy.deepcopy(plain)
    value_at(found, path[:-1])[path[-1]] = value
    return found


# A value of each class of JSON, whatever stood there before.
_STRANGE: tuple[Callable[[random.Random], Any], ...] = (
    lambda draw: None,
    lambda draw: True,
    lambda draw: False,
    lambda draw: 0,
    lambda draw: 1,
    lambda draw: -1,
    lambda draw: draw.choice((2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    -(2**63))),
    lambda draw: draw.choice((10**12, 10**18, 10**30, 10**400)),
    lambda draw: draw.choice((0.0, -0.0, 0.5, 1.0, 1.5, -2.5, 25.0, 5e-324, 1e-300)),
    lambda draw: draw.choice((1e308, -1e308, 1.7e38, 3.5e38)),
    lambda draw: draw.choice((float("nan"), float("inf"), float("-inf"))),
    lambda draw: "",
    lambda draw: draw.choice(("x", "0", "-1", "nan", "true", "null", "1e9", " ", "None")),
    lambda draw: "a" * draw.choice((300, 70_000, 2_000_000)),
    lambda draw: draw.choice(
        ("\x1b[31mred\x1b[0m", "two\nlines", "\r", "\x00", "a\x00b", "\x7f", "\x9b31m",
         "\u202eevil",
         "\ud800", "\udfff\ud800", "\U0001f600", "\u2028", "tab\tbed", "é" * 40)
    ),
    lambda draw: draw.choice(
        ("/etc/passwd", "../zoo.json", "../../etc/passwd", "weights/../zoo.json", ".", "..", "/",
         "~",
         "\\\\host\\share", "C:\\x", "weights//x", "./zoo.json", "zoo.json", "weights", "a/" * 3000,
         "https://example.org/x", "file:///etc/passwd", "-rf", "$(id)", "%s%n", "{0}", "con")
    ),
    lambda draw: [],
    lambda draw: {},
    lambda draw: [[]],
    lambda draw: [None],
    lambda draw: {"a": 1},
    lambda draw: {"": None},
    lambda draw: [0] * draw.choice((2, 1000, 200_000)),
    lambda draw: _nested(draw.choice((10, 500, 900))),
    lambda draw: _RAW + draw.choice(("[" * 100_000, "NaN", "-Infinity", "1" * 5000, "1e999", "01",
                                     "'x'",
                                     "tru", "{", "]", "//x", '{"a":1,"a":2}', "0x10", "", "1,,2",
                                     "\"\\x\"", "\"\\ud83d\"", "\t", "\"a\nb\""))
)  # fmt: skip


def _nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def near(value: Any, draw: random.Random) -> Any:
    """Another value of the same class: what a mistake or a liar would write."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice(
            (
                value + 1,
                value - 1,
                -value,
                value * 2,
                value * 1000,
                value // 2,
                float(value),
                str(value),
            )
        )
    if isinstance(value, float):
        return draw.choice((value * 2, -value, value + 1, value / 3, str(value), [value]))
    if isinstance(value, str):
        return draw.choice(
            (value.upper(), value + "x", value[:-1], value[::-1], " " + value, value + "\n",
             value * 2,
             [value], {value: value}, "./" + value, value + "/", value.replace("0", "1", 1))
        )  # fmt: skip
    if isinstance(value, list):
        ways = [[*value, *value], value[1:], value[:-1], value[::-1], [value], {"0": value}]
        if value:
            ways += [[*value, draw.choice(value)], [draw.choice(value)] * len(value)]
            ways.append(draw.sample(value, len(value)))
        return draw.choice(ways)
    if isinstance(value, dict):
        ways = [list(value), list(value.values()), {**value, "unknown": 1}, [value], {"x": value}]
        if value:
            key = draw.choice(list(value))
            less = {k: v for k, v in value.items() if k != key}
            ways += [less, less, {**less, f"{key}x": value[key]}, dict(reversed(value.items()))]
        return draw.choice(ways)
    return draw.choice(("x", 0, 1, [], {}))


def change_json(plain: Any, draw: random.Random) -> tuple[str, bytes, tuple[Any, ...]]:
    """A document with one field changed.

    Fields are drawn evenly, not places, so that a list of a thousand shards does not hide
    the rest.

    Returns:
        What was done, the new text, and the path of what was changed.
    """
    fields: dict[str, list[tuple[Any, ...]]] = {}
    for path in nodes(plain):
        fields.setdefault(pattern(path), []).append(path)
    path = draw.choice(fields[draw.choice(list(fields))])
    old = value_at(plain, path)
    way = draw.random()
    if way < 0.4:
        changed, done = replaced(plain, path, value := draw.choice(_STRANGE)(draw)), "replaced"
    elif way < 0.75:
        changed, done = replaced(plain, path, value := near(old, draw)), "changed"
    elif way < 0.9 and path:
        # What stands in another place, whole.
        other = draw.choice(fields[draw.choice(list(fields))])
        value = copy.deepcopy(value_at(plain, other))
        changed, done = replaced(plain, path, value), f"copied from {pattern(other)}"
    else:
        parents = [p for p in nodes(plain) if isinstance(value_at(plain, p), dict)]
        path = draw.choice(parents)
        changed = copy.deepcopy(plain)
        inner = value_at(changed, path)
        value = draw.choice(list(inner) or ["x"])
        if draw.random() < 0.5:
            inner.pop(value, None)
            done = f"lost {value!r}"
        else:
            done = f"{value!r} twice"
            text = json.dumps(inner.get(value))
            inner[_RAW] = f"{text}, {json.dumps(value)}: {draw.choice(('1', text, 'null'))}"
    shown = repr(value)[:60]
    return f"{pattern(path) or 'all'} {done}: {shown}", written(changed), path


def written(plain: Any) -> bytes:
    """JSON as wszoo writes it, and with raw text where that was asked for."""
    text = json.dumps(plain, indent=1)
    # A raw value, and a raw member of an object, whose key is the mark alone.
    mark = json.dumps(_RAW)[1:-1]
    while (at := text.find(f'"{mark}": "')) >= 0:
        end = _string_end(text, at + len(mark) + 4)
        inner = json.loads(text[at + len(mark) + 4 : end])
        text = text[:at] + '"twice": ' + inner + text[end:]
    while (at := text.find(f'"{mark}')) >= 0:
        end = _string_end(text, at)
        text = text[:at] + json.loads(text[at:end])[len(_RAW) :] + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _string_end(text: str, start: int) -> int:
    """Where the JSON string that begins at `start` is over."""
    place = start + 1
    while text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place + 1


def change_text(content: bytes, draw: random.Random) -> bytes:
    """A text file as an editor, a transfer or a liar leaves it."""
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.replace(b"\n", b"\r"),
        lambda: content + b"\n{}",
        lambda: b"\n".join([*lines[:at], lines[at], *lines[at:]]),
        lambda: b"\n".join([*lines[:at], *lines[at + 1 :]]),
        lambda: b"\n".join(lines[::-1]),
        lambda: content.replace(b'"', b"'"),
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        lambda: b"<!DOCTYPE html><html><body>404</body></html>",
        lambda: b"[" * draw.choice((1_000, 1_000_000)),
        lambda: b"{}",
        lambda: b"null",
        lambda: b"\xff\xfe" + content,
    )
    return draw.choice(ways)()


# ---- the files of a folder


def change_files(
    folder: Folder, draw: random.Random, names: list[str], elsewhere: Elsewhere
) -> Damage:
    """Something other than content: another file, no file, no plain file.

    Args:
        names: of the files that can be meant.
        elsewhere: what links lead to.
    """
    name = draw.choice(names)
    path = folder.path / name
    others = [other for other in names if other != name] or names
    other = draw.choice(others)

    def swap() -> str:
        one, two = folder.files[name], folder.files[other]
        folder.write(name, two)
        folder.write(other, one)
        return f"{name} and {other} exchanged"

    def instead() -> str:
        folder.write(name, folder.files[other])
        return f"{name} is a copy of {other}"

    def again() -> str:
        fresh = draw.choice((name + "x", f"{Path(name).parent}/.{Path(name).name}", name + ".tmp",
                             f"{Path(name).parent}/" + Path(name).name.replace("0",
                             "7")))  # fmt: skip
        folder.write(fresh, folder.files[name])
        return f"{fresh} is there too"

    def gone() -> str:
        folder.remove(name)
        return f"{name} is gone"

    def link() -> str:
        folder.remove(name)
        inside = [str(folder.path / other), Path(other).name, ".", "..", name, "nowhere"]
        goal = draw.choice((*inside, "/dev/zero", "/dev/null", "/dev/full", "/dev/stdin",
                            "/dev/tty",
                            "/proc/self/mem", "/proc/self/environ",
                            str(elsewhere.path / SECRET), str(elsewhere.path)))  # fmt: skip
        path.symlink_to(goal)
        return f"{name} is a link to {goal}"

    def pipe() -> str:
        folder.remove(name)
        os.mkfifo(path)
        return f"{name} is a FIFO"

    def listening() -> str:
        folder.remove(name)
        server = socket.socket(socket.AF_UNIX)
        # The name of a socket is short, whatever the folder is called.
        here = os.getcwd()
        try:
            os.chdir(path.parent)
            server.bind(path.name)
        finally:
            os.chdir(here)
            server.close()
        return f"{name} is a socket"

    def directory() -> str:
        folder.remove(name)
        path.mkdir()
        return f"{name} is a folder"

    def endless() -> str:
        size = draw.choice((1 << 31, 1 << 33, 1 << 40))
        folder.write(name, folder.files[name])
        os.truncate(path, size)
        return f"{name} has {size} bytes, most of them holes"

    def parent() -> str:
        above = str(Path(name).parent)
        if above == ".":
            return gone()
        folder.remove(above)
        folder.touched |= {n for n in folder.files if n.startswith(above + "/")}
        if draw.random() < 0.5:
            (folder.path / above).write_bytes(b"a file")
            return f"{above} is a file"
        (folder.path / above).symlink_to(draw.choice((elsewhere.path, Path("."))))
        return f"{above} is a link"

    ways = (
        swap,
        instead,
        again,
        gone,
        gone,
        link,
        link,
        pipe,
        listening,
        directory,
        endless,
        parent,
    )
    way = draw.choice(ways)
    return Damage(f"files: {way.__name__}", way())
