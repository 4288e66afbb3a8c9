"""What a file is by its first bytes, and which files of a folder may be published."""

import gzip
import io
import os
import pickle
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from zoo.errors import ZooError
from zoo.files import instead, pictures, plain_file, read_plain_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def archive(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("a.txt"))
    else:
        with zipfile.ZipFile(stream, "w") as pack:
            pack.writestr("a.txt", "x" * 100)
    return stream.getvalue()


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


KINDS = {
    "lfs": (POINTER, "a pointer of Git LFS, not the file itself: fetch the file with `git lfs"),
    "annex": (b"/annex/objects/SHA256E-s1--a.safetensors\n", "a pointer of git-annex"),
    "html": (b"\n<!DOCTYPE html>\n<html><title>Log in", "a web page, such as a server's error"),
    "bare html": (b"<html lang=en>", "a web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>NoSuchKey", "an answer of a server in XML"),
    "zip": (archive("zip"), "a zip archive: unpack it first"),
    "tar": (archive("tar"), "a tar archive: unpack it first"),
    "gzip": (gzip.compress(b"x"), "compressed by gzip: unpack it first"),
    "torch": (saved({"a": torch.zeros(2)}), "a file of torch.save"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle, which is never opened"),
    "safetensors": (safetensors.numpy.save({"a": np.zeros(2)}), "a safetensors file"),
    "parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "json": (b'{"format": 1}', "JSON"),
    "empty": (b"", "it is empty: download the file again"),
    "zeros": (bytes(4096), "it begins with zeros, which a full disk or a power cut leaves"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_what_it_is(tmp_path, kind):
    content, words = KINDS[kind]
    path = tmp_path / "train-00000-of-00001.safetensors"
    path.write_bytes(content)
    assert words in instead(path)
    assert words in instead(content)
    assert instead(path).startswith("; it ")


def test_what_cannot_be_told_is_not_guessed(tmp_path):
    assert instead(b"just some words") == ""
    assert instead(np.random.default_rng(0).bytes(1000)) == ""
    assert instead(KINDS["safetensors"][0], "a safetensors file") == ""
    assert instead(b"PAR1", "a Parquet file") == ""
    # Nothing that cannot be read is waited for.
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", Path("/dev/zero")):
        assert instead(path) == ""


# ---- what may be published


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a card and a picture, reached by a link; a key lies beside it."""
    (tmp_path / "id_rsa").write_text("PRIVATE KEY")
    real = tmp_path / "real"
    (real / "figures").mkdir(parents=True)
    (real / "README.md").write_text("# card")
    Image.new("RGB", (4, 4)).save(real / "figures" / "psnr_db.png")
    (tmp_path / "zoo").symlink_to(real)
    return tmp_path / "zoo"


def test_plain_files_pass_and_so_does_a_link_to_their_folder(folder):
    assert plain_file(folder, "README.md") == folder / "README.md"
    assert read_plain_file(folder, "README.md", 100) == b"# card"
    (folder / "figures" / ".DS_Store").write_bytes(b"x")
    assert list(pictures(folder)) == ["figures/psnr_db.png"]
    assert pictures(folder / "figures") == {}


def symlink(path: Path) -> None:
    path.symlink_to(path.parents[2] / "id_rsa")


def inner_link(path: Path) -> None:
    path.symlink_to("README.md")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has 108 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (symlink, "is a link; put the file itself in its place"),
        (inner_link, "is a link"),
        (dangling, "is a link"),
        (device, "is a link"),
        (os.mkfifo, r"is a pipe \(FIFO\)"),
        (Path.mkdir, "is a folder where a file should be"),
        (listening, "is a socket"),
    ],
)
def test_nothing_but_plain_files_is_published(folder, make, words):
    for name in ("README.md", "figures/psnr_db.png"):
        path = folder / name
        path.unlink()
        make(path)
        for call in (plain_file, lambda *given: read_plain_file(*given, 100)):
            with pytest.raises(ZooError, match=words) as caught:
                call(folder, name)
            assert name in str(caught.value)
    with pytest.raises(ZooError, match=words):
        pictures(folder)


def test_a_folder_of_pictures_that_is_a_link_is_refused(folder, tmp_path):
    (tmp_path / "real" / "figures").rename(tmp_path / "elsewhere")
    (folder / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ZooError, match="figures is a link"):
        pictures(folder)
    with pytest.raises(ZooError, match="figures is a link"):
        plain_file(folder, "figures/psnr_db.png")


@pytest.mark.parametrize("name", ["../id_rsa", "a/../../id_rsa", "/etc/passwd", "", "."])
def test_names_stay_inside(folder, name):
    with pytest.raises(ZooError, match=r"lies outside of|is a folder"):
        plain_file(folder, name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"x"), ("key.png", b"PRIVATE KEY"), ("a b.png", b"\x89PNG\r\n\x1a\n"),
        ("-x.png", b"\x89PNG\r\n\x1a\n"), ("page.png", b"<html>"),
    ],
)  # fmt: skip
def test_only_pictures_lie_with_the_pictures(folder, name, content):
    (folder / "figures" / name).write_bytes(content)
    with pytest.raises(ZooError, match="is no PNG picture of a card") as caught:
        pictures(folder)
    assert name in str(caught.value)


def test_sizes_are_bounded(folder):
    with pytest.raises(ZooError, match="more than 3 bytes"):
        read_plain_file(folder, "README.md", 3)
