"""A bar on a terminal, lines in a log, and nothing that could end a command."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import progress

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _log(monkeypatch) -> io.StringIO:
    """What is written to a stderr that is a file; a minute lasts a fifth of a second."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    monkeypatch.setattr(progress, "LINE_S", 0.2)
    return text


def _wait(log: io.StringIO, pattern: str) -> None:
    deadline = time.monotonic() + 30
    while not re.search(pattern, log.getvalue(), re.M) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert re.search(pattern, log.getvalue(), re.M), log.getvalue()


def test_a_log_has_a_line_a_minute_even_if_nothing_moves(monkeypatch):
    log = _log(monkeypatch)
    with progress.shown("zoos/z", "net", lambda: "") as meter:
        _wait(log, r"^zoos/z: at work for \d+ s\n")
        meter.update(100, 1000, words="20.00 dB", found=True)
        _wait(log, r"zoos/z: 100 of 1,000 net \(10%\), 20.00 dB, \d+ s so far\n")
        meter.update(200, 1000, words="21.00 dB")
        _wait(log, r"zoos/z: 200 of 1,000 net \(20%\), 21.00 dB, \d+ s so far, about \d+ s left\n")
    said = log.getvalue()
    time.sleep(0.5)
    assert log.getvalue() == said


def test_what_is_quick_leaves_no_line(monkeypatch):
    log = _log(monkeypatch)
    monkeypatch.setattr(progress, "LINE_S", 60.0)
    with progress.shown("zoos/z", "net", lambda: "") as meter:
        meter.update(100, 1000)
        meter.update(1000, 1000)
    assert log.getvalue() == ""


def test_a_long_phase_leaves_a_line_at_its_end(monkeypatch):
    log = _log(monkeypatch)
    with progress.shown("run", "step", lambda: "") as meter:
        monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
        meter.update(0, 10, label="lr 0.1")
        meter.begun = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: 150.0)
        meter.update(10, 10, label="lr 0.1", words="loss 2")
        meter.update(0, 20, label="lr 0.01")
        assert "run, lr 0.1: 10 of 10 step (100%), loss 2, 2 min so far\n" in log.getvalue()


def test_a_terminal_has_bars(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown("zoos/z", "net", lambda: "") as meter:
        meter.update(30, 100, found=True)
        meter.update(100, 100, words="20.00 dB")
        progress.tell("something")
    said = terminal.getvalue()
    assert "100/100" in said
    assert "20.00 dB" in said
    assert "something\n" in said
    assert "so far" not in said


class Broken(Terminal):
    """A stderr whose other end is gone."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [None, Broken(True), Broken(False)], ids=["none", "tty", "log"])
def test_a_stderr_that_is_gone_ends_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "LINE_S", 0.05)
    with progress.shown("zoos/z", "net", lambda: "") as meter:
        meter.update(30, 100)
        progress.tell("something")
        time.sleep(0.2)
        meter.update(100, 100)


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_end_no_worker(closed, tmp_path):
    """A fit by this process alone, and other commands: test_cli_output.py."""
    words = "fit-inrs digits --limit 6 --steps 2 --hidden 4 --workers 2 --out"
    done = subprocess.run(
        f"{sys.executable} -m cli.main {words} {tmp_path / 'zoo'} {closed}",
        shell=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0
