"""Stops: SIGTERM and Ctrl-C end what is under way, wherever they land.

Python turns a signal into an exception in the main thread, and loses that where it lands in a
callback from C, such as a compilation's, or in a finaliser; while C code runs it raises none.
So a stop is a flag, and three things follow from it: `KeyboardInterrupt` once, as ever; again
from every `check`, which work calls between its files, batches and chunks; and in a command
the end of the process `GRACE_S` later, or at a second signal, if the main thread has not come
to it. Files are written under another name and renamed, so that an end at any moment leaves
what was finished.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT"))
# From the signal to the end of a process that does not end by itself.
GRACE_S = 7.0
# A signal so soon after the first is the same one: `timeout` and terminals send it to the
# process and to its group.
AGAIN_S = 1.0
STOPPED = 1  # exit code

_asked: float | None = None
_raised = False
_guarded = False
_why = ""
_ways: list[Callable[[], str]] = []


def asked() -> bool:
    """Whether a stop was asked for and has not ended what is under way yet."""
    return _asked is not None


def check() -> None:
    """Raise KeyboardInterrupt if a stop was asked for; to be called again and again."""
    if _asked is not None:
        raise KeyboardInterrupt


def ask(why: str) -> None:
    """Ask for a stop from within, as a signal would; `why` is said with it."""
    global _why
    _why = why
    if _guarded:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        _note()


@contextlib.contextmanager
def telling(how: Callable[[], str]) -> Iterator[None]:
    """Have a stop in here say how to go on.

    Args:
        how: gives one line without its beginning "stopped; ", true when it is called.
    """
    _ways.append(how)
    yield
    # After an exception the line is still to be said.
    _ways.remove(how)


def line() -> str:
    """What a stopped command says last."""
    stopped = f"stopped, as {_why}" if _why else "stopped"
    with contextlib.suppress(Exception):
        if _ways:
            return f"{stopped}; {_ways[-1]()}"
    return f"{stopped}; run the same command again"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Have SIGTERM and Ctrl-C end the process in time: for commands, in their main thread.

    In here they raise KeyboardInterrupt, whatever they did before; a Ctrl-C that the process
    was told to ignore stays ignored.
    """
    global _guarded
    if _guarded or threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = [s for s in SIGNALS if s == signal.SIGTERM or signal.getsignal(s) != signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in watched}
    unraisable = sys.unraisablehook
    thread = threading.Thread(
        target=_watch, args=(reading, frozenset(watched)), daemon=True, name="wszoo-stop"
    )
    _guarded = True
    waker = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread.start()
    try:
        for number in watched:
            signal.signal(number, _interrupt)
        sys.unraisablehook = _quiet(unraisable)
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(waker)
        os.close(writing)
        thread.join()
        _forget()
        _guarded = False


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Have a Ctrl-C in here count even if its exception is lost: for functions of the library.

    Does nothing where somebody else handles Ctrl-C.
    """
    usual = signal.default_int_handler
    if (
        _guarded
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not usual
    ):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        _forget()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The handler: the first signal interrupts, more do not disturb the end that it brings."""
    global _raised
    _note()
    if not _raised or not _guarded:
        _raised = True
        raise KeyboardInterrupt


def _quiet(others: Callable[[Any], object]) -> Callable[[Any], object]:
    """Say nothing of an interrupt that was lost, in a finaliser or a callback: `check` has it."""

    def hook(lost: Any) -> None:
        if _asked is None or not issubclass(lost.exc_type, KeyboardInterrupt):
            others(lost)

    return hook


def _note() -> None:
    global _asked
    if _asked is None:
        _asked = time.monotonic()


def _forget() -> None:
    global _asked, _raised, _why
    _asked, _raised, _why = None, False, ""
    _ways.clear()


def _watch(reading: int, watched: frozenset[int]) -> None:
    """End the process if the main thread does not; told of signals while that is in C code."""
    try:
        while True:
            left = None if _asked is None else max(0.0, _asked + GRACE_S - time.monotonic())
            if not select.select([reading], [], [], left)[0]:
                _leave()
            numbers = os.read(reading, 64)
            if not numbers:
                return
            if watched & set(numbers):
                if _asked is not None and time.monotonic() - _asked >= AGAIN_S:
                    _leave()
                _note()
    finally:
        os.close(reading)


def _leave() -> NoReturn:
    """End the process as it stands."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line()}\n".encode(errors="backslashreplace"))
    os._exit(STOPPED)


def settled(code: int) -> None:
    """Have a signal from here on end the process with its exit code: all is done and said."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(code))


def ignore() -> None:
    """Let no signal disturb the last moments of a process, after whatever ends at its exit.

    Python gives signals their usual effect again before it has ended.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end(code: int) -> NoReturn:
    """End a stopped process without waiting for the threads that still compute or send."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _in_child() -> None:
    """A forked child is stopped as any other process is."""
    global _guarded
    if _guarded:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is _interrupt:
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)
        _guarded = False
        _forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
