"""Compiles kernels with Numba, and keeps what was compiled where that is possible.

The cache on disk is wanted, not needed. Where neither the package's folder nor the user's
cache can be written (containers run as somebody else, read-only homes), it lies in the
temporary folder, under a name that only this user can have made, since reading it runs what
it holds; failing that, every process compiles for itself. A cache that is damaged, or whose
disk is full, is as good as none.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import FunctionCache

from zoo import machine


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function; what goes wrong with its files costs a compilation."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged pickles raise errors of all kinds
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            try:
                super().save_overload(sig, data)
            except OSError:
                raise
            except Exception:  # the index, which is read again before it is written, is damaged
                self.flush()
                super().save_overload(sig, data)
        except Exception as error:
            machine.notice(
                f"compiled code cannot be kept ({error}); it is compiled again next time"
            )


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep the result for other processes."""
    compiled = njit(nogil=True, error_model="numpy")(function)
    cache = _cache_of(function)
    if cache is not None:
        compiled._cache = cache
    return compiled


def _cache_of(function: Callable[..., Any]) -> _Cache | None:
    with contextlib.suppress(RuntimeError, OSError):  # "no locator available": nowhere to write
        return _Cache(function)
    folder = _own_temporary_folder()
    if folder is not None and str(folder) != config.CACHE_DIR:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder)
        with contextlib.suppress(RuntimeError, OSError):
            cache = _Cache(function)
            os.environ["NUMBA_CACHE_DIR"] = str(folder)  # worker processes read it
            machine.notice(
                f"compiled code is kept in {folder}, as neither the package's folder nor the "
                "user's cache can be written; NUMBA_CACHE_DIR names another place"
            )
            return cache
        config.CACHE_DIR = before
    machine.notice(
        "compiled code cannot be kept anywhere, so that every process compiles for some seconds; "
        "NUMBA_CACHE_DIR names a place for it"
    )
    return None


def _own_temporary_folder() -> Path | None:
    """A folder that nobody else can write to; None if it is somebody else's, or cannot be."""
    try:
        folder = Path(tempfile.gettempdir()) / f"wszoo-numba-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except (OSError, AttributeError):
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if ours and not found.st_mode & 0o077 else None
