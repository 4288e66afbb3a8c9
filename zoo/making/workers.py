"""Runs tasks beside the main thread, which stays free to write, report and be stopped.

One worker is this process, with one thread or several: the engines compute outside
Python's lock, and nothing has to be sent. Several workers are processes, started fresh
("spawn"), that end when their parent does, even if that is killed.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from zoo.errors import ZooError

Job = Callable[..., Any]


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
        ZooError: if a worker process died.
        Exception: whatever the function raised.
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
            number, result, error = done.get()
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
    numbered = enumerate(tasks)
    waiting: dict[Future[Any], int] = {}
    try:
        while True:
            for number, task in islice(numbered, 2 * workers - len(waiting)):
                waiting[pool.submit(_call, task)] = number
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise ZooError(
            "a worker process died (killed, or out of memory?); run the same command again to "
            "go on, perhaps with fewer --workers"
        ) from None
    finally:
        # Terminate rather than wait: what they compute is lost anyway.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


# The prepared function of a worker process; a process has one pool, so one is enough.
_jobs: list[Job] = []


def _start_worker(
    parent: int, prepare: Callable[..., Job], arguments: tuple[Any, ...], queued: Any
) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    own = queued.get() if queued else ()
    _jobs.append(prepare(*arguments, *own))


def _call(task: tuple[Any, ...]) -> Any:
    return _jobs[0](*task)


def _end_with_parent(parent: int) -> None:
    """End this process within a second of its parent's end, however that came."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
