"""Fits the shards of a site on a Ray cluster: each is a task, and this process its driver.

A task fits one shard, writes it under a key of its own in `.build/tasks`, with the note and
the record of it last, and so may be lost or run twice at any moment. Only the driver gives
files their names: it moves a shard there once and keeps its record, so each shard is in the
index exactly once. A driver that was killed leaves records, and tasks that ended unseen:
the next one takes over both, as every maker of zoos does.

Ray does the scheduling: this hands it a bounded number of tasks, and a task again whose
worker or node was lost.
"""

import contextlib
import os
import signal
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import stopping
from zoo.errors import ZooError
from zoo.kinds import Goal
from zoo.making import workers
from zoo.making.chunks import Fitter, chunk_size
from zoo.making.fitting import Fitted, Rows
from zoo.making.plan import Key, Planned, package_versions, processor
from zoo.making.progress import Progress, Tally
from zoo.making.site import TASK_RECORD, TASKS, Record, Site, Slot, slot_of, write
from zoo.recipes import MEASURES
from zoo.shards import Index
from zoo.storage import Place
from zoo.writing import Items

# A shard whose task was lost so often is given up, and with it the run.
RETRIES = 3
# Shards that the driver moves side by side; in a store each takes some ten requests.
COMMITS = 16
# Seconds between looks at what the cluster offers.
LOOK_S = 10.0
# Versions that the bytes of a fit depend on.
SAME = ("wszoo", "numpy", "numba", "llvmlite", "torch")


@dataclass(frozen=True)
class Cluster:
    """Where the tasks run, and what each asks for.

    Attributes:
        address: "local" starts Ray on this machine, "auto" finds the cluster that this
            machine is part of (or $RAY_ADDRESS names), "ray://HOST:10001" is another one.
        cpus: cores of a task, which its engine uses as threads.
        gpus: of a task; fractions share one. None is 1 for a device "cuda", else 0.
        in_flight: tasks handed to Ray at most; None is twice what fits into the cluster.
        retries: how often a shard is run again whose task was lost.
    """

    address: str = "local"
    cpus: float = 1.0
    gpus: float | None = None
    in_flight: int | None = None
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if self.address not in ("local", "auto") and not self.address.startswith("ray://"):
            raise ValueError(
                f"unknown cluster {self.address!r}; expected local, auto or ray://HOST:PORT"
            )
        if not (isfinite(self.cpus) and self.cpus > 0):
            raise ValueError(f"cpus per task must be positive, got {self.cpus}")
        if self.gpus is not None and not (isfinite(self.gpus) and self.gpus >= 0):
            raise ValueError(f"gpus per task must not be negative, got {self.gpus}")
        if self.in_flight is not None and self.in_flight < 1:
            raise ValueError(f"tasks in flight must be at least 1, got {self.in_flight}")


def checked(cluster: Cluster | str, device: str, workers: int, part: str | None) -> Cluster:
    """The cluster that tasks run on, its GPUs known.

    Raises:
        ValueError: for settings that contradict each other, or if Ray is not installed.
    """
    if isinstance(cluster, str):
        cluster = Cluster(cluster)
    if workers != 1 or part is not None:
        name = "--shards" if part is not None else "--workers"
        raise ValueError(f"{name} is for a fit without --cluster")
    on_gpu = device.partition(":")[0] == "cuda"
    if cluster.gpus is None:
        cluster = replace(cluster, gpus=1.0 if on_gpu else 0.0)
    if on_gpu and device != "cuda":
        raise ValueError(f"device {device!r}: Ray gives each task its GPU, ask for 'cuda'")
    if on_gpu and not cluster.gpus:
        raise ValueError(f"tasks on device {device!r} need a part of a GPU: gpus per task above 0")
    _ray()
    return cluster


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("--cluster needs Ray: pip install 'wszoo[ray]'") from None
    return ray


# ---- what runs on the nodes


@dataclass(frozen=True)
class _Job:
    """What all tasks of a run share; it goes to each node once."""

    where: Place
    index: Index
    goal: Goal
    device: str
    threads: int


def _fit_shard(
    job: _Job, slot: Slot, name: str, rows: Rows, *more: Any
) -> tuple[Record, str, dict[str, NDArray[Any]]]:
    """Fit a shard and write it under the key `name`.

    Returns:
        Its record, the machine, and the columns that the progress line shows.
    """
    _check_versions(job.index.packages)
    plan = job.index.plan
    size, side_by_side = chunk_size(job.goal, plan["engine"], job.device, job.threads)
    starts = range(0, len(rows), size)

    def tasks() -> Iterator[tuple[Any, ...]]:
        for start in starts:
            part = slice(start, start + size)
            raw = [
                {k: v[part] for k, v in each.items()} if isinstance(each, dict) else each[part]
                for each in more
            ]
            yield rows[part], *raw

    settings = (job.goal, plan["seed"], plan["engine"], job.threads)
    fitted: dict[int, Fitted] = dict(
        workers.run(Fitter, settings, tasks(), 1, side_by_side, [job.device])
    )
    machine = processor(job.device)
    pieces = [(fitted[n].arrays, fitted[n].excluded, machine) for n in range(len(starts))]
    with job.where.staged(f"{TASKS}/{name}") as folder:
        record = write(folder, job.index, slot, pieces, _items_of(rows, more))
    job.where.write_json(f"{TASKS}/{name}/{TASK_RECORD}", record.to_json())
    arrays, names = pieces[0][0], [measure.column for measure in MEASURES]
    shown = {name: arrays[name] for name in names if name in arrays}
    return record, _node(), shown


def _items_of(rows: Rows, more: Sequence[Any]) -> Items | None:
    """What the source has at the positions of these rows, of what came with them."""
    if not more:
        return None
    return lambda index: more[0][np.searchsorted(rows.index, index)]


def _check_versions(theirs: dict[str, str]) -> None:
    here = package_versions()
    for name in SAME:
        if here.get(name) != theirs.get(name):
            raise ZooError(
                f"{_node()} has {name} {here.get(name)}, the driver {theirs.get(name)}: the same "
                "versions are needed everywhere"
            )


def _node() -> str:
    """The address of this machine, and enough of Ray's name of the node to tell two apart."""
    ray = _ray()
    name = ray.get_runtime_context().get_node_id()[:4]
    return f"{ray.util.get_node_ip_address()}/{name}"


# ---- what runs here


def fit_on_cluster(
    site: Site,
    planned: Planned,
    cluster: Cluster,
    device: str,
    progress: Callable[[Progress], None],
) -> None:
    """Have every shard of an open site fitted that has no record.

    Raises:
        ZooError: if the cluster or the store fails, the place was lost to another driver,
            or a shard failed too often.
    """
    tally = Tally(planned.units * planned.unit_rows, progress)
    for record in site.records.values():
        tally.add(record.planned * planned.unit_rows, None)
    if not site.missing:
        return
    joined = _ray().is_initialized()
    with _connected(cluster) as ray, ThreadPoolExecutor(COMMITS) as pool:
        driver = _Driver(ray, site, planned, cluster, device, tally)
        try:
            driver.run(pool)
        finally:
            # Only a run that was cut leaves tasks; they hold nothing that is needed, and
            # Ray ends them with their connection. Cancelling one that ends just now may
            # abort this process (a race like ray-project/ray#54785), so it is done only where
            # the connection was there before and stays.
            if joined:
                driver.cancel()


class _Driver:
    """Hands tasks to Ray, a few more than it can start, and takes what they made."""

    def __init__(
        self,
        ray: Any,
        site: Site,
        planned: Planned,
        cluster: Cluster,
        device: str,
        tally: Tally,
    ):
        self.ray, self.site, self.planned, self.cluster = ray, site, planned, cluster
        self.tally = tally
        threads = max(1, int(cluster.cpus))
        # The site's, since what went on there may have another view.
        self.job = ray.put(_Job(site.where, site.plan.index, planned.goal, device, threads))
        self.task = ray.remote(_fit_shard).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0
        )
        self.room = _Room(ray, cluster, site.warn)
        self.todo = deque(site.missing)
        self.waiting: dict[Any, tuple[Key, str]] = {}
        self.lost: Counter[Key] = Counter()
        self.given_up = ""

    def run(self, pool: ThreadPoolExecutor) -> None:
        """Until every shard has its record."""
        while self.waiting or (self.todo and not self.given_up):
            self._hand_out()
            ready, _ = self.ray.wait(list(self.waiting), timeout=1.0)
            if ready:  # and what else is there by now
                every = len(self.waiting)
                ready, _ = self.ray.wait(list(self.waiting), num_returns=every, timeout=0)
            stopping.check()
            self.site.check()
            done = [found for ref in ready if (found := self._result(ref)) is not None]
            list(pool.map(lambda made: self.site.take(made[0], made[3]), done))
            for record, node, shown, _ in done:
                rows = record.planned * self.planned.unit_rows
                self.tally.nodes[node] = self.tally.nodes.get(node, 0) + rows
                self.tally.add(rows, Fitted(shown, []))
        if self.given_up:
            raise ZooError(
                f"{self.given_up}; given up after {self.cluster.retries + 1} tries. What is "
                "finished is kept: run the same command again to go on"
            )

    def _hand_out(self) -> None:
        while self.todo and not self.given_up and len(self.waiting) < self.room.size():
            key = self.todo.popleft()
            name = f"{key[0]}-{key[1]:05d}-{uuid.uuid4().hex[:12]}"
            given = self.planned.task(self.planned.parts[key])
            ref = self.task.remote(self.job, slot_of(self.planned, key), name, *given)
            self.waiting[ref] = key, name

    def _result(self, ref: Any) -> tuple[Record, str, dict[str, NDArray[Any]], str] | None:
        """What a task made and the name it wrote it under; None if it was lost."""
        key, name = self.waiting.pop(ref)
        try:
            return (*self.ray.get(ref), name)
        except self.ray.exceptions.RayError as error:
            self.lost[key] += 1
            self.tally.failures += 1
            what = f"shard {key[0]} {key[1]}: {_reason(error)}"
        if self.lost[key] > self.cluster.retries:
            self.given_up = self.given_up or what
        else:
            self.site.warn(f"{what}; run again ({self.lost[key]} of {self.cluster.retries})")
            self.todo.appendleft(key)
        return None

    def cancel(self) -> None:
        """End the tasks that are under way."""
        for ref in self.waiting:
            with contextlib.suppress(Exception):
                self.ray.cancel(ref, force=True)


# ---- talking to Ray


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected; a connection that this process had before is used and left."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address == "local":
        quiet["include_dashboard"] = False
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says it too
            ray.init(address=cluster.address, **quiet)
    except ImportError as error:
        raise ValueError(
            f"{cluster.address} needs Ray's client: pip install 'wszoo[ray]' ({error})"
        ) from error
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        what = " ".join(str(error).split())[:200]
        raise ZooError(
            f"no Ray cluster answers at {cluster.address!r} ({what}); start one with `ray start "
            "--head`, or let --cluster local start one here"
        ) from error
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the process at once
    try:
        yield ray
    finally:
        ray.shutdown()


class _Room:
    """How many tasks are handed to Ray at once: a few more than it can start."""

    def __init__(self, ray: Any, cluster: Cluster, warn: Callable[[str], None]):
        self.ray, self.cluster, self.warn = ray, cluster, warn
        self.looked = -LOOK_S
        self.found = 1
        self.warned = False

    def size(self) -> int:
        """Tasks in flight at most; follows a cluster that grows and shrinks."""
        if time.monotonic() - self.looked >= LOOK_S:
            self.looked = time.monotonic()
            slots = _slots([n["Resources"] for n in self.ray.nodes() if n["Alive"]], self.cluster)
            if not slots and not self.warned:
                self.warned = True
                self._explain()
            self.found = self.cluster.in_flight or max(1, 2 * slots)
        return self.found

    def _explain(self) -> None:
        wants = f"{self.cluster.cpus:g} CPUs and {self.cluster.gpus or 0:g} GPUs"
        line = f"no node of the cluster has the {wants} that a task asks for"
        if self.cluster.address == "local":
            raise ValueError(f"{line}; ask for less by --cpus-per-task or --gpus-per-task")
        self.warn(f"{line}; waiting for one that has")


def _slots(nodes: Sequence[dict[str, float]], cluster: Cluster) -> int:
    """Tasks that run at once on nodes with these resources.

    >>> _slots([{"CPU": 4.0}, {"CPU": 3.0, "GPU": 1.0}], Cluster(cpus=2))
    3
    >>> _slots([{"CPU": 4.0}, {"CPU": 3.0, "GPU": 1.0}], Cluster(cpus=1, gpus=0.5))
    2
    """
    count = 0
    for has in nodes:
        fits = int(has.get("CPU", 0.0) / cluster.cpus)
        if cluster.gpus:
            fits = min(fits, int(has.get("GPU", 0.0) / cluster.gpus))
        count += fits
    return count


def _reason(error: Exception) -> str:
    """One line about why a task was lost."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        words = " ".join(str(cause).split())
        return words if isinstance(cause, ZooError) else f"{type(cause).__name__}: {words}"
    names = {
        "NodeDiedError": "its node died",
        "WorkerCrashedError": "its worker process died",
        "OutOfMemoryError": "its node ran out of memory",
        "LocalRayletDiedError": "its node died",
    }
    kind = type(error).__name__
    return names.get(kind, f"{kind}: {' '.join(str(error).split())[:200]}")
