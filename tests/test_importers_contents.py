"""Files are known by content; whatever is no tensors by name is told by name, and never run."""

import argparse
import collections
import datetime
import io
import pathlib
import pickle
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import line_of, run
from torch import nn

from zoo.errors import ZooError
from zoo.importers import contents
from zoo.importers.contents import KNOWN, kind_of, load


def saved(value: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **settings)
    return file.getvalue()


def packed_arrays(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


STATE = nn.Linear(2, 1).state_dict()
KINDS = {
    contents.TORCH: saved(STATE),
    contents.OLD_TORCH: saved(STATE, _use_new_zipfile_serialization=False),
    contents.SAFETENSORS: safetensors.torch.save(dict(STATE)),
    contents.NPZ: packed_arrays(**{name: value.numpy() for name, value in STATE.items()}),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_tensors_are_read_from_every_kind(kind: str):
    assert kind_of(KINDS[kind][: contents.HEAD_BYTES]) == kind
    found, in_order = load(KINDS[kind], "a")
    assert in_order == (kind != contents.SAFETENSORS)
    assert sorted(found) == sorted(STATE)
    assert not in_order or list(found) == list(STATE)
    for name, value in STATE.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def program(name: str) -> bytes:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "script":
            torch.jit.save(torch.jit.trace(net, torch.zeros(1, 2)), file)
        else:
            torch.export.save(torch.export.export(net, (torch.zeros(1, 2),)), file)
    return file.getvalue()


class Own:
    """Somebody's own class."""


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda: program("script"), r"a TorchScript program.*net\.state_dict\(\)"),
        (lambda: program("export"), r"an exported program.*net\.state_dict\(\)"),
        (lambda: saved(nn.Linear(2, 1)), r"a whole pickled module.*net\.state_dict\(\)"),
        (lambda: saved({"w": STATE, "x": Own()}), r"refused.*an object of .*Own.*state_dict\(\)"),
        (lambda: pickle.dumps(STATE), r"refused.*a pickle that torch did not write.*state_dict"),
        (lambda: saved(STATE, pickle_protocol=4), r"refused.*a protocol that torch does not write"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (lambda: b"<!DOCTYPE html><html>Sign in</html>", "a page of HTML.*download it again"),
        (lambda: b"\n  <html>", "a page of HTML"),
        (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (lambda: b"\x1f\x8b" + bytes(100), "packed by gzip: unpack it first"),
        (lambda: b"", "empty"),
        (lambda: b"hello", "no file of torch, safetensors or NumPy"),
        (lambda: b"\x93NUMPY" + bytes(100), "a single array of NumPy"),
        (lambda: KINDS[contents.TORCH][:-200], "damaged or cut"),
        (lambda: KINDS[contents.OLD_TORCH][:-3], "a file of torch that can be read"),
        (lambda: KINDS[contents.SAFETENSORS][:-3], "not a safetensors file"),
        (lambda: KINDS[contents.NPZ][:-3], "not an .npz file"),
        (lambda: packed_arrays(x=np.array([Own()], object)), "not an .npz file"),
    ],
)
def test_what_else_a_file_may_be_is_told_by_name(content, match: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZooError, match=f"^a: .*{match}") as raised:
            load(content(), "a")
    assert "\n" not in str(raised.value)


def test_a_program_is_refused_in_one_line_without_a_warning(tmp_path: Path):
    (tmp_path / "0.pt").write_bytes(program("script"))
    script = "from cli.main import main; main()"
    words = ["import", "state-dicts", tmp_path, "--activation", "relu", "--out", tmp_path / "z"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a TorchScript program" in done.stderr
    assert "save its weights by torch.save(net.state_dict(), path)" in done.stderr


def test_a_flipped_bit_of_a_weight_is_found():
    """A file of torch has check sums, which torch itself does not look at."""
    content = bytearray(saved({"w": torch.arange(64.0)}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data/0")]
        start = content.index(archive.read(name))
    content[start + 103] ^= 1
    assert torch.load(io.BytesIO(bytes(content)), weights_only=True)["w"].sum() != 2016
    with pytest.raises(ZooError, match="damaged or cut"):
        load(bytes(content), "a")


class AttributeDict(dict):
    """As Lightning's, which keeps hyper-parameters in one."""


AttributeDict.__module__ = "lightning.fabric.utilities.data"
AttributeDict.__qualname__ = "AttributeDict"


def test_settings_beside_the_weights_become_blanks(monkeypatch: pytest.MonkeyPatch):
    room = types.ModuleType(AttributeDict.__module__)
    room.AttributeDict = AttributeDict
    for part in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, AttributeDict.__module__, room)
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("a")),
        "more": types.SimpleNamespace(a=1),
        "best": np.float64(0.3),
        "epoch": np.int64(3),
        "when": datetime.datetime(2026, 1, 2),
        "counts": collections.defaultdict(int, a=1),
        "hyper_parameters": AttributeDict(width=4),
        "losses": np.arange(6.0).reshape(2, 3),
        "names": np.array(["a", "b"]),
    }
    for settings in ({}, {"_use_new_zipfile_serialization": False}):
        found, _ = load(saved({"model": dict(STATE), **beside}, **settings), "a")
        torch.testing.assert_close(found["model"]["weight"], STATE["weight"])
        assert found["losses"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["names"] is None
        assert found["hyper_parameters"] == {"width": 4}
        assert type(found["args"]).__name__ == "_Blank"


def test_arrays_of_numbers_are_tensors():
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.eye(3)),
                  np.arange(4, dtype=np.int64)):  # fmt: skip
        found, _ = load(saved({"a.weight": array}), "a")
        np.testing.assert_array_equal(found["a.weight"].numpy(), array)
    found, _ = load(saved({"a": np.arange(3, dtype=">f8")}), "a")
    assert found["a"] is None


def test_a_container_that_is_named_a_billion_times_is_read_once():
    value: Any = {"w": torch.ones(1)}
    for _ in range(40):
        value = [value, value]
    found, _ = load(saved({"model": dict(STATE), "deep": value}), "a")
    assert found["model"]["weight"].shape == (1, 2)


def test_sizes_are_bounded_before_anything_is_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contents, "FILE_BYTES", 1 << 16)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(8 << 20))
    with pytest.raises(ZooError, match="unpacks to 8,388,608 bytes"):
        load(bomb.getvalue(), "a")
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros(1 << 20))
    with pytest.raises(ZooError, match="unpacks to more than"):
        load(packed.getvalue(), "a")
    # A header that claims more than the file has.
    claim = packed_arrays(a=np.zeros(4)).replace(b"(4,)", b"(9999999999,)")
    with pytest.raises(ZooError, match=r"not an \.npz file"):
        load(claim, "a")


def test_suffixes_do_not_matter(tmp_path: Path):
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "0.pth.tar").write_bytes(saved(net.state_dict()))
    (tmp_path / "n" / "1.bin").write_bytes(saved(net.state_dict()))
    (tmp_path / "n" / "2").write_bytes(safetensors.torch.save(dict(net.state_dict())))
    (tmp_path / "n" / "3.ckpt").write_bytes(saved({"state_dict": net.state_dict()}))
    (tmp_path / "n" / "4.npz").write_bytes(packed_arrays(**arrays))
    (tmp_path / "n" / "notes.txt").write_text("mine")
    words = ["import", "state-dicts", tmp_path / "n", "--activation", "relu", "--out"]
    done = run(*words, tmp_path / "z", "--no-parquet")
    assert done.exit_code == 0, done.output
    assert ": 5 networks" in done.stdout.splitlines()[-1]
    assert "passed over: 1 .txt" in done.stdout
    # What is named like a network and is none is not passed over.
    (tmp_path / "n" / "5.pth").write_text("version https://git-lfs.github.com/spec/v1")
    line = line_of(run(*words, tmp_path / "y"), 1)
    assert "5.pth: a pointer of Git LFS" in line
    assert "--match" in line
    assert run(*words, tmp_path / "y", "--match", "[0-4]*", "--no-parquet").exit_code == 0
