"""What a file is: by its first bytes, and whether it is a plain one inside its folder.

`instead` looks before anybody is blamed: what lies where a shard should be is often a
pointer of Git LFS, a saved web page or an archive, and then says so itself. `plain_file` and
`pictures` are what may be published of a folder: no link, whose target may be anything, and
nothing but a plain file.
"""

import os
import re
import stat
from pathlib import Path, PurePosixPath

from zoo.errors import ZooError, safe_line

HEAD = 1024
PICTURE_BYTES = 64 << 20
PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE = re.compile(r"[A-Za-z0-9_][\w.-]*\.png", re.ASCII)

_AGAIN = "download the file again"
_UNPACK = "unpack it first"
# First bytes: what such a file is, and what to do with one that stands in the wrong place.
_KINDS = (
    (rb"version https://git-lfs\.github\.com/spec/|version https://hawser",
     "a pointer of Git LFS, not the file itself", "fetch the file with `git lfs pull`"),
    (rb"\.?\.?/?(?:\.git/)?annex/objects/|/annex/objects/",
     "a pointer of git-annex, not the file itself", "fetch the file with `git annex get`"),
    (rb"(?:\xef\xbb\xbf)?\s*<(?i:!doctype html|html|head|body)",
     "a web page, such as a server's error or login page", _AGAIN),
    (rb"(?:\xef\xbb\xbf)?\s*<\?xml", "an answer of a server in XML, such as an error", _AGAIN),
    (rb"PK\x03\x04.{4,80}/(?:data\.pkl|constants\.pkl|version|byteorder)",
     "a file of torch.save", "`wszoo import state-dicts` reads those"),
    (rb"PK(?:\x03\x04|\x05\x06)", "a zip archive", _UNPACK),
    (rb"\x1f\x8b", "compressed by gzip", _UNPACK),
    (rb"BZh[1-9]", "compressed by bzip2", _UNPACK),
    (rb"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    (rb"PAR1", "a Parquet file", ""),
    (rb".{3}\x00\x00\x00\x00\x00\s*\{", "a safetensors file", ""),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
    (rb"\x93NUMPY", "a NumPy array", ""),
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture", ""),
    (rb"\xff\xd8\xff", "a JPEG picture", ""),
    (rb"%PDF-", "a PDF document", ""),
    (rb"\x80[\x02-\x05](?:[c}(\]X\x8c\x95]|\x8a)", "a pickle, which is never opened", ""),
    (rb"\s*[\[{]\s*[\"\]}]", "JSON", ""),
)  # fmt: skip
_MATCHES = [(re.compile(head, re.DOTALL).match, what, do) for head, what, do in _KINDS]


def instead(found: Path | bytes, expected: str = "") -> str:
    r"""What a file is that should be something else: "; it is ...", or "" if nobody can tell.

    Args:
        found: the file, or its first bytes.
        expected: what it should be, as it would be called: such a file only is damaged.

    >>> instead(b"<!DOCTYPE html><title>Log in</title>")
    "; it is a web page, such as a server's error or login page: download the file again"
    >>> instead(b"PAR1\x15", "a Parquet file"), instead(b"anything")
    ('', '')
    """
    head = found if isinstance(found, bytes) else _head(found)
    if head is None:
        return ""
    if not head:
        return f"; it is empty: {_AGAIN}"
    for match, what, do in _MATCHES:
        if match(head):
            remedy = f": {do}" if do else ""
            return f"; it is {what}{remedy}" if what != expected else ""
    if len(head) >= 8 and not head.strip(b"\0"):
        return "; it begins with zeros, which a full disk or a power cut leaves"
    return ""


def _head(path: Path) -> bytes | None:
    """The first bytes of a plain file; None for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return None


def plain_file(folder: Path, name: str) -> Path:
    """A file of a folder that may be published: a plain file, reached through no link.

    The folder itself may be a link. Two names of one file (hard links) are one file.

    Args:
        name: its path inside the folder, with "/".

    Raises:
        ZooError: if it is missing, or it, or a folder on the way, is anything else.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        raise ZooError(f"{safe_line(name)} lies outside of {safe_line(folder)}")
    path = folder
    for number, part in enumerate(parts):
        path = path / part
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise ZooError(f"{safe_line(path)} is missing") from None
        wanted = stat.S_ISREG if number == len(parts) - 1 else stat.S_ISDIR
        if not wanted(mode):
            raise ZooError(f"{safe_line(path)} is {_called(mode)}: only plain files are published")
    return path


def _called(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link; put the file itself in its place"
    kinds = {
        stat.S_IFREG: "a file where a folder should be",
        stat.S_IFDIR: "a folder where a file should be",
        stat.S_IFIFO: "a pipe (FIFO)",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_plain_file(folder: Path, name: str, most: int) -> bytes:
    """The content of a `plain_file` of at most `most` bytes.

    Raises:
        ZooError: as `plain_file`, or if it is larger.
    """
    path = plain_file(folder, name)
    # Another could take its place meanwhile: neither follow a link nor wait for a pipe.
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, os.O_RDONLY | flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ZooError(f"{safe_line(path)} is no plain file: only those are published")
        content = file.read(most + 1)
    if len(content) > most:
        raise ZooError(f"{safe_line(path)} has more than {most:,} bytes: it is not published")
    return content


def pictures(folder: Path, part: str = "figures") -> dict[str, bytes]:
    """The pictures of a card by their path in the folder, hidden files left out.

    Raises:
        ZooError: for anything in their folder that is not a plain PNG file.
    """
    try:
        mode = os.lstat(folder / part).st_mode
    except FileNotFoundError:
        return {}
    if not stat.S_ISDIR(mode):
        raise ZooError(f"{safe_line(folder / part)} is {_called(mode)}: it is not published")
    found = {}
    for name in sorted(os.listdir(folder / part)):
        if name.startswith("."):
            continue
        content = read_plain_file(folder, f"{part}/{name}", PICTURE_BYTES)
        if not _PICTURE.fullmatch(name) or not content.startswith(PNG):
            raise ZooError(
                f"{safe_line(folder / part / name)} is no PNG picture of a card, and nothing else "
                f"in {part}/ is published: move it away"
            )
        found[f"{part}/{name}"] = content
    return found
