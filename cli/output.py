"""What commands print: one safe line at a time, on whatever streams there are.

Commands print through `say` alone. A stream that is closed, full or knows only ASCII stops
no command: results that nobody takes are lost, the work is not.
"""

import contextlib
import io
import os
import sys

import click

from zoo.errors import visible, without_secrets


def say(line: str = "", err: bool = False) -> None:
    """Print one line, whoever wrote the words in it; results to stdout, news to stderr."""
    click.echo(visible(without_secrets(line)), err=err)


def prepare_streams() -> None:
    """Have all three standard streams, none of which stops a command.

    A closed one becomes the null device, also as a file descriptor: the next file that is
    opened would take its number, and what some library prints would land in that file.
    Characters that a stream does not know are escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_null(number, name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        sys.stderr = _Lenient(
            sys.stderr.detach(), encoding, "backslashreplace", line_buffering=True
        )
        sys.__stderr__ = sys.stderr  # type: ignore[misc]  # the old one has lost its buffer


def _open_null(number: int, name: str) -> None:
    try:
        os.fstat(number)
    except OSError:  # the number is free
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        else:
            os.set_inheritable(number, True)
    mode = "r" if name == "stdin" else "w"
    setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for good


class _Lenient(io.TextIOWrapper):
    """stderr of a command: news that cannot be written are lost, and the command goes on."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()
