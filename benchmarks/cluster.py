"""What a Ray cluster costs, and the figures that docs/scale.md reckons with.

    python benchmarks/cluster.py [--quick] [--only throughput] [--url s3://BUCKET/try]

Workers have one core each. The first fit on a cluster is not timed: it imports, and
compiles where nothing is cached. Times are the best of several, alternating; the driver's
CPU time tells what it takes from the workers, also where others use the machine.
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

import numpy as np
import ray

import zoo
from zoo import engines, nets, shards, stats, storage, writing
from zoo.engines import Adam
from zoo.making.builder import build, build_on_cluster
from zoo.making.plan import plan_zoo
from zoo.making.progress import Progress
from zoo.making.site import Record, Site
from zoo.shards import File, Shard


@contextmanager
def workers(count: int) -> Iterator[None]:
    ray.init(
        "local", num_cpus=count, include_dashboard=False, object_store_memory=200 << 20,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def fit_time(make: Any, out: Path, **settings: Any) -> tuple[float, float, float]:
    """Seconds until the last network, until the index stands, of this process's CPU till then."""
    last = [0.0]

    def progress(state: Progress) -> None:
        last[0] = time.perf_counter()

    begun, used = time.perf_counter(), time.process_time()
    make(out, progress=progress, **settings)
    return last[0] - begun, time.perf_counter() - begun, time.process_time() - used


def throughput(scratch: Path, steps: int, rounds: int) -> None:
    recipe = zoo.recipe("dws", "digits", steps=steps, target_psnr_db=None)
    settings = {"limit": 640, "shard_rows": 40}
    best: dict[str, tuple[float, float, float]] = {}

    def note(name: str, found: tuple[float, float, float]) -> None:
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
                for again in range(3):
                    out = scratch / f"{count}-{number}-{again}"
                    note(f"{count} worker", fit_time(make, out, **settings))
    for name, (fitted, whole, used) in best.items():
        print(
            f"{name:<18} {fitted:6.1f} s fitting ({640 / fitted:5.1f} networks/s), {whole:6.1f} s "
            f"in all, {used:5.2f} s CPU of this process"
        )
    print(f"two workers are {best['1 worker'][0] / best['2 worker'][0]:.2f}x one")
    print(f"with card and index {best['1 worker'][1] / best['2 worker'][1]:.2f}x")


def commits(scratch: Path, url: str | None) -> None:
    """Milliseconds that the driver spends on naming one shard, in a folder or a store."""
    recipe = zoo.recipe("dws", "digits", steps=1)
    for out in filter(None, (str(scratch / "commits"), url)):
        where = storage.place(out)
        planned = plan_zoo(recipe, "digits", "commits", shard_rows=10)
        site = Site(where, planned, print)
        content = b"x" * 100_000
        made = []
        for key in list(planned.parts)[:64]:
            name = f"{key[0]}-{key[1]}"
            files = [shards.shard_file(*key, 1), shards.shard_file(*key, 1, True), f"note-{name}"]
            for file in files:
                where.write(f".build/tasks/{name}/{file}", content)
            where.write(f".build/tasks/{name}/record.json", b"{}")
            first, view, note = (File(file, len(content), "0") for file in files)
            shard = Shard(**vars(first), split=key[0], rows=10, cpu="", parquet=view)
            made.append((Record(*key, 10, shard, (), note), name))
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(16) as pool:
            begun = time.perf_counter()
            list(pool.map(site.take, *zip(*made, strict=True)))
            took = time.perf_counter() - begun
        print(f"commit to {type(where).__name__:<7} {1e3 * took / len(made):6.1f} ms a shard")


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


def large_networks(scratch: Path) -> None:
    """What docs/scale.md reckons with: 2-256-256-256-256-3 on 64 x 64 RGB pictures."""
    spec = zoo.NetworkSpec.mlp([2, 256, 256, 256, 256, 3], coord_order="xy")
    engine = engines.load("cpu")
    draw = np.random.default_rng(0)
    params = nets.initialise(spec, "dws", 0, np.arange(8), np.zeros(8, np.int64))
    inputs = nets.coordinates(spec, 64, 64)
    targets = draw.random((8, 4096, 3), dtype=np.float32)
    took = []
    for steps in (1, 4, 4, 4):  # the first compiles
        begun = time.perf_counter()
        engine.fit(spec, params.copy(), inputs, targets, Adam(lr=1e-3, steps=steps))
        took.append((time.perf_counter() - begun) / (8 * steps))
    work = 6 * spec.param_count * 4096
    best = min(took[1:])
    print(
        f"2-256-256-256-256-3, {spec.param_count:,} parameters, 4,096 points: {1e3 * best:.1f} ms "
        f"a network and step, {work / best / 1e9:.0f} GFLOP/s"
    )
    # The end of a zoo: notes are read and merged one by one.
    index = replace(
        build(zoo.recipe("dws", "digits", steps=1), "digits", scratch / "few", limit=20),
        spec=spec, shards=(), columns=shards.zoo_columns(spec, {}),
    )  # fmt: skip
    rows = {name: np.zeros(500, np.float32) for name in index.columns}
    for name, shape in spec.tensors.items():
        rows[name] = draw.random((500, *shape), dtype=np.float32)
    begun = time.perf_counter()
    shards.write_tensors(scratch / "note", writing.note_of(index, "train", rows))
    made = time.perf_counter() - begun
    rows |= {name: rows[name].astype(column.dtype) for name, column in index.columns.items()}
    begun = time.perf_counter()
    shard = writing.write_shard(scratch, index, "train", 0, 1, rows, "cpu")
    wrote = time.perf_counter() - begun
    assert shard.parquet
    print(
        f"shard of 500 such networks: {shard.bytes / 1e6:.0f} MB and a view of "
        f"{shard.parquet.bytes / 1e6:.0f} MB, written and hashed in {wrote:.1f} s"
    )
    size = (scratch / "note").stat().st_size
    moments = {name: stats.Moments() for name in spec.tensors}
    begun = time.perf_counter()
    for _ in range(20):
        found = shards.read_tensors(scratch / "note")
        for name, moment in moments.items():
            moment.merge(500, found[f"mean.{name}"], found[f"squares.{name}"])
    merged = (time.perf_counter() - begun) / 20
    print(
        f"note of 500 such networks: {size / 1e6:.1f} MB, made in {made:.2f} s, read and merged in "
        f"{1e3 * merged:.0f} ms"
    )


# What docs/scale.md reckons with. Measured by this script: ...
PARAMETERS, POINTS, STEPS, NETWORKS = 198_915, 4_096, 1_000, 1_281_167
SHARD_ROWS, WRITE_S, NOTE_BYTES, INDEX_BYTES = 500, 2.8 + 0.8, 3.2e6, 409
COMMIT_S = 0.083  # of moto's store in one Python process; a folder takes 0.0015
# ... and estimated: what an engine may reach on a GPU, and a node's way to the store.
GPU_FLOPS, UPLOAD_BYTES, NOTES_BYTES_S = 30e12, 200e6, 500e6


def table() -> None:
    """The table of docs/scale.md, by arithmetic from the figures above."""
    row_bytes = 4 * PARAMETERS
    shard_s = SHARD_ROWS * STEPS * 6 * PARAMETERS * POINTS / GPU_FLOPS
    upload_s = 2 * SHARD_ROWS * row_bytes / UPLOAD_BYTES
    count = -(-NETWORKS // SHARD_ROWS)
    end_s = count * (NOTE_BYTES / NOTES_BYTES_S + 0.001)
    print(
        f"{count:,} shards of {SHARD_ROWS * row_bytes / 1e6:.0f} MB; a shard {shard_s:.0f} s of "
        f"GPU, {WRITE_S:.1f} s of writing, {upload_s:.1f} s of upload; weights "
        f"{NETWORKS * row_bytes / 1e12:.2f} TB, index {count * INDEX_BYTES / 1e6:.2f} MB, notes "
        f"{count * NOTE_BYTES / 1e9:.1f} GB, read in {end_s:.0f} s"
    )
    for gpus in (1, 8, 64, 1024):
        rounds = -(-count // gpus)
        task = shard_s + WRITE_S + upload_s
        whole = rounds * task + end_s
        ideal = count * shard_s / gpus
        rate = gpus / task
        print(
            f"| {gpus:,} | {_time(ideal)} | {rounds:,} | {_time(whole)} | {ideal / whole:.0%} | "
            f"{2 * NETWORKS * row_bytes / (whole - end_s) / 1e9:.2f} GB/s | {rate * COMMIT_S:.2%} |"
        )


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"


def opening(scratch: Path) -> None:
    """A split of many small shards."""
    many = build(
        zoo.recipe("dws", "digits", steps=1, hidden=4), "digits", scratch / "many", shard_rows=1,
        parquet=False,
    )  # fmt: skip
    begun = time.perf_counter()
    zoo.open_zoo(scratch / "many", "train")
    took = time.perf_counter() - begun
    count = sum(shard.split == "train" for shard in many.shards)
    print(f"open_zoo maps {count:,} shards in {took:.2f} s, {1e6 * took / count:.0f} us each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one round")
    parser.add_argument(
        "--only", choices=["throughput", "commits", "index", "large", "opening", "table"]
    )
    parser.add_argument("--url", help="also time commits to this store, such as s3://BUCKET/try")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if chosen.only in (None, "index"):
            index(scratch, 100_000)
        if chosen.only in (None, "commits"):
            commits(scratch, chosen.url)
        if chosen.only in (None, "large"):
            large_networks(scratch)
        if chosen.only in (None, "table"):
            table()
        if chosen.only in (None, "opening"):
            opening(scratch)
        if chosen.only in (None, "throughput"):
            throughput(scratch, 500 if chosen.quick else 3000, 1 if chosen.quick else 3)


if __name__ == "__main__":
    sys.exit(main())
