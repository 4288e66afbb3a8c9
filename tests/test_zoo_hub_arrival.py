"""Finding zoos in folders, on the Hub and at URLs: what is fetched, and what is said."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers import line_of, pixels, run, write_zoo
from local_hub import Blob, Client, Hub

import zoo
from zoo import hub as library
from zoo import shards
from zoo.compare import rows_of
from zoo.errors import ZooError
from zoo.hub import arrival

WSZOO = [sys.executable, "-c", "from cli.main import main; main()"]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def published(shared_hub, client, digits_zoo) -> str:
    """A zoo of 80 networks in shards of 25, in a repository."""
    assert client.run("push", digits_zoo, "user/digits").code == 0
    return "user/digits"


def fetched(hub: Hub) -> list[str]:
    """Names of the files that were sent, less the index."""
    paths = (s.path.rpartition("/")[2] for s in hub.seen if s.method == "GET")
    return sorted(name for name in paths if name.endswith((".safetensors", ".parquet")))


# ---- show and verify


def test_show_fetches_only_the_shards_it_draws_from(
    hub, client, published, digits_zoo, tmp_path, shared_hub
):
    """The picture is that of the folder, from fewer files."""
    with shared_hub.client(tmp_path / "home") as fresh:
        words = ["--split", "train", "--count", 1, "--seed", 3]
        ran = fresh.run("show", published, "--out", tmp_path / "there.png", *words)
        assert ran.code == 0, ran.stderr
        names = fetched(hub)
        assert len(names) == 1
        assert names[0].startswith("train-")
        assert run("show", digits_zoo, "--out", tmp_path / "here.png", *words).exit_code == 0
        assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
        hub.seen.clear()
        ran = fresh.run("show", published, "--out", tmp_path / "more.png", "--revision", "main")
        assert ran.code == 0, ran.stderr
        assert set(fetched(hub)) == {"test-00000-of-00001.safetensors"}
        assert pixels(tmp_path / "more.png").size
        assert "has no revision 'v9'" in fresh.run("show", published, "--revision", "v9").line


def test_show_of_a_folder_draws_what_it_drew(digits_zoo, tmp_path):
    """Rows are numbered in the whole split, whichever shards they lie in."""
    found = arrival.find(digits_zoo)
    for seed in range(5):
        whole = zoo.open_zoo(digits_zoo, "train")
        rows = np.sort(np.random.default_rng(seed).choice(len(whole), 7, replace=False))
        weights, columns = rows_of(found, "train", rows)
        expected, same = whole.batch(rows)
        assert (columns["index"] == same["index"]).all()
        for mine, other in zip(weights.weights, expected.weights, strict=True):
            assert (mine == other).all()


def test_verify_of_a_repository_looks_at_everything(hub, client, published, digits_zoo, tmp_path):
    ran = client.run("verify", published, "--samples", 10, "--refit", 2)
    assert ran.code == 0, ran.stderr
    assert "2 rows fitted again, equal to the byte" in ran.stdout
    index = shards.read_index(digits_zoo)
    hub.seen.clear()
    assert client.run("verify", published, "--samples", 0).code == 0
    assert fetched(hub) == []  # it lies in the cache, and is hashed there
    # Damage in the cache is mended, damage in the repository is said.
    folder = Path(client.ask(f"import zoo; result = str(zoo.locate({published!r}))"))
    blob = (folder / index.shards[0].file).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    assert client.run("verify", published, "--samples", 0).code == 0
    files = hub.files(published)
    name = index.shards[1].file
    hub.put("user/damaged", {**files, name: files[name][:-1] + b"?"})
    ran = client.run("verify", "user/damaged")
    assert ran.code == 1
    assert f"FAILED  files    user/damaged: {name} has another sha256" in ran.stdout
    assert "did not pass: files. Tell those who published it" in ran.line
    hub.put("user/half", {k: v for k, v in files.items() if k != name})
    assert f"{name} is missing" in client.run("verify", "user/half").stdout


def test_a_network_that_fails_is_no_fault_of_the_zoo(hub, client, published, tmp_path, shared_hub):
    with shared_hub.client(tmp_path / "home") as fresh:
        hub.fail("GET .*/weights/", "cut", times=None)
        ran = fresh.run("verify", published)
        assert ran.code == 1
        assert "cannot reach 127.0.0.1" in ran.line
        assert "FAILED" not in ran.stdout


def test_train_and_eval_take_a_repository(hub, client, published, tmp_path):
    out = tmp_path / "run"
    ran = client.run(
        "train", "classify", published, "--model", "statnn", "--epochs", 1, "--out", out
    )
    assert ran.code == 0, ran.stderr
    ran = client.run("eval", out, published)
    assert ran.code == 0, ran.stderr
    assert "accuracy" in ran.stdout


# ---- a name that is no folder


def commands(name: str) -> list[list[str]]:
    return [
        ["info", name], ["verify", name], ["show", name],
        ["train", "classify", name, "--model", "statnn", "--out", "run"],
    ]  # fmt: skip


def test_a_default_folder_that_is_not_there_is_said_at_once(tmp_path):
    """Without a network, and with one that swallows everything."""
    (tmp_path / "here").mkdir()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)  # connections come about, nobody answers
        silent.setblocking(False)
        for name, environment in (
            ("zoos/mnist-inrs", {"HF_HUB_OFFLINE": "1"}),
            ("here/mnist", {"HF_HUB_OFFLINE": "1"}),
            ("runs/x", {"HF_ENDPOINT": "http://127.0.0.1:9"}),
            ("zoos/x", {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}),
        ):
            kept = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
            kept |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
            ran = subprocess.run(
                [*WSZOO, "info", name],
                cwd=tmp_path,
                env={**kept, "PYTHONPATH": str(ROOT), **environment},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert ran.returncode == 1
            (line,) = ran.stderr.splitlines()
            assert line.startswith(f"Error: the folder {name} does not exist here, and ")
        # Once, for three seconds; not six times.
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_name_that_looks_like_a_path_costs_one_request(hub, client, tmp_path):
    client.ask(f"import os; os.chdir({str(tmp_path)!r})")
    (tmp_path / "mine").mkdir()
    for name in ("zoos/digits", "mine/digits"):
        for words in commands(name):
            for kind, status in (("status", 404), ("status", 503), ("cut", 0), ("", 0)):
                hub.seen.clear()
                hub.fail(".", kind, status, times=None)
                ran = client.run(*words)
                hub.heal()
                assert ran.code == 1
                assert f"the folder {name} does not exist here" in ran.line, ran.line
                assert len(hub.seen) <= 1
    client.ask(f"import os; os.chdir({str(ROOT)!r})")


def test_other_names_are_asked_for_but_not_for_long(hub, client, tmp_path):
    """Who has no network hears so after two tries; single failures are ridden out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {**hub.environment(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{port}"}
    with Client(environment) as alone:
        ran = alone.run("info", "user/digits")
        assert re.search(
            rf"the folder user/digits does not exist here, and cannot reach 127\.0\.0\.1:{port}",
            ran.line,
        )
        assert sum(alone.ask("import time; result = time.asked")) < 5


def test_a_name_that_was_meant_is_named(tmp_path, monkeypatch, hub, client, digits_zoo):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoos" / "mnist-inrs").mkdir(parents=True)
    with pytest.raises(ZooError, match=r"not exist here \(did you mean zoos/mnist-inrs\?\), and"):
        zoo.open_zoo("zoos/mnist-inr")
    with pytest.raises(ZooError, match=r"it does not exist \(did you mean zoos/mnist-inrs\?\)"):
        zoo.open_zoo("./zoos/mnist_inrs")
    with pytest.raises(ZooError, match=r"a is not a zoo: it does not exist$"):
        zoo.open_zoo("a/")
    with pytest.raises(ValueError, match="expected the folder, URL or user/name of a zoo, got ''"):
        zoo.open_zoo("")


def test_a_file_is_no_zoo(tmp_path, digits_zoo):
    subprocess.run(["tar", "cf", tmp_path / "z.tar", "-C", digits_zoo, "."], check=True)
    for path, words in (
        (digits_zoo / "zoo.json", r"zoo\.json is a file; a zoo is a folder that holds zoo\.json"),
        (tmp_path / "z.tar", r"z\.tar is a file; it is a tar archive: unpack it first; a zoo is"),
    ):
        with pytest.raises(ZooError, match=words):
            zoo.open_zoo(path)
        assert re.search(words, line_of(run("info", path), 1))


def test_a_folder_comes_first_and_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zoo(tmp_path / "user" / "tiny")
    assert library.locate("user/tiny") == Path("user/tiny")
    assert library.find("user/tiny").index.rows == 32
    for where in ("user/tiny", "memory://bucket/x"):
        with pytest.raises(ValueError, match="only repositories have revisions"):
            library.find(where, revision="v2")


# ---- models


def test_a_model_comes_from_one_state_of_its_repository(hub, client, tmp_path):
    repo = hub.add_repo("user/model", kind="model")
    hub.repos["model", "user/model"] = repo
    tree = {name: f"{name} of {number}".encode() for number in (1,) for name in ("a", "deep/b")}
    repo.commit("main", {name: Blob(content, False) for name, content in tree.items()})
    folder = Path(
        client.ask("import zoo; result = str(zoo.fetch_model('user/model', ['a', 'deep/b']))")
    )
    assert {name: (folder / name).read_bytes() for name in tree} == tree
    for call, words in (
        ("zoo.fetch_model('user/none', ['a'])", "shows no model user/none"),
        ("zoo.fetch_model('none', ['a'])", "expected a repository as user/name, got 'none'"),
        ("zoo.fetch_model('user/model', ['a'], revision='v7')", "has no revision 'v7'"),
        ("zoo.fetch_model('user/model', ['c'])", "model user/model"),
    ):
        ran = client.run("-c", f"import zoo; {call}")
        assert words in ran.stderr, ran.stderr


# ---- URLs


@pytest.fixture
def url(tmp_path) -> Iterator[str]:
    """A zoo in fsspec's memory; each test has one of its own, whose copy is not there yet."""
    write_zoo(tmp_path / "made")
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "made"), f"/{tmp_path.name}/tiny", recursive=True)
    yield f"memory://{tmp_path.name}/tiny"
    store.rm(f"/{tmp_path.name}", recursive=True)


def test_a_copy_of_a_url_keeps_the_bytes_of_the_index(url, tmp_path):
    folder = library.locate(url)
    assert folder.name == "tiny"
    for path in (tmp_path / "made").rglob("*.*"):
        name = path.relative_to(tmp_path / "made")
        if name.parts[0] in ("weights", "data", "zoo.json", "stats.safetensors"):
            assert (folder / name).read_bytes() == path.read_bytes()
    index = library.find(url).index
    only = library.find(url).bring(index.shards[:1])
    assert only == folder


def test_what_a_url_sends_is_bounded(url, tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    index = library.find(url).index
    name = index.shards[0].file
    store.pipe(f"{url}/{name}", b"x" * (index.shards[0].bytes + 1))
    with pytest.raises(ZooError, match=rf"{name} has more than {index.shards[0].bytes:,} bytes"):
        library.locate(url)
    store.pipe(f"{url}/{name}", b"<html>".ljust(index.shards[0].bytes))
    with pytest.raises(ZooError, match=r"does not have the sha256 of the index.*it is a web page"):
        library.locate(url)
    from zoo import schema

    monkeypatch.setattr(schema, "JSON_BYTES", 1000)
    with pytest.raises(ZooError, match=r"zoo\.json has more than 1,000 bytes"):
        library.find(url)


def test_verify_of_a_url_fetches_anew(url):
    assert run("verify", url, "--samples", 0).exit_code == 0
    store = fsspec.filesystem("memory")
    name = library.find(url).index.shards[0].file
    content = store.cat(f"{url}/{name}")
    store.pipe(f"{url}/{name}", content[:-1] + bytes([content[-1] ^ 1]))
    result = run("verify", url, "--samples", 0)
    assert f"{name} does not have the sha256" in result.stdout
    assert "Tell those who published it" in line_of(result, 1)


def test_a_damaged_note_of_what_was_checked_is_no_matter(hub, client, published):
    folder = Path(client.ask(f"import zoo; result = str(zoo.locate({published!r}))"))
    notes = Path(client.environment["HF_HOME"]) / "assets" / "wszoo" / "user--digits"
    (note,) = notes.rglob(f"{folder.name}.json")
    for content in (b"{", b"[]", b'{"weights": 1}', b"\xff"):
        note.write_bytes(content)
        assert client.run("verify", published, "--samples", 0).code == 0


def test_a_source_that_is_a_path_is_not_opened_for_a_stranger(hub, client, published):
    files = hub.files(published)
    plain = json.loads(files["zoo.json"])
    for name in ("imagefolder:/etc", "imagefolder:~/x", "imagefolder:a/b", r"imagefolder:\\h\s"):
        plain["source"]["name"] = name
        hub.put("user/nosy", {**files, "zoo.json": json.dumps(plain).encode()})
        for words in (["show", "user/nosy"], ["verify", "user/nosy"], ["info", "user/nosy"]):
            assert "source.name: expected no path" in client.run(*words).line


def test_bring_does_not_ask_twice(hub, client, published, shared_hub, tmp_path):
    """All splits of a zoo: each file once, several side by side, hashed once."""
    with shared_hub.client(tmp_path / "home") as fresh:
        code = f"import zoo; result = str(zoo.locate({published!r}))"
        folder = Path(fresh.ask(code))
        index = shards.read_index(folder)
        assert fetched(hub) == sorted(Path(file.file).name for file in index.files)
        for file in index.files:
            content = (folder / file.file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.sha256
        hub.seen.clear()
        fresh.ask(code)
        assert [s.method for s in hub.seen] == ["HEAD"]
        shutil.rmtree(folder / "weights")
        fresh.ask(code)
        assert all((folder / file.file).is_file() for file in index.files)
