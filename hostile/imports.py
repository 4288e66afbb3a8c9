"""Damaged files of others: folders, archives, tables, pickles of every importer."""

import contextlib
import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.answers import command, judge
from hostile.mutations import (
    ALL,
    DATA,
    Damage,
    Elsewhere,
    Folder,
    change_files,
    change_json,
    change_text,
    cut,
    flip,
    smear,
    stretch,
)
from hostile.published import SAMPLES, Sample
from hostile.target import Target
from hostile.workers import Result

TABLES = (".csv", ".json")
ARCHIVES = (".tar", ".zip", ".gz", ".pth")
# A pickle that makes a file where it is loaded by pickle; nothing else would run it.
EVIL = b"cposix\nsystem\n(V/bin/touch {}\ntR."


class Material:
    """A sample that imports, what it gives, and a folder in which it is damaged."""

    def __init__(self, name: str, sample: Sample, source: Path, work: Path):
        self.name, self.sample = name, sample
        self.folder = Folder.of(source, work / "imports" / name)
        self.out = work / "imported" / name
        self.trap = work / f"{name}-ran"
        self.known = self.read()

    @property
    def names(self) -> list[str]:
        """What a refusal can name."""
        files = {Path(name).name for name in self.folder.files}
        return [*files, str(self.folder.path), "--labels", "--spec", "--activation", "--splits"]

    def read(self) -> dict[str, Any]:
        """All that the importer finds."""
        from zoo.importers import find
        from zoo.importers.published import Options

        told = {
            name: self.folder.path / value if value in self.folder.files else value
            for name, value in self.sample.options.items()
        }
        found = find(self.sample.format, self.folder.path / self.sample.path, Options(**told))
        arrays = [found.read(split, 0, rows) for split, rows in found.rows.items()]
        return {
            "rows": found.rows,
            "keys": [a[k].tobytes() for a in arrays for k in ("index", "view")],
            "meaning": (found.spec, found.columns),
            "data": [
                (k, v.tobytes()) for a in arrays for k, v in a.items() if k not in ("index", "view")
            ],
        }

    def make(self) -> None:
        """The command, whole."""
        words: list[object] = ["import", self.sample.format, self.folder.path / self.sample.path]
        for name, value in self.sample.options.items():
            given = self.folder.path / value if value in self.folder.files else value
            words += [f"--{name.replace('_', '-')}", given]
        command(*words, "--out", self.out, "--no-parquet", "--overwrite")

    # ---- damage

    def damage(self, draw: random.Random, elsewhere: Elsewhere) -> Damage:
        """One thing that is wrong now."""
        ways: tuple[Callable[[], Damage], ...] = (
            lambda: self.change_bytes(draw),
            lambda: self.change_bytes(draw),
            lambda: self.change_inside(draw),
            lambda: self.change_inside(draw),
            lambda: self.change_table(draw),
            lambda: self.change_other_files(draw, elsewhere),
        )
        return draw.choice(ways)()

    def change_bytes(self, draw: random.Random) -> Damage:
        """Bytes of any file, or of what is packed in it."""
        name = draw.choice(list(self.folder.files))
        content = self.folder.files[name]
        packed = name.endswith(".gz") and draw.random() < 0.5
        if packed:
            content = gzip.decompress(content)
        way = draw.choice((flip, smear, cut, stretch))
        done = way(content, draw)
        changed = done[0] if isinstance(done, tuple) else done
        self.folder.write(name, gzip.compress(changed, 1, mtime=0) if packed else changed)
        # Nothing vouches for a table, or for the numbers in a file of tensors; and a tar that
        # has whole members less is as good as one that never had them.
        free = name.endswith((*TABLES, ".csv.gz"))
        if way is cut and (name.endswith(".tar") or (packed and name.endswith(".tar.gz"))):
            free = _whole_members(changed) <= _whole_members(content)
        allows = ALL if free else DATA
        return Damage(f"bytes: {way.__name__}", f"{name}: {way.__name__}", allows)

    def change_other_files(self, draw: random.Random, elsewhere: Elsewhere) -> Damage:
        """Files gone, doubled, exchanged, or no files; a folder is what lies in it."""
        return_ = change_files(self.folder, draw, list(self.folder.files), elsewhere)
        return Damage(return_.kind, return_.what, ALL)

    def change_table(self, draw: random.Random) -> Damage:
        """A table or JSON file, cell by cell."""
        names = [n for n in self.folder.files if n.endswith((*TABLES, ".csv.gz", ".npy"))]
        if not names:
            return self.change_inside(draw)
        name = draw.choice(names)
        content = self.folder.files[name]
        if name.endswith(".npy"):
            changed = _npy(content, draw)
        elif name.endswith(".json"):
            changed = change_json(json.loads(content), draw)[1]
        elif name.endswith(".gz"):
            changed = gzip.compress(_csv(gzip.decompress(content), draw), 1, mtime=0)
        else:
            changed = _csv(content, draw)
        if draw.random() < 0.1 and not name.endswith((".gz", ".npy")):
            changed = change_text(content, draw)
        self.folder.write(name, changed)
        return Damage("table", f"{name}: {changed[:40]!r}", ALL)

    def change_inside(self, draw: random.Random) -> Damage:
        """Members of an archive, and of .pth files, which are archives too."""
        names = [n for n in self.folder.files if n.endswith(ARCHIVES) and ".csv" not in n]
        if not names:
            return self.change_bytes(draw)
        name = draw.choice(names)
        content = self.folder.files[name]
        if name.endswith((".tar", ".gz")):
            packed = name.endswith(".gz")
            what, changed = _tar(gzip.decompress(content) if packed else content, draw)
            if packed:
                changed = gzip.compress(changed, 1, mtime=0)
        else:
            evil = EVIL.replace(b"{}", str(self.trap).encode())
            what, changed = _zip(content, draw, evil, name.endswith(".pth"))
        self.folder.write(name, changed)
        return Damage("inside", f"{name}: {what}", ALL)


def _whole_members(content: bytes) -> set[tuple[str, bytes]]:
    """Names and contents of a tar as far as it can be read; one that is cut is as if named so."""
    found = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                found.add((member.name, file.read() if file else b""))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        found.add((f"{type(error).__name__}", b"cut"))
    return found


def _csv(content: bytes, draw: random.Random) -> bytes:
    """A cell, a row or a column of a table changed."""
    rows = [line.split(b",") for line in content.splitlines()]
    at = draw.randrange(len(rows))
    cell = draw.randrange(len(rows[at]))
    odd = (b"", b"-1", b"nan", b"inf", b"1e999", b"x", b"0", b"2", b"1.5", b"9" * 30, b'"',
           b'"a\nb"',
           b"\xff", b"../x", b"=1+1", b"\x00", b"a" * 200_000, b" 1", b"1_0", "٣".encode(),
           b"\x1b[31m")  # fmt: skip
    way = draw.randrange(7)
    if way < 3:
        rows[at][cell] = draw.choice(odd)
    elif way == 3:
        rows[at] = rows[at][:cell]
    elif way == 4:
        rows.insert(at, list(draw.choice(rows)))
    elif way == 5:
        del rows[at]
    else:
        rows = [row[:cell] + row[cell + 1 :] for row in rows]
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def _npy(content: bytes, draw: random.Random) -> bytes:
    """An array with another header."""
    length = struct.unpack("<H", content[8:10])[0]
    header, data = content[10 : 10 + length], content[10 + length :]
    pairs = [
        (b"'<f4'", draw.choice((b"'<f8'", b"'>f4'", b"'|O'", b"'<i4'", b"'<f2'", b"'V4'", b"'<U9'",
                                b"[('a', '<f4')]", b"1", b"''"))),
        (b"False", draw.choice((b"True", b"None", b"0"))),
        (b"(12,", draw.choice((b"(11,", b"(13,", b"(-12,", b"(12000000000,", b"(0,", b"(12.0,",
                               b"(",
                               b"(2,6,", b"(True,", b"(10**9,"))),
        (b"{", draw.choice((b"", b"{{", b"['a',", b"__import__('os')", b"{'x': 1, "))),
    ]  # fmt: skip
    old, new = draw.choice(pairs)
    changed = header.replace(old, new, 1).rstrip()
    changed += b" " * (-(len(changed) + 11) % 64) + b"\n"
    version = draw.choice((content[6:8], content[6:8], content[6:8], b"\x02\x00", b"\x09\x00"))
    return content[:6] + version + struct.pack("<H", len(changed)) + changed + data


def _tar(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A tar that has another member, or one of another kind, name or size."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [(m, tar.extractfile(m).read() if m.isreg() else b"") for m in tar]  # type: ignore[union-attr]
    at = draw.randrange(len(members))
    about, inside = members[at]
    way = draw.choice(("name", "kind", "size", "twice", "content", "header", "end", "gone"))
    if way == "name":
        about.name = draw.choice(("../" + about.name, "/" + about.name, about.name + "x", "x" * 300,
                                  about.name.upper(), "\x1b[31m" + about.name, ".",
                                  about.name.replace("/", "//"), "é\udcff.pth"))  # fmt: skip
    elif way == "kind":
        about.type = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
                                  tarfile.CHRTYPE,
                                  tarfile.DIRTYPE, b"9", b"S", tarfile.XGLTYPE))  # fmt: skip
        about.linkname = draw.choice(("/etc/passwd", "../x", about.name))
    elif way == "twice":
        members.insert(draw.randrange(len(members) + 1), (about, inside))
    elif way == "content":
        changed = draw.choice((flip, smear, cut, stretch))(inside or b"x", draw)
        inside = changed[0] if isinstance(changed, tuple) else changed
        about.size = len(inside)
        members[at] = (about, inside)
    elif way == "gone":
        del members[at]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", errors="surrogateescape") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data) if member.isreg() else None)
    packed = out.getvalue()
    if way in ("header", "size"):
        # A field of a header, its checksum made right again.
        places = [p for p in range(0, len(packed), 512) if packed[p + 257 : p + 262] == b"ustar"]
        start = draw.choice(places)
        block = bytearray(packed[start : start + 512])
        if way == "size":
            odd = (b"77777777777\0", b"00000000000\0", b"-0000000001\0", b"\x80" + b"\xff" * 11,
                   b"zzzzzzzzzzz\0", b"00000000001\0")  # fmt: skip
            block[124:136] = draw.choice(odd)
        else:
            block[draw.randrange(257)] = draw.randrange(256)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        packed = packed[:start] + bytes(block) + packed[start + 512 :]
    elif way == "end":
        packed = packed.rstrip(b"\0") + b"\0" * draw.choice((0, 100, 512, 1024))
    return f"{way} of {about.name!r:.40}", packed


def _zip(content: bytes, draw: random.Random, evil: bytes, pth: bool) -> tuple[str, bytes]:
    """A zip that has another member, or one that says something else of itself."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    at = draw.randrange(len(members))
    item, inside = members[at]
    way = draw.choice(("content", "content", "name", "gone", "twice", "field", "evil", "bomb"))
    if way == "evil" and not pth:
        way = "content"
    if way == "content":
        changed = draw.choice((flip, smear, cut, stretch))(inside or b"x", draw)
        members[at] = (item, changed[0] if isinstance(changed, tuple) else changed)
    elif way == "name":
        item.filename = draw.choice(("../" + item.filename, "/" + item.filename,
                                     item.filename + "x",
                                     "", "x" * 300, "\x1b[31m", item.filename.upper()))  # fmt: skip
    elif way == "gone":
        del members[at]
    elif way == "twice":
        members.append((item, inside))
    elif way == "evil":
        members = [(i, evil if i.filename.endswith(".pkl") else data) for i, data in members]
    elif way == "bomb":
        item.compress_type = zipfile.ZIP_DEFLATED
        members[at] = (item, b"\0" * (300 << 20) if draw.random() < 0.02 else b"\0" * (1 << 20))
    out = io.BytesIO()
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for member, data in members:
            fresh = zipfile.ZipInfo(member.filename)
            fresh.compress_type = member.compress_type
            archive.writestr(fresh, data)
    packed = bytearray(out.getvalue())
    if way == "field":
        # Versions, flags, methods, sizes, offsets, in a local or a central record.
        mark = draw.choice((b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"))
        places = [p for p in range(len(packed)) if packed[p : p + 4] == mark]
        start = draw.choice(places) + 4
        packed[start + draw.randrange(26 if mark != b"PK\x05\x06" else 18)] = draw.randrange(256)
    return f"{way} of {item.filename!r:.40}", bytes(packed)


class Imports(Target[Material]):
    """A sample of every importer, each damaged in one or two ways."""

    name = "imports"

    def __init__(self, seed: int, home: Path, work: Path):
        super().__init__(seed, work)
        self.samples = {}
        for name, write in SAMPLES.items():
            folder = home / name
            folder.mkdir(parents=True)
            self.samples[name] = write(folder), folder

    def make(self, work: Path) -> list[Material]:
        """The samples, imported once."""
        return [
            Material(name, sample, folder, work) for name, (sample, folder) in self.samples.items()
        ]

    def one(self, material: Material, draw: random.Random) -> Result:
        """Damage a sample, and import it or look at all of it."""
        whole = draw.random() < 0.02
        damage = material.damage(draw, self.elsewhere)
        if draw.random() < 0.15:
            # What it would change may have become a pipe, or a link.
            with contextlib.suppress(OSError):
                more = material.damage(draw, self.elsewhere)
                what = f"{damage.what}; {more.what}"
                damage = Damage(more.kind, what, damage.allows | more.allows)
        damage = Damage(damage.kind, f"{material.name}: {damage.what}", damage.allows)
        known = material.known
        result = judge(
            damage,
            material.make if whole else material.read,
            material.names,
            lambda found: set() if found is None else {k for k in known if found[k] != known[k]},
        )
        if material.trap.exists():
            material.trap.unlink()
            return Result("ran", damage.kind, f"{damage.what}: code was run", "code was run")
        return result
