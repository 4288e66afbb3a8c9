"""Shards as tasks of a real Ray cluster: the same bytes, whatever dies on the way."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import line_of, run
from local_hub import Hub
from local_s3 import missing, running

import zoo
from zoo import shards, storage
from zoo.errors import ZooError
from zoo.making import cluster, plan, site
from zoo.making.builder import build, build_on_cluster
from zoo.making.cluster import Cluster
from zoo.making.plan import Settings, plan_zoo
from zoo.making.progress import Progress
from zoo.recipes import ImageRecipe, recipe

lacking = missing("ray", "moto.server", "s3fs")
needs_ray = pytest.mark.skipif(bool(lacking), reason=f"needs a Ray cluster to test: no {lacking}")

STEPS = 4000  # a shard takes about a second
SETTINGS: dict[str, Any] = {"limit": 100, "shard_rows": 12}
SHARDS = 9  # seven of train, one each of the others


@pytest.fixture(scope="module")
def slow() -> ImageRecipe:
    chosen = recipe("dws", "digits", steps=STEPS)
    assert isinstance(chosen, ImageRecipe)
    return chosen


@pytest.fixture(scope="module")
def plain(digits, slow, tmp_path_factory) -> Path:
    """What one run on this machine makes."""
    out = tmp_path_factory.mktemp("plain") / "zoo"
    build(slow, digits, out, **SETTINGS)
    return out


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with running() as url:
        yield url


@pytest.fixture(scope="module")
def nodes(bucket) -> Iterator[Any]:
    """A cluster of two nodes of one core each, and a head that fits nothing.

    This process stays connected, so that the workers stay warm; drivers of their own
    connect by themselves.
    """
    import ray
    from ray.cluster_utils import Cluster as Nodes

    room = {"object_store_memory": 100 << 20}
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    head = {"num_cpus": 0, "include_dashboard": False, **room}
    started = Nodes(initialize_head=True, head_node_args=head)
    for _ in range(2):
        started.add_node(num_cpus=1, **room)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = started.address
    ray.init(started.address, log_to_driver=False, logging_level="ERROR")
    yield started
    ray.shutdown()
    started.shutdown()
    if before is None:
        del os.environ["RAY_ADDRESS"]
    else:
        os.environ["RAY_ADDRESS"] = before


def same_files(left: Path, right: Path) -> None:
    """Both folders hold the same files, card and pictures among them."""
    found = []
    for folder in (left, right):
        paths = [p for p in folder.rglob("*") if p.is_file() and p.name != shards.LOCK_FILE]
        found.append({p.relative_to(folder).as_posix(): p.read_bytes() for p in paths})
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def when(ready: Callable[[], Any], then: Callable[[Any], None]) -> threading.Thread:
    """Do something as soon as something is there, beside the test."""

    def watch() -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if found := ready():
                then(found)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def fitting(below: int | None = None) -> list[int]:
    """Processes that fit a shard just now, of this test run's clusters, or of one raylet."""
    below = os.getpid() if below is None else below
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:
            continue
        pid = int(path.parent.name)
        if title.startswith(b"ray::_fit_shard"):
            above = pid
            while above not in (0, 1, below):
                above = parent(above)
            found += [pid] if above == below else []
    return found


def held() -> list[int]:
    """A process that fits a shard and stands still: it cannot end before it is killed."""
    for pid in fitting()[:1]:
        os.kill(pid, signal.SIGSTOP)
        if pid in fitting():
            return [pid]
        os.kill(pid, signal.SIGCONT)
    return []


def warm() -> None:
    """Start a worker on every node: a cold one may find all shards done by another."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    @ray.remote(num_cpus=1)
    def load() -> None:
        pass

    alive = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    assert len(alive) == 2
    chosen = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive]
    ray.get([load.options(scheduling_strategy=each).remote() for each in chosen])


def records(out: Path) -> int:
    return len(list((out / ".build" / "shards").glob("*.json")))


# ---- the same bytes


@needs_ray
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at /proc")
def test_a_killed_worker_costs_its_shard_alone(nodes, digits, slow, plain, tmp_path):
    out = tmp_path / "zoo"
    lines: list[str] = []
    seen: list[Progress] = []

    warm()
    killer = when(held, lambda pids: os.kill(pids[0], signal.SIGKILL))
    build_on_cluster(
        slow, digits, out, "auto", warn=lines.append, progress=seen.append, **SETTINGS
    )  # fmt: skip
    killer.join()
    same_files(plain, out)
    assert len(lines) == 1
    assert "its worker process died; run again (1 of 3)" in lines[0]
    assert seen[-1].failures == 1
    assert seen[-1].done == seen[-1].fitted == seen[-1].total == 100
    assert sum(seen[-1].nodes.values()) == 100
    assert build_on_cluster(slow, digits, out, "auto", **SETTINGS) == shards.read_index(plain)


@needs_ray
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at /proc")
def test_a_node_that_vanishes_costs_its_shard_alone(nodes, digits, slow, plain, tmp_path):
    out = tmp_path / "zoo"
    lines: list[str] = []
    victim = list(nodes.worker_nodes)[-1]
    raylet = victim.all_processes["raylet"][0].process.pid

    def vanish(_: object) -> None:
        nodes.remove_node(victim, allow_graceful=False)

    warm()
    killer = when(lambda: records(out) >= 2 and fitting(raylet), vanish)
    try:
        build_on_cluster(slow, digits, out, "auto", warn=lines.append, **SETTINGS)
    finally:
        killer.join()
        nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    same_files(plain, out)
    assert any("its node died; run again" in line for line in lines), lines


class Driver:
    """`wszoo fit-inrs` on the cluster, as a process of its own."""

    def __init__(self, out: Path | str):
        words = ["fit-inrs", "digits", "--steps", str(STEPS), "--cluster", "auto"]
        words += ["--limit", "100", "--shard-rows", "12", "--out", str(out)]
        code = "from cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def after(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not ready():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, kind: signal.Signals) -> str:
        self.process.send_signal(kind)
        return self.process.communicate(timeout=120)[1]


@needs_ray
def test_a_killed_driver_is_gone_on_with(nodes, digits, slow, plain, tmp_path):
    out = tmp_path / "zoo"
    driver = Driver(out)
    driver.after(lambda: records(out) >= 2)
    with pytest.raises(ZooError, match=r"is being written by another process"):
        build_on_cluster(slow, digits, out, "auto", **SETTINGS)
    driver.end(signal.SIGKILL)
    kept = records(out)
    assert kept < SHARDS
    seen: list[Progress] = []
    build_on_cluster(slow, digits, out, "auto", progress=seen.append, **SETTINGS)
    same_files(plain, out)
    assert seen[-1].fitted <= 12 * (SHARDS - kept)
    assert seen[-1].done == 100


@needs_ray
def test_ctrl_c_cancels_the_tasks_and_a_plain_run_goes_on(nodes, digits, slow, plain, tmp_path):
    out = tmp_path / "zoo"
    driver = Driver(out)
    driver.after(lambda: records(out) >= 1)
    errors = driver.end(signal.SIGINT)
    assert driver.process.returncode == 1
    assert f"its tasks are cancelled; what is finished is kept in {out}" in errors
    assert "Run the same command again to go on" in errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while fitting() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not fitting()
    seen: list[Progress] = []
    build(slow, digits, out, progress=seen.append, **SETTINGS)
    assert seen[-1].fitted < 100
    same_files(plain, out)


@needs_ray
def test_everything_on_an_s3_store(nodes, bucket, digits, slow, plain, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    url = f"{bucket}/zoos/zoo"
    where = storage.place(url)
    driver = Driver(url)
    driver.after(lambda: len(where.sizes(".build/shards")) >= 2)
    with pytest.raises(ZooError, match=rf"zoo is being written by process {driver.process.pid} "):
        build_on_cluster(slow, digits, url, "auto", **SETTINGS)
    driver.end(signal.SIGKILL)
    kept = len(where.sizes(".build/shards"))
    assert kept < SHARDS
    assert "is not finished" in line_of(run("info", url), 1)
    seen: list[Progress] = []
    made = build_on_cluster(slow, digits, url, "auto", progress=seen.append, **SETTINGS)
    assert seen[-1].fitted <= 12 * (SHARDS - kept)
    assert made == shards.read_index(plain)
    names = {p.relative_to(plain).as_posix() for p in plain.rglob("*") if p.is_file()}
    names.remove(shards.LOCK_FILE)
    assert set(where.sizes()) == names  # nothing is left over either
    for name in names:
        assert list(where.read([name])) == [(plain / name).read_bytes()], name
    assert build_on_cluster(slow, digits, url, "auto", **SETTINGS) == made
    # What is damaged there is made again, the rest is kept.
    where.remove(made.shards[1].file)
    lines: list[str] = []
    seen.clear()
    build_on_cluster(
        slow, digits, url, "auto", warn=lines.append, progress=seen.append, **SETTINGS
    )  # fmt: skip
    assert [line.partition(url)[2] for line in lines] == [
        f"/{made.shards[1].file} is missing; making it again"
    ]
    assert seen[-1].fitted == 12
    assert {name: list(where.read([name])) for name in names} == {
        name: [(plain / name).read_bytes()] for name in names
    }
    networks = zoo.open_zoo(url, "train")
    assert len(networks) == 81
    result = run("verify", url, "--refit", 2)
    assert result.exit_code == 0, result.output
    assert "2 rows fitted again, equal to the byte" in result.stdout
    assert run("show", url, "--out", tmp_path / "s.png", "--count", 4).exit_code == 0
    with Hub() as hub, hub.client(tmp_path / "client") as client:
        assert client.run("push", url, "user/zoo").code == 0
        *_, tree = hub.history("user/zoo")
        for shard in made.shards:
            assert tree[shard.file].sha256 == shard.sha256


@needs_ray
def test_runs_of_classifiers(nodes, digits, tmp_path):
    short = recipe("fashion", "digits", "fit-trajectories", epochs=1, hidden=6, batch="256")
    settings: dict[str, Any] = {"limit": 6, "shard_rows": 4}
    build(short, digits, tmp_path / "plain" / "zoo", **settings)
    index = build_on_cluster(short, digits, f"file://{tmp_path}/ray/zoo", "auto", **settings)
    assert len(index.shards) > 3
    same_files(tmp_path / "plain" / "zoo", tmp_path / "ray" / "zoo")


@needs_ray
def test_a_shard_that_fails_again_and_again_ends_the_run(nodes, digits, slow, tmp_path):
    """Here for the reason that the nodes have other versions than the driver."""
    quick = replace(slow, steps=5)
    with pytest.MonkeyPatch.context() as patch:
        versions = {**plan.package_versions(), "numba": "0.1"}
        patch.setattr(plan, "package_versions", lambda: versions)
        lines: list[str] = []
        with pytest.raises(
            ZooError, match=r"has numba [\d.]+, the driver 0\.1: the same.*after 2 tries"
        ):
            build_on_cluster(
                quick, digits, tmp_path / "zoo", Cluster("auto", retries=1),
                warn=lines.append, **SETTINGS,
            )  # fmt: skip
    assert lines
    assert all("run again (1 of 1)" in line for line in lines)


# ---- without a cluster


def test_no_cluster_there_is_one_line(monkeypatch):
    """Ray itself is not asked: it would wait for half a minute, and find our nodes."""

    def init(address: str, **_: Any) -> None:
        warnings.warn("the client timed out, see the documentation", stacklevel=2)
        raise ConnectionError("ray client connection\ntimeout")

    monkeypatch.setattr(
        cluster, "_ray", lambda: SimpleNamespace(is_initialized=lambda: False, init=init)
    )
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(ZooError, match=r"no Ray cluster answers at 'ray://here:1' \(ray client c"),
        cluster._connected(Cluster("ray://here:1")),
    ):
        pass


def test_what_tasks_left_is_taken_over_once(digits, slow, tmp_path, monkeypatch):
    """Tasks that ended after their driver: whole, cut amid the moves, damaged, twice."""
    monkeypatch.setattr(cluster, "_node", lambda: "here")
    quick = replace(slow, steps=5)
    build(quick, digits, tmp_path / "plain" / "zoo", **SETTINGS)
    out = tmp_path / "ray" / "zoo"
    where = storage.place(out)
    planned = plan_zoo(quick, digits, "zoo", Settings(**SETTINGS))
    where.write_json(".build/plan.json", planned.to_json())
    job = cluster._Job(where, planned.index, planned.goal, "cpu", 1)

    def task(key: tuple[str, int], name: str) -> None:
        given = planned.task(planned.parts[key])
        slot = site.slot_of(planned, key)
        _, node, shown = cluster._fit_shard(job, slot, name, *given)
        assert (node, len(shown["psnr_db"])) == ("here", len(planned.parts[key]))

    for number in range(4):
        task(("train", number), f"t{number}")
    task(("train", 0), "t0-again")
    tasks = out / ".build" / "tasks"
    # The driver was killed when it had moved the weights of shard 1, not yet its view.
    weights = next((tasks / "t1" / "weights").iterdir())
    (out / "weights").mkdir()
    weights.rename(out / "weights" / weights.name)
    damaged = next((tasks / "t2" / "weights").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (tasks / "t3" / "record.json").unlink()  # it was still writing
    opened = site.Site(where, planned)
    opened.open(overwrite=False)
    assert set(opened.records) == {("train", 0), ("train", 1)}
    assert not tasks.exists()
    assert len(list((out / "weights").iterdir())) == 2
    build(quick, digits, out, **SETTINGS)
    same_files(tmp_path / "plain" / "zoo", out)


def test_other_zoos_and_other_things_are_left_alone(digits, slow, tmp_path, monkeypatch):
    quick = replace(slow, steps=5)
    build(quick, digits, tmp_path / "made", **SETTINGS)

    def start(out: Path, chosen: ImageRecipe, overwrite: bool) -> site.Site:
        planned = plan_zoo(chosen, digits, out.name, Settings(**SETTINGS))
        opened = site.Site(storage.place(out), planned)
        opened.open(overwrite)
        return opened

    with pytest.raises(ValueError, match=r"steps 5 there, 6 asked for.*--overwrite"):
        start(tmp_path / "made", replace(quick, steps=6), False)
    assert start(tmp_path / "made", quick, False).whole == shards.read_index(tmp_path / "made")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"not empty and not a zoo \('thesis.tex' lies"):
            start(tmp_path / "thesis", quick, overwrite)
    before = shards.read_index(tmp_path / "made")
    assert start(tmp_path / "made", replace(quick, steps=6), True).where.name == "new"
    assert shards.read_index(tmp_path / "made") == before  # until the new one stands
    assert start(tmp_path / "made", quick, False).whole == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cluster", "slurm"], r"unknown cluster 'slurm'; expected local, auto or ray://HOST"),
        (["--cluster", "auto", "--workers", "2"], r"--workers is for a fit without --cluster"),
        (["--cluster", "auto", "--shards", "0/2"], r"--shards is for a fit without --cluster"),
        (["--in-flight", "4"], r"--in-flight want a --cluster"),
        (["--cluster", "local", "--cpus-per-task", "0"], r"'--cpus-per-task': must be positive"),
        (["--cluster", "local", "--gpus-per-task", "-1"], r"'--gpus-per-task': must not be neg"),
        (["--cluster", "local", "--in-flight", "0"], r"'--in-flight': must be at least 1, got 0"),
        (["--out", "s3://bucket/zoo"], r"s3://bucket/zoo is written by the tasks of a cluster"),
        (["--cluster", "local", "--out", "foo://x/y"], r"foo://x/y: Protocol not known: foo"),
        (
            ["--cluster", "local", "--device", "cuda", "--engine", "reference",
             "--gpus-per-task", "0"],
            r"tasks on device 'cuda' need a part of a GPU",
        ),
        (["--cluster", "local", "--device", "cuda:1"], r"Ray gives each task its GPU, ask for"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, line_of(run("fit-inrs", "digits", *words), 2))


def test_without_ray_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    line = line_of(run("fit-inrs", "digits", "--cluster", "local"), 2)
    assert "--cluster needs Ray: pip install 'wszoo[ray]'" in line
    assert list(tmp_path.iterdir()) == []
