"""Makes a zoo on a Ray cluster: each shard is a task, and this process its driver.

A task fits one shard, writes it under a key of its own in `.build/tasks`, with the note and
the record of it last, and so may be lost or run twice at any moment. Only the driver gives
files their names: it moves a shard there once and keeps its record, so each shard is in the
index exactly once. A driver that was killed leaves records, and tasks that ended unseen:
the next one takes over both. The zoo is that of `zoo.build`, to the byte where the CPUs
are of one kind.

Ray does the scheduling: this hands it a bounded number of tasks, and a task again whose
worker or node was lost.
"""

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from zoo import shards, storage, writing
from zoo.errors import ZooError
from zoo.making import workers
from zoo.making.builder import (
    chunk_size,
    fitter_of,
    gathered,
    join,
    note_file,
    record_file,
    record_of,
    refuse_nothing,
)
from zoo.making.fitting import Fitted, Rows
from zoo.making.plan import Planned, package_versions, plan_zoo, processor, refuse_other
from zoo.making.progress import Progress, Tally
from zoo.objectives import Objective
from zoo.recipes import AnyRecipe
from zoo.shards import File, Index
from zoo.sources import ImageSource, SineSource
from zoo.storage import Folder, Place
from zoo.training import Classification

TASKS = f"{shards.BUILD_FOLDER}/tasks"
RECORD = "record.json"
# A shard whose task was lost so often is given up, and with it the run.
RETRIES = 3
# Shards that the driver moves side by side; in a store each takes some ten requests.
COMMITS = 16
# Seconds between looks at what the cluster offers.
LOOK_S = 10.0
# Versions that the bytes of a fit depend on.
SAME = ("wszoo", "numpy", "numba", "llvmlite", "torch")

Key = tuple[str, int]
Record = dict[str, Any]


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
        if not self.cpus > 0:
            raise ValueError(f"cpus per task must be positive, got {self.cpus}")
        if self.gpus is not None and self.gpus < 0:
            raise ValueError(f"gpus per task must not be negative, got {self.gpus}")
        if self.in_flight is not None and self.in_flight < 1:
            raise ValueError(f"tasks in flight must be at least 1, got {self.in_flight}")


def build_on_cluster(
    recipe: AnyRecipe | str | None,
    source: ImageSource | SineSource | str,
    out: str | Path,
    cluster: Cluster | str = "local",
    *,
    data_root: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    shard_rows: int | None = None,
    engine: str = "auto",
    device: str = "cpu",
    overwrite: bool = False,
    parquet: bool = True,
    dtype: str = "float32",
    progress: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Index:
    """Make the zoo that `build` makes, its shards fitted by tasks of a Ray cluster.

    wszoo has to be installed on all nodes, in the same versions; the source only here.
    Interrupted, it cancels its tasks; the same call goes on.

    Args:
        out: a folder that all nodes see under this path, or a URL such as s3://BUCKET/NAME.
        cluster: or its address.
        progress: called after every shard.
        warn: called with one line about each task that was lost, and all that is damaged.

    The others are those of `build`.

    Raises:
        ValueError: for settings that make no sense, a place that holds something else, or
            if Ray is not installed.
        ZooError: if another driver writes there, the cluster or the store fails, or a shard
            failed too often.
    """
    if isinstance(cluster, str):
        cluster = Cluster(cluster)
    on_gpu = device.partition(":")[0] == "cuda"
    if cluster.gpus is None:
        cluster = replace(cluster, gpus=1.0 if on_gpu else 0.0)
    if on_gpu and device != "cuda":
        raise ValueError(f"device {device!r}: Ray gives each task its GPU, ask for 'cuda'")
    if on_gpu and not cluster.gpus:
        raise ValueError(f"tasks on device {device!r} need a part of a GPU: gpus per task above 0")
    _ray()
    where = storage.place(out)
    planned = plan_zoo(
        recipe,
        source,
        where.name,
        data_root=data_root,
        limit=limit,
        seed=seed,
        shard_rows=shard_rows,
        engine=engine,
        device=device,
        parquet=parquet,
        dtype=dtype,
        elsewhere=True,
    )
    try:
        with where.owned() as check:
            driver = _Driver(where, planned, check, warn or (lambda line: None))
            driver.open(overwrite)
            if driver.whole is not None:
                return driver.whole
            driver.fit(cluster, device, progress or (lambda state: None))
            return driver.finish()
    except OSError as error:
        raise ZooError(writing.disk_message(where, error)) from error


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
    goal: Objective | Classification
    device: str
    threads: int


def _fit_shard(
    job: _Job, key: Key, total: int, name: str, rows: Rows, *more: Any
) -> tuple[Record, str, dict[str, NDArray[Any]]]:
    """Fit a shard and write it under the key `name`.

    Returns:
        Its record, the machine, and the columns that the progress line shows.
    """
    _check_versions(job.index.packages)
    index, plan = job.index, job.index.plan
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
    pieces: dict[int, Fitted] = dict(
        workers.run(fitter_of(job.goal), settings, tasks(), 1, side_by_side, [job.device])
    )
    ordered = [
        (pieces[n].arrays, pieces[n].excluded, processor(job.device)) for n in range(len(starts))
    ]
    with job.where.staged(f"{TASKS}/{name}") as folder:
        note = folder / note_file(*key)
        shard, excluded = join(folder, index, *key, total, ordered, note)
        noted = asdict(shards.describe(folder, note_file(*key))) if shard else None
    record = {
        **record_of(*key, len(rows), shard, excluded), "note": noted, "task": name
    }  # fmt: skip
    job.where.write_json(f"{TASKS}/{name}/{RECORD}", record)
    shown = {
        column: values
        for column, values in ordered[0][0].items()
        if column in ("psnr_db", "test_accuracy")
    }
    return record, _node(), shown


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


class _Driver:
    """One run of `build_on_cluster` in a place that it holds; the methods are its phases.

    Attributes:
        whole: the index, if the zoo was there already.
    """

    def __init__(
        self,
        where: Place,
        planned: Planned,
        check: Callable[[], None],
        warn: Callable[[str], None],
    ):
        self.where = where
        self.planned = planned
        self.check = check
        self.warn = warn
        self.records: dict[Key, Record] = {}
        self.whole: Index | None = None

    # -- opening: what is there already -------------------------------------------------

    def open(self, overwrite: bool) -> None:
        """Take over what an earlier run left, or refuse it."""
        sizes = self.where.sizes()
        theirs = {name.partition("/")[0] for name in sizes}
        theirs = {name for name in theirs if not name.startswith(shards.LOCK_FILE)}
        if theirs and not theirs & {shards.INDEX_FILE, shards.BUILD_FOLDER}:
            raise ValueError(
                f"{self.where} is not empty and not a zoo ({min(theirs)!r} lies there); choose "
                "another --out"
            )
        plan = f"{shards.BUILD_FOLDER}/{shards.PLAN_FILE}"
        if overwrite or not (shards.INDEX_FILE in sizes or plan in sizes):
            if theirs:
                # Tells the next run that this was a zoo, if the removal is cut.
                self.where.write(f"{shards.BUILD_FOLDER}/overwriting", b"")
                for name in writing.OURS:
                    self.where.remove(name)
            self.where.write_json(plan, self.planned.to_json())
            return
        if shards.INDEX_FILE in sizes:
            found = Index.from_json(self.where.read_json(shards.INDEX_FILE))
            refuse_other(self.where, self.planned.index, found.to_json())
            wrong = [line for file in found.files if (line := self.where.check(file, sizes))]
            if not wrong and "README.md" in sizes:
                self.whole = found
                return
            for line in wrong or [f"{self.where}/README.md is missing"]:
                self.warn(f"{line}; making it again")
            self.where.write_json(plan, self.planned.to_json())
            self._disperse(found)
            self.where.remove(shards.INDEX_FILE)
            sizes = self.where.sizes()
        refuse_other(self.where, self.planned.index, self.where.read_json(plan))
        self._take_records(sizes)
        self._take_tasks(sizes)
        self.where.remove(TASKS)

    def _disperse(self, found: Index) -> None:
        """Write the records of a finished zoo, whose index is to go."""
        made = {(s.split, int(Path(s.file).name.split("-")[1])): s for s in found.shards}
        for key, rows in self.planned.parts.items():
            keys = set(zip(rows.index.tolist(), rows.view.tolist(), strict=True))
            lost = [
                asdict(row)
                for row in found.excluded
                if row.split == key[0] and (row.index, row.view) in keys
            ]
            record = record_of(*key, len(rows), made.get(key), lost)
            self.where.write_json(record_file(*key), record)

    def _take_records(self, sizes: dict[str, int]) -> None:
        """The shards that are finished and whole."""
        keys = [key for key in self.planned.parts if record_file(*key) in sizes]
        contents = self.where.read([record_file(*key) for key in keys])
        for key, content in zip(keys, contents, strict=True):
            record = _record(content)
            if record is None or record["planned"] != len(self.planned.parts[key]):
                self.warn(f"{self.where}/{record_file(*key)} is damaged; making it again")
            elif wrong := self._wrong(record, sizes):
                self.warn(f"{wrong}; making it again")
            else:
                self.records[key] = record
                continue
            self.where.remove(record_file(*key))

    def _wrong(self, record: Record, sizes: dict[str, int]) -> str | None:
        lines = [self.where.check(file, sizes) for file in _files(record)]
        return next((line for line in lines if line), None)

    def _take_tasks(self, sizes: dict[str, int]) -> None:
        """Shards of tasks that ended when there was no driver any more to name them."""
        names = [name for name in sizes if name.startswith(TASKS) and name.endswith(f"/{RECORD}")]
        for content in self.where.read(names):
            record = _record(content)
            if record is None:
                continue
            key = record["split"], record["number"]
            planned = self.planned.parts.get(key, ())
            if key in self.records or record["planned"] != len(planned):
                continue
            left = []
            for file in _files(record, note=True):
                there = replace(file, file=f"{TASKS}/{record['task']}/{file.file}")
                # A driver that was killed amid its moves left some of them.
                if there.file in sizes:
                    left.append(self.where.check(there, sizes))
                else:
                    left.append(self.where.check(file, sizes))
            if not any(left):
                self._commit(record, sizes)

    def _commit(self, record: Record, sizes: dict[str, int] | None = None) -> None:
        """Give a shard its name and keep its record; `sizes` tells what still lies there."""
        key = record["split"], record["number"]
        if key in self.records:
            return
        task = f"{TASKS}/{record['task']}"
        for file in _files(record, note=True):
            if sizes is None or f"{task}/{file.file}" in sizes:
                self.where.move(f"{task}/{file.file}", file.file)
        kept = {name: value for name, value in record.items() if name != "task"}
        self.where.write_json(record_file(*key), kept)
        self.records[key] = kept
        self.where.remove(task)

    # -- fitting ------------------------------------------------------------------------

    def fit(self, cluster: Cluster, device: str, progress: Callable[[Progress], None]) -> None:
        """Have every shard fitted that has no record."""
        planned = self.planned
        tally = Tally(planned.units * planned.unit_rows, progress)
        for record in self.records.values():
            tally.add(record["planned"] * planned.unit_rows, None)
        todo = deque(key for key in planned.parts if key not in self.records)
        if not todo:
            return
        joined = _ray().is_initialized()
        with _connected(cluster) as ray, ThreadPoolExecutor(COMMITS) as pool:
            threads = max(1, int(cluster.cpus))
            job = ray.put(_Job(self.where, planned.index, planned.goal, device, threads))
            task = ray.remote(_fit_shard).options(
                num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0
            )
            room = _Room(ray, cluster, self.warn)
            waiting: dict[Any, Key] = {}
            lost: Counter[Key] = Counter()
            given_up = ""
            try:
                while waiting or (todo and not given_up):
                    while todo and not given_up and len(waiting) < room.size():
                        key = todo.popleft()
                        name = f"{key[0]}-{key[1]:05d}-{uuid.uuid4().hex[:12]}"
                        rows, *more = planned.task(planned.parts[key])
                        total = planned.totals[key[0]]
                        waiting[task.remote(job, key, total, name, rows, *more)] = key
                    ready, _ = ray.wait(list(waiting), timeout=1.0)
                    if ready:  # and what else is there by now
                        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
                    self.check()
                    done = []
                    for ref in ready:
                        key = waiting.pop(ref)
                        try:
                            done.append(ray.get(ref))
                        except ray.exceptions.RayError as error:
                            lost[key] += 1
                            tally.failures += 1
                            what = f"shard {key[0]} {key[1]}: {_reason(error)}"
                            if lost[key] > cluster.retries:
                                given_up = given_up or what
                                continue
                            self.warn(f"{what}; run again ({lost[key]} of {cluster.retries})")
                            todo.appendleft(key)
                    list(pool.map(self._commit, [record for record, _, _ in done]))
                    for record, node, shown in done:
                        rows = record["planned"] * planned.unit_rows
                        tally.nodes[node] = tally.nodes.get(node, 0) + rows
                        tally.add(rows, Fitted(shown, []))
            finally:
                # Only a run that was cut leaves tasks; they hold nothing that is needed, and
                # Ray ends them with their connection. Cancelling one that ends just now may
                # abort this process (a race like ray-project/ray#54785), so it is done only where
                # the connection was there before and stays.
                for ref in waiting if joined else ():
                    with contextlib.suppress(Exception):
                        ray.cancel(ref, force=True)
        if given_up:
            raise ZooError(
                f"{given_up}; given up after {cluster.retries + 1} tries. What is finished is "
                "kept: run the same command again to go on"
            )

    # -- finishing ----------------------------------------------------------------------

    def finish(self) -> Index:
        """Statistics, card and index, from the notes of the shards."""
        planned = self.planned
        made, excluded = gathered([self.records[key] for key in planned.parts])
        refuse_nothing(self.where, made, excluded)
        self.check()
        if isinstance(self.where, Folder):
            return writing.finish(
                self.where.path, planned.index, made, excluded, planned.samples, self._notes()
            )
        with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
            folder = Path(scratch)
            last = made[-1].split
            first = next(shard for shard in made if shard.split == last)
            (folder / first.file).parent.mkdir()
            self.where.fetch(first.file, folder / first.file)
            index = writing.finish(
                folder, planned.index, made, excluded, planned.samples, self._notes()
            )
            (folder / first.file).unlink()
            texts = sorted(path for path in folder.rglob("*") if path.is_file())
            texts.sort(key=lambda path: path.name == shards.INDEX_FILE)
            self.check()
            for path in texts:
                self.where.write(path.relative_to(folder).as_posix(), path.read_bytes())
        self.where.remove(shards.BUILD_FOLDER)
        return index

    def _notes(self) -> Iterator[writing.Arrays]:
        """The note of each shard that has rows; of one without, made again from the shard."""
        there = self.where.sizes(f"{shards.BUILD_FOLDER}/notes")
        keys = [key for key in self.planned.parts if self.records[key]["shard"]]
        contents = self.where.read([note_file(*key) for key in keys if note_file(*key) in there])
        for key in keys:
            if note_file(*key) in there:
                yield safetensors.numpy.load(next(contents))
                continue
            with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
                path = Path(scratch, "shard")
                self.where.fetch(self.records[key]["shard"]["file"], path)
                arrays = shards.read_tensors(path)
            yield writing.note_of(self.planned.index, key[0], arrays)


def _record(content: bytes) -> Record | None:
    """A record as it was written, or None."""
    with contextlib.suppress(ValueError):
        plain = json.loads(content)
        if isinstance(plain, dict) and {"split", "number", "planned", "shard"} <= set(plain):
            return plain
    return None


def _files(record: Record, note: bool = False) -> list[File]:
    """The files of a record's shard."""
    shard = shards.shard_from_json(record["shard"]) if record["shard"] else None
    found: list[File] = []
    if shard is not None:
        found.append(File(shard.file, shard.bytes, shard.sha256))
        found += [shard.parquet] if shard.parquet else []
        found += [File(**record["note"])] if note and record.get("note") else []
    return found


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
