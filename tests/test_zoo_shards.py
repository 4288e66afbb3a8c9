"""Files are whole or not there, an index says all and is not believed blindly, one writes."""

import errno
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo import shards
from zoo.errors import ZooError
from zoo.shards import Column, Excluded, File, Index, Shard
from zoo.spec import NetworkSpec

SPEC = NetworkSpec.mlp([2, 4, 1], coord_order="xy")
HASH = "0" * 64


def an_index() -> Index:
    """One with every field set."""
    columns = {
        "label": Column("target", "class", ("cat", "dog")),
        "psnr_db": Column("quality", "real", unit="dB"),
    }
    view = File("data/train-00000-of-00002.parquet", 9, HASH)
    common = {"bytes": 5, "sha256": HASH, "cpu": "x86_64 znver5"}
    return Index(
        name="tiny",
        recipe={"kind": "image", "name": "dws", "lr": 1e-3, "target_psnr_db": None},
        spec=SPEC,
        columns=shards.zoo_columns(SPEC, columns),
        shards=(
            Shard(shards.shard_file("train", 0, 2), split="train", rows=4, parquet=view, **common),
            Shard(shards.shard_file("train", 1, 2), split="train", rows=3, **common),
            Shard(shards.shard_file("test", 0, 1), split="test", rows=2, **common),
        ),
        source={"name": "mnist", "shape": [28, 28, 1]},
        plan={"seed": 1, "shard_rows": 4},
        quality={"train": {"psnr_db": {"mean": 30.25}}},
        packages={"torch": "2"},
        stats=File("stats.safetensors", 7, HASH),
        excluded=(Excluded("train", 8, 0, "not finite after 3 attempts"),),
        command="wszoo fit-inrs mnist",
    )


# --- durable writing -----------------------------------------------------------------------


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing_makes_folders_and_leaves_one_file(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in ("old", "new"):
        with shards.replacing(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent  # a rename does not cross disks
        assert path.read_text() == content
        assert leftovers(path.parent) == ["file"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with shards.replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "write_bytes"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "file.safetensors"
    shards.write_tensors(path, {"a": np.zeros(3, np.float32)})
    old = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "write_bytes")), full)
    with pytest.raises(OSError, match="No space left") as caught:
        shards.write_tensors(path, {"a": np.ones(3, np.float32)})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == old
    assert leftovers(tmp_path) == [path.name]


def test_content_is_synced_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "content")
        fsync(descriptor)

    def renamed(self, target):
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    shards.write_json(tmp_path / "file.json", {})
    if sys.platform == "linux":
        assert calls == ["content", "rename", "folder"]


def test_numbers_that_json_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "file.json"
    shards.write_json(path, {"a": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        shards.write_json(path, {"a": float("nan")})
    assert shards.read_json(path) == {"a": 1.5}
    assert leftovers(tmp_path) == ["file.json"]


def test_tensors_come_back_exactly(tmp_path):
    path = tmp_path / "weights" / "a.safetensors"
    base = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
    tensors = {
        "weight_0": base,
        "strided": base[:, ::2].transpose(0, 2, 1),
        "index": np.arange(4),
        "wide": base.astype(np.float64),
        "odd": np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
    }
    shards.write_tensors(path, tensors, {"format": "1"})
    found = shards.read_tensors(path)
    assert set(found) == set(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("damage", [b"", b"\x08", b"{}" * 50, None], ids=str)
def test_damaged_tensors_are_one_line(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    shards.write_tensors(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(ZooError, match=r"a\.safetensors: not a safetensors file \([^\n]+\)$"):
        shards.read_tensors(path)


def test_missing_tensors_are_one_line(tmp_path):
    with pytest.raises(ZooError, match=r"a\.safetensors is missing$"):
        shards.read_tensors(tmp_path / "a.safetensors")


# --- the index -----------------------------------------------------------------------------


def test_index_round_trip(tmp_path):
    index = an_index()
    shards.write_index(tmp_path, index)
    assert shards.read_index(tmp_path) == index
    plain = json.loads((tmp_path / "zoo.json").read_text())
    assert plain["format"] == 1
    assert plain["splits"] == {"train": 7, "test": 2}
    assert plain["spec"] == SPEC.to_json()


def test_index_of_a_zoo_that_has_only_begun(tmp_path):
    index = replace(an_index(), shards=(), stats=None, excluded=(), quality={})
    shards.write_index(tmp_path, index)
    assert shards.read_index(tmp_path) == index
    assert (index.rows, index.splits) == (0, {})


def test_index_counts_rows_and_lists_files():
    index = an_index()
    assert index.rows == 9
    assert list(index.splits) == ["train", "test"]
    assert [file.file for file in index.files] == [
        "weights/train-00000-of-00002.safetensors",
        "weights/train-00001-of-00002.safetensors",
        "weights/test-00000-of-00001.safetensors",
        "data/train-00000-of-00002.parquet",
        "stats.safetensors",
    ]


def with_file(kind: str, name: str) -> dict:
    plain = an_index().to_json()
    entry = {
        "shard": plain["shards"][1],
        "parquet": plain["shards"][0]["parquet"],
        "stats": plain["stats"],
    }[kind]
    entry["file"] = name
    return plain


@pytest.mark.parametrize("kind", ["shard", "parquet", "stats"])
@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "weights/../../x", "/etc/passwd", "weights\\..\\x", "C:\\x"]
)
def test_files_outside_the_folder_are_refused(kind, name):
    with pytest.raises(ZooError, match="lies outside the zoo's folder"):
        Index.from_json(with_file(kind, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format 3 is newer than format 2, .*; upgrade wszoo"),
        ({"format": "1"}, "expected a format number, got '1'"),
        ({"format": None}, "expected a format number, got None"),
        ({"splits": {"train": 8, "test": 2}}, r"splits say .*8.*, the shards add up to .*7"),
        ({"splits": None}, "splits say None"),
        ({"spec": None}, "not an index of format 1"),
        ({"spec": {"layers": [], "conventions": {}}}, "at least one layer"),
        ({"columns": {"label": {}}}, "not an index of format 1"),
        ({"shards": [{"file": "x"}]}, "not an index of format 1"),
        ({"shards": [5]}, "not an index of format 1"),
        ({"surprise": 1}, "not an index of format 1: .*surprise"),
    ],
    ids=str,
)
def test_an_index_that_is_wrong_is_one_line(change, message):
    with pytest.raises(ZooError, match=message) as caught:
        Index.from_json(an_index().to_json() | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "spec", "columns", "shards", "source", "plan"])
def test_a_part_that_is_missing_is_named(missing):
    plain = an_index().to_json()
    del plain[missing]
    with pytest.raises(ZooError, match=f"not an index of format 1: .*{missing}"):
        Index.from_json(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "extra"}, "not an index of format 1: .*extra"),
        ({"file": None}, "not an index of format 1"),
    ],
    ids=str,
)
def test_a_shard_that_is_wrong_is_one_line(change, message):
    plain = an_index().to_json()
    plain["shards"][2].update(change)
    with pytest.raises(ZooError, match=message):
        Index.from_json(plain)


@pytest.mark.parametrize("content", ["", "{", '{"format": 1', "\x00", "[]", "3", '"zoo"'])
def test_what_is_no_index_is_one_line(tmp_path, content):
    (tmp_path / "zoo.json").write_text(content)
    with pytest.raises(ZooError, match=r"zoo\.json: (not JSON|not an index)"):
        shards.read_index(tmp_path)


def test_folders_without_an_index(tmp_path):
    with pytest.raises(ZooError, match=r"nowhere is not a zoo: it does not exist"):
        shards.read_index(tmp_path / "nowhere")
    with pytest.raises(ZooError, match=r"is not a zoo: it has no zoo\.json"):
        shards.read_index(tmp_path)
    (tmp_path / shards.BUILD_FOLDER).mkdir()
    with pytest.raises(ZooError, match=r"is not finished; run the command .* again"):
        shards.read_index(tmp_path)


def test_columns_stand_in_order_and_know_their_types():
    columns = shards.zoo_columns(SPEC, {"label": Column("target", "class", ("a",))})
    assert list(columns) == [
        *("index", "view", "label", "weight_0", "bias_0", "weight_1", "bias_1")
    ]
    assert (columns["weight_1"].role, columns["bias_1"].role) == ("weight", "bias")
    assert {name: column.dtype for name, column in columns.items()} == {
        **dict.fromkeys(["index", "view", "label"], np.int64),
        **dict.fromkeys(["weight_0", "bias_0", "weight_1", "bias_1"], np.float32),
    }
    assert Column("quality", "count").dtype is np.int64
    assert Column("quality", "real").dtype is np.float32


def test_shard_files_are_named_as_the_hub_expects():
    assert shards.shard_file("train", 3, 14) == "weights/train-00003-of-00014.safetensors"
    assert shards.shard_file("test", 0, 1, parquet=True) == "data/test-00000-of-00001.parquet"


# --- checking files --------------------------------------------------------------------------


def test_check_file_finds_every_damage(tmp_path):
    path = tmp_path / "weights" / "a"
    path.parent.mkdir()
    path.write_bytes(b"0123456789" * 100)
    file = shards.describe(tmp_path, "weights/a")
    assert file == File("weights/a", 1000, hashlib.sha256(path.read_bytes()).hexdigest())
    assert shards.check_file(tmp_path, file, hashes=True) is None

    flipped = bytearray(path.read_bytes())
    flipped[500] ^= 1
    path.write_bytes(flipped)
    assert shards.check_file(tmp_path, file, hashes=False) is None  # sizes cannot see it
    assert "its content has changed" in shards.check_file(tmp_path, file, hashes=True)
    path.write_bytes(flipped[:-1])
    assert "has 999 bytes, the index says 1000" in shards.check_file(tmp_path, file, hashes=False)
    path.unlink()
    assert shards.check_file(tmp_path, file, hashes=False).endswith("weights/a is missing")
