"""Reads other people's folders and archives without unpacking them.

Nothing is ever written under a name that comes from outside, and nothing is read without
a bound: archives are read member by member, and a compressed tar is first unpacked as one
stream into a nameless temporary file. An archive is read to its proper end or refused, and
what is not looked at (hidden files, links) is counted.
"""

import bz2
import io
import lzma
import os
import re
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from zoo import schema, stopping
from zoo.errors import ZooError
from zoo.importers.contents import FILE_BYTES, HEAD_BYTES, KNOWN, ZIP, kind_of
from zoo.passed import Passed, left_behind
from zoo.schema import safe

# Of a whole compressed tar, unpacked; also at most so many times what it takes packed, as
# networks hardly shrink.
STREAM_BYTES = 64 << 30
STREAM_RATIO = 100
STREAM_FREE = 1 << 30
MAX_FILES = 2_000_000
# Of a header inside a tar, such as a long name.
HEADER_BYTES = 1 << 20
# Zeros behind the end of an archive or of a packed stream; tar fills up to 10 kB.
PADDING_BYTES = 1 << 20
ZIP_END = b"PK\x05\x06"
ZIP_END_BYTES = 22 + 0xFFFF  # a comment may follow
PACKED_BYTES = 1 << 16
PACKED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh")
# Memory of a decompressor; xz by its own settings takes 65 MB.
LZMA_BYTES = 256 << 20
LINK = "links"

_DAMAGE = (
    OSError, EOFError, MemoryError, zlib.error, lzma.LZMAError, tarfile.TarError,
    zipfile.BadZipFile, struct.error, ValueError, OverflowError, RuntimeError, KeyError, IndexError,
)  # fmt: skip


class Files:
    """The regular files of a folder, a .zip or a .tar (also .gz, .xz, .bz2), by name.

    Names are relative, with "/". A single file of networks counts as a folder that holds
    it. Links inside archives, linked folders and names of `zoo.passed` are passed over.

    Attributes:
        path: of the folder, archive or file.
        names: in natural order, so that net2 stands before net10.
        passed: what was not looked at.

    Raises:
        ZooError: if the archive is damaged, cut or too large, or a folder cannot be read.
        ValueError: if there is neither a folder nor a file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.passed = Passed()
        self._folder = path
        self._zip: zipfile.ZipFile | None = None
        self._stream: IO[bytes] | None = None
        self._spans: dict[str, tuple[int, int]] = {}
        try:
            names = self._list()
        except ZooError:
            raise
        except _DAMAGE as error:
            raise ZooError(
                f"{path}: not a folder, .zip or .tar that can be read: damaged or cut "
                f"({safe(error, 120)})"
            ) from error
        if len(set(names)) != len(names):
            raise ZooError(f"{path}: a file is in the archive twice; unpack it and look")
        hidden = [name for name in names if left_behind(name)]
        for name in hidden:
            self.passed.add(name)
        self.names = sorted(set(names) - set(hidden), key=natural)

    def _list(self) -> list[str]:
        if self.path.is_dir():
            return self._walk()
        if not self.path.is_file():
            if self.path.exists():
                raise ZooError(f"{self.path}: neither a folder nor a regular file")
            raise ValueError(f"{self.path} does not exist")
        head = _first_bytes(self.path)
        # By its beginning: a tar that ends in a .pth ends like a zip, and a .pth is a zip.
        if kind_of(head) in KNOWN:
            self._folder = self.path.parent
            return [self.path.name]
        if head.startswith(ZIP):
            self._zip = zipfile.ZipFile(self.path)
            weakref.finalize(self, self._zip.close)
            return self._index_zip(self._zip)
        return self._index_tar(head)

    def _walk(self) -> list[str]:
        names: list[str] = []
        for folder, inner, files in os.walk(self.path, onerror=_unreadable):
            place = Path(folder).relative_to(self.path)
            for name in [name for name in inner if os.path.islink(os.path.join(folder, name))]:
                self.passed.add(name, LINK)
            for file in files:
                # Opening a pipe would wait for ever, hence regular files only.
                if os.path.isfile(os.path.join(folder, file)):
                    names.append((place / file).as_posix())
                else:
                    self.passed.add(file, "no regular files")
            _bound(len(names), self.path)
        return names

    def _index_zip(self, archive: zipfile.ZipFile) -> list[str]:
        items = archive.infolist()
        _bound(len(items), self.path)
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - ZIP_END_BYTES))
            end = file.read()
        # The number of members, at the end of the archive; all ones where there are more.
        place = end.rfind(ZIP_END)
        (count,) = struct.unpack("<H", end[place + 10 : place + 12])
        if count not in (len(items), 0xFFFF):
            raise zipfile.BadZipFile(f"it lists {len(items):,} files and says {count:,}")
        for item in items:
            stopping.check()
            # Names stand in two places; a damaged one would be passed over without a word.
            archive.open(item).close()
        return [item.filename for item in items if not item.is_dir()]

    def _index_tar(self, head: bytes) -> list[str]:
        packed = head.startswith(PACKED)
        if not packed and head[257:262] != b"ustar" and not _is_old_tar(head):
            raise ZooError(
                f"{self.path}: expected a folder, an archive or a file of networks, got "
                f"{kind_of(head)}"
            )
        # Random access to what is packed would unpack it again for every file.
        stream: IO[bytes] = tempfile.TemporaryFile() if packed else self.path.open("rb")  # noqa: SIM115
        weakref.finalize(self, stream.close)
        if packed:
            _unpack(self.path, stream)
        self._stream = stream
        for member in _members(stream, self.path):
            if member.isreg() and not member.issparse():
                if member.name in self._spans:
                    raise ZooError(f"{self.where(member.name)} is in the archive twice")
                self._spans[member.name] = (member.offset_data, member.size)
                _bound(len(self._spans), self.path)
            elif not member.isdir():
                links = member.issym() or member.islnk()
                self.passed.add(member.name, LINK if links else "no regular files")
        return list(self._spans)

    def where(self, name: str) -> str:
        """How a message names the file."""
        packed = self._zip is not None or self._stream is not None
        return safe(f"{self.path}: {name}" if packed else f"{self._folder / name}", 300)

    def head(self, name: str) -> bytes:
        """The first `HEAD_BYTES` of a file; ZooError as `read`."""
        return self._read(name, HEAD_BYTES)

    def read(self, name: str, limit: int = FILE_BYTES) -> bytes:
        """The content of a file.

        Raises:
            ZooError: if it is larger than `limit` bytes, or damaged.
        """
        content = self._read(name, limit + 1)
        if len(content) > limit:
            raise ZooError(f"{self.where(name)}: more than {limit:,} bytes, which is too large")
        return content

    def _read(self, name: str, size: int) -> bytes:
        stopping.check()
        try:
            if self._zip is not None:
                with self._zip.open(name) as member:
                    return member.read(size)
            if self._stream is not None:
                start, length = self._spans[name]
                self._stream.seek(start)
                content = self._stream.read(min(length, size))
                if len(content) < min(length, size):
                    raise ZooError(f"{self.where(name)}: the archive ends before the file does")
                return content
            with (self._folder / name).open("rb") as file:
                return file.read(size)
        except _DAMAGE as error:
            raise ZooError(
                f"{self.where(name)}: cannot be read: damaged ({safe(error, 120)})"
            ) from error


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sorting key by which numbers in names count as numbers.

    >>> sorted(["net10.pth", "net9.pth"], key=natural)
    ['net9.pth', 'net10.pth']
    """
    return [
        # A number of thousands of digits is none; int() would refuse it.
        (1, int(part), "") if part.isdecimal() and len(part) < 100 else (0, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    ]


def _bound(count: int, path: Path) -> None:
    if count > MAX_FILES:
        raise ZooError(f"{path}: more than {MAX_FILES:,} files, which is too many")


def _unreadable(error: OSError) -> None:
    raise ZooError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_old_tar(head: bytes) -> bool:
    """Whether these are a header of tar without its magic word: by the sum of its bytes."""
    if len(head) < tarfile.BLOCKSIZE:
        return False
    written = re.fullmatch(rb"[ \0]*([0-7]{1,7})[ \0]*", head[148:156])
    total = sum(head[:512]) - sum(head[148:156]) + 8 * ord(" ")
    return written is not None and int(written[1], 8) == total


class _Headers:
    """A stream of which only headers are read, so that none can ask for all of memory."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def _members(stream: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar up to its proper end, which is a block of zeros.

    `tarfile` alone stops without a word where a header is damaged or the file is cut.
    """
    headers: Any = _Headers(stream)
    end = 0
    with tarfile.open(fileobj=headers, mode="r:") as tar:
        while True:
            stopping.check()
            member = tar.next()
            if member is None:
                break
            # Nothing is looked up twice, and the list of a million members is long.
            tar.members = []  # type: ignore[attr-defined]
            if tar.offset <= end or member.size < 0:
                raise tarfile.ReadError(f"a header that leads backwards, at byte {end:,}")
            end = tar.offset
            yield member
        end = tar.offset
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ZooError(f"{path}: the archive is cut: it ends at byte {end:,} without an end mark")
    if any(block):
        raise ZooError(f"{path}: the archive is damaged at byte {end:,}: no header stands there")
    # Archives are filled up to the next record.
    if any(stream.read(PADDING_BYTES)) or stream.read(1):
        raise ZooError(
            f"{path}: the archive goes on behind its end at byte {end:,}: damaged, or several "
            "archives in one file; unpack it and look"
        )


class Unpacked(io.RawIOBase):
    """What a file of gzip, xz or bzip2 holds, as a stream; read to its proper end or refused.

    Nothing is made larger than what is asked for, and no setting of the file can ask for
    more than `LZMA_BYTES` of memory. Several streams may follow one another, and at most
    `PADDING_BYTES` of zeros the last.

    Raises:
        EOFError: while reading, if the file is cut.
        ValueError: if something else stands behind its end; besides the errors of zlib, lzma
            and bz2.
    """

    def __init__(self, path: Path):
        self._file = schema.open_plain(path)
        self._fresh = _decoder_of(self._file.read(6))
        self._file.seek(0)
        self._decoder = self._fresh()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._next(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _next(self, size: int) -> bytes:
        """Up to so many bytes; none at the end."""
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._decoder.unused_data or self._file.read(PACKED_BYTES)
                packed = packed.lstrip(b"\0") or self._behind()
                if not packed:
                    return b""
                self._decoder = self._fresh()
            elif self._decoder.needs_input:
                packed = self._file.read(PACKED_BYTES)
            content = self._decoder.decompress(packed, max_length=size)
            if content:
                return content
            if not packed and not self._decoder.eof:
                raise EOFError("the packed stream is cut")

    def _behind(self) -> bytes:
        """What stands behind the padding of a stream."""
        left = PADDING_BYTES
        while packed := self._file.read(PACKED_BYTES):
            left -= len(packed)
            if rest := packed.lstrip(b"\0"):
                return rest
            if left < 0:
                raise ValueError(f"more than {PADDING_BYTES:,} zeros behind its end")
        return b""

    def close(self) -> None:
        self._file.close()
        super().close()


class _Inflate:
    """A decoder of gzip with the interface of those of lzma and bz2."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _decoder_of(head: bytes) -> Callable[[], Any]:
    if head.startswith(b"\xfd7zXZ\x00"):
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_BYTES)
    return bz2.BZ2Decompressor if head.startswith(b"BZh") else _Inflate


def _unpack(path: Path, stream: IO[bytes]) -> None:
    bound = min(STREAM_BYTES, STREAM_FREE + STREAM_RATIO * path.stat().st_size)
    with Unpacked(path) as packed:
        while block := packed.read(1 << 20):
            stopping.check()
            stream.write(block)
            if stream.tell() > bound:
                raise ZooError(f"{path}: unpacks to more than {bound:,} bytes")
    stream.seek(0)
