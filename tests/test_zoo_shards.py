"""Files are whole or not there, an index says all and is not believed blindly, one writes."""

import copy
import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import schema, shards, table
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
    common = {"sha256": HASH, "cpu": "x86_64 znver5"}
    sizes = {rows: 8 + 600 + rows * (4 * SPEC.param_count + 8 + 8 + 8 + 4) for rows in (2, 3, 4)}

    def shard(split: str, number: int, total: int, rows: int) -> Shard:
        name = shards.shard_file(split, number, total)
        view = File(shards.shard_file(split, number, total, parquet=True), 9, HASH)
        return Shard(name, sizes[rows], split=split, rows=rows, parquet=view, **common)

    return Index(
        name="tiny",
        recipe={"kind": "others", "name": "dws", "lr": 1e-3, "target_psnr_db": None},
        spec=SPEC,
        columns=shards.zoo_columns(SPEC, columns),
        shards=(shard("train", 0, 2, 4), shard("train", 1, 2, 3), shard("test", 0, 1, 2)),
        source={"name": "mnist", "shape": [28, 28, 1]},
        plan={"seed": 1, "shard_rows": 4, "parquet": True},
        quality={
            split: {"psnr_db": {"mean": 30.25, "std": 1.5, "min": 28.0, "max": 33.0}}
            for split in ("train", "test")
        },
        packages={"torch": "2"},
        stats=File("stats.safetensors", 8 + 400 + 16 * (SPEC.param_count + 4), HASH),
        excluded=(Excluded("train", 8, 0, "not finite after 3 attempts"),),
        command="wszoo fit-inrs mnist",
    )


# --- durable writing -----------------------------------------------------------------------


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing_neither_waits_for_a_pipe_nor_follows_a_link(tmp_path):
    """What lies under the temporary name may be anything."""
    (tmp_path / "elsewhere").write_text("mine")
    for make in (os.mkfifo, lambda name: name.symlink_to(tmp_path / "elsewhere")):
        make(tmp_path / ".a.tmp")
        with shards.replacing(tmp_path / "a") as temporary:
            temporary.write_text("ours")
        assert (tmp_path / "a").read_text() == "ours"
        assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "elsewhere"]


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
    with pytest.raises(ZooError, match=r"a\.safetensors: not a safetensors file \([^\n]+$"):
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
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
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
    "name",
    [
        *("../../etc/passwd", "weights/../../x", "/etc/passwd", "weights\\..\\x", "C:\\x"),
        *("", "weights//a", "./stats.safetensors", "C:x", "weights/a\nb"),
    ],
)
def test_files_outside_the_folder_are_refused(kind, name):
    with pytest.raises(ZooError, match=r"\.file: .* lies outside the zoo's folder$"):
        Index.from_json(with_file(kind, name))


@pytest.mark.parametrize("kind", ["shard", "parquet", "stats"])
@pytest.mark.parametrize(
    "name",
    [
        *("zoo.json", "weights/evil.pkl", ".git/hooks.safetensors", "README.md"),
        *("weights/train-1-of-2.safetensors", "weights/test-00001-of-00002.safetensors"),
        *("weights/train-00002-of-00002.safetensors", "data/train-00005-of-00002.parquet"),
    ],
)
def test_files_have_the_names_of_their_kind(kind, name):
    with pytest.raises(ZooError, match=r"\.file: expected .*, got '"):
        Index.from_json(with_file(kind, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format 3 is newer than format 2, .*; upgrade wszoo"),
        ({"format": "1"}, "expected a format number, got '1'"),
        ({"format": None}, "expected a format number, got null"),
        ({"format": True}, "expected a format number, got true"),
        ({"splits": {"train": 8, "test": 2}}, r"splits: they say .*8.*, the shards add up to .*7"),
        ({"splits": None}, "splits: expected an object, got null"),
        ({"splits": {"train": 7.0, "test": 2}}, r"splits\.train: expected an integer .*, got 7\.0"),
        ({"spec": None}, "spec: expected an object, got null"),
        ({"spec": {"layers": [], "conventions": {}}}, r"spec\.layers: expected .*, got 0"),
        ({"columns": {"label": {}}}, r"columns\.label\.role: is missing"),
        ({"shards": [{"file": "weights/x"}]}, r"shards\[0\]\.bytes: is missing"),
        ({"shards": [5]}, r"shards\[0\]: expected an object, got 5"),
        ({"surprise": 1}, "surprise: unknown field; known: format, name"),
    ],
    ids=str,
)
def test_an_index_that_is_wrong_is_one_line(change, message):
    with pytest.raises(ZooError, match=message) as caught:
        Index.from_json(an_index().to_json() | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "missing", ["format", "name", "splits", "recipe", "spec", "columns", "shards", "source", "plan"]
)
def test_a_part_that_is_missing_is_named(missing):
    plain = an_index().to_json()
    del plain[missing]
    message = "format number" if missing == "format" else f"^zoo.json: {missing}: is missing$"
    with pytest.raises(ZooError, match=message):
        Index.from_json(plain)


def test_format_2_says_what_it_needs_that_for():
    """Else an index that lost the entry of its file names would open without them."""
    with pytest.raises(ZooError, match="format: expected 1, which it uses, got 2"):
        Index.from_json(an_index().to_json() | {"format": 2})


def named_index() -> Index:
    """One of format 2, whose source has file names."""
    names = {"file": "names.parquet", "bytes": 99, "sha256": HASH}
    return replace(an_index(), source={**an_index().source, "names": names})


def test_what_is_new_says_format_2():
    plain = named_index().to_json()
    assert plain["format"] == 2
    assert Index.from_json(json.loads(json.dumps(plain))) == named_index()
    assert named_index().files[-1] == File("names.parquet", 99, HASH)
    assert an_index().to_json().keys() == plain.keys()
    with pytest.raises(ZooError, match="format: expected 2, which it uses, got 1"):
        Index.from_json({**plain, "format": 1})
    plain["source"]["names"]["file"] = "data/names.parquet"
    with pytest.raises(
        ZooError, match=r"source\.names\.file: expected 'names.parquet', got 'data/"
    ):
        Index.from_json(plain)


def test_a_zoo_that_takes_an_older_ones_place_lies_in_a_folder_of_its_own():
    plain = named_index().to_json()
    for entry in (*plain["shards"], plain["stats"]):
        entry["file"] = f".build/new/{entry['file']}"
    for shard in plain["shards"]:
        shard["parquet"]["file"] = f".build/new/{shard['parquet']['file']}"
    index = Index.from_json(plain)
    assert {file.file.partition("new/")[0] for file in index.files} == {".build/"}
    plain["shards"][1]["file"] = plain["shards"][1]["file"].removeprefix(".build/new/")
    with pytest.raises(
        ZooError, match=r"shards\[1\]\.file: expected a name such as \.build/new/we"
    ):
        Index.from_json(plain)


def edit(place: str, value: object) -> dict:
    """The plain index with one place of it changed; "columns/label/kind"."""
    plain = an_index().to_json()
    *outer, last = [int(key) if key.isdigit() else key for key in place.split("/")]
    inside = plain
    for key in outer:
        inside = inside[key]
    if value is KeyError:
        del inside[last]
    else:
        inside[last] = value
    return plain


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("shards/2/split", "extra", r"shards\[2\]\.split: expected 'train', "),
        ("shards/2/split", "train", r"shards\[2\]\.file: expected a name such as weights/train-0"),
        ("shards/2/file", None, r"shards\[2\]\.file: expected a string .*, got null"),
        ("shards/1/file", "weights/train-00000-of-00002.safetensors", r"\[1\]: the file .* at \["),
        ("shards/1/file", "weights/train-00001-of-00003.safetensors", r"\[1\]\.parquet\.file: "),
        ("shards/1/rows", 30, r"shards\[1\]\.bytes: 896 bytes do not hold 30 rows of 96 bytes"),
        ("shards/0/bytes", 1 << 30, r"shards\[0\]\.bytes: 1073741824 bytes do not hold 4 rows"),
        ("shards/0/parquet", None, "shards: some have a Parquet view and some have none"),
        ("stats/bytes", 50, r"stats\.bytes: 50 bytes do not hold the 336 bytes"),
        ("stats", None, "stats: is missing, though there are networks to train on"),
        ("quality/test", KeyError, "quality: expected the splits train, test"),
        ("quality/validation", {}, r"quality\.validation: the zoo has no such split"),
        ("quality/test/mse", {k: 1 for k in ("mean", "std", "min", "max")}, r"quality\.test: exp"),
        ("quality/test/psnr_db/mean", 40, r"quality\.test\.psnr_db: expected min <= mean <= max"),
        ("quality/test/psnr_db/std", -1, r"quality\.test\.psnr_db: expected .* std >= 0"),
        ("columns/view", KeyError, r"columns\.view: expected a key of kind 'index'"),
        ("columns/index/kind", "count", r"columns\.index: expected a key of kind 'index'"),
        ("columns/weight_0/role", "bias", r"columns\.weight_0: expected role 'weight', k"),
        ("columns/weight_0/storage", "float16", r"columns\.weight_0: .*storage null \(plan\.dtype"),
        ("columns/bias_1", KeyError, r"columns\.bias_1: is missing, a tensor of the spec"),
        ("columns/weight_2", vars(Column("weight", "tensor")), r"columns\.weight_2: is no tensor"),
        ("columns/psnr_db/kind", "tensor", r"columns\.psnr_db: is no tensor of the spec"),
        ("columns/label/kind", "real", r"columns\.label: names are of a class only"),
        ("columns/psnr_db/storage", "float16", r"columns\.psnr_db\.storage: is of tensors only"),
        ("plan/limit", 9, r"plan\.limit: 9 networks at most, there are 10"),
        ("plan/engin", "cpu", r"plan\.engin: unknown field"),
        ("spec/layers/1/inp", 5, "spec: layer 1 takes 5 inputs, but layer 0 gives 4"),
        ("excluded/0/index", -1, r"excluded\[0\]\.index: expected an integer from 0"),
        ("source/sha256", "0", r"source\.sha256: expected a sha256 of 64 hex digits or null"),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_named(place, value, message):
    assert Index.from_json(an_index().to_json()) == an_index()
    with pytest.raises(ZooError, match=message):
        Index.from_json(edit(place, value))


def test_shards_of_a_split_have_one_total_and_rising_numbers():
    def renamed(number: int, total: int) -> dict:
        plain = an_index().to_json()
        plain["shards"][1]["file"] = shards.shard_file("train", number, total)
        view = shards.shard_file("train", number, total, parquet=True)
        plain["shards"][1]["parquet"]["file"] = view
        return plain

    with pytest.raises(ZooError, match=r"shards\[1\]\.file: .* comes after number 0 of 2$"):
        Index.from_json(renamed(1, 3))
    plain = renamed(1, 2)
    plain["shards"][:2] = plain["shards"][1::-1]
    with pytest.raises(ZooError, match=r"shards\[1\]\.file: .* comes after number 1 of 2$"):
        Index.from_json(plain)


def test_shards_are_in_the_order_of_the_splits():
    plain = an_index().to_json()
    plain["shards"].insert(0, plain["shards"].pop())
    with pytest.raises(ZooError, match="shards: expected those of train, validation, test in this"):
        Index.from_json(plain)


def test_a_record_of_a_shard_is_checked_as_in_the_index():
    plain = an_index().to_json()["shards"][1]
    assert shards.shard_from_json(plain) == an_index().shards[1]
    with pytest.raises(ZooError, match=r"^x\.json: rows: expected an integer .*, got 25\.0$"):
        shards.shard_from_json({**plain, "rows": 25.0}, "x.json")
    with pytest.raises(
        ZooError, match=r"^x\.json: shard\.file: expected a name such as weights/tes"
    ):
        shards.shard_from_json({**plain, "split": "test"}, "x.json")


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
    os.mkfifo(path)
    assert shards.check_file(tmp_path, file, hashes=True).endswith("it is a pipe (FIFO)")


# --- real zoos, every field wrong in every way -----------------------------------------------

WRONG = [
    *(None, True, False, 0, 1, -1, 2, 25.0, 0.5, -0.5, 1e308, 10**30, 2**53, 2**64),
    *("", "x", "nan", "1", "../x", "train", "a\x1b[2Jb\n", "0" * 64),
    *([], [0], ["x"], [[]], {}, {"x": 1}),
]
# What nothing else in the zoo tells: text, and settings of the fit.
FREE = {"name", "command", "cpu", "reason", "title", "license", "url", "citation", "unit"}


def leaves(plain: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every value in plain data, those that hold others too; of lists the ends."""
    yield place
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from leaves(value, (*place, key))
    elif isinstance(plain, list):
        for key in sorted({0, len(plain) - 1} & set(range(len(plain)))):
            yield from leaves(plain[key], (*place, key))


def at(plain: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        plain = plain[key]
    return plain


def opened(folder: Path, plain: Any) -> Index | str:
    """The index that opens with the folder's files, or the one line that refuses it."""
    try:
        content = json.dumps(plain).encode()
        index = Index.from_json(schema.parse(content, "zoo.json"))
        for shard in index.shards:
            table.map_shard(folder, index, shard)
        return index
    except ZooError as error:
        line = str(error)
        assert line.startswith(("zoo.json: ", str(folder))), line
        assert line.isprintable(), line
        assert len(line) < 1000, line
        return line


def same_kind(new: Any, old: Any) -> bool:
    """Whether a value can be meant: of the old one's type; null where one may be."""
    numbers = (int, float)
    return (
        type(new) is type(old)
        or (type(new) in numbers and type(old) is float)
        or (new is None or old is None)
    )


@pytest.mark.parametrize("made", ["digits_zoo", "waves_zoo", "trajectories_zoo"])
def test_whatever_stands_in_a_field_is_named_or_taken_as_it_is(made, request):
    """No traceback, and no value is taken for another: 25.0 is no 25, true is no 1."""
    folder = request.getfixturevalue(made)
    whole = shards.read_json(folder / "zoo.json")
    assert isinstance(opened(folder, whole), Index)
    content = json.dumps(whole)
    refused = taken = 0
    for place in leaves(whole):
        if not place:
            continue
        old = at(whole, place)
        for new in WRONG:
            if json.dumps(new) == json.dumps(old):
                continue
            plain = json.loads(content)
            at(plain, place[:-1])[place[-1]] = new
            found = opened(folder, plain)
            if isinstance(found, str):
                refused += 1
                if not same_kind(new, old) or isinstance(old, dict | list):
                    # The field, or the object that it is a field of.
                    named = [str(key) for key in place if isinstance(key, str)]
                    named += ["spec: is not the one that the recipe gives"]  # from class_names
                    assert any(key in found for key in named[-3:]), (place, new, found)
                continue
            taken += 1
            assert same_kind(new, old), (place, old, new)
            if new == old or place == ("format",):
                continue
            assert json.loads(json.dumps(found.to_json())) == plain, (place, old, new)
            if place[0] in ("splits", "shards", "spec", "columns", "stats", "quality"):
                free = place[-1] in FREE or place[0] == "quality"
                assert free or place[-1] in ("sha256", "bytes"), (place, new)
    assert refused > 8 * taken > 0


@pytest.mark.parametrize("made", ["digits_zoo", "waves_zoo", "trajectories_zoo"])
def test_fields_that_are_missing_or_unknown_are_named(made, request):
    folder = request.getfixturevalue(made)
    whole = shards.read_json(folder / "zoo.json")
    for place in leaves(whole):
        value = at(whole, place)
        if isinstance(value, dict) and place not in (("source",), ("packages",)):
            plain = copy.deepcopy(whole)
            at(plain, place)["surprise"] = value
            found = opened(folder, plain)
            assert isinstance(found, str), place
            assert "surprise" in found or "kind of" in found, (place, found)
        if place and isinstance(place[-1], str) and place[:1] != ("packages",):
            plain = copy.deepcopy(whole)
            del at(plain, place[:-1])[place[-1]]
            found = opened(folder, plain)
            if isinstance(found, str):
                assert str(place[-1]) in found or "plan.limit" in found, (place, found)
            else:
                optional = {"title", "license", "url", "citation", "train_items", "step"}
                assert place[-1] in {*optional, *("packages", "command", "excluded")}, place


@pytest.mark.parametrize("made", ["digits_zoo", "waves_zoo", "trajectories_zoo"])
def test_lists_that_are_cut_doubled_or_mixed_are_named(made, request):
    folder = request.getfixturevalue(made)
    whole = shards.read_json(folder / "zoo.json")
    for place in leaves(whole):
        value = at(whole, place)
        if not isinstance(value, list) or not value:
            continue
        for changed in (value[:-1], [*value, value[-1]], value[::-1], value[1:]):
            if changed == value:
                continue
            plain = copy.deepcopy(whole)
            at(plain, place[:-1])[place[-1]] = copy.deepcopy(changed)
            found = opened(folder, plain)
            # To classifiers pictures of 8 x 8 x 1 are as good as those of 1 x 8 x 8.
            free = made == "trajectories_zoo" and place[0] == "source"
            assert free or isinstance(found, str), (place, changed)
