"""One writer for a folder: a lock that dies with its process, on every file system.

Where there is `flock`, the system releases the lock when its process ends, however that
ends. Some file systems have none (NFS and Lustre mounted so, some FUSE and SMB), nor have
all builds of Python: there a file is made exclusively that names its owner. An owner on this
machine is dead if its process is; one elsewhere, if it has not touched the file for
`STALE_S`. Whoever uses that says so once.
"""

import contextlib
import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo import machine, stopping
from zoo.errors import ZooError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
# How a file system says that it has no locks.
NO_LOCKS = {
    getattr(errno, name)
    for name in ("ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL", "ENOTTY")
    if hasattr(errno, name)
}
BEAT_S = 10.0
STALE_S = 60.0
POLL_S = 0.2


class Busy(Exception):
    """Somebody else holds the lock; the words say who, where that is known."""


def names(folder: Path) -> set[str]:
    """What lies in a folder, less what locks leave there."""
    return {name for name in os.listdir(folder) if not name.startswith(LOCK_FILE)}


@contextlib.contextmanager
def one_writer(folder: Path, doing: str = "written") -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there.

    Args:
        doing: what another process may be at, for the error.

    Raises:
        ZooError: if another process holds it, or on Windows.
    """
    if machine.on_windows():
        raise ZooError(machine.WINDOWS)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK_FILE))
        except Busy as error:
            raise ZooError(
                f"{folder} is being {doing} by {str(error) or 'another process'}; wait for it or "
                "stop it first"
            ) from None
        yield


@contextlib.contextmanager
def held(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock that a file stands for; the file stays behind.

    Args:
        wait: until nobody else holds it.

    Raises:
        Busy: if somebody else holds it and `wait` is not set.
        OSError: if the file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_held(path))
                break
            except Busy:
                if not wait:
                    raise
            stopping.check()
            time.sleep(POLL_S)
        yield


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    file = _open(path)
    try:
        reason = _flock(file)
        if reason is None:
            yield
            return
        machine.notice(
            f"the file system of {path.parent} has no locks ({reason}); a file that names its "
            "owner is used instead"
        )
        with _owned(path):
            yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    flags = os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:
        # Made by somebody else, whose folder this may write in; a lock needs no more.
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))


def _flock(file: int) -> str | None:
    """Lock an open file, or say why that is not possible here.

    Raises:
        Busy: if it is locked.
    """
    if fcntl is None:
        return "Python has no fcntl"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise Busy from None
        if error.errno not in NO_LOCKS:
            raise
        return error.strerror or str(error)
    return None


# ---- a file instead of a lock


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Own the file beside `path` that stands for its lock."""
    holder = path.with_name(f"{path.name}-held")
    me = {"id": uuid.uuid4().hex, **machine.identity()}
    for _ in range(5):
        if _make(holder, me):
            break
        other = _read(holder)
        if other is not None:
            _refuse_living(holder, other)
            _remove(holder, other)
    else:
        raise Busy
    ended = threading.Event()
    thread = threading.Thread(
        target=_beat, args=(holder, me, ended), daemon=True, name="wszoo-lock"
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            if _read(holder) == me:
                holder.unlink()


def _make(holder: Path, me: dict[str, Any]) -> bool:
    """Make the file with its content at once; False if there is one."""
    fresh = holder.with_name(f"{LOCK_FILE}-{me['id']}")
    fresh.write_text(json.dumps(me), encoding="utf-8")
    try:
        try:
            os.link(fresh, holder)
        except FileExistsError:
            return False
        except OSError:  # no hard links, or an NFS that says so of one that it made
            if fresh.stat().st_nlink == 2:
                return True
            try:
                with holder.open("x", encoding="utf-8") as file:
                    file.write(json.dumps(me))
            except FileExistsError:
                return False
        return True
    finally:
        fresh.unlink()


def _read(holder: Path) -> dict[str, Any] | None:
    """Who owns it; {} for one who is just writing that down, None for nobody."""
    try:
        plain = json.loads(holder.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) else {}


def _refuse_living(holder: Path, other: dict[str, Any]) -> None:
    """Raise Busy unless the owner is known to be dead."""
    who = f"process {other.get('pid')} on {other.get('host')}"
    runs = machine.runs(other)
    if runs:
        raise Busy(who)
    age = _age(holder) if runs is None else None
    if age is not None and age < STALE_S:
        left = STALE_S - age
        raise Busy(f"{who}, last seen {age:.0f} s ago (if it is dead, try in {left:.0f} s)")


def _age(holder: Path) -> float | None:
    """Seconds since the owner touched the file, by the clock of the file system."""
    probe = holder.with_name(f"{LOCK_FILE}-{uuid.uuid4().hex}")
    probe.touch()
    try:
        return probe.stat().st_mtime - holder.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        probe.unlink()


def _remove(holder: Path, other: dict[str, Any]) -> None:
    """Remove the file of a dead owner, and nobody else's who was faster."""
    aside = holder.with_name(f"{LOCK_FILE}-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        holder.rename(aside)
        if _read(aside) != other:
            with contextlib.suppress(OSError):
                os.link(aside, holder)
        aside.unlink()


def _beat(holder: Path, me: dict[str, Any], ended: threading.Event) -> None:
    """Show that the owner lives; stop the process if somebody took the file over."""
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):  # the disk may come back in time
            if _read(holder) != me:
                stopping.ask(f"another process took {holder.parent} over")
                return
            os.utime(holder)
