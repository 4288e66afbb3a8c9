"""What storing and reading a zoo costs: on the Hub, through `datasets`, through `zoo`.

    python benchmarks/storage.py [--zoo PATH] [--networks 10000]

Four questions, with the first `--networks` rows of a zoo (of random weights without
`--zoo`, which are as hard to compress as fitted ones):

- How much of the Parquet view does the Hub store again, when it has the safetensors?
  The real chunker (`hf_xet`) answers, against a folder instead of the network. The
  defaults of pyarrow stand beside it. Pictures, which stand in the view alone, are told apart.
- How fast does `load_dataset` with `with_format("torch")` read them all, against one
  .pth file a network, both from a warm file cache and in turns?
- How long does `open_zoo` take for 70,000 networks, and a random batch of 512?
- How long does a random batch of 32 trajectory networks (0.5 MB each) take from files that
  are not in memory, and how much is read for it; with and without announcing the rows?
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import zoo
from zoo import shards, table
from zoo.shards import Column, Index, Shard

SPEC = zoo.NetworkSpec.mlp([2, 32, 32, 1], output_offset=0.5, coord_order="xy")
WIDE = zoo.NetworkSpec.mlp([784, 128, 128, 128, 10])
SHARD_ROWS = 5_000
ROUNDS = 3


def random_zoo(folder: Path, rows: int, parquet: bool, spec: zoo.NetworkSpec = SPEC) -> Index:
    """A zoo of random weights, all in one split."""
    draw = np.random.default_rng(0)
    others = {
        "label": Column("target", "class", names=tuple(map(str, range(10)))),
        "psnr_db": Column("quality", "real", unit="dB"),
    }
    source = {"shape": [28, 28, 1]} if spec.axes else {}
    settings = {"shard_rows": SHARD_ROWS, "parquet": parquet, "source": source}
    with zoo.Writer(folder, spec, others, **settings) as writer:
        for start in range(0, rows, SHARD_ROWS):
            count = min(SHARD_ROWS, rows - start)
            vectors = draw.standard_normal((count, spec.param_count), dtype=np.float32)
            values = {
                "label": draw.integers(0, 10, count),
                "psnr_db": draw.normal(30, 3, count).astype(np.float32),
            }
            writer.write("train", vectors, values)
    return shards.read_index(folder)


def first_rows(path: Path, networks: int) -> tuple[list[Shard], Index]:
    """The first shards of a zoo's largest split that hold so many networks."""
    index = shards.read_index(path)
    split = max(index.splits, key=lambda name: index.splits[name])
    chosen: list[Shard] = []
    for shard in table.shards_of(index, split):
        if sum(s.rows for s in chosen) < networks:
            chosen.append(shard)
    return chosen, index


def stored_bytes(groups: list[list[Path]]) -> list[int]:
    """What the chunker's store grows by, group after group, in bytes."""
    import hf_xet

    found = []
    with tempfile.TemporaryDirectory() as store:
        session = hf_xet.XetSession()
        before = 0
        for paths in groups:
            with session.new_upload_commit(endpoint=f"local://{store}") as commit:
                for path in paths:
                    commit.start_upload_file(str(path), sha256=hf_xet.SKIP_SHA256)
            size = sum(p.stat().st_size for p in Path(store).rglob("*") if p.is_file())
            found.append(size - before)
            before = size
    return found


def picture_bytes(view: Path) -> dict[str, int]:
    """Bytes of the columns of pictures in a Parquet file."""
    import pyarrow.parquet as pq

    about = pq.ParquetFile(view).metadata
    sizes = {name: 0 for name in table.pictures_in(view)}
    for group in range(about.num_row_groups):
        for number in range(about.num_columns):
            column = about.row_group(group).column(number)
            name = column.path_in_schema.partition(".")[0]
            if name in sizes:
                sizes[name] += column.total_compressed_size
    return sizes


def deduplication(path: Path, chosen: list[Shard], scratch: Path) -> None:
    """Print how much of the view is stored again, for our settings and for others'."""
    import pyarrow.parquet as pq

    weights = [path / shard.file for shard in chosen]
    views = [path / shard.parquet.file for shard in chosen if shard.parquet]
    drawn: dict[str, int] = {}
    for view in views:
        for name, size in picture_bytes(view).items():
            drawn[name] = drawn.get(name, 0) + size
    pictures, rows_there = sum(drawn.values()), sum(shard.rows for shard in chosen)
    default, snappy = [], []
    for number, view in enumerate(views):
        rows = pq.read_table(view)
        default.append(scratch / f"default-{number}.parquet")
        pq.write_table(rows, default[-1])
        snappy.append(scratch / f"chunked-{number}.parquet")
        pq.write_table(rows, snappy[-1], use_content_defined_chunking=True)
    print("deduplication of the view against the safetensors, real chunker")
    for name, files in (
        ("ours", views), ("pyarrow's defaults", default), ("those, content-defined", snappy),
    ):  # fmt: skip
        size = sum(file.stat().st_size for file in files)
        alone, more = stored_bytes([weights, files])
        print(
            f"  {name:<24} {size / 1e6:7.1f} MB, of which {more / 1e6:6.1f} MB are stored: "
            f"{100 * (1 - more / size):5.1f} % deduplicated (weights {alone / 1e6:.1f} MB)"
        )
        if drawn and files is views:
            each = ", ".join(f"{name} {part / rows_there:.0f}" for name, part in drawn.items())
            tensors = size - pictures
            share = 1 - (more - pictures) / tensors
            print(
                f"  {'without its pictures':<24} {tensors / 1e6:7.1f} MB, {100 * share:5.1f} % "
                f"deduplicated; pictures {pictures / 1e6:.1f} MB ({each} bytes a network)"
            )


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of this process on all cores: these say it on a busy machine."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


def reading(path: Path, index: Index, chosen: list[Shard], networks: int, scratch: Path) -> None:
    """Print seconds to read the networks as torch tensors, in two ways."""
    import datasets
    import torch

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    names = list(index.spec.tensors)
    files = [str(path / shard.parquet.file) for shard in chosen if shard.parquet]
    begun = time.perf_counter()
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(scratch / "cache")
    )
    rows = rows.select_columns(names).with_format("torch")
    prepared = time.perf_counter() - begun
    networks = min(networks, len(rows))
    single = scratch / "single"
    single.mkdir()
    tensors = rows[:networks]
    for row in range(networks):
        state = {name: tensors[name][row].clone() for name in names}
        torch.save(state, single / f"{row:05d}.pth")

    def through_datasets() -> None:
        for start in range(0, networks, 1_000):
            batch = rows[start : min(start + 1_000, networks)]
            assert batch["weight_1"].shape[1:] == index.spec.tensors["weight_1"]

    def one_by_one() -> None:
        for row in range(networks):
            torch.load(single / f"{row:05d}.pth", weights_only=True)

    through_datasets()  # maps the pages
    fast, slow = [], []
    for _ in range(ROUNDS):
        fast.append(taken(through_datasets))
        slow.append(taken(one_by_one))
    print(f"reading {networks:,} networks as torch tensors, medians of {ROUNDS} rounds in turn")
    for place, name in enumerate(("seconds", "CPU seconds")):
        ours, theirs = (statistics.median(t[place] for t in times) for times in (fast, slow))
        print(
            f'  {name:<12} load_dataset, with_format("torch") {ours:.3f}; one .pth file a network '
            f"{theirs:.3f}: {theirs / ours:.0f} times as long"
        )
    print(f"  load_dataset itself, once: {prepared:.2f} seconds")


def opening(folder: Path) -> None:
    """Print how long `open_zoo` and a batch take at full size."""
    index = random_zoo(folder, 70_000, parquet=False)
    opened = [taken(lambda: zoo.open_zoo(folder))[0] for _ in range(20)]
    networks = zoo.open_zoo(folder)
    draw = np.random.default_rng(1)
    networks.batch(np.arange(len(networks)))  # every page is in memory now
    wanted = iter(draw.integers(0, len(networks), (200, 512)))
    batches = [taken(lambda: networks.batch(next(wanted)))[0] for _ in range(200)]
    size = sum(shard.bytes for shard in index.shards) / 1e6
    print(f"open_zoo, {len(networks):,} networks, {size:.0f} MB, {len(index.shards)} shards")
    middle, worst = 1e3 * statistics.median(opened), 1e3 * max(opened)
    print(f"  opening: median {middle:.2f} ms, worst of 20 {worst:.2f} ms")
    print(
        f"  a random batch of 512, warm: median {1e3 * statistics.median(batches):.2f} ms, "
        f"worst of 200 {1e3 * max(batches):.2f} ms"
    )


def cold(folder: Path) -> None:
    """Print what random batches cost whose files the system has to read first."""
    index = random_zoo(folder, 4_000, parquet=False, spec=WIDE)
    draw = np.random.default_rng(1)
    large = table.LARGE_BYTES

    def from_disk(limit: int) -> tuple[float, float]:
        """Milliseconds and MB read, per network."""
        for shard in index.shards:
            with (folder / shard.file).open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        table.LARGE_BYTES = limit
        networks = zoo.open_zoo(folder)
        wanted = draw.permutation(len(networks))[:320].reshape(-1, 32)
        before = _read_bytes()
        seconds, _ = taken(lambda: [networks.batch(rows) for rows in wanted])
        table.LARGE_BYTES = large
        return 1e3 * seconds / wanted.size, (_read_bytes() - before) / 1e6 / wanted.size

    found = [(from_disk(1 << 60), from_disk(large)) for _ in range(ROUNDS)]
    own = 4e-6 * WIDE.param_count
    print(f"random batches of 32 networks of {own:.2f} MB, from disk, medians of {ROUNDS} rounds")
    for name, results in zip(
        ("page by page", "rows announced"), zip(*found, strict=True), strict=True
    ):
        milliseconds, megabytes = (statistics.median(x) for x in zip(*results, strict=True))
        print(f"  {name:<15} {milliseconds:.2f} ms and {megabytes:.2f} MB read per network")


def _read_bytes() -> int:
    """What this process has had read from disks so far; Linux only."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--zoo", type=Path, help="a zoo with its Parquet view; else random")
    parser.add_argument("--networks", type=int, default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        path = chosen.zoo
        if path is None:
            path = scratch / "random"
            random_zoo(path, chosen.networks, parquet=True)
        part, index = first_rows(path, chosen.networks)
        rows = sum(shard.rows for shard in part)
        print(f"{chosen.zoo or 'random weights'}: {rows:,} networks in {len(part)} shards")
        deduplication(path, part, scratch)
        reading(path, index, part, chosen.networks, scratch)
        opening(scratch / "large")
        if Path("/proc/self/io").exists():
            cold(scratch / "wide")


if __name__ == "__main__":
    main()
