"""A zoo reads back what was written, and says what is wrong with one that is not whole."""

import copy
import json
import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CNN, SINE, SIREN, write_zoo
from torch.utils.data import ConcatDataset, DataLoader, Subset

from zoo import nets, shards, table
from zoo.errors import ZooError
from zoo.reader import Zoo, collate, open_zoo
from zoo.spec import NetworkSpec

SPECS = {"siren": SIREN, "sine": SINE, "cnn": CNN}


def written(folder: Path, split: str) -> dict[str, np.ndarray]:
    index = shards.read_index(folder)
    parts = [shards.read_tensors(folder / s.file) for s in index.shards if s.split == split]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo that no test changes."""
    made = tmp_path_factory.mktemp("zoo")
    write_zoo(made, parquet=False)
    return made


@pytest.mark.parametrize("kind", SPECS)
def test_read_equals_written(kind: str, tmp_path: Path) -> None:
    spec = SPECS[kind]
    index = write_zoo(tmp_path, spec=spec, parquet=False)
    for split, rows in index.splits.items():
        networks = open_zoo(tmp_path, split, check_hashes=True)
        expected = written(tmp_path, split)
        assert len(networks) == rows
        assert networks.spec == spec
        order = np.random.default_rng(0).permutation(rows)
        weights, columns = networks.batch(order)
        named = weights.tensors() | columns
        assert named.keys() == expected.keys() == networks.columns.keys()
        for name, tensor in named.items():
            got = tensor.numpy().reshape(expected[name].shape)
            assert got.dtype == expected[name].dtype
            assert got.tobytes() == expected[name][order].tobytes(), name
            assert networks.column(name).tobytes() == expected[name].tobytes(), name


def test_large_rows_are_announced_whole_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int, int]] = []

    class Recording(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            super().madvise(option, start, length)  # refuses a start within a page
            advised.append((option, start, start + length))

    monkeypatch.setattr(mmap, "mmap", Recording)
    # Rows of 80,000 and 400 bytes, of which only the first are worth it.
    index = write_zoo(tmp_path, spec=NetworkSpec.mlp([200, 100, 1]), parquet=False)
    networks = open_zoo(tmp_path, "train")
    rows = [19, 3, 3, 8]
    weights, _ = networks.batch(rows)
    expected = written(tmp_path, "train")["weight_0"][rows]
    assert weights.weights[0].numpy().tobytes() == expected.tobytes()
    size = expected[0].nbytes
    contents = [(tmp_path / shard.file).read_bytes() for shard in index.shards]
    assert len(advised) == len(rows)
    assert all(option == mmap.MADV_WILLNEED for option, _, _ in advised)
    for row in expected:
        assert any(
            row.tobytes() in content[start:stop]
            for content in contents
            for _, start, stop in advised
        )
    assert all(size <= stop - start < size + mmap.PAGESIZE for _, start, stop in advised)

    advised.clear()
    monkeypatch.setattr(table, "LARGE_BYTES", size + 1)
    open_zoo(tmp_path, "train").batch(rows)
    assert not advised


def test_a_row_is_the_network_and_its_columns(folder: Path) -> None:
    networks = open_zoo(str(folder))
    expected = written(folder, "train")
    row = networks[9]
    assert len(row.weights) == 1
    assert row.weights.tensors()["weight_1"][0].numpy().tobytes() == (
        expected["weight_1"][9].tobytes()
    )
    assert row.columns == {name: expected[name][9].item() for name in row.columns}
    assert (row.label, row.psnr_db) == (expected["label"][9], expected["psnr_db"][9])
    assert type(row.label) is int
    assert type(row.psnr_db) is float
    assert row.spec == SIREN
    assert row.source == networks.index.source
    assert "2-32-32-1" in repr(row)
    assert f"label={row.label}" in repr(row)
    with pytest.raises(AttributeError, match="no 'colour'; its columns: index, view, label"):
        _ = row.colour
    with pytest.raises(AttributeError):
        row.label = 3  # type: ignore[misc]
    for other in (copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert other.columns == row.columns


def test_the_zoo_describes_itself(folder: Path) -> None:
    networks = open_zoo(folder)
    assert "20 networks linear 2-32-32-1 sin" in repr(networks)
    assert "label (3 classes)" in repr(networks)
    assert networks.columns["psnr_db"].unit == "dB"
    assert networks.folder == folder
    assert networks.split == "train"


def test_indices_count_from_the_end_too(folder: Path) -> None:
    networks = open_zoo(folder)
    assert networks[-1].columns == networks[19].columns == networks[np.int64(19)].columns
    _, columns = networks.batch(torch.tensor([-20, 19]))
    assert columns["index"].tolist() == [networks[0].index, networks[19].index]
    assert [row.index for row in networks] == networks.column("index").tolist()
    for wrong in (20, -21):
        with pytest.raises(IndexError, match=f"row {wrong} of 20"):
            networks[wrong]
    with pytest.raises(IndexError, match="row 99 of 20"):
        networks.batch([0, 99])
    for strange in ("3", 1.0):
        with pytest.raises(TypeError, match=r"one integer|Type-check"):
            networks[strange]  # type: ignore[index]
    for strange in ([0.0], [[1]], np.ones(20, bool)):
        with pytest.raises(TypeError, match=r"list of row numbers|Type-check"):
            networks.batch(strange)  # type: ignore[arg-type]


def test_a_batch_may_be_changed_and_repeat_rows(folder: Path) -> None:
    networks = open_zoo(folder)
    weights, columns = networks.batch([4, 4, 17])
    weights.weights[0].zero_()
    columns["label"].fill_(-1)
    again, kept = networks.batch([4, 17])
    assert again.weights[0].abs().sum() > 0
    assert (kept["label"] >= 0).all()
    torch.testing.assert_close(weights.weights[1][0], weights.weights[1][1])
    none, empty = networks.batch([])
    assert len(none) == 0
    assert len(empty["label"]) == 0


def test_render_and_module(folder: Path) -> None:
    networks = open_zoo(folder)
    row = networks[2]
    picture = row.render()
    assert picture.shape == (6, 5, 1)
    assert row.render(12).shape == (12, 5, 1)
    assert row.render(3, 4).shape == (3, 4, 1)
    torch.testing.assert_close(picture, nets.render(SIREN, row.weights, 6, 5)[0])
    with torch.no_grad():
        module = row.to_module()(torch.from_numpy(nets.coordinates(SIREN, 6, 5)))
    torch.testing.assert_close(module.reshape(6, 5, 1), picture)


def test_render_of_other_networks(tmp_path: Path) -> None:
    write_zoo(tmp_path / "sine", spec=SINE, parquet=False)
    sine = open_zoo(tmp_path / "sine")[0]
    assert sine.render().shape == (11, 1)
    assert sine.render(7).shape == (7, 1)
    assert not sine.render().requires_grad
    with pytest.raises(ValueError, match="no columns"):
        sine.render(7, 7)
    write_zoo(tmp_path / "cnn", spec=CNN, parquet=False)
    with pytest.raises(ValueError, match="only networks of two coordinates"):
        open_zoo(tmp_path / "cnn")[0].render()
    plain = json.loads((tmp_path / "sine" / "zoo.json").read_text())
    del plain["source"]["points"]
    (tmp_path / "sine" / "zoo.json").write_text(json.dumps(plain))
    with pytest.raises(ValueError, match="the source has no 'points'"):
        open_zoo(tmp_path / "sine")[0].render()


def test_stats(folder: Path) -> None:
    found = open_zoo(folder, "test").stats()
    weights = written(folder, "train")["weight_1"].astype(np.float64)
    torch.testing.assert_close(found["entry.mean.weight_1"], torch.tensor(weights.mean(0)))
    torch.testing.assert_close(found["entry.std.weight_1"], torch.tensor(weights.std(0)))
    torch.testing.assert_close(found["tensor.std.weight_1"], torch.tensor([weights.std()]))
    assert found["tensor.mean.bias_2"].shape == (1,)


def rewrite_stats(folder: Path, change: Any) -> None:
    """Change the statistics, and what the index says of their file."""
    path = folder / "stats.safetensors"
    found = shards.read_tensors(path)
    change(found)
    shards.write_tensors(path, found)
    plain = json.loads((folder / "zoo.json").read_text())
    plain["stats"] = vars(shards.describe(folder, "stats.safetensors"))
    (folder / "zoo.json").write_text(json.dumps(plain))


def put_value(key: str, value: float) -> Any:
    return lambda found: found[key].__setitem__(np.s_[..., 0], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("tensor.std.bias_0"), r"expected tensor.std.bias_0 .*, got none"),
        (
            lambda found: found.update({"entry.mean.bias_2": np.zeros(2)}),
            r"expected entry.mean.bias_2 float64 \(1,\), got float64 \(2,\)",
        ),
        (
            lambda found: found.update({"entry.mean.bias_2": np.zeros(1, np.float32)}),
            r"expected entry.mean.bias_2 float64 \(1,\), got float32 \(1,\)",
        ),
        (
            lambda found: found.update({"entry.mean.bias_9": np.zeros(1)}),
            r"\['entry.mean.bias_9'\] are no statistics of the zoo's tensors",
        ),
        (put_value("entry.mean.weight_0", np.nan), "entry.mean.weight_0 has values that are not f"),
        (put_value("tensor.std.weight_0", np.inf), "tensor.std.weight_0 has values that are not f"),
        (put_value("entry.std.weight_0", -1e-9), "entry.std.weight_0 has a negative standard dev"),
    ],
)
def test_stats_that_are_not_whole(change: Any, message: str, tmp_path: Path) -> None:
    write_zoo(tmp_path, {"train": 4}, parquet=False)
    rewrite_stats(tmp_path, put_value("entry.std.weight_0", 0.0))
    assert open_zoo(tmp_path).stats()["entry.std.weight_0"][0, 0] == 0
    rewrite_stats(tmp_path, change)
    with pytest.raises(ZooError, match=f"stats.safetensors: {message}"):
        open_zoo(tmp_path).stats()


def test_stats_are_the_file_of_the_index(tmp_path: Path) -> None:
    """They are what every training normalises by."""
    write_zoo(tmp_path, {"train": 4}, parquet=False)
    networks, path = open_zoo(tmp_path), tmp_path / "stats.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ZooError, match=r"stats\.safetensors .* the sha256 of the index"):
        networks.stats()
    with pytest.raises(ZooError, match=r"stats\.safetensors .* the sha256 of the index"):
        open_zoo(tmp_path, check_hashes=True)
    path.write_bytes(whole[:-1])
    with pytest.raises(ZooError, match=r"stats.safetensors has \d+ bytes, the index says \d+"):
        networks.stats()
    path.unlink()
    with pytest.raises(ZooError, match="missing"):
        networks.stats()
    os.mkfifo(path)
    with pytest.raises(ZooError, match=r"expected a plain file, it is a pipe \(FIFO\)"):
        networks.stats()
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ZooError, match="expected a plain file, it is a device"):
        networks.stats()


def test_a_zoo_without_training_networks_has_no_stats(tmp_path: Path) -> None:
    write_zoo(tmp_path, {"test": 4}, parquet=False)
    with pytest.raises(ZooError, match="names no file of statistics"):
        open_zoo(tmp_path, "test").stats()


def test_shards_are_plain_files(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    path = tmp_path / index.shards[0].file
    path.rename(tmp_path / "blob")
    path.symlink_to(tmp_path / "blob")  # as in the Hub's cache
    assert len(open_zoo(tmp_path, check_hashes=True)) == 4
    path.unlink()
    os.mkfifo(path)
    for hashes in (False, True):
        with pytest.raises(ZooError, match=r"expected a plain file, it is a pipe \(FIFO\)"):
            open_zoo(tmp_path, check_hashes=hashes)


def test_the_datasets_table_has_the_same_rows(folder: Path) -> None:
    networks = open_zoo(folder, "validation")
    rows = networks.as_hf_dataset().with_format("numpy")[:]
    for name in networks.columns:
        np.testing.assert_array_equal(rows[name], networks.column(name))


def test_a_zoo_pickles_by_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    networks = open_zoo(folder.name, "test")
    packed = pickle.dumps(networks)
    assert len(packed) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(packed)
    assert isinstance(again, Zoo)
    assert again.split == "test"
    assert again[3].columns == networks[3].columns


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_data_loader(workers: int, folder: Path) -> None:
    networks = open_zoo(folder)
    loader = DataLoader(
        networks,
        batch_size=6,
        shuffle=True,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator().manual_seed(3),
    )
    seen = []
    for weights, columns in loader:
        rows = [np.flatnonzero(networks.column("index") == i)[0] for i in columns["index"].numpy()]
        expected, _ = networks.batch(rows)
        for name, tensor in weights.tensors().items():
            assert torch.equal(tensor, expected.tensors()[name])
        seen += rows
    assert sorted(seen) == list(range(20))
    assert seen != list(range(20))


def test_data_loader_around_the_zoo(folder: Path) -> None:
    networks = open_zoo(folder)
    _, columns = next(
        iter(DataLoader(Subset(networks, [5, 3, 1]), batch_size=2, collate_fn=collate))
    )
    assert columns["index"].tolist() == [networks[5].index, networks[3].index]
    both = ConcatDataset([networks, networks])
    with pytest.raises(TypeError, match=r"must pass on __getitems__|Type-check"):
        next(iter(DataLoader(both, batch_size=2, collate_fn=collate)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a CUDA device")
def test_data_loader_with_pinned_memory(folder: Path) -> None:
    networks = open_zoo(folder)
    loader = DataLoader(networks, batch_size=6, collate_fn=collate, pin_memory=True)
    for weights, columns in loader:
        assert columns["label"].is_pinned()
        weights.to("cuda", non_blocking=True)


def flip(folder: Path) -> None:
    path = folder / "weights/train-00001-of-00003.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)


def truncate(folder: Path) -> None:
    path = folder / "weights/train-00001-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def remove(folder: Path) -> None:
    (folder / "weights/train-00001-of-00003.safetensors").unlink()


def swap(folder: Path) -> None:
    """Two shards of one size, each whole, in the other's place."""
    first, second = (folder / f"weights/train-0000{n}-of-00003.safetensors" for n in (0, 1))
    other = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(other)


def index_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        plain = json.loads((folder / "zoo.json").read_text())
        for key, value in changes.items():
            place = plain
            *way, last = key.split("__")
            for step in way:
                place = place[int(step) if step.isdigit() else step]
            place[last] = value
        (folder / "zoo.json").write_text(json.dumps(plain))

    return change


def unfinish(folder: Path) -> None:
    (folder / "zoo.json").unlink()
    (folder / ".build").mkdir()


DAMAGES = {
    "truncated": (truncate, r"train-00001-of-00003\.safetensors has \d+ bytes, the index says"),
    "missing": (remove, r"train-00001-of-00003\.safetensors is missing"),
    "newer": (index_with(format=3), "format 3 is newer than format 2"),
    "absolute": (index_with(shards__0__file="/etc/passwd"), "'/etc/passwd' lies outside"),
    "upwards": (index_with(shards__0__file="a/../../b"), "lies outside the zoo's folder"),
    "fewer": (
        index_with(shards__0__rows=7, splits__train=19),
        r"expected I64 \[7\], got I64 \[8\]",
    ),
    "spec": (
        index_with(spec__layers__0__inp=3),
        r"shards\[0\]\.bytes: 39160 bytes do not hold 8 rows of",
    ),
    "unfinished": (unfinish, "not finished"),
    "no index": (lambda folder: (folder / "zoo.json").unlink(), "has no zoo.json"),
    "no JSON": (lambda folder: (folder / "zoo.json").write_text("{"), "not JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected_on_opening(damage: str, tmp_path: Path) -> None:
    change, message = DAMAGES[damage]
    write_zoo(tmp_path, parquet=False)
    open_zoo(tmp_path)
    change(tmp_path)
    with pytest.raises(ZooError, match=message):
        open_zoo(tmp_path)


@pytest.mark.parametrize("change", [flip, swap])
def test_hashes_detect_changed_content(change: Any, tmp_path: Path) -> None:
    write_zoo(tmp_path, parquet=False)
    change(tmp_path)
    open_zoo(tmp_path)
    for split in ("train", "test"):  # every file, not only those of the split
        with pytest.raises(ZooError, match=r"train-0000\d-of-00003.safetensors .* sha256"):
            open_zoo(tmp_path, split, check_hashes=True)


def test_hashes_are_those_of_parquet_files_too(tmp_path: Path) -> None:
    index = write_zoo(tmp_path)
    view = tmp_path / index.shards[0].parquet.file
    content = bytearray(view.read_bytes())
    content[100] ^= 1
    view.write_bytes(content)
    open_zoo(tmp_path)
    with pytest.raises(ZooError, match=r"train-00000-of-00003.parquet .* sha256"):
        open_zoo(tmp_path, check_hashes=True)
    view.unlink()  # a pull of one split has not all files
    open_zoo(tmp_path, check_hashes=True)


def test_damage_to_another_split_does_not_matter(tmp_path: Path) -> None:
    write_zoo(tmp_path, parquet=False)
    remove(tmp_path)
    assert len(open_zoo(tmp_path, "test")) == 7


def test_misuse(folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'valid'; this zoo has train, validation"):
        open_zoo(folder, "valid")
    with pytest.raises(ValueError, match="unknown column 'lable'; known: index, view, label"):
        open_zoo(folder).column("lable")
    with pytest.raises(ZooError, match="user/mnist-inrs is not a zoo: it does not exist"):
        open_zoo("user/mnist-inrs")


def test_reading_needs_neither_pyarrow_nor_datasets(folder: Path) -> None:
    code = (
        "import sys, zoo.reader; z = zoo.reader.open_zoo(sys.argv[1]); z.batch([1]); "
        "sys.exit(bool({'pyarrow', 'datasets'} & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=root, check=True)


# ---- views


VIEWS = {
    "the first": (lambda z: z[:5], lambda n, psnr: np.arange(5)),
    "every third, backwards": (lambda z: z[::-3], lambda n, psnr: np.arange(n)[::-3]),
    "a mask of NumPy": (
        lambda z: z[z.table["psnr_db"] > 30],
        lambda n, psnr: np.flatnonzero(psnr > 30),
    ),
    "a mask of torch": (
        lambda z: z[torch.from_numpy(z.column("psnr_db")) > 30],
        lambda n, psnr: np.flatnonzero(psnr > 30),
    ),
    "a list of truth values": (
        lambda z: z[[bool(value > 30) for value in z.table["psnr_db"]]],
        lambda n, psnr: np.flatnonzero(psnr > 30),
    ),
    "a condition": (lambda z: z.select("psnr_db > 30"), lambda n, psnr: np.flatnonzero(psnr > 30)),
    "numbers": (lambda z: z[[7, -1, 0, 7]], lambda n, psnr: np.array([7, n - 1, 0, 7])),
    "a view of a view": (lambda z: z[3:][::2][[4, 1]], lambda n, psnr: np.array([11, 5])),
    "nothing": (lambda z: z[:0], lambda n, psnr: np.zeros(0, np.int64)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_its_rows_and_all_that_a_zoo_can_do(folder: Path, name: str) -> None:
    make, expected = VIEWS[name]
    whole = open_zoo(folder)
    view = make(whole)
    rows = expected(len(whole), whole.column("psnr_db"))
    assert 0 < len(rows) < len(whole) or name == "nothing"
    assert isinstance(view, Zoo)
    assert len(view) == len(rows)
    weights, columns = view.batch(range(len(view)))
    wanted, labels = whole.batch(rows)
    assert torch.equal(weights.flatten(), wanted.flatten())
    for column in whole.columns:
        assert view.column(column).tobytes() == whole.column(column)[rows].tobytes(), column
    assert torch.equal(columns["label"], labels["label"])
    assert [row.index for row in view] == whole.column("index")[rows].tolist()
    assert view.table["steps"].tolist() == whole.table["steps"][rows].tolist()
    for other in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
        assert other.column("index").tolist() == view.column("index").tolist()
    for key, value in view.stats().items():
        assert torch.equal(value, whole.stats()[key])
    assert f"{len(rows)} of {len(whole)} networks" in repr(view)
    assert view.as_hf_dataset()["index"][:] == view.column("index").tolist()
    for number in (-len(view) - 1, len(view)):
        with pytest.raises(IndexError, match=f"row {number} of {len(view)} in"):
            view[number]


def test_a_view_goes_through_a_loader_with_workers(folder: Path) -> None:
    view = open_zoo(folder)[::2]
    loader = DataLoader(view, batch_size=3, collate_fn=collate, num_workers=1)
    found = torch.cat([columns["index"] for _, columns in loader])
    assert found.tolist() == view.column("index").tolist()


def test_a_view_reads_nothing_until_it_is_asked(folder: Path, monkeypatch: Any) -> None:
    whole = open_zoo(folder)
    monkeypatch.setattr(Zoo, "_gather", lambda *_: pytest.fail("it reads"))
    assert len(whole[3:9][::2]) == 3
    assert whole[:5]._shards is whole._shards


def test_the_table_has_the_numbers_of_each_row(folder: Path) -> None:
    table = open_zoo(folder).table
    assert set(table) == {"label", "index", "view", "psnr_db", "mse", "steps", "stop"}
    assert len(table) == 7
    assert table["label"] is table["label"]
    with pytest.raises(ValueError, match="read-only"):
        table["label"][0] = 1
    with pytest.raises(KeyError, match="no column 'psnr'; there are"):
        table["psnr"]


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        (np.ones(3, bool), IndexError, "a mask of 3 values for 20 rows"),
        (torch.ones(21, dtype=torch.bool), IndexError, "a mask of 21 values for 20 rows"),
        ([0, 20], IndexError, "row 20 of 20"),
        ([0.5], TypeError, "expected a list of row numbers"),
        (["psnr_db"], TypeError, "expected a list of row numbers"),
        (np.zeros((2, 2), np.int64), TypeError, r"int64 \(2, 2\)"),
        ("psnr_db > 3", TypeError, "a view by a slice, a mask or row numbers"),
        (1.5, TypeError, "a row is chosen by one integer"),
    ],
)
def test_what_chooses_no_rows(folder: Path, chosen: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        open_zoo(folder)[chosen]


def test_a_condition_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(ValueError, match="no column 'psnr'; there are"):
        open_zoo(folder).select("psnr > 3")
