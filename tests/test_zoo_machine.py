"""Cores and memory are the least of what the machine, its groups and the environment allow."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import run

from zoo import engines, machine

real_text = machine._text

MOUNTS_2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
MOUNTS_1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 /docker/abc /sys/fs/cgroup/memory\\040here rw - cgroup cgroup rw,memory\n"
)


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """64 cores, 1 TB, no groups, no variables; whatever a test sets is undone."""
    for name in machine.LIMITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "_physical", lambda: 10**12)
    monkeypatch.setattr(machine, "_chosen", None)
    _files(monkeypatch, {})


def _files(monkeypatch, texts: dict[str, str]) -> None:
    monkeypatch.setattr(machine, "_text", lambda path: texts.get(str(path), ""))


def _version_2(group: str, texts: dict[str, str]) -> dict[str, str]:
    found = {f"/sys/fs/cgroup{name}": text for name, text in texts.items()}
    return {
        "/proc/self/mountinfo": MOUNTS_2,
        "/proc/self/cgroup": f"0::{group}\n",
        **found,
    }


def test_affinity_counts_where_nothing_else_limits():
    assert machine.threads() == machine.available_cores() == engines.available_cores() == 64


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert machine.available_cores() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.available_cores() == 1


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"OMP_NUM_THREADS": "4", "SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "100"}, 64),
        ({"OMP_NUM_THREADS": "", "SLURM_CPUS_PER_TASK": "many"}, 64),
        ({"OMP_NUM_THREADS": "0", "SLURM_CPUS_PER_TASK": "-1"}, 64),
    ],
)
def test_the_environment_limits(monkeypatch, variables, cores):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.threads() == cores


@pytest.mark.parametrize(
    ("group", "texts", "cores"),
    [
        ("/", {"/cpu.max": "200000 100000\n"}, 2),
        ("/", {"/cpu.max": "150000 100000\n"}, 2),
        ("/", {"/cpu.max": "1000 100000\n"}, 1),
        ("/", {"/cpu.max": "max 100000\n"}, 64),
        ("/", {"/cpu.max": ""}, 64),
        ("/", {"/cpu.max": "nonsense\n"}, 64),
        # A group is limited by those it lies in too.
        ("/a/b", {"/a/b/cpu.max": "max 100000\n", "/a/cpu.max": "300000 100000\n"}, 3),
        ("/a/b", {"/a/b/cpu.max": "100000 100000\n", "/a/cpu.max": "300000 100000\n"}, 1),
        # Outside the namespace of this process.
        ("/../../x", {"/cpu.max": "500000 100000\n"}, 5),
    ],
)
def test_quotas_of_version_2(monkeypatch, group, texts, cores):
    _files(monkeypatch, _version_2(group, texts))
    assert machine.available_cores() == cores


@pytest.mark.parametrize(
    ("group", "folder"),
    [("/", ""), ("/a/b", "/a/b"), ("/a/b", "/a"), ("/docker/xyz", "")],
)
def test_quotas_of_version_1(monkeypatch, group, folder):
    place = f"/sys/fs/cgroup/cpu,cpuacct{folder}"
    texts = {
        "/proc/self/mountinfo": MOUNTS_1,
        "/proc/self/cgroup": f"4:memory:/m\n3:cpuacct,cpu:{group}\n",
        f"{place}/cpu.cfs_quota_us": "400000\n",
        f"{place}/cpu.cfs_period_us": "100000\n",
    }
    _files(monkeypatch, texts)
    assert machine.available_cores() == 4
    _files(monkeypatch, texts | {f"{place}/cpu.cfs_quota_us": "-1\n"})
    assert machine.available_cores() == 64


def test_memory_is_what_the_group_allows(monkeypatch):
    assert machine.memory_bytes() == 10**12
    nested = {"/a/b/memory.max": "max\n", "/a/memory.max": "4000000000\n"}
    _files(monkeypatch, _version_2("/a/b", nested))
    assert machine.memory_bytes() == 4_000_000_000
    # In a container, /proc tells the path of the host, of which only the end is mounted.
    texts = {
        "/proc/self/mountinfo": MOUNTS_1,
        "/proc/self/cgroup": "4:memory:/docker/abc/inner\n",
        "/sys/fs/cgroup/memory here/inner/memory.limit_in_bytes": "9223372036854771712\n",
        "/sys/fs/cgroup/memory here/memory.limit_in_bytes": "3000000000\n",
    }
    _files(monkeypatch, texts)
    assert machine.memory_bytes() == 3_000_000_000


def test_memory_that_nobody_tells_is_none(monkeypatch):
    monkeypatch.setattr(machine, "_physical", lambda: None)
    assert machine.memory_bytes() is None


def test_the_real_files_are_read():
    assert real_text(Path(__file__)).startswith('"""Cores and memory')
    assert real_text(Path("/nowhere/at/all")) == ""


def test_what_is_chosen_goes_before_all(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    machine.set_threads(5)
    assert machine.threads() == 5
    assert machine.available_cores() == 2
    with machine.using(7):
        assert machine.threads() == torch.get_num_threads() == 7
    assert machine.threads() == torch.get_num_threads() == 5
    with machine.using(None):
        assert machine.threads() == 5
    machine.set_threads(None)
    assert machine.threads() == 2


@pytest.mark.parametrize("count", [0, -1, 4097, 1.0, True, "2"])
def test_senseless_counts_are_refused(count):
    with pytest.raises(ValueError, match=f"whole number from 1 to 4096, got {count!r}"):
        machine.set_threads(count)


def test_torch_uses_no_more_than_is_allowed(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    torch.set_num_threads(2)
    machine.limit_torch()
    assert torch.get_num_threads() == 2  # somebody chose fewer
    torch.set_num_threads(6)
    machine.limit_torch()
    assert torch.get_num_threads() == 3
    machine.set_threads(4)
    assert torch.get_num_threads() == 4


def test_libraries_are_told_for_a_whole_command(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    with machine.throughout(None):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with machine.throughout(9):
        assert os.environ["OMP_NUM_THREADS"] == "9"
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_nobody_is_told_what_is_so_anyway():
    with machine.throughout(None):
        assert "OMP_NUM_THREADS" not in os.environ


COMPUTING = (
    ("fit-inrs", "digits"), ("fit-classifiers", "digits"), ("fit-trajectories", "digits"),
    ("merge", "part"), ("import", "dws", "path"), ("verify", "zoo"), ("show", "zoo"),
    ("train", "classify", "zoo", "--model", "dws"), ("eval", "run", "zoo"), ("reproduce",),
)  # fmt: skip


@pytest.mark.parametrize("words", COMPUTING, ids=lambda words: words[0])
def test_every_command_that_computes_has_threads(words):
    for wrong in ("0", "1.5", "5000"):
        result = run(*words, "--threads", wrong)
        assert result.exit_code == 2
        assert "'--threads'" in result.output


def test_the_engines_compute_with_the_threads_of_the_command(tmp_path, monkeypatch):
    seen = []
    load = engines.load

    def spy(name, device="cpu", threads=None):
        seen.append(threads)
        return load(name, device, threads)

    monkeypatch.setattr(engines, "load", spy)
    words = ("fit-inrs", "digits", "--limit", 4, "--steps", 2, "--hidden", 4)
    result = run(*words, "--threads", 3, "--out", tmp_path / "zoo")
    assert result.exit_code == 0, result.output
    assert set(seen) == {3}
    assert machine.chosen_threads() is None


KEPT = """
import resource
import numpy as np
from zoo import machine

machine.keep_memory()
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""


def page_faults(more):
    """Of three arrays of 64 MB, each freed before the next."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", KEPT], capture_output=True, text=True, env=plain | more
    )
    assert done.returncode == 0, done.stderr
    return [int(count) for count in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="kept by glibc")
def test_freed_memory_is_kept_unless_the_user_says_how():
    first, *later = page_faults({})
    assert max(later) < 100
    told = page_faults({"MALLOC_MMAP_THRESHOLD_": "1000000"})
    # As many as the first time, 16,384 of 4 kB each, or fewer where pages are large.
    assert min(told) >= min(first / 2, 30)
