"""A stop ends a process in time wherever it lands, and can be lost nowhere."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo import stopping

ROOT = Path(__file__).parents[1]
BOTH = pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])


def _script(body: str, grace: float = 1.0) -> list[str]:
    """A process that says when it is ready, then runs `body` guarded."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = f"""
import ctypes, os, signal, subprocess, sys, threading, time
from zoo import stopping

stopping.GRACE_S = {grace}
def work():
{indented}

def ready():
    print("ready", flush=True)

with stopping.guarded(), stopping.telling(lambda: "go on so"):
    try:
        work()
    except KeyboardInterrupt:
        print("unwound", stopping.line(), flush=True)
        sys.exit(1)
"""
    return [sys.executable, "-c", text]


def _stop(command: list[str], kind: int, again_s: float | None = None) -> tuple[int, str, float]:
    """Exit code, everything printed, and seconds from the signal to the end."""
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert child.stdout.readline() == "ready\n"
        begun = time.monotonic()
        child.send_signal(kind)
        if again_s is not None:
            time.sleep(again_s)
            child.send_signal(kind)
        printed, _ = child.communicate(timeout=60)
        return child.returncode, printed, time.monotonic() - begun
    finally:
        child.kill()
        child.communicate()


@BOTH
def test_a_stop_interrupts_python(kind):
    code, printed, seconds = _stop(_script("ready()\ntime.sleep(60)"), kind)
    assert (code, printed) == (1, "unwound stopped; go on so\n")
    assert seconds < 10


# What C code calls back loses exceptions, as a compilation of Numba does.
LOST = """
@ctypes.CFUNCTYPE(None)
def callback():
    ready()
    while not stopping.asked():
        pass
    for _ in range(1000):
        pass

callback()
"""


@BOTH
def test_a_stop_whose_exception_is_lost_is_seen_at_the_next_look(kind):
    code, printed, seconds = _stop(_script(LOST + "stopping.check()\ntime.sleep(60)", 30), kind)
    assert (code, printed) == (1, "unwound stopped; go on so\n")
    assert seconds < 10


@BOTH
def test_a_stop_that_nobody_looks_at_ends_the_process(kind):
    code, printed, seconds = _stop(_script(LOST + "time.sleep(60)"), kind)
    assert (code, printed) == (1, "stopped; go on so\n")
    assert 0.9 < seconds < 10


# One call of C that lasts for minutes, as compiling by LLVM may.
LONG = """
import hashlib
threading.Timer(1.0, ready).start()  # when the call is under way
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@BOTH
def test_a_stop_while_c_code_runs_ends_the_process(kind):
    """Python calls no handler then."""
    code, printed, seconds = _stop(_script(LONG), kind)
    assert (code, printed) == (1, "stopped; go on so\n")
    assert 0.9 < seconds < 10


@BOTH
def test_a_second_signal_ends_the_process_at_once(kind):
    code, printed, seconds = _stop(_script(LONG, 60), kind, again_s=1.5)
    assert (code, printed) == (1, "stopped; go on so\n")
    assert seconds < 10


def test_a_signal_that_comes_twice_is_one_stop():
    """As `timeout` sends it: to the process, and to its group."""
    body = "ready()\ntry:\n    time.sleep(60)\nfinally:\n    time.sleep(2)"
    code, printed, _ = _stop(_script(body, 30), signal.SIGTERM, again_s=0.1)
    assert (code, printed) == (1, "unwound stopped; go on so\n")


def test_a_ctrl_c_that_is_to_be_ignored_stays_ignored():
    """As `nohup` and shells without job control want it."""
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwith stopping.guarded()"
    interpreter, flag, text = _script("ready()\ntime.sleep(2)\nprint('done')")
    text = text.replace("with stopping.guarded()", ignoring)
    code, printed, _ = _stop([interpreter, flag, text], signal.SIGINT)
    assert (code, printed) == (0, "done\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_is_stopped_as_any_process_is():
    body = """
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.write(writing, b".")
    time.sleep(60)
    os._exit(3)
os.read(reading, 1)
os.kill(child, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
ready()
time.sleep(2)
print("not stopped by it")
"""
    command = _script(body)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.stdout == "ready\nnot stopped by it\n"


# --- inside of this process ---------------------------------------------------------------


def _handlers() -> list[object]:
    return [signal.getsignal(number) for number in stopping.SIGNALS]


def test_a_guard_leaves_everything_as_it_was():
    before, hook = _handlers(), sys.unraisablehook
    with stopping.guarded():
        assert _handlers() != before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert stopping.asked()
        with pytest.raises(KeyboardInterrupt):
            stopping.check()
        signal.raise_signal(signal.SIGTERM)  # the end that the first one brought goes on
    assert _handlers() == before
    assert sys.unraisablehook is hook
    assert not stopping.asked()
    stopping.check()
    assert not [t for t in threading.enumerate() if t.name == "wszoo-stop"]


def test_guards_inside_of_guards_and_in_other_threads_do_nothing():
    with stopping.guarded():
        inside = _handlers()
        with stopping.guarded():
            assert _handlers() == inside
        assert _handlers() == inside
    done = []

    def elsewhere() -> None:
        with stopping.guarded(), stopping.noticed():
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done


def test_the_last_way_to_go_on_is_told():
    assert stopping.line() == "stopped; run the same command again"
    with stopping.guarded():
        with stopping.telling(lambda: "outer"):
            with stopping.telling(lambda: "inner"):
                assert stopping.line() == "stopped; inner"
            assert stopping.line() == "stopped; outer"
            with pytest.raises(KeyboardInterrupt), stopping.telling(lambda: "interrupted"):
                raise KeyboardInterrupt
            assert stopping.line() == "stopped; interrupted"
        with stopping.telling(lambda: str(1 / 0)):
            assert stopping.line() == "stopped; run the same command again"


def test_a_lost_ctrl_c_counts_in_the_library_too():
    before = _handlers()
    with stopping.noticed():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stopping.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert _handlers() == before
    stopping.check()


def test_the_library_leaves_the_handlers_of_others_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(True))
    try:
        with stopping.noticed():
            signal.raise_signal(signal.SIGINT)
            stopping.check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [True]
