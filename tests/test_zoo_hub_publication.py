"""What goes out with a push, and what is refused by name before anything is sent."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import write_zoo
from PIL import Image

from zoo import hub, shards
from zoo.errors import ZooError
from zoo.hub import publication

SECRET = "PRIVATE KEY of somebody"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoos") / "tiny"
    write_zoo(folder, rows={"train": 4, "test": 3}, shard_rows=2)
    (folder / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "figures" / "psnr_db.png")
    return folder


@pytest.fixture
def zoo(made, tmp_path) -> Path:
    (tmp_path / "id_rsa").write_text(SECRET)
    return shutil.copytree(made, tmp_path / "zoo")


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "id_rsa").write_text(SECRET)
    folder = tmp_path / "dws"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: wszoo\n---\n# dws\n")
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    shards.write_tensors(folder / "model.safetensors", {"a": np.zeros(3, np.float32)})
    Image.new("RGB", (4, 4)).save(folder / "figures" / "loss.png")
    return folder


def sent(folder: Path) -> list[str]:
    return [file.file for file in hub.push(folder, "user/x", dry_run=True).send]


def refused(folder: Path) -> str:
    with pytest.raises(ZooError) as caught:
        hub.push(folder, "user/x", dry_run=True)
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_zoo_goes_out_through_a_link_to_its_folder(zoo, tmp_path):
    (tmp_path / "link").symlink_to(zoo)
    (zoo / "notes.txt").write_text(SECRET)
    (zoo / ".hidden").write_text(SECRET)
    names = sent(tmp_path / "link")
    assert names == sent(zoo)
    assert {"README.md", "zoo.json", "figures/psnr_db.png"} < set(names)
    assert not {"notes.txt", ".hidden"} & set(names)


@pytest.mark.parametrize(
    "name", ["README.md", "figures/psnr_db.png", "figures/extra.png", "zoo.json",
    "stats.safetensors", "{shard}", "{view}", "figures", "weights", "data"],
)  # fmt: skip
def test_no_target_of_a_link_in_a_zoo_is_published(zoo, tmp_path, name):
    index = shards.read_index(zoo)
    name = name.format(shard=index.shards[0].file, view=index.shards[0].parquet.file)
    path = zoo / name
    target = tmp_path / "target"
    if path.exists():
        path.rename(target)  # its very own content, which hashes do not tell apart
    else:
        target = tmp_path / "id_rsa"
    path.symlink_to(target)
    assert f"{path} is a link" in refused(zoo)


def test_a_pipe_does_not_hang(zoo, made):
    for name in ("README.md", "figures/psnr_db.png", "stats.safetensors"):
        (zoo / name).unlink()
        os.mkfifo(zoo / name)
        assert f"{zoo / name} is " in refused(zoo)
        (zoo / name).unlink()
        shutil.copy(made / name, zoo / name)


def test_a_key_by_the_name_of_a_picture(zoo, tmp_path):
    os.link(tmp_path / "id_rsa", zoo / "figures" / "psnr.png")
    assert "psnr.png is no PNG picture" in refused(zoo)


def test_a_tar_from_somebody_carries_nothing_out(zoo, tmp_path):
    """FAULTS 8: unpacked and pushed, a link in it would publish what it points at."""
    (zoo / "figures" / "a.png").symlink_to(Path("..") / ".." / "id_rsa")
    subprocess.run(["tar", "cf", tmp_path / "a.tar", "-C", tmp_path, "zoo"], check=True)
    out = tmp_path / "deep" / "unpacked"
    out.mkdir(parents=True)
    subprocess.run(["tar", "xf", tmp_path / "a.tar", "-C", out], check=True)
    (out / "id_rsa").write_text(SECRET)
    assert "a.png is a link" in refused(out / "zoo")


def test_a_model_goes_out_whole(model):
    assert sent(model) == [
        "model.safetensors", "figures/loss.png", "README.md", "config.json", "metrics.jsonl",
    ]  # fmt: skip
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text(SECRET)
    (model / "deeper").mkdir()
    (model / "deeper" / "more.json").write_text("[1]")
    assert "deeper/more.json" in sent(model)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("README.md", "README.md is a link"),
        ("config.json", "config.json is a link"),
        ("model.safetensors", "model.safetensors is a link"),
        ("figures/loss.png", "loss.png is a link"),
        ("figures", "figures is a link"),
        ("last", "last is a link"),
        ("more.txt", "more.txt is a link"),
    ],
)
def test_no_target_of_a_link_in_a_model_is_published(model, tmp_path, name, words):
    path = model / name
    if path.exists():
        path.rename(tmp_path / "target")
    else:
        (tmp_path / "target").write_text(SECRET)
    path.symlink_to(tmp_path / "target")
    if name == "model.safetensors":  # else it would not pass for a model at all
        shards.write_tensors(model / "other.safetensors", {"a": np.zeros(3, np.float32)})
    assert words in refused(model)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("id_rsa", SECRET, "id_rsa is no file of a model"),
        ("model.pkl", "x", "model.pkl is no file of a model"),
        ("train.py", "x", "train.py is no file of a model"),
        ("key.safetensors", SECRET, "key.safetensors is no safetensors file"),
        ("key.json", SECRET, "key.json is not JSON"),
        ("key.jsonl", SECRET, "key.jsonl is not lines of JSON"),
        ("page.json", "<html>", "it is a web page"),
        ("a.txt", b"\xff\xfe\x00", "a.txt is not UTF-8 text"),
        ("figures/key.png", SECRET, "key.png is no PNG picture"),
        ("figures/data.json", "{}", "data.json is no PNG picture"),
    ],
)
def test_nothing_but_files_of_a_model_is_published(model, name, content, words):
    (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused(model)
    assert words in line
    assert "published" in line


def test_a_pipe_in_a_model_is_named(model):
    os.mkfifo(model / "pipe.json")
    assert "pipe.json is a pipe (FIFO)" in refused(model)


def test_any_token_of_the_hub_is_refused():
    token = "hf_" + "a1" * 17
    card = publication.upload_of("README.md", f"my token: {token}.".encode())
    with pytest.raises(ZooError, match=r"README\.md holds a Hugging Face token"):
        publication.refuse_token([card], "hf_other")
    plain = publication.upload_of("README.md", b"hf_hub_download, hf_transfer, hf_short")
    publication.refuse_token([plain], "hf_other")


def test_an_index_without_an_address_keeps_its_bytes(zoo):
    """Also one that is laid out otherwise than wszoo would write it."""
    plain = json.loads((zoo / "zoo.json").read_text())
    plain["source"]["name"] = "imagefolder:pets"
    plain["command"] = "wszoo  fit-inrs 'imagefolder:pets'"
    (zoo / "zoo.json").write_text(json.dumps(plain, separators=(",", ":")))
    files = {file.file: file for file in hub.push(zoo, "user/x", dry_run=True).send}
    raw = (zoo / "zoo.json").read_bytes()
    assert files["zoo.json"].sha256 == hashlib.sha256(raw).hexdigest()
