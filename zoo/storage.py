"""Where a zoo lies that many machines write: a folder they all see, or an fsspec URL.

A `Place` is one of both, with the few things that a driver and its tasks do there. In a
folder (or file://) writes are the durable ones of `zoo.shards`, and the driver holds its
lock, which a network file system has to pass on to other machines. Of a URL (s3://,
gs://, ...) a file appears whole when its upload ends, and the driver is alone by an object
`.lock` that says who it is and is written anew every half minute.

What that object guarantees: it is created only if there is none, so of two drivers that
start at once one goes on (S3 by If-None-Match; in a store that ignores that header, by
reading it back after a moment). It passes to another driver once it has not been written
for five minutes by the store's own clock, or at once if its process has ended on this
machine; a driver that finds it taken stops. What it cannot: stop a driver that was
suspended for longer than that in the middle of one request. A shard's bytes are the same
whoever fits it on one kind of CPU, so even then only shards from mixed CPUs may end up
with another sha256 than the index says, which `wszoo verify` finds. Two drivers that displace a
dead one within the same second may both go on for half a minute, to the same effect.

`zoo.hub.locate` brings a zoo from a URL into a cache.
"""

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo import schema, shards
from zoo.errors import ZooError, safe_line
from zoo.shards import File, Index

BEAT_S = 30.0
STALE_S = 300.0
# Until a store that ignores If-None-Match shows which of two drivers wrote last.
SETTLE_S = 1.0
# Small files that are read at once; as many as s3fs asks for side by side.
BATCH = 128
# Bytes of a file that are in memory while it is copied.
PIECE = 8 << 20
EXTRAS = {"s3": "wszoo[s3]", "s3a": "wszoo[s3]", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}


def is_url(path: object) -> bool:
    """Whether a path is a URL of something else than a folder.

    >>> is_url("s3://bucket/zoo"), is_url("file:///zoos/mnist"), is_url("zoos/mnist")
    (True, False, False)
    """
    return isinstance(path, str) and "://" in path and not path.startswith("file://")


def place(path: str | Path) -> "Place":
    """Where a zoo is to be written.

    Raises:
        ValueError: for a URL that fsspec does not know, or whose package is missing.
    """
    if is_url(path):
        return Remote(str(path))
    return Folder(folder_of(path))


def folder_of(path: str | Path) -> Path:
    """The path of a folder, which may be given as file://."""
    return Path(path.removeprefix("file://") if isinstance(path, str) else path)


class Place(ABC):
    """A zoo's folder, wherever it is. Names are paths inside it, with "/".

    Methods raise ZooError if the store fails, OSError if the file system does, and
    FileNotFoundError for a name that is not there.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of its path."""

    @abstractmethod
    def inside(self, part: str) -> "Place":
        """One of its folders, as a place of its own that nobody holds."""

    @abstractmethod
    def names(self) -> set[str]:
        """What lies directly in it; nothing if it is not there.

        Raises:
            ValueError: if it is a file.
        """

    @abstractmethod
    def sizes(self, part: str = "") -> dict[str, int]:
        """Every file in it, or in one of its folders, with its bytes."""

    @abstractmethod
    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of files, in order, a few at a time."""

    @abstractmethod
    def heads(self, names: Sequence[str], count: int) -> Iterator[bytes]:
        """The first `count` bytes of files, in order, a few at a time."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole under its name, or not at all."""

    @abstractmethod
    def move(self, name: str, new: str) -> None:
        """Give a file another name, over one that may have it."""

    @abstractmethod
    def copy(self, name: str, new: str) -> None:
        """Give a file a second name, over a file that may have it; whole, or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""

    @abstractmethod
    def fetch(self, name: str, path: Path, most: int | None = None) -> None:
        """Copy a file to a path of this machine.

        Raises:
            ZooError: if it has more than `most` bytes; no more are read. None is for one's own.
        """

    @abstractmethod
    def staged(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A folder of this machine; what is in it stands in the folder `name` afterwards."""

    @abstractmethod
    def owned(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Hold the place; what it gives raises ZooError when it was lost to another.

        Raises:
            ZooError: if another driver holds it.
        """

    @abstractmethod
    def check(self, file: File, sizes: dict[str, int]) -> str | None:
        """What is wrong with a file, or None; `sizes` are those of the place."""

    def read_json(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            ZooError: if it is not JSON.
        """
        (content,) = self.read([name])
        return schema.parse(content, f"{self}/{name}")

    def write_json(self, name: str, plain: Any) -> None:
        """Write JSON as `shards.write_json` does."""
        self.write(name, (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode())


def _copy(read: Callable[[int], bytes], path: Path, most: int | None, name: str) -> None:
    """Write what is read to a file; ZooError as soon as it is more than `most` bytes."""
    size = 0
    with path.open("wb") as file:
        while content := read(PIECE):
            size += len(content)
            if most is not None and size > most:
                raise ZooError(f"{name} has more than {most:,} bytes; at most those are read")
            file.write(content)


class Folder(Place):
    """A folder of the file system; all machines see it under the same path."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self._shown = str(path)

    def __str__(self) -> str:
        return self._shown

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def inside(self, part: str) -> "Folder":
        found = Folder(self.path / part)
        found._shown = f"{self._shown}/{part}"
        return found

    def names(self) -> set[str]:
        try:
            return set(os.listdir(self.path))
        except FileNotFoundError:
            return set()
        except NotADirectoryError:
            what = "is a file" if self.path.exists() else "lies in a file"
            raise ValueError(f"{self} {what}, not a folder; choose another --out") from None

    def sizes(self, part: str = "") -> dict[str, int]:
        found = {}
        for folder, _, names in os.walk(self.path / part):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    found[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return found

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        return self.heads(names, -1)

    def heads(self, names: Sequence[str], count: int) -> Iterator[bytes]:
        for name in names:
            path = self.path / name
            path.stat()  # which says in its own way that it is missing
            with schema.open_plain(path) as file:
                yield file.read(count)

    def read_json(self, name: str) -> Any:
        path = self.path / name
        path.stat()  # as above
        return schema.read_json(path)

    def write(self, name: str, content: bytes) -> None:
        with shards.replacing(self.path / name) as temporary:
            temporary.write_bytes(content)

    def move(self, name: str, new: str) -> None:
        path = self.path / new
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).replace(path)  # which the task has synced
        shards.sync_folder(path.parent)

    def copy(self, name: str, new: str) -> None:
        path = self.path / new
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            os.link(self.path / name, path)
            shards.sync_folder(path.parent)
        except OSError:  # not every file system has hard links
            with shards.replacing(path) as temporary:
                shutil.copyfile(self.path / name, temporary)

    def remove(self, name: str) -> None:
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def fetch(self, name: str, path: Path, most: int | None = None) -> None:
        if not (self.path / name).exists():
            raise FileNotFoundError(name)
        with schema.open_plain(self.path / name) as file:
            _copy(file.read, path, most, str(self.path / name))

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        path = self.path / name
        path.mkdir(parents=True)
        yield path

    @contextlib.contextmanager
    def owned(self) -> Iterator[Callable[[], None]]:
        with shards.one_writer(self.path):
            yield lambda: None

    def check(self, file: File, sizes: dict[str, int]) -> str | None:
        return shards.check_file(self.path, file, hashes=True)


class Remote(Place):
    """A URL that fsspec knows; credentials and endpoint come from the environment."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._open()

    def _open(self) -> None:
        import fsspec

        protocol = self.url.partition("://")[0]
        try:
            # Others write there too, so listings must be fresh.
            self.files, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            package = EXTRAS.get(protocol, "the package for it")
            raise ValueError(f"{self.url} needs a package: pip install '{package}'") from error
        except ValueError as error:
            raise ValueError(
                f"{self.url}: {error}; expected s3://BUCKET/NAME or the like"
            ) from None
        self.root = self.root.rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.url = state["url"]
        self._open()

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def _call(self, method: str, *given: Any, **named: Any) -> Any:
        with self._explaining():
            return getattr(self.files, method)(*given, **named)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            what = safe_line(error, 300) or type(error).__name__
            raise ZooError(
                f"{self.url}: {what}; what is finished is kept: run the same command again"
            ) from error

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def inside(self, part: str) -> "Remote":
        return Remote(f"{self.url}/{part}")

    def names(self) -> set[str]:
        try:
            found = self._call("ls", self._key(""), detail=False)
        except FileNotFoundError:
            return set()
        return {key.rstrip("/").rpartition("/")[2] for key in found} - {""}

    def sizes(self, part: str = "") -> dict[str, int]:
        found = self._call("find", self._key(part), detail=True)
        cut = len(self.root) + 1
        return {key[cut:]: int(about["size"]) for key, about in found.items()}

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        for start in range(0, len(names), BATCH):
            keys = [self._key(name) for name in names[start : start + BATCH]]
            # One call for many, which s3fs makes side by side; for one key it gives bytes.
            found = self._call("cat", keys, on_error="raise")
            yield from (found[key] for key in keys)

    def heads(self, names: Sequence[str], count: int) -> Iterator[bytes]:
        for start in range(0, len(names), BATCH):
            keys = [self._key(name) for name in names[start : start + BATCH]]
            sizes = [0] * len(keys), [count] * len(keys)
            yield from self._call("cat_ranges", keys, *sizes, on_error="raise")

    def write(self, name: str, content: bytes) -> None:
        self._call("pipe_file", self._key(name), content)

    def move(self, name: str, new: str) -> None:
        # Stores have no rename: the copy is made inside the store, and appears whole.
        self.copy(name, new)
        self._call("rm_file", self._key(name))

    def copy(self, name: str, new: str) -> None:
        self._call("cp_file", self._key(name), self._key(new))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call("rm", self._key(name), recursive=True)

    def fetch(self, name: str, path: Path, most: int | None = None) -> None:
        with self._explaining():
            file = self.files.open(self._key(name), "rb")
        with file:

            def read(size: int) -> bytes:
                with self._explaining():
                    return file.read(size)

            _copy(read, path, most, f"{self.url}/{name}")

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="wszoo-") as folder:
            yield Path(folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    inside = path.relative_to(folder).as_posix()
                    self._call("put_file", str(path), self._key(f"{name}/{inside}"))

    def check(self, file: File, sizes: dict[str, int]) -> str | None:
        # Reading it all back would take as long as the upload; `wszoo verify` does that.
        size = sizes.get(file.file)
        if size is None:
            return f"{self.url}/{file.file} is missing"
        if size != file.bytes:
            return f"{self.url}/{file.file} has {size} bytes, the index says {file.bytes}"
        return None

    @contextlib.contextmanager
    def owned(self) -> Iterator[Callable[[], None]]:
        owner = _Owner(self)
        owner.acquire()
        try:
            yield owner.check
        finally:
            owner.release()


class _Owner:
    """The object that says which driver writes; see the top of the module."""

    def __init__(self, where: Remote):
        self.where = where
        self.me = {"id": uuid.uuid4().hex, "host": _host(), "pid": os.getpid()}
        self.content = json.dumps(self.me).encode()
        self.lost = ""
        self.seen = time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True, name="wszoo-owner")

    def acquire(self) -> None:
        """Take the place, or raise ZooError."""
        for _ in range(3):
            try:
                key = self.where._key(shards.LOCK_FILE)
                self.where._call("pipe_file", key, self.content, mode="create")
            except FileExistsError:
                self._make_way()
                continue
            time.sleep(SETTLE_S)
            if (other := self._read()) == self.me:
                self.seen = time.monotonic()
                self.thread.start()
                return
            self._refuse(other, "")
        self._refuse(self._read(), "")

    def _read(self) -> dict[str, Any]:
        try:
            found = self.where.read_json(shards.LOCK_FILE)
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}

    def _make_way(self) -> None:
        """Remove what a dead driver left, or raise ZooError for one that may live."""
        other = self._read()
        ended = (
            other.get("host") == self.me["host"]
            and isinstance(other.get("pid"), int)
            and not _runs(other["pid"])
        )
        if not ended:
            age = self._age()
            if age is not None and age < STALE_S:
                wait = f", last seen {age:.0f} s ago: if it is dead, try in {STALE_S - age:.0f} s"
                self._refuse(other, wait)
        if self._read() != other:
            return  # a third driver was faster; it is judged in its turn
        with contextlib.suppress(FileNotFoundError):
            self.where._call("rm_file", self.where._key(shards.LOCK_FILE))

    def _refuse(self, other: dict[str, Any], more: str) -> None:
        who = f"process {other.get('pid')} on {other.get('host')}" if other else "another driver"
        raise ZooError(
            f"{self.where} is being written by {who}{more}; wait for it or stop it first"
        )

    def _age(self) -> float | None:
        """Seconds since the owner was written, by the store's clock; None if it is gone."""
        probe = f"{shards.LOCK_FILE}-{self.me['id']}"
        self.where.write(probe, b"")
        try:
            times = [
                self.where._call("modified", self.where._key(name))
                for name in (shards.LOCK_FILE, probe)
            ]
        except FileNotFoundError:
            return None
        finally:
            self.where.remove(probe)
        return float((times[1] - times[0]).total_seconds())

    def _beat(self) -> None:
        while not self.ended.wait(BEAT_S):
            try:
                if (other := self._read()) != self.me:
                    self.lost = f"process {other.get('pid')} on {other.get('host')}"
                    return
                self.where.write(shards.LOCK_FILE, self.content)
                self.seen = time.monotonic()
            except (ZooError, OSError):
                continue  # the store may come back in time

    def check(self) -> None:
        """Raise ZooError if the place is no longer ours."""
        silent = time.monotonic() - self.seen
        if self.lost or silent > STALE_S:
            why = f"{self.lost} took it over" if self.lost else f"no contact for {silent:.0f} s"
            raise ZooError(
                f"{self.where} is no longer ours ({why}); what is finished is kept: see that no "
                "other driver runs, then run the same command again"
            )

    def release(self) -> None:
        """Give the place back, if it is still ours."""
        self.ended.set()
        self.thread.join()
        with contextlib.suppress(ZooError, OSError):
            if self._read() == self.me:
                self.where.remove(shards.LOCK_FILE)


def _host() -> str:
    """The name of this machine and of the container, since each numbers its processes."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()} ({space})"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# ---- reading


def read_index(where: Place) -> tuple[bytes, Index]:
    """The index of a finished zoo, also as it stands there; nothing else is fetched.

    Raises:
        ZooError: if there is none, or it is not readable as one.
    """
    with tempfile.TemporaryDirectory(prefix="wszoo-") as folder:
        path = Path(folder) / shards.INDEX_FILE
        try:
            where.fetch(shards.INDEX_FILE, path, schema.JSON_BYTES)
        except FileNotFoundError:
            pass
        else:
            content = path.read_bytes()
            return content, Index.from_json(schema.parse(content, f"{where}/{shards.INDEX_FILE}"))
    with contextlib.suppress(FileNotFoundError):  # what a bucket that is not there raises
        if where.sizes(shards.BUILD_FOLDER):
            raise ZooError(f"{where} is not finished; the command that makes it goes on")
    raise ZooError(f"{where} is not a zoo: it has no {shards.INDEX_FILE}")
