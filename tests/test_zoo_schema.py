"""What others wrote is read up to a bound, and what does not follow its rule is named."""

import errno
import json
import os
import socket
import threading
import time
from unittest import mock

import numpy as np
import pytest
import safetensors.numpy

from zoo import schema
from zoo.errors import ZooError
from zoo.schema import (
    Also,
    Bool,
    Choice,
    Either,
    Int,
    Json,
    ListOf,
    MapOf,
    Maybe,
    Real,
    Record,
    Text,
    Tuple,
)

# --- plain files -------------------------------------------------------------------------


@pytest.fixture
def special(tmp_path):
    """What is no plain file, by its kind."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to fifo").symlink_to(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "endless").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(tmp_path / "socket"))
    yield tmp_path
    listener.close()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("fifo", r"a pipe \(FIFO\)"),
        ("to fifo", r"a pipe \(FIFO\)"),
        ("folder", "a folder"),
        ("endless", "a device"),
        ("socket", "a socket"),
    ],
)
def test_what_is_no_plain_file_is_never_waited_for(special, name, what):
    raised = []

    def read():
        with pytest.raises(ZooError, match=f"{name}: expected a plain file, it is {what}$"):
            schema.read_json(special / name)
        raised.append(name)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(5)
    assert raised == [name]


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ZooError, match="loop cannot be opened: Too many levels of symbolic links"):
        schema.read_plain(tmp_path / "loop")


def test_a_file_of_tensors_is_as_long_as_its_header_says(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"a": np.zeros((3, 2), np.float32)}, path)
    schema.check_length(path)
    size = path.stat().st_size
    for length in (size - 1, size + 1, 1 << 40, 9, 4, 0):
        os.truncate(path, length)
        begun = time.monotonic()
        with pytest.raises(ZooError, match=r"a\.safetensors is damaged"):
            schema.check_length(path)
        assert time.monotonic() - begun < 5


def test_links_to_plain_files_will_do(tmp_path):
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to("blob")
    assert schema.read_json(tmp_path / "link") == {"a": 1}


@pytest.mark.parametrize("name", ["gone", "gone/file", "file/below", "dangling"])
def test_what_is_missing_is_said_to_be(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ZooError, match=f"{name} is missing"):
        schema.read_json(tmp_path / name)


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('"' + "x" * 98 + '"')
    assert schema.read_json(path, limit=100) == "x" * 98
    with pytest.raises(ZooError, match=r"a\.json has 100 bytes; at most 99 are read$"):
        schema.read_json(path, limit=99)


def test_a_bound_takes_no_memory(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    assert schema.read_plain(tmp_path / "a.json", limit=1 << 60) == b"[1]"


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("[1]")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    opened = schema.open_plain(tmp_path / "a.json")
    broken = mock.MagicMock(wraps=opened)
    broken.__enter__.return_value = broken
    broken.read.side_effect = fail
    monkeypatch.setattr(schema, "open_plain", lambda path: broken)
    with pytest.raises(ZooError, match=r"a\.json cannot be read: Input/output error$"):
        schema.read_plain(tmp_path / "a.json")
    opened.close()


def test_a_sparse_file_of_a_terabyte_is_refused_by_its_size(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ZooError, match="has 1,099,511,627,776 bytes; at most 67,108,864 are read"):
        schema.read_json(path)


# --- JSON --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff", "can't decode byte 0xff"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b"[-Infinity]", "-Infinity is no number of JSON"),
        (b"[1e999]", "1e999 is out of range"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice in one object"),
        (b'{"x": {"a\\n": 1, "a\\n": 1}}', r"the key 'a\\n' stands twice"),
        (b"[" * 100_000, "recursion"),
        (b'{"a":' * 100_000, "recursion"),
        (b"9" * 5000, "integer string conversion"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"\\uDC00": 1}', "surrogates not allowed"),
        (b"[" + b"0," * schema.JSON_VALUES + b"0]", r"some 4,000,001 values; at most 4,000,000"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_json_is_one_line(content, wrong):
    with pytest.raises(ZooError, match=wrong) as caught:
        schema.parse(content, "a.json")
    assert str(caught.value).startswith("a.json: not JSON (")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "plain",
    [None, True, 0, -1.5e308, 1 << 70, "ü\n😀", [], {}, {"a": {"a": [1, {"a": 2}]}}],
    ids=str,
)
def test_json_comes_back_as_it_was(plain):
    for ascii_only in (True, False):
        content = json.dumps(plain, ensure_ascii=ascii_only).encode()
        found = schema.parse(content, "a.json")
        assert (found, type(found)) == (plain, type(plain))


# --- messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("a\x1b[31mb\n", r"'a\x1b[31mb\n'"),
        ("\u202eevil", r"'\u202eevil'"),
        ([1, {"a": False}], "[1, {'a': false}]"),
        (2**2000, "an integer of 2001 bits"),
        (10**20, "100000000000000000000"),
        (float("nan"), "nan"),
    ],
    ids=str,
)
def test_values_are_shown_safely(value, text):
    assert schema.shown(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        ["x" * 1000] * 1000,
        {"x" * 1000: "y" * 1000},
        list(range(10**6)),
        [[[[]] * 99] * 99],
    ],
    ids=["text", "texts", "key", "numbers", "lists"],
)
def test_values_are_cut(value):
    assert len(schema.shown(value)) == schema.SHOWN
    assert schema.shown(value).endswith("...")


# --- rules -------------------------------------------------------------------------------

RULES = {
    "int": Int(),
    "count": Int(low=1, high=9),
    "real": Real(),
    "share": Real(low=0, below=1),
    "positive": Real(above=0),
    "text": Text(),
    "hash": schema.SHA256,
    "short": Text(most=3, empty=False),
    "name": schema.NAME,
    "bool": Bool(),
    "choice": Choice("a", 1, None),
    "maybe": Maybe(Int()),
    "either": Either(Int(), Text()),
    "pair": Tuple(Int(), Real()),
    "list": ListOf(Int(), least=1, most=3),
    "set": ListOf(Int(), unique=lambda item: item, key="number"),
    "map": MapOf(Int(), most=2),
    "record": Record({"a": Int()}, {"b": Text()}),
    "open": Record({"a": Int()}, others=Bool()),
    "json": Json(),
    "even": Also(Int(), lambda value: f"{value} is odd" if value % 2 else None),
}


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        *(("int", value) for value in (0, -1, 10**30)),
        *(("count", value) for value in (1, 9)),
        *(("real", value) for value in (0, -0.0, 1e308, 5, -7)),
        *(("share", value) for value in (0, 0.0, 0.999)),
        ("positive", 5e-324),
        *(("text", value) for value in ("", "a\nb")),
        ("hash", "0f" * 32),
        *(("short", value) for value in ("a", "abc")),
        *(("name", value) for value in ("a", "naïve name.x")),
        *(("bool", value) for value in (True, False)),
        *(("choice", value) for value in ("a", 1, None)),
        *(("maybe", value) for value in (None, 3)),
        *(("either", value) for value in ("3", 3)),
        *(("pair", value) for value in ([1, 2], [1, 2.5])),
        *(("list", value) for value in ([1], [1, 1, 1])),
        *(("set", value) for value in ([], [1, 2])),
        *(("map", value) for value in ({}, {"a": 1, "b": 2})),
        *(("record", value) for value in ({"a": 1}, {"a": 1, "b": ""})),
        *(("open", value) for value in ({"a": 1}, {"x": True, "a": 1})),
        *(("json", value) for value in (None, [{}])),
        ("even", 4),
    ],
    ids=str,
)
def test_a_rule_takes(rule, value):
    schema.check(value, RULES[rule], "file")
    assert RULES[rule].passes(value)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        ("int", True, "expected an integer, got true"),
        ("int", 25.0, "expected an integer, got 25.0"),
        ("int", "3", "expected an integer, got '3'"),
        ("int", None, "expected an integer, got null"),
        ("count", 0, "expected an integer from 1 to 9, got 0"),
        ("count", 10, "expected an integer from 1 to 9, got 10"),
        ("real", float("nan"), "expected a finite number, got nan"),
        ("real", float("-inf"), "expected a finite number, got -inf"),
        ("real", 10**400, "expected a finite number, got an integer of 1329 bits"),
        ("real", False, "expected a finite number, got false"),
        ("share", 1, "expected a finite number of at least 0 and below 1, got 1"),
        ("share", -1e-9, "expected a finite number of at least 0 and below 1, got -1e-09"),
        ("positive", 0, "expected a finite number above 0, got 0"),
        ("text", 5, "expected a string, got 5"),
        ("hash", "0F" * 32, f"expected a sha256 of 64 hex digits, got {schema.shown('0F' * 32)}"),
        (
            "hash",
            "0" * 64 + "\n",
            f"expected a sha256 of 64 hex digits, got {schema.shown('0' * 65)}",
        ),
        ("short", "", "expected a string that is not empty of at most 3 characters, got ''"),
        (
            "short",
            "abcd",
            "expected a string that is not empty of at most 3 characters, got 'abcd'",
        ),
        ("name", "a\x1bb", r"expected a name on one line of at most 200 characters, got 'a\x1bb'"),
        ("bool", 1, "expected true or false, got 1"),
        ("choice", True, "expected 'a', 1 or null, got true"),
        ("choice", [], "expected 'a', 1 or null, got []"),
        ("maybe", 1.5, "expected an integer or null, got 1.5"),
        ("either", 1.5, "expected an integer or a string, got 1.5"),
        ("pair", [1], "expected a list of 2 (an integer, a finite number), got [1]"),
        ("pair", [1, "b"], "[1]: expected a finite number, got 'b'"),
        ("list", [], "expected a list from 1 to 3 items, got 0"),
        ("list", {}, "expected a list from 1 to 3 items, got {}"),
        ("list", [1, [2]], "[1]: expected an integer, got [2]"),
        ("set", [5, 6, 5], "[2]: the number 5 stands at [0] already"),
        ("map", {"a": 1, "b": 1, "c": 1}, "expected an object of at most 2 fields, got 3"),
        (
            "map",
            {"a\n": 1},
            "a key: expected a name on one line of at most 200 characters, got 'a\\n'",
        ),
        ("map", {"a b": None}, "'a b': expected an integer, got null"),
        ("map", [], "expected an object, got []"),
        ("record", {}, "a: is missing"),
        ("record", {"a": 1, "\x1b": 1}, "'\\x1b': unknown field; known: a, b"),
        ("record", {"a": 1, "b": 2}, "b: expected a string, got 2"),
        ("record", None, "expected an object, got null"),
        ("open", {"a": 1, "x": 0}, "x: expected true or false, got 0"),
        ("even", 3, "3 is odd"),
        ("even", "3", "expected an integer, got '3'"),
    ],
    ids=str,
)
def test_a_rule_refuses(rule, value, message):
    with pytest.raises(ZooError) as caught:
        schema.check(value, RULES[rule], "file")
    assert str(caught.value) == f"file: {message}"
    assert not RULES[rule].passes(value)


def test_a_place_is_named_from_the_outside_in():
    rule = Record({"shards": ListOf(Record({"file": MapOf(Maybe(Tuple(Int(), Bool())))}))})
    plain = {"shards": [{"file": {}}, {"file": {"a": None, "b.c": [1, 0]}}]}
    with pytest.raises(
        ZooError, match=r"^zoo\.json: shards\[1\]\.file\.'b\.c'\[1\]: expected true"
    ):
        schema.check(plain, rule, "zoo.json")
