"""Signals at random moments: every command ends in time, and goes on to the same bytes.

The moments lie in imports, in compilation with an empty cache, in fitting and in writing.
`hostile/` has the long run of this; here each command meets a few.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = (signal.SIGTERM, signal.SIGINT)
IN_TIME_S = 10.0
FIT = "fit-inrs digits --limit 60 --steps 40 --hidden 6 --shard-rows 10 --threads 1 --out"


def _start(words: str, cache: Path | None = None) -> subprocess.Popen:
    """With what other tests have compiled, or with what an empty cache takes."""
    caches = {"NUMBA_CACHE_DIR": str(cache)} if cache else {}
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words.split()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | caches,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stopped(child: subprocess.Popen, kind: int) -> bool:
    """Send a signal and see it obeyed; False if the command had ended before."""
    if child.poll() is not None:
        assert child.returncode == 0, child.communicate()[1]
        child.communicate()
        return False
    begun = time.monotonic()
    child.send_signal(kind)
    try:
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert time.monotonic() - begun < IN_TIME_S
    if child.returncode == 0:  # it had nothing left to do
        return True
    assert child.returncode == 1, errors
    lines = errors.strip().splitlines()
    assert lines[-1].startswith("stopped; ")
    assert "Traceback" not in errors
    return True


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _wait(child: subprocess.Popen, due: Callable[[], bool]) -> None:
    # Before the command has its handlers there is only Python, whose signals are its own.
    ready = _after(0.8)
    deadline = time.monotonic() + 120
    while not (due() and ready()) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _finish(words: str) -> None:
    child = _start(words)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "zoo"
    _finish(f"{FIT} {out}")
    return out


def test_a_fit_that_is_stopped_at_random_moments_ends_the_same(tmp_path, undisturbed):
    moments = random.Random(14)
    out = tmp_path / "zoo"
    words = f"{FIT} {out}"
    for number in range(3):  # imports, and compilation from nothing
        empty = tmp_path / f"cache-{number}"
        child = _start(words, empty)
        _wait(child, _after(moments.uniform(0.8, 12.0)))
        _stopped(child, KINDS[number % 2])
    for number in range(3):  # fitting and writing
        made = len(list(out.rglob("*.safetensors")))
        child = _start(words)
        due = _after(moments.uniform(0.0, 0.3))

        def moved(made: int = made, due: Callable[[], bool] = due) -> bool:
            return len(list(out.rglob("*.safetensors"))) > made and due()

        _wait(child, moved)
        if not _stopped(child, KINDS[number % 2]):
            break
    _finish(words)
    assert _content(out) == _content(undisturbed)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("verify {zoo} --samples 60 --refit 60 --threads 1", None),
        ("fit-classifiers digits --limit 6 --epochs 3 --threads 1 --out {out}", "out"),
        (
            "train classify {zoo} --model mlp --set width=8 --epochs 40 --device cpu --threads 1 "
            "--out {out}",
            "out",
        ),
    ],
    ids=["verify", "fit-classifiers", "train"],
)
def test_other_commands_stop_too(tmp_path, undisturbed, words, folder):
    moments = random.Random(words)
    command = words.format(zoo=undisturbed, out=tmp_path / "out")
    for number in range(2):
        child = _start(command, None if number else tmp_path / "empty")
        _wait(child, _after(moments.uniform(0.8, 9.0)))
        if not _stopped(child, KINDS[number % 2]):
            break
    _finish(command)
    if folder is not None and not words.startswith("train"):
        _finish(words.format(zoo=undisturbed, out=tmp_path / "whole"))
        named = [_content(tmp_path / name) for name in (folder, "whole")]
        weights = [{k: v for k, v in each.items() if "safetensors" in k} for each in named]
        assert weights[0] == weights[1]
