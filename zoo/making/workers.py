"""Runs tasks beside the main thread, which stays free to write, report and be stopped.

One worker is this process, with one thread or several: the engines compute outside
Python's lock, and nothing has to be sent. Several workers are processes, started fresh
("spawn"), that end when their parent does, even if that is killed.

A fresh process imports the script that started it, which therefore must guard its main code;
`refuse_unguarded` notices one that does not.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from zoo import machine, stopping
from zoo.errors import ZooError

Job = Callable[..., Any]

GUARD = 'put its main code under `if __name__ == "__main__":`'
# Tells a worker whose it is, while it imports the script.
_PARENT = "WSZOO_WORKER_OF"
_UNGUARDED = 77  # exit code
_LOOK_S = 1.0  # between looks at whether to stop
_SERIALISED = ("builtins", "zoo.errors")


def run(
    prepare: Callable[..., Job],
    arguments: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    workers: int,
    threads: int = 1,
    own: Sequence[Any] = (),
) -> Iterator[tuple[int, Any]]:
    """Yield (number of the task, its result) as tasks end, in any order.

    Args:
        prepare: called once in every worker, with `arguments`; gives the function that
            the worker then calls with each task.
        tasks: consumed little by little, a few ahead of the workers.
        workers: 1 is this process, more are processes of their own.
        threads: of this process that call the function at once, if it is the only one.
        own: one more argument of `prepare` for each worker, such as its device; the one
            worker that is this process takes the first.

    Raises:
        ValueError: if the script has several workers and cannot be imported by them.
        ZooError: if a worker process died.
        Exception: whatever the function, or its preparation, raised.
    """
    if workers == 1:
        yield from _in_threads(prepare, (*arguments, *own[:1]), tasks, threads)
    else:
        yield from _in_processes(prepare, arguments, tasks, workers, own)


def _in_threads(
    prepare: Callable[..., Job],
    arguments: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    threads: int,
) -> Iterator[tuple[int, Any]]:
    todo: queue.Queue[tuple[int, tuple[Any, ...]] | None] = queue.Queue()
    done: queue.Queue[tuple[int, Any, BaseException | None]] = queue.Queue()
    closed = threading.Event()

    def work() -> None:
        number = -1
        try:
            job = prepare(*arguments)
            while (task := todo.get()) is not None and not closed.is_set():
                number, given = task
                done.put((number, job(*given), None))
        except BaseException as error:
            done.put((number, None, error))

    numbered = enumerate(tasks)
    # A daemon: a fit under way does not hold up the end of an interrupted process.
    for _ in range(threads):
        threading.Thread(target=work, daemon=True, name="wszoo-fit").start()
    try:
        # One task waits behind those at work, so that no thread idles.
        open_tasks = 0
        for task in islice(numbered, threads + 1):
            todo.put(task)
            open_tasks += 1
        while open_tasks:
            stopping.check()
            try:
                number, result, error = done.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            open_tasks -= 1
            for task in islice(numbered, 1):
                todo.put(task)
                open_tasks += 1
            yield number, result
    finally:
        closed.set()
        for _ in range(threads):
            todo.put(None)


def _in_processes(
    prepare: Callable[..., Job],
    arguments: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    workers: int,
    own: Sequence[Any],
) -> Iterator[tuple[int, Any]]:
    refuse_no_file()
    try:
        context = multiprocessing.get_context("spawn")
        # Workers start alike, so each takes what is its own from a queue.
        queued = context.SimpleQueue()
        for item in own:
            queued.put((item,))
        pool = ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(os.getpid(), prepare, arguments, queued if own else None),
        )
    except (ImportError, NotImplementedError, OSError) as error:
        # What Python itself raises where there are too few semaphores, or no /dev/shm.
        raise ZooError(
            f"worker processes cannot be started here ({error}); fit with one, --workers 1"
        ) from error
    os.environ[_PARENT] = str(os.getpid())
    numbered = enumerate(tasks)
    waiting: dict[Future[Any], int] = {}
    processes: dict[int, Any] = {}
    try:
        while True:
            stopping.check()
            for number, task in islice(numbered, 2 * workers - len(waiting)):
                waiting[pool.submit(_call, task)] = number
            processes |= pool._processes or {}
            if not waiting:
                break
            for future in wait(waiting, _LOOK_S, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise _death(list(processes.values())) from None
    finally:
        os.environ.pop(_PARENT, None)
        # Terminate rather than wait: what they compute is lost anyway.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes.values():
            process.terminate()


def _death(processes: Sequence[Any]) -> Exception:
    """Why a worker died, as an error to be raised."""
    for process in processes:
        process.join(_LOOK_S)
    codes = [process.exitcode for process in processes if process.exitcode]
    if _UNGUARDED in codes:
        script = getattr(sys.modules.get("__main__"), "__file__", "whatever it is")
        return ValueError(
            f"several workers import the script that starts them, {script}: {GUARD}, or use one "
            "worker"
        )
    # The pool ends the other workers by SIGTERM, so that says least.
    code = next((code for code in codes if code != -signal.SIGTERM), None)
    if code is None:
        # A signal to the whole group reaches the workers first.
        time.sleep(0.2)
        stopping.check()
    why = "ended by another process" if code is None else f"exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            why = f"ended by {signal.Signals(-code).name}"
        why += ", often for lack of memory" if -code == getattr(signal, "SIGKILL", 9) else ""
    return ZooError(
        f"a worker process died ({why}); run the same command again to go on, perhaps with fewer "
        "--workers"
    )


def refuse_unguarded() -> None:
    """End this process if it is a worker that just imports the script that started it.

    To be called by what a script would call in its main code; the parent says why.
    """
    importing = getattr(multiprocessing.current_process(), "_inheriting", False)
    if importing and os.environ.get(_PARENT) == str(os.getppid()):
        os._exit(_UNGUARDED)


def refuse_no_file() -> None:
    """ValueError for a script from stdin, which no other process can import."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is not None and getattr(main, "__spec__", None) is None and not os.path.exists(path):
        raise ValueError(
            f"several workers import the script that starts them, and it is no file ({path}): "
            f"save it as one and {GUARD}, or use one worker"
        )


# The prepared function of a worker process; a process has one pool, so one is enough.
_jobs: list[Job] = []


def _start_worker(
    parent: int, prepare: Callable[..., Job], arguments: tuple[Any, ...], queued: Any
) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore", machine.Notice)  # the parent has said it
    own = queued.get() if queued else ()
    try:
        _jobs.append(prepare(*arguments, *own))
    except Exception as error:
        # An error here would end the worker without a word; this way the first task has it.
        failed = _sendable(error)

        def fail(*_: Any) -> Any:
            raise failed

        _jobs.append(fail)


def _call(task: tuple[Any, ...]) -> Any:
    try:
        return _jobs[0](*task)
    except Exception as error:
        raise _sendable(error) from error


def _sendable(error: Exception) -> Exception:
    """The error itself, or one with its words if its class may not survive the way."""
    if type(error).__module__ in _SERIALISED and type(error) is not UnicodeDecodeError:
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent(parent: int) -> None:
    """End this process within a second of its parent's end, however that came."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
