"""Tables of labels as people write them; what a column is, is told by it or asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.importers.labels import (
    Table,
    columns_of,
    kinds_of,
    read_table,
    splits_of,
    whole_numbers,
)
from zoo.importers.published import Told

NAMES = ["a/0.pth", "a/1.pth", "b/2.pth"]


def read(tmp_path: Path, content: str | bytes, names: list[str] = NAMES) -> tuple[Table, list[str]]:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told = Told()
    return read_table(path, names, told), told.lines(1)


LABELS = dict(zip(NAMES, ["7", "8", "9"], strict=True))


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na/0.pth,7\na/1.pth,8\nb/2.pth,9\n",
        "label;file\n7;a/0.pth\n8;a/1.pth\n9;b/2.pth\n",
        "file\tlabel\na/0.pth\t7\na/1.pth\t8\nb/2.pth\t9",
        "\ufefffile,label\r\na/0.pth,7\r\na/1.pth,8\r\nb/2.pth,9\r\n",
        "file\tlabel\na/0.pth\t7\na/1.pth\t8\nb/2.pth\t9\n".encode("utf-16"),
        ' file , label \n"a/0.pth", 7\n"a/1.pth", 8\n"b/2.pth", 9\n',
        ",path,label\n0,./a/0.pth,7\n1,a\\1.pth,8\n2,/home/me/nets/b/2.pth,9\n",
        "Unnamed: 0,checkpoint,label\n0,0.pth,7\n1,1.pth,8\n2,2.pth,9\n",
        "which,label\n0.pth,7\n1.pth,8\n2.pth,9\n",
        "id,label\n0,7\n1,8\n2,9\n",
        json.dumps(LABELS),
        json.dumps({name: {"label": int(label)} for name, label in LABELS.items()}),
        json.dumps([{"file": name, "label": label} for name, label in LABELS.items()]),
        json.dumps({"file": NAMES, "label": [7, 8, 9]}),
        json.dumps({"file": dict(enumerate(NAMES)), "label": {0: 7, 1: 8, 2: 9}}),
        "\n".join(json.dumps({"label": v, "file": k}) for k, v in LABELS.items()),
    ],
)
def test_tables_are_read_as_people_write_them(tmp_path: Path, content: str | bytes):
    table, _ = read(tmp_path, content)
    assert dict(zip(table.files, table.texts["label"], strict=True)) == LABELS
    assert set(table.texts) == {"label"}


def test_split_files_are_tables_too(tmp_path: Path):
    for plain in (
        {"train": ["nets/a/0.pth", "1.pth"], "val": ["2.pth"]},
        {"train": {"path": ["0.pth", "1.pth"], "label": ["7", "8"]},
         "val": {"path": ["2.pth"], "label": ["9"]}},
    ):  # fmt: skip
        table, _ = read(tmp_path, json.dumps(plain))
        assert splits_of(table) == ["train", "train", "validation"]
        assert table.files == NAMES
        if "label" in table.texts:
            assert table.texts["label"] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "labels.csv: empty"),
        ("file,label\n", r"does not name a/0.pth \(3 such\)"),
        ("file,label\na/0.pth,7\na/1.pth,8\n", r"does not name b/2.pth.*--match"),
        ("file,label\na/0.pth,7\na/0.pth,8\nb/2.pth,9\n", "a/0.pth is there twice"),
        ("file,label\na/0.pth,7\na/1.pth,8\nb/3.pth,9\n", "names b/3.pth, which is not there"),
        ("file,label\na/0.pth,7\na/1.pth\nb/2.pth,9\n", "row 2 has 1 fields, expected 2"),
        ("x,y\n1,2\n3,4\n5,6\n", "no column names the files.*got x, y"),
        ("file,a b,a.b\na/0.pth,1,2\na/1.pth,1,2\nb/2.pth,1,2\n", "'a_b' is there twice"),
        ("{", "not JSON"),
        ("[1, 2]", "expected {file: label}"),
        ('{"a": [1], "b": [1, 2]}', "lists of equal length"),
        ('[{"file": "a/0.pth", "label": [1]}]', "label: expected a number or a word"),
        ('{"train": [1]}', "train: expected a list of paths"),
        ("[]", "no rows"),
        ('{"file": "x"}\nnonsense', "not JSON"),
        (b"\xff\xfe\x00", "not a table of comma-separated text"),
        (b"file,label\n\xff\xff,1\n", "not a table of comma-separated text"),
    ],
)
def test_what_is_no_table_of_these_files_is_refused(
    tmp_path: Path, content: str | bytes, match: str
):
    with pytest.raises(ZooError, match=f"labels.csv: .*{match}|{match}") as raised:
        read(tmp_path, content)
    assert "labels.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


def column(name: str, texts: list[str], *kinds: str, comma: bool = False) -> tuple[Any, Any, str]:
    table = Table("t", [f"{n}.pth" for n in range(len(texts))], {name: texts}, comma)
    told = Told()
    columns, values = columns_of(table, kinds_of(kinds, table), told)
    return columns.get(name), values.get(name), told.lines(1)[-1]


@pytest.mark.parametrize(
    "texts",
    [
        ["0", "1", "10", "2", "11"], ["0.0", "1.0", "10.0", "2.0", "11.0"],
        ["00", "01", "1e1", "2.", "+11"], [" 0".strip(), "1", "10.00", "2", "11"],
    ],
)  # fmt: skip
def test_whole_numbers_are_class_numbers_however_they_are_written(texts: list[str]):
    """Pandas writes 2.0 once the column had a gap; sorted as words that was class 4."""
    about, values, line = column("label", texts)
    assert values.tolist() == [0, 1, 10, 2, 11]
    assert about.names == tuple(str(n) for n in range(12))
    assert (about.role, about.kind) == ("target", "class")
    assert line == "column label: class numbers, 0 to 11, 5 of 12 used"


def test_words_are_classes_numbers_are_numbers():
    about, values, line = column("label", ["dog", "cat", "dog"])
    assert (about.names, values.tolist()) == (("cat", "dog"), [1, 0, 1])
    assert line == "column label: 2 classes of words, 0 cat, 1 dog"
    # Numbers within words count as numbers.
    about, values, _ = column("label", ["k10", "k9", "k1"])
    assert (about.names, values.tolist()) == (("k1", "k9", "k10"), [2, 1, 0])
    about, values, line = column("rate", ["0.5", "1e-3", "2"])
    assert (about.role, about.kind) == ("target", "real")
    np.testing.assert_array_equal(values, np.float32([0.5, 1e-3, 2]))
    assert line == "column rate: numbers, 0.001 to 2"
    _, values, _ = column("rate", ["0,5", "1", "2,25"], comma=True)
    assert values.tolist() == [0.5, 1, 2.25]
    about, _, line = column("test_accuracy", ["0.5", "1.0"])
    assert (about.role, line) == ("quality", "column test_accuracy: a quality, 0.5 to 1")


def test_the_user_says_what_a_column_is():
    assert column("size", ["3", "1.0"], "size=class")[1].tolist() == [3, 1]
    about, values, _ = column("label", ["3", "10"], "label=words")
    assert (about.names, values.tolist()) == (("3", "10"), [0, 1])
    assert column("label", ["3.5", "2"], "label=real")[1].tolist() == [3.5, 2]
    about, values, line = column("notes", ["", "x"], "notes=skip")
    assert (about, values) == (None, None)
    assert line == "column notes left out, as --column says"
    for words, match in (
        (["x=class"], "no column 'x' in t, only label"),
        (["label=number"], "unknown kind 'number'; known: class"),
        (["label"], "unknown kind ''"),
    ):
        with pytest.raises(ValueError, match=match):
            column("label", ["1"], *words)


@pytest.mark.parametrize(
    ("name", "texts", "error", "match"),
    [
        ("label", ["1", "cat"], ValueError, "numbers and words.*'cat'.*--column label=words"),
        ("rate", ["1", "n/a"], ValueError, "numbers and words.*--column rate=words"),
        ("label", ["1", ""], ZooError, r"1\.pth has no label \(1 such\).*--column label=skip"),
        ("rate", ["nan", "1"], ZooError, r"0\.pth has no rate"),
        ("label", ["0.5", "1"], ValueError, "0.5 is no class number.*--column label=real"),
        ("label", ["-1", "1"], ValueError, "class numbers from 0.*got -1"),
        ("label", ["70000", "1"], ValueError, "class numbers from 0.*got 70000"),
        ("size", ["16777217", "1"], ValueError, "lose digits"),
        ("rate", ["1e99", "1"], ValueError, "lose digits"),
        ("rate", ["1.5e-3", "-1e40.5"], ValueError, "numbers and words"),
        ("test_accuracy", ["97.5", "98"], ZooError, "fractions from 0 to 1, got 98"),
        ("test_accuracy", ["high", "low"], ZooError, "expected numbers"),
        ("test_accuracy", ["0.5", "low"], ZooError, "expected numbers.*'low'"),
        ("weight_0", ["1", "2"], ZooError, "cannot be the name of a column"),
        ("../x", ["1", "2"], ZooError, "cannot be the name of a column"),
        ("id", [f"w{n}" for n in range(10_001)], ValueError, "10,001 different words"),
    ],
)
def test_what_is_not_told_is_refused_with_the_option_that_decides(
    name: str, texts: list[str], error: type[Exception], match: str
):
    with pytest.raises(error, match=match) as raised:
        column(name, texts)
    assert str(raised.value).startswith("t: ")


def test_keys_may_be_written_as_floats():
    table = Table("t", ["0", "1"], {"index": ["3.0", "1"], "view": ["0", "x"]})
    assert whole_numbers(table, "index").tolist() == [3, 1]
    assert whole_numbers(table, "step") is None
    with pytest.raises(ZooError, match="view: expected whole numbers from 0, got 'x'"):
        whole_numbers(table, "view")
    table = Table("t", ["0", "1"], {"split": ["Train", "VALID"]})
    assert splits_of(table) == ["train", "validation"]
    with pytest.raises(ZooError, match="unknown split 'dev'; known: train"):
        splits_of(Table("t", ["0"], {"split": ["dev"]}))
