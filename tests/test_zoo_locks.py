"""A folder has one writer, who is known to be gone when he is, with `flock` or without."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo import locks, machine, stopping
from zoo.errors import ZooError

ROOT = Path(__file__).parents[1]
WITHOUT = "a file that names its owner is used instead"

# What a process runs that writes, on a file system with locks or without.
SCRIPT = """
import errno, os, sys, time, warnings
from pathlib import Path
from zoo import locks, machine
from zoo.errors import ZooError

folder, mode, code = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
warnings.simplefilter("ignore", machine.Notice)
if code != "flock":
    def flock(*_):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
    locks.fcntl.flock = flock
try:
    with locks.one_writer(folder):
        print("held", flush=True)
        time.sleep(60 if mode == "hold" else 0)
except ZooError as error:
    print(error)
"""
KINDS = pytest.mark.parametrize("code", ["flock", "ENOLCK"])


@pytest.fixture
def lockless(monkeypatch):
    """No locks in this process, and no warning of it."""

    def flock(*_) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    monkeypatch.setattr(machine, "notice", lambda line: None)


def _command(folder: Path, mode: str, code: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(folder), mode, code]


def attempt(folder: Path, code: str = "flock") -> str:
    """What another process gets when it wants to write."""
    done = subprocess.run(
        _command(folder, "try", code),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.stdout.strip()


@contextlib.contextmanager
def holder(folder: Path, code: str):
    """Another process that writes for a minute."""
    child = subprocess.Popen(
        _command(folder, "hold", code),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with child:
        try:
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


@KINDS
def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path, code):
    folder = tmp_path / "zoo"
    with holder(folder, code) as child:
        who = "another process" if code == "flock" else f"process {child.pid} on "
        line = attempt(folder, code)
        assert line.startswith(f"{folder} is being written by {who}")
        assert line.endswith("; wait for it or stop it first")
        assert attempt(tmp_path / "other", code) == "held"  # another folder is another lock
    assert attempt(folder, code) == "held"


@KINDS
def test_the_lock_dies_with_its_process(tmp_path, code):
    with holder(tmp_path, code) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert attempt(tmp_path, code) == "held"
    assert locks.names(tmp_path) == set()
    assert os.listdir(tmp_path) == [".lock"]


def test_the_lock_is_released_when_writing_fails(tmp_path):
    with pytest.raises(RuntimeError, match="disk"), locks.one_writer(tmp_path):
        raise RuntimeError("disk")
    assert attempt(tmp_path) == "held"


def test_the_same_without_locks(tmp_path, lockless):
    with locks.one_writer(tmp_path):
        assert sorted(os.listdir(tmp_path)) == [".lock", ".lock-held"]
        assert locks.names(tmp_path) == set()
    with pytest.raises(RuntimeError, match="disk"), locks.one_writer(tmp_path):
        raise RuntimeError("disk")
    assert os.listdir(tmp_path) == [".lock"]


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, code):
    def flock(*_) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    said = pytest.warns(machine.Notice, match=f"has no locks.*{WITHOUT}")
    with said, locks.one_writer(tmp_path):
        pass


def test_a_python_without_fcntl_has_locks_too(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with (
        pytest.warns(machine.Notice, match=f"Python has no fcntl.*{WITHOUT}"),
        locks.one_writer(tmp_path),
        pytest.raises(ZooError, match=f"is being written by process {os.getpid()} on "),
        locks.one_writer(tmp_path),
    ):
        pass


def test_other_errors_are_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def flock(*_) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"), locks.one_writer(tmp_path):
        pass


def test_file_systems_without_hard_links_have_locks_too(tmp_path, lockless, monkeypatch):
    def link(*_) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with locks.one_writer(tmp_path), pytest.raises(ZooError), locks.one_writer(tmp_path):
        pass
    assert os.listdir(tmp_path) == [".lock"]


# --- who is dead --------------------------------------------------------------------------


def _left(folder: Path, **changes: object) -> Path:
    """A file that an owner left behind, who is this process but for `changes`."""
    path = folder / ".lock-held"
    path.write_text(json.dumps({"id": "x", **machine.identity(), **changes}))
    return path


def _free(folder: Path) -> bool:
    try:
        with locks.one_writer(folder):
            return True
    except ZooError:
        return False


def test_an_owner_here_is_judged_by_its_process(tmp_path, lockless):
    _left(tmp_path)
    assert not _free(tmp_path)
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    _left(tmp_path, pid=int(done.stdout), started="1")
    assert _free(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="tells processes by /proc")
def test_a_number_that_is_used_again_is_another_process(tmp_path, lockless):
    _left(tmp_path, started="1")
    assert _free(tmp_path)


@pytest.mark.parametrize("name", ["host", "boot", "space"])
def test_an_owner_elsewhere_is_judged_by_when_it_was_seen(tmp_path, lockless, name):
    path = _left(tmp_path, **{name: "elsewhere"})
    assert not _free(tmp_path)
    now = time.time()
    os.utime(path, (now - locks.STALE_S + 20, now - locks.STALE_S + 20))
    with pytest.raises(ZooError, match=r"last seen \d+ s ago \(if it is dead, try in \d+ s\)"):
        locks.one_writer(tmp_path).__enter__()
    os.utime(path, (now - locks.STALE_S - 5, now - locks.STALE_S - 5))
    assert _free(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": -1}', '{"pid": true}', "null"])
def test_an_owner_that_cannot_be_read_is_judged_by_its_age(tmp_path, lockless, content):
    path = tmp_path / ".lock-held"
    path.write_text(content)
    assert not _free(tmp_path)
    os.utime(path, (1, 1))
    assert _free(tmp_path)


def test_an_owner_shows_that_it_lives(tmp_path, lockless, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    with locks.one_writer(tmp_path):
        path = tmp_path / ".lock-held"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 30
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 2


def test_an_owner_that_lost_its_file_stops(tmp_path, lockless, monkeypatch):
    """It slept for so long that another took it for dead."""
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    with stopping.noticed():
        with locks.one_writer(tmp_path):
            _left(tmp_path, id="another")
            deadline = time.monotonic() + 30
            while not stopping.asked() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert stopping.line().startswith(f"stopped, as another process took {tmp_path} over")
        assert (tmp_path / ".lock-held").is_file()  # the other one's


def test_a_file_is_taken_from_the_dead_alone(tmp_path):
    """Between the judgement and the removal another may have been faster."""
    path = _left(tmp_path, id="living")
    locks._remove(path, {"id": "dead"})
    assert json.loads(path.read_text())["id"] == "living"
    locks._remove(path, json.loads(path.read_text()))
    assert os.listdir(tmp_path) == []
    locks._remove(path, {})


@pytest.mark.parametrize("code", ["flock", "ENOLCK"])
def test_of_many_who_want_to_write_one_does(tmp_path, code):
    children = [
        subprocess.Popen(
            _command(tmp_path, "hold", code),
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]
    try:
        held = []
        for child in children:
            line = child.stdout.readline()
            held += [child] if line == "held\n" else []
            assert line == "held\n" or "is being written" in line
        assert len(held) == 1
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_waiting_ends_when_the_lock_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.01)
    path = tmp_path / "cache.lock"
    order = []

    def second() -> None:
        with locks.held(path, wait=True):
            order.append("second")

    with locks.held(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_names_are_those_that_are_not_of_locks(tmp_path):
    for name in (".lock", ".lock-held", ".lock-5f", "zoo.json"):
        (tmp_path / name).touch()
    assert locks.names(tmp_path) == {"zoo.json"}


def test_on_windows_one_line_says_what_to_do(tmp_path, monkeypatch):
    from cli import main

    monkeypatch.setattr(machine, "on_windows", lambda: True)
    line = "does not run on Windows itself, .* Windows Subsystem for Linux"
    with pytest.raises(ZooError, match=line), locks.one_writer(tmp_path / "zoo"):
        pass
    assert not (tmp_path / "zoo").exists()
    with pytest.raises(SystemExit, match=line):
        main.main()
