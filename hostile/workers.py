"""Runs numbered cases in processes that are watched: memory, time and death are results too.

A case is decided by the seed and its number, whichever process runs it. A worker is a fork
of the process that made the material, with an address space of 1 GB beyond what it has; a
clock raises `Hang` in it after 10 s, and the parent kills one that does not even hear that.
"""

import mmap
import os
import resource
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

HANG_SECONDS = 10
DEAF_SECONDS = 30
MEMORY_BYTES = 1 << 30


class Hang(BaseException):
    """A case took longer than `HANG_SECONDS`."""


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        outcome: a short word that is counted, such as "refused".
        kind: of damage.
        fault: what is wrong with that outcome, or None; one line.
        where: what faults are grouped by.
    """

    outcome: str
    kind: str
    fault: str | None = None
    where: str = ""


@dataclass
class Tally:
    """The counts of a target, and its faults by where they are."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, number: int, result: Result) -> None:
        """Count a case."""
        self.cases += 1
        self.outcomes[result.outcome] += 1
        self.kinds[result.kind] += 1
        if result.fault is not None:
            self.faults.setdefault(result.where, []).append((number, result.fault))


# A case by number; what it does with the material is restored by the next one.
Case = Callable[[int], Result]


@contextmanager
def clock(seconds: float = HANG_SECONDS) -> Iterator[None]:
    """`Hang` in this process after so many seconds; again every second, if it is swallowed."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory(more: int = MEMORY_BYTES) -> None:
    """Let this process have so many bytes of addresses beyond those that it has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (size + more, resource.RLIM_INFINITY))


def where_of(error: BaseException) -> str:
    """Type and innermost place of ours of an exception, which faults are grouped by."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(f"/{p}/" in f.filename for p in ("zoo", "processors", "cli"))]
    frame = (ours or frames)[-1] if frames else None
    place = f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}" if frame else "?"
    return f"{type(error).__name__} at {place}"


class Workers:
    """Processes that run the cases of one target until told to stop.

    Args:
        prepare: called in each worker; gives the function that runs a case.
        count: how many processes.
        deaf_seconds: after which a case whose process does not hear its clock is killed.
        more_memory: addresses, in bytes, that a worker may have beyond those of its material.
    """

    def __init__(
        self, prepare: Callable[[], Case], count: int, deaf_seconds: float = DEAF_SECONDS,
        more_memory: int = MEMORY_BYTES,
    ):  # fmt: skip
        self.prepare, self.count = prepare, count
        self.deaf_seconds, self.more_memory = deaf_seconds, more_memory

    def run(self, first: int, stop: int, seconds: float, tally: Tally) -> int:
        """Run the cases from `first` to `stop`, or for so many seconds once prepared.

        Returns:
            The number of the first case that was not handed out.
        """
        began = time.monotonic()
        context = get_context("fork")
        # Case under way and when it began, one pair a worker; the next case to hand out.
        shared = mmap.mmap(-1, 16 * self.count + 8)
        lock = context.Lock()
        struct.pack_into("q", shared, 16 * self.count, first)
        results, sender = context.Pipe(duplex=False)
        writing = context.Lock()
        live: dict[int, Any] = {}

        def start(slot: int) -> None:
            struct.pack_into("qd", shared, 16 * slot, -1, time.monotonic())
            live[slot] = context.Process(
                target=self._work,
                args=(slot, shared, lock, stop, seconds, sender, writing),
                daemon=True,
            )
            live[slot].start()

        for slot in range(self.count):
            start(slot)
        while live:
            while results.poll(0.2):
                number, result = results.recv()
                tally.add(number, result)
            for slot, process in list(live.items()):
                number, since = struct.unpack_from("qd", shared, 16 * slot)
                deaf = number >= 0 and time.monotonic() - since > self.deaf_seconds
                if deaf:
                    process.kill()
                    process.join()
                elif process.is_alive():
                    continue
                del live[slot]
                # One that dies holds no lock: it is in a case.
                if number >= 0:
                    what = "hang" if deaf else "crash"
                    line = f"no answer for {self.deaf_seconds:g} s" if deaf else (
                        f"the process died (exit {process.exitcode})"
                    )  # fmt: skip
                    tally.add(number, Result(what, "unknown", line, what))
                    start(slot)
                elif process.exitcode:
                    raise RuntimeError(f"a worker died outside of a case (exit {process.exitcode})")
        while results.poll(0):
            tally.add(*results.recv())
        tally.seconds += time.monotonic() - began
        (reached,) = struct.unpack_from("q", shared, 16 * self.count)
        return min(reached, stop)

    def _work(
        self,
        slot: int,
        shared: Any,
        lock: Any,
        stop: int,
        seconds: float,
        sender: Any,
        writing: Any,
    ) -> None:
        case = self.prepare()
        limit_memory(self.more_memory)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with lock:
                (number,) = struct.unpack_from("q", shared, 16 * self.count)
                if number >= stop:
                    break
                struct.pack_into("q", shared, 16 * self.count, number + 1)
            struct.pack_into("qd", shared, 16 * slot, number, time.monotonic())
            try:
                result = case(number)
            except BaseException as error:  # of the harness itself
                traceback.print_exc()
                result = Result(
                    "harness", "unknown", f"{error!r:.200}", f"harness {where_of(error)}"
                )
            struct.pack_into("qd", shared, 16 * slot, -1, time.monotonic())
            with writing:
                sender.send((number, result))
        os._exit(0)
