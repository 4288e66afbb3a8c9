"""What this process may use of the machine: cores and memory; and who it is there.

Cores are the least of what affinity, the control group's quota, `OMP_NUM_THREADS` and
`SLURM_CPUS_PER_TASK` allow; `set_threads`, or `--threads` of a command, goes before all of
them. Containers and batch systems limit by quota or by those variables, not by affinity,
and threads beyond the limit only wait for each other. What cannot be read limits nothing.
"""

import contextlib
import functools
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

MOST_THREADS = 4096
LIMITING = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")
# A limit of version 1 that is none: the largest number of whole pages.
_NO_LIMIT = 2**62

_chosen: int | None = None


def set_threads(count: int | None) -> None:
    """Have everything that computes use so many threads; None goes back to what is allowed.

    Raises:
        ValueError: if the count is not a whole number from 1 to 4096.
    """
    global _chosen
    _chosen = None if count is None else checked_threads(count)
    if count is not None and "torch" in sys.modules:
        limit_torch()


@contextlib.contextmanager
def using(count: int | None) -> Iterator[None]:
    """Have everything that computes use so many threads for a while; None changes nothing.

    Raises:
        ValueError: as `set_threads` does.
    """
    if count is None:
        yield
        return
    before = _chosen
    torch = sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch else 0
    set_threads(count)
    try:
        yield
    finally:
        set_threads(before)
        if torch:
            torch.set_num_threads(torch_threads)


@contextlib.contextmanager
def throughout(count: int | None) -> Iterator[None]:
    """`using` for a whole command: also libraries that are loaded later are told.

    torch, BLAS and Arrow read OMP_NUM_THREADS when they are loaded; else they count cores by
    affinity.

    Raises:
        ValueError: as `set_threads` does.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    with using(count):
        if threads() != _affinity():
            os.environ["OMP_NUM_THREADS"] = str(threads())
        try:
            yield
        finally:
            if before is None:
                os.environ.pop("OMP_NUM_THREADS", None)
            else:
                os.environ["OMP_NUM_THREADS"] = before


def chosen_threads() -> int | None:
    """What `set_threads` was told."""
    return _chosen


def checked_threads(count: int) -> int:
    """The count itself.

    Raises:
        ValueError: if it is not a whole number from 1 to 4096.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_THREADS:
        raise ValueError(f"threads must be a whole number from 1 to {MOST_THREADS}, got {count!r}")
    return count


def threads() -> int:
    """Threads to compute with, at least 1."""
    return available_cores() if _chosen is None else _chosen


def available_cores() -> int:
    """Cores that this process may use, whatever `set_threads` was told; at least 1."""
    allowed = [_affinity(), _quota(), *map(_from_environment, LIMITING)]
    return min(count for count in allowed if count is not None)


def limit_torch(count: int | None = None) -> None:
    """Have torch use `count` threads; None leaves it at fewer, but lets it use no more.

    torch counts cores by affinity alone. What somebody chose by `set_threads` is set
    exactly; a smaller number that was set in torch itself stays.
    """
    import torch

    if count is None:
        count = threads()
        if _chosen is None and torch.get_num_threads() <= count:
            return
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


# Of glibc's mallopt: trim never, take 64 MB more than is asked for, map nothing apart.
_KEEPING = {-1: -1, -2: 2**26, -4: 0}


def keep_memory() -> None:
    """Have this process keep the memory that it frees, for the tensors that come next (glibc).

    Else the system maps and clears what every large tensor takes anew, which is up to a third of
    an update of a large model on a CPU. Where `MALLOC_...` variables say how memory is kept, that
    stays; where there is no glibc, nothing is done.
    """
    if not sys.platform.startswith("linux") or any(
        name.startswith("MALLOC_") for name in os.environ
    ):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _KEEPING.items():
            mallopt(option, value)


def memory_bytes() -> int | None:
    """Memory that this process may use: the control group's limit if below what is built in.

    Returns:
        None if neither can be found out.
    """
    found = [size for size in (_physical(), _memory_limit()) if size]
    return min(found, default=None)


WINDOWS = (
    "wszoo does not run on Windows itself, which cannot replace files that are open; run it in the "
    "Windows Subsystem for Linux (WSL)"
)


def on_windows() -> bool:
    """Whether nothing can be made here; see `WINDOWS`."""
    return os.name == "nt"


class Notice(UserWarning):
    """Something of the machine that wszoo does without; said once, harms no result."""


def notice(line: str) -> None:
    """Say that something optional is missing here."""
    warnings.warn(line, Notice, stacklevel=3)


def identity() -> dict[str, Any]:
    """What tells this process from all others, for those who ask later whether it still runs."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _text(Path("/proc/sys/kernel/random/boot_id")).strip(),
        "space": _pid_space(),
        "pid": pid,
        "started": _started(pid),
    }


def runs(other: dict[str, Any]) -> bool | None:
    """Whether the process with that `identity` runs; None if it cannot be known here."""
    here = identity()
    pid = other.get("pid")
    if any(other.get(name) != here[name] for name in ("host", "boot", "space")):
        return None
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return other.get("started") == _started(pid)


def _pid_space() -> str:
    """The container, since each numbers its processes."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, as numbers are used again; "" where that is not told."""
    # After the name in brackets, which may hold anything; man 5 proc counts this as field 22.
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    ended = not fields or fields[0] in "ZX"  # and nobody has asked how
    return fields[19] if len(fields) > 19 and not ended else ""


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _from_environment(name: str) -> int | None:
    """A number of threads; OMP_NUM_THREADS may be a list, one number for each nested level."""
    first = os.environ.get(name, "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


# ---- control groups, https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/
#
# A group is limited by itself and by all that it lies in, so the least along the path counts.
# In a container the path that /proc tells may be that of the host, of which only the end is
# mounted: the mount's root says which part.


def _quota() -> int | None:
    """Cores that the control groups allow; a part of one counts as a whole."""
    found = []
    for version, folder in _groups("cpu"):
        if version == 2:
            words = _text(folder / "cpu.max").split()  # "max 100000" or "150000 100000"
        else:
            words = [_text(folder / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period")]
        if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
            found.append(max(1, -(-int(words[0]) // int(words[1]))))
    return min(found, default=None)


def _memory_limit() -> int | None:
    """Bytes that the control groups allow."""
    found = []
    for version, folder in _groups("memory"):
        word = _text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).strip()
        if word.isdigit() and 0 < int(word) < _NO_LIMIT:
            found.append(int(word))
    return min(found, default=None)


def _groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of each control group that limits this process, innermost first."""
    mounts = _mounts(_text(Path("/proc/self/mountinfo")))
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            version, place = 2, mounts.get("")
        elif controller in names.split(","):
            version, place = 1, mounts.get(controller)
        else:
            continue
        if place is None or not path.startswith("/"):
            continue
        root, mounted = place
        inner = PurePosixPath(path)
        inner = inner.relative_to(root) if inner.is_relative_to(root) else inner.relative_to("/")
        if ".." in inner.parts:  # outside this process's namespace: only what is mounted is seen
            inner = PurePosixPath()
        for folder in (inner, *inner.parents):
            yield version, mounted / folder


@functools.lru_cache(maxsize=4)
def _mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Root and place of the mounted hierarchies by controller; version 2 is called ""."""
    found: dict[str, tuple[str, Path]] = {}
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(kinds) < 3:
            continue
        root, place = (word.replace("\\040", " ") for word in fields[3:5])
        if kinds[0] == "cgroup2":
            found.setdefault("", (root, Path(place)))
        elif kinds[0] == "cgroup":
            for controller in kinds[2].split(","):
                found.setdefault(controller, (root, Path(place)))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
