"""Parquet, the mapped `datasets` table and the shards hold the same rows, bit for bit."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import CLASSES, CNN, SINE, SIREN, random_rows, write_zoo

from zoo import shards, table
from zoo.errors import ZooError
from zoo.shards import Index, Shard
from zoo.spec import NetworkSpec

SPECS = {"siren": SIREN, "sine": SINE, "cnn": CNN}


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    yield datasets
    datasets.enable_progress_bars()


def load(datasets: Any, folder: Path, split: str = "train") -> Any:
    cache = str(folder.parent / "cache")
    return datasets.load_dataset(str(folder), split=split, cache_dir=cache)


def bits(array: Any) -> tuple[Any, ...]:
    array = np.asarray(array)
    return array.dtype, array.shape, array.tobytes()


@pytest.mark.parametrize("kind", SPECS)
def test_all_forms_hold_the_same_rows(kind: str, tmp_path: Path, datasets: Any) -> None:
    folder = tmp_path / "zoo"
    index = write_zoo(folder, {"train": 9, "test": 3}, 4, SPECS[kind])
    for split in index.splits:
        parts = [
            shards.read_tensors(folder / shard.file) for shard in table.shards_of(index, split)
        ]
        mapped = table.hf_dataset(folder, index, split).with_format("numpy")
        loaded = load(datasets, folder, split).with_format("numpy")
        assert mapped.features == loaded.features == table.features(index)
        assert list(mapped.features) == list(index.columns)
        assert mapped.split == split
        for name in index.columns:
            expected = bits(np.concatenate([part[name] for part in parts]))
            assert bits(mapped[:][name]) == expected, name
            assert bits(loaded[:][name]) == expected, name


def test_floats_keep_their_bits(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 2}, spec=SINE)
    rows = random_rows(SINE, 6)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    odd[0:1].view(np.uint32)[0] |= 0x1234
    rows["psnr_db"] = odd
    rows["weight_0"][:, 0, 0] = odd
    table.write_parquet(tmp_path / "odd.parquet", rows, index)
    read = pq.read_table(tmp_path / "odd.parquet")
    assert bits(read["psnr_db"].to_numpy()) == bits(odd)
    weights = read["weight_0"].combine_chunks()
    assert bits(weights.to_numpy()[:, 0, 0]) == bits(odd)


def test_features_name_classes_and_shapes(tmp_path: Path, datasets: Any) -> None:
    index = write_zoo(tmp_path / "zoo", {"train": 3})
    found = load(datasets, tmp_path / "zoo").features
    assert found["label"] == datasets.ClassLabel(names=list(CLASSES))
    assert found["weight_0"] == datasets.Array2D((32, 2), "float32")
    assert found["bias_0"] == datasets.List(datasets.Value("float32"), length=32)
    assert found["psnr_db"] == datasets.Value("float32")
    assert found["index"] == datasets.Value("int64")
    conv = table.features(replace(index, spec=CNN, columns=shards.zoo_columns(CNN, {})))
    assert conv["weight_0"] == datasets.Array4D((4, 1, 3, 3), "float32")


def test_torch_format_gives_shaped_tensors(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 9}, 4)
    rows = table.hf_dataset(tmp_path, index, "train").with_format("torch")[2:7]
    assert rows["weight_1"].shape == (5, 32, 32)
    assert rows["bias_1"].shape == (5, 32)
    assert rows["weight_1"].dtype == torch.float32


def test_parquet_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_zoo(tmp_path, {"train": 1})
    rows = random_rows(SIREN, 100)
    row_bytes = sum(array[:1].nbytes for array in rows.values())
    monkeypatch.setattr(table, "GROUP_BYTES", 30 * row_bytes)
    table.write_parquet(tmp_path / "x.parquet", rows, index)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [25, 25, 25, 25]
    weight = next(
        column
        for number in range(groups[0].num_columns)
        if (column := groups[0].column(number)).path_in_schema.startswith("weight_1")
    )
    assert weight.compression == "UNCOMPRESSED"
    assert "PLAIN" in weight.encodings
    assert not weight.has_dictionary_page
    assert groups[0].column(0).statistics.max == 24
    metadata = file.metadata.metadata
    assert json.loads(metadata[b"content_defined_chunking"]) == table.CHUNKING
    assert "features" in json.loads(metadata[b"huggingface"])["info"]
    # The very bytes of the tensor stand in the file: that is what the Hub deduplicates.
    assert rows["weight_1"][:25].tobytes() in (tmp_path / "x.parquet").read_bytes()


def test_strided_arrays_and_no_rows_are_written_right(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 1})
    rows = random_rows(SIREN, 4)
    strided = {name: np.asfortranarray(array)[::2] for name, array in rows.items()}
    table.write_parquet(tmp_path / "x.parquet", strided, index)
    read = pq.read_table(tmp_path / "x.parquet")
    weights = read["weight_1"].combine_chunks().to_numpy()
    np.testing.assert_array_equal(weights, rows["weight_1"][::2])
    none = {name: array[:0] for name, array in rows.items()}
    table.write_parquet(tmp_path / "y.parquet", none, index)
    assert pq.read_table(tmp_path / "y.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "expected the columns"),
        ({"label": np.zeros(4, np.int32)}, r"label: expected int64 \(4,\), got int32"),
        (
            {"weight_0": np.zeros((4, 2, 32), np.float32)},
            r"weight_0: expected float32 \(4, 32, 2\)",
        ),
        ({"bias_0": np.zeros((3, 32), np.float32)}, r"bias_0: expected float32 \(4, 32\)"),
    ],
)
def test_wrong_columns_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 1}, parquet=False)
    rows = random_rows(SIREN, 4) | change
    rows = {name: array for name, array in rows.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        table.write_parquet(tmp_path / "x.parquet", rows, index)
    assert not list(tmp_path.glob("*x.parquet*"))


def test_opening_copies_nothing(tmp_path: Path) -> None:
    """Arrow's pool holds no column, and the arrays point into the mapped shard."""
    index = write_zoo(tmp_path, {"train": 64}, 32, parquet=False)
    before = pa.total_allocated_bytes()
    data = table.hf_dataset(tmp_path, index, "train")
    assert pa.total_allocated_bytes() - before < 4096
    shard = table.map_shard(tmp_path, index, index.shards[0])
    kind = table.features(index).arrow_schema.field("weight_1").type
    values = table._arrow_array(kind, shard["weight_1"]).storage.flatten().flatten()
    assert np.shares_memory(values.to_numpy(zero_copy_only=True), shard["weight_1"])
    assert not shard["weight_1"].flags.writeable
    assert len(data.data.column("weight_1").chunks) == 2


def test_the_table_pickles_by_path_and_keeps_its_transforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_zoo(tmp_path / "zoo", {"train": 40}, 8, parquet=False)
    data = table.hf_dataset(tmp_path / "zoo", index, "train")
    changed = (
        data.select_columns(["label", "weight_0", "bias_0"])
        .rename_column("label", "digit")
        .select(range(5, 30))
        .with_format("torch")
    )
    for number, original in enumerate((data, changed)):
        packed = pickle.dumps(original)
        assert len(packed) < 8000
        monkeypatch.chdir(tmp_path / "zoo" / "weights")
        again = pickle.loads(packed)
        assert again.features == original.features
        assert len(again) == len(original)
        monkeypatch.undo()
        name = ["label", "digit"][number]
        assert list(again[name]) == list(original[name])
        np.testing.assert_array_equal(again[7]["weight_0"], original[7]["weight_0"])
    shuffled = pickle.loads(pickle.dumps(data.shuffle(seed=1)))
    assert sorted(shuffled["index"]) == sorted(data["index"])


def test_transforms_leave_the_folder_as_it_is(tmp_path: Path, datasets: Any) -> None:
    index = write_zoo(tmp_path, {"train": 10}, 4)
    before = sorted(tmp_path.rglob("*"))
    data = table.hf_dataset(tmp_path, index, "train")
    mapped = data.map(lambda row: {"double": 2 * row["psnr_db"]})
    few = mapped.filter(lambda row: row["label"] == 1)
    both = datasets.concatenate_datasets([data, table.hf_dataset(tmp_path, index, "train")])
    assert len(mapped) == 10
    assert len(few) < 10
    assert len(both) == 20
    assert sorted(tmp_path.rglob("*")) == before
    assert data._fingerprint == table.hf_dataset(tmp_path, index, "train")._fingerprint


def rewrite_header(path: Path, change: Any) -> None:
    """Change a shard's header and leave its data."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = change(json.loads(raw[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def put(name: str, **entry: Any) -> Any:
    return lambda header: header | {name: header[name] | entry}


def swapped(header: dict[str, Any]) -> dict[str, Any]:
    """Two tensors of one size at the same place."""
    return put("bias_0", data_offsets=header["bias_1"]["data_offsets"])(header)


def shifted(header: dict[str, Any]) -> dict[str, Any]:
    moved = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        moved[name] = entry | {"data_offsets": [start + 8, end + 8]}
    return moved


LIES = {
    "overlap": (swapped, r"bias_\d: data begin at"),
    "gap": (shifted, "data begin at 8, expected 0"),
    "shape": (put("weight_0", shape=[4, 2, 32]), r"weight_0: expected F32 \[4, 32, 2\], got F32"),
    "rows": (put("label", shape=[5]), r"label: expected I64 \[4\], got I64 \[5\]"),
    "dtype": (put("label", dtype="F64"), r"label: expected I64 \[4\], got F64"),
    "length": (put("label", data_offsets=[0, 8]), r"label: offsets \[0, 8\] do not hold 32"),
    "negative": (put("label", data_offsets=[-32, 0]), "label: data begin at -32"),
    "beyond": (put("label", data_offsets=[1 << 40, (1 << 40) + 32]), "data begin at"),
    "floats": (put("label", data_offsets=[0.0, 32.0]), "label: offsets"),
    "no offsets": (put("label", data_offsets=None), "label: offsets null"),
    "odd": (put("label", data_offsets=[4, 36]), "label: offsets"),
    "extra": (lambda header: header | {"more": {}}, "expected the columns"),
    "fewer": (lambda h: {k: v for k, v in h.items() if k != "label"}, "expected the columns"),
    "entry": (lambda header: header | {"label": 3}, "label: expected I64"),
    "list": (lambda header: [header], "not a JSON object"),
    "no JSON": (lambda header: b"{" * 64, "not JSON"),
    "deep": (lambda header: b"[" * 200_000, "not JSON"),
    "no text": (lambda header: b"\xff\xfe\xff\xff" * 4, "not JSON"),
    "huge": (lambda header: b" " * (table.HEADER_BYTES + 8), "a header of 1048584 bytes"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_detected(lie: str, tmp_path: Path) -> None:
    change, message = LIES[lie]
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    path = tmp_path / index.shards[0].file
    rewrite_header(path, lambda header: header)
    table.map_shard(tmp_path, index, as_it_lies(tmp_path, index))
    rewrite_header(path, change)
    with pytest.raises(ZooError, match=f"train-00000-of-00001.safetensors: .*{message}"):
        table.map_shard(tmp_path, index, as_it_lies(tmp_path, index))


def as_it_lies(folder: Path, index: Index) -> Shard:
    """The first shard, with the size that its file has now."""
    shard = index.shards[0]
    return replace(shard, bytes=(folder / shard.file).stat().st_size)


def test_a_shard_of_another_size_is_not_mapped(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    with (tmp_path / index.shards[0].file).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ZooError, match=r"safetensors has \d+ bytes, the index says \d+$"):
        table.map_shard(tmp_path, index, index.shards[0])


def test_metadata_in_the_header_is_allowed(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    path = tmp_path / index.shards[0].file
    rewrite_header(path, lambda header: header | {"__metadata__": {"by": "us"}})
    view = table.map_shard(tmp_path, index, as_it_lies(tmp_path, index))
    assert bits(view["weight_1"]) == bits(shards.read_tensors(path)["weight_1"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        (1 << 63).to_bytes(8, "little"),
        b"\x10" + b"\0" * 9,
        b"\x02" + b"\0" * 7 + b"{}",
    ],
)
def test_a_cut_header_is_detected(content: bytes, tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    (tmp_path / index.shards[0].file).write_bytes(content)
    with pytest.raises(ZooError, match=r"too few|a header of"):
        table.map_shard(tmp_path, index, as_it_lies(tmp_path, index))


def test_a_missing_shard_and_an_unknown_split(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    with pytest.raises(ValueError, match="unknown split 'test'; this zoo has train"):
        table.hf_dataset(tmp_path, index, "test")
    (tmp_path / index.shards[0].file).unlink()
    with pytest.raises(ZooError, match=r"train-00000-of-00001\.safetensors is missing"):
        table.hf_dataset(tmp_path, index, "train")


def test_columns_that_are_not_of_the_spec(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, {"train": 4}, parquet=False)
    other: Index = replace(index, spec=NetworkSpec.mlp([2, 8, 8, 8, 1]))
    with pytest.raises(ZooError, match="are not those of its spec"):
        table.features(other)
