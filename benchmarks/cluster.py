"""What a Ray cluster costs: throughput of one and two workers, commits, the index.

    python benchmarks/cluster.py [--quick]

Workers have one core each. The first fit on a cluster is not timed: it imports, and
compiles where nothing is cached. Times are the best of three, alternating.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

import zoo
from zoo import shards, storage
from zoo.builder import Progress, build, plan_zoo
from zoo.cluster import _Driver, build_on_cluster
from zoo.shards import File, Shard


@contextmanager
def workers(count: int) -> Iterator[None]:
    ray.init(
        num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=200 << 20,
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def fit_time(make: Any, out: Path, **settings: Any) -> tuple[float, float]:
    """Seconds until the last network, and until the index stands."""
    last = [0.0]

    def progress(state: Progress) -> None:
        last[0] = time.perf_counter()

    begun = time.perf_counter()
    make(out, progress=progress, **settings)
    return last[0] - begun, time.perf_counter() - begun


def throughput(scratch: Path, steps: int, rounds: int) -> None:
    recipe = zoo.recipe("dws", "digits", steps=steps)
    settings = {"limit": 640, "shard_rows": 40}
    best: dict[str, tuple[float, float]] = {}

    def note(name: str, found: tuple[float, float]) -> None:
        best[name] = min(best.get(name, found), found)

    for number in range(rounds):
        note(
            "plain, all cores",
            fit_time(
                lambda out, **more: build(recipe, "digits", out, **more),
                scratch / f"plain-{number}", **settings,
            ),
        )  # fmt: skip
        for count in (1, 2):
            with workers(count):

                def make(out: Path, **more: Any) -> None:
                    build_on_cluster(recipe, "digits", out, "local", **more)

                fit_time(make, scratch / f"warm-{count}-{number}", limit=32, shard_rows=4)
                note(f"{count} worker", fit_time(make, scratch / f"{count}-{number}", **settings))
    for name, (fitted, whole) in best.items():
        rate = 640 / fitted
        print(f"{name:<18} {fitted:6.1f} s fitting ({rate:5.1f} networks/s), {whole:6.1f} s in all")
    print(f"two workers are {best['1 worker'][0] / best['2 worker'][0]:.2f}x one")
    print(f"with card and index {best['1 worker'][1] / best['2 worker'][1]:.2f}x")


def commits(scratch: Path, url: str | None) -> None:
    """Milliseconds that the driver spends on naming one shard, in a folder or a store."""
    recipe = zoo.recipe("dws", "digits", steps=1)
    for out in filter(None, (str(scratch / "commits"), url)):
        where = storage.place(out)
        planned = plan_zoo(recipe, "digits", "commits", shard_rows=10)
        driver = _Driver(where, planned, lambda: None, print)
        content = b"x" * 100_000
        records = []
        for key in list(planned.parts)[:64]:
            name = f"{key[0]}-{key[1]}"
            files = [shards.shard_file(*key, 1), shards.shard_file(*key, 1, True), f"note-{name}"]
            for file in files:
                where.write(f".build/tasks/{name}/{file}", content)
            where.write(f".build/tasks/{name}/record.json", b"{}")
            made = [File(file, len(content), "0") for file in files]
            shard = Shard(**vars(made[0]), split=key[0], rows=10, cpu="", parquet=made[1])
            plain = {**vars(shard), "parquet": vars(made[1])}
            records.append(
                {"split": key[0], "number": key[1], "planned": 10, "shard": plain, "excluded": [],
                 "note": vars(made[2]), "task": name}
            )  # fmt: skip
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(16) as pool:
            begun = time.perf_counter()
            list(pool.map(driver._commit, records))
            took = time.perf_counter() - begun
        print(f"commit to {type(where).__name__:<7} {1e3 * took / len(records):6.1f} ms a shard")


def index(scratch: Path, count: int) -> None:
    """A made-up index of many shards, written and read."""
    tiny = build(zoo.recipe("dws", "digits", steps=1), "digits", scratch / "tiny", limit=20)
    made = []
    for number in range(count):
        file, view = (shards.shard_file("train", number, count, parquet) for parquet in (0, 1))
        sha = f"{number:064x}"
        made.append(
            Shard(file, 500_000_000, sha, "train", 940, "x86_64 znver5",
                  File(view, 500_000_000, sha))
        )  # fmt: skip
    large = replace(tiny, shards=tuple(made))
    begun = time.perf_counter()
    shards.write_index(scratch, large)
    wrote = time.perf_counter() - begun
    begun = time.perf_counter()
    found = shards.read_index(scratch)
    read = time.perf_counter() - begun
    assert found == large
    size = (scratch / shards.INDEX_FILE).stat().st_size
    print(
        f"index of {count:,} shards: {size / 1e6:.1f} MB, written in {wrote:.2f} s, read in "
        f"{read:.2f} s, {size / count:.0f} bytes a shard"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one round")
    parser.add_argument("--only", choices=["throughput", "commits", "index"])
    parser.add_argument("--url", help="also time commits to this store, such as s3://BUCKET/try")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if chosen.only in (None, "index"):
            index(scratch, 100_000)
        if chosen.only in (None, "commits"):
            commits(scratch, chosen.url)
        if chosen.only in (None, "throughput"):
            throughput(scratch, 500 if chosen.quick else 4000, 1 if chosen.quick else 3)


if __name__ == "__main__":
    sys.exit(main())
