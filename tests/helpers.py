"""What several test files need: small zoos on disk, their rows, the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from cli.main import wszoo
from zoo import shards, stats, table
from zoo.shards import Column, Index, Shard
from zoo.spec import NetworkSpec

CLASSES = ("zero", "one", "two")
SIREN = NetworkSpec.mlp([2, 32, 32, 1], coord_order="xy")
SINE = NetworkSpec.mlp([1, 5, 1], coord_order="x")
CNN = NetworkSpec.cnn([1, 4, 3], 2)


def random_rows(spec: NetworkSpec, rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """A shard's columns with random weights; `index` counts from 1000 * seed."""
    draw = np.random.default_rng(seed)
    columns: dict[str, NDArray[Any]] = {
        "index": np.arange(rows) + 1000 * seed,
        "view": np.zeros(rows, np.int64),
        "label": draw.integers(0, len(CLASSES), rows),
        "psnr_db": draw.normal(30, 3, rows).astype(np.float32),
        "mse": draw.uniform(0, 0.01, rows).astype(np.float32),
        "steps": draw.integers(1, 1000, rows),
        "stop": draw.integers(0, 2, rows),
    }
    for name, shape in spec.tensors.items():
        columns[name] = draw.standard_normal((rows, *shape), dtype=np.float32)
    return columns


def write_zoo(
    folder: Path,
    rows: Mapping[str, int] = {"train": 20, "validation": 5, "test": 7},
    shard_rows: int = 8,
    spec: NetworkSpec = SIREN,
    parquet: bool = True,
) -> Index:
    """Write a whole zoo of random weights through the real functions; its index."""
    others = {
        "label": Column("target", "class", names=CLASSES),
        "psnr_db": Column("quality", "real", unit="dB"),
        "mse": Column("quality", "real"),
        "steps": Column("quality", "count"),
        "stop": Column("quality", "count"),
    }
    plain: dict[str, Any] = {
        "name": "tiny",
        "recipe": {"kind": "inrs", "name": "tiny"},
        "spec": spec,
        "columns": shards.zoo_columns(spec, others),
        "source": {"name": "random", "shape": [6, 5, spec.out], "points": 11},
        "plan": {"seed": 0, "shard_rows": shard_rows, "parquet": parquet},
    }
    # What a shard is written with needs no shards yet.
    blank = Index(shards=(), **plain)
    written: list[Shard] = []
    moments = {name: stats.Moments() for name in spec.tensors}
    for split, count in rows.items():
        starts = range(0, count, shard_rows)
        for number, start in enumerate(starts):
            tensors = random_rows(spec, min(shard_rows, count - start), seed=len(written))
            file = shards.shard_file(split, number, len(starts))
            shards.write_tensors(folder / file, tensors)
            view = None
            if parquet:
                data = shards.shard_file(split, number, len(starts), parquet=True)
                table.write_parquet(folder / data, tensors, blank)
                view = shards.describe(folder, data)
            about = shards.describe(folder, file)
            written.append(
                Shard(
                    about.file,
                    about.bytes,
                    about.sha256,
                    split=split,
                    rows=len(tensors["index"]),
                    cpu="test",
                    parquet=view,
                )
            )
            if split == "train":
                for name, moment in moments.items():
                    moment.add(tensors[name])
    about = None
    if any(shard.split == "train" for shard in written):
        shards.write_tensors(folder / shards.STATS_FILE, stats.normalisation(moments))
        about = shards.describe(folder, shards.STATS_FILE)
    (folder / "README.md").write_text(_card(rows))
    index = Index(shards=tuple(written), stats=about, **plain)
    shards.write_index(folder, index)
    return index


def _card(splits: Mapping[str, int]) -> str:
    """The least that `load_dataset` needs: which files are which split."""
    files = "".join(f"  - split: {s}\n    path: data/{s}-*.parquet\n" for s in splits)
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n# tiny\n"


def run(*words: object) -> Result:
    """A command in this process; unexpected exceptions are raised."""
    result = CliRunner().invoke(wszoo, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def line_of(result: Result, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


def rows_of(folder: Path) -> dict[tuple[int, int, int], dict[str, NDArray[Any]]]:
    """Every row of a finished zoo by (index, view, step), as it stands on disk."""
    found = {}
    for shard in shards.read_index(folder).shards:
        arrays = shards.read_tensors(folder / shard.file)
        for row in range(shard.rows):
            values = {name: array[row] for name, array in arrays.items()}
            values["split"] = np.array(shard.split)
            step = int(values.get("step", np.int64(0)))
            found[int(values["index"]), int(values["view"]), step] = values
    return found


def assert_same_rows(left: Path, right: Path) -> None:
    """Both zoos hold the same networks, byte for byte."""
    a, b = rows_of(left), rows_of(right)
    assert a.keys() == b.keys()
    for key, values in a.items():
        for name, value in values.items():
            assert value.tobytes() == b[key][name].tobytes(), (key, name)


def pixels(path: Path) -> np.ndarray:
    """A PNG as `row column 3`, checked to be one that is worth showing."""
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.format == "PNG"
        array = np.asarray(image.convert("RGB"))
    assert array.std() > 5
    return array


def write_pets(folder: Path, **parts: int) -> Path:
    """A folder of noisy pictures 5 x 5, as many cats as dogs, so many of each part."""
    draw = np.random.default_rng(3)
    for part, count in parts.items():
        for place in range(count):
            path = folder / part / ("cat", "dog")[place % 2] / f"{place:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), draw.integers(0, 256, (5, 5), np.uint8))
    return folder
