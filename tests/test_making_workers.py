"""Tasks run in a thread or in processes alike, and nothing outlives the one who asked."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.making import workers

MODES = pytest.mark.parametrize("count", [1, 2], ids=["thread", "processes"])


# What runs in workers stands at the top of the module, where they can import it.
def prepare(offset: int, fail_at: int = -1):
    def job(value: int) -> int:
        if value == fail_at:
            raise ArithmeticError(f"task {value}")
        return offset + value**2

    return job


def prepare_badly():
    raise ValueError("no such device")


class Odd(Exception):
    """One that cannot be sent: it is made of two arguments, and keeps one."""

    def __init__(self, first, second):
        super().__init__(f"task {first} and {second}")


def prepare_oddly():
    def job(value: int) -> None:
        raise Odd(value, 2)

    return job


def prepare_to_die(fatal: int):
    def job(value: int) -> int:
        if value == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    return job


def prepare_slow():
    return lambda value: time.sleep(0 if value == 0 else 30)


def prepare_own(shared: str, own: str):
    def job() -> str:
        time.sleep(0.05)  # so that both workers get tasks
        return shared + own

    return job


def prepare_pid():
    return os.getpid


@MODES
def test_every_result_comes_once_with_its_number(count):
    found = list(workers.run(prepare, (100,), ((value,) for value in range(5, 15)), count))
    assert len(found) == 10
    assert dict(found) == {number: 100 + (number + 5) ** 2 for number in range(10)}


@MODES
def test_no_tasks_no_results(count):
    assert list(workers.run(prepare, (0,), [], count)) == []


def test_one_worker_is_this_process_and_more_are_others():
    assert [pid for _, pid in workers.run(prepare_pid, (), [()] * 3, 1)] == [os.getpid()] * 3
    assert os.getpid() not in {pid for _, pid in workers.run(prepare_pid, (), [()] * 3, 2)}


def test_workers_have_arguments_of_their_own():
    found = workers.run(prepare_own, ("cuda:",), [()] * 20, 2, own=["0", "1"])
    assert {text for _, text in found} == {"cuda:0", "cuda:1"}
    alone = workers.run(prepare_own, ("cuda:",), [()] * 2, 1, own=["0"])
    assert {text for _, text in alone} == {"cuda:0"}


@MODES
def test_a_task_that_raises_raises_here(count):
    found = []
    with pytest.raises(ArithmeticError, match="task 3"):
        found.extend(workers.run(prepare, (0, 3), ((value,) for value in range(20)), count))


@MODES
def test_a_worker_that_cannot_start_raises_here(count):
    with pytest.raises(ValueError, match="no such device"):
        list(workers.run(prepare_badly, (), [(1,)], count))


@MODES
def test_an_error_of_any_class_is_told(count):
    with pytest.raises((Odd, RuntimeError), match="task 1 and 2"):
        list(workers.run(prepare_oddly, (), [(1,)], count))


@MODES
def test_tasks_that_cannot_be_made_raise_here(count):
    def tasks():
        yield (1,)
        yield (2,)
        raise LookupError("no more pictures")

    with pytest.raises(LookupError, match="no more pictures"):
        list(workers.run(prepare, (0,), tasks(), count))


def test_a_killed_worker_is_one_line():
    line = r"^a worker process died \(ended by SIGKILL, often for lack of memory\); .*--workers$"
    with pytest.raises(ZooError, match=line):
        list(workers.run(prepare_to_die, (3,), ((value,) for value in range(10)), 2))


def test_a_machine_without_semaphores_is_told_so(monkeypatch):
    def context(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(multiprocessing, "get_context", context)
    with pytest.raises(ZooError, match=r"cannot be started here .*; fit with one, --workers 1"):
        list(workers.run(prepare, (0,), [(1,)], 2))


@MODES
def test_tasks_are_taken_a_few_ahead(count):
    taken = 0

    def tasks():
        nonlocal taken
        for value in range(1000):
            taken += 1
            yield (value,)

    results = workers.run(prepare, (0,), tasks(), count)
    for done in range(1, 11):
        next(results)
        # Those that are done, those at work, and one that waits behind each of these.
        assert taken <= done + 2 * count
    results.close()
    assert taken < 1000


def test_workers_end_when_the_results_are_not_wanted_any_more():
    results = workers.run(prepare_slow, (), ((value,) for value in range(1000)), 2)
    next(results)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not multiprocessing.active_children()


SCRIPT = """
import time

from zoo.making import workers


def prepare():
    return work


def work(value):
    time.sleep(0 if value < 2 else 60)
    return value


if __name__ == "__main__":
    for number, _ in workers.run(prepare, (), ((value,) for value in range(10)), 2):
        print(number, flush=True)
"""


def test_workers_die_with_a_killed_parent(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[1]
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
        start_new_session=True,
    )
    try:
        # Two results are there, so both workers are up and at work for a minute.
        assert {parent.stdout.readline() for _ in range(2)} == {"0\n", "1\n"}
        killed = time.monotonic()
        parent.send_signal(signal.SIGKILL)
        # Workers hold the pipe too: it ends when the last of them has.
        assert parent.communicate(timeout=10)[0] == ""
        assert time.monotonic() - killed < 3
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


# --- scripts that cannot be imported ------------------------------------------------------

UNGUARDED = """
import sys
import zoo

zoo.build("dws", "digits", sys.argv[1], limit=8, workers=2)
print("done")
"""


def _run(words: list[str], text: str | None = None) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, *words],
        input=text,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
        timeout=300,
        check=False,
    )


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = _run([str(script), str(tmp_path / "zoo")])
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        f"ValueError: several workers import the script that starts them, {script}: put its main "
        'code under `if __name__ == "__main__":`, or use one worker'
    )
    assert done.stderr.count("Traceback") == 1  # the workers are silent


def test_a_script_from_stdin_is_told_so_before_anything_is_written(tmp_path):
    done = _run(["-", str(tmp_path / "zoo")], UNGUARDED)
    assert done.returncode == 1
    assert "ValueError: several workers import the script" in done.stderr
    assert "it is no file (<stdin>): save it as one and put its main code" in done.stderr
    assert not (tmp_path / "zoo").exists()


def test_scripts_that_are_no_file_may_have_one_worker_and_guarded_ones_several(tmp_path):
    one = UNGUARDED.replace("workers=2", "workers=1, threads=1")
    assert _run(["-", str(tmp_path / "one")], one).stdout == "done\n"
    script = tmp_path / "script.py"
    lines = UNGUARDED.replace("zoo.build", 'if __name__ == "__main__":\n    zoo.build')
    script.write_text(lines.replace("print", "    print"))
    done = _run([str(script), str(tmp_path / "two")])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
