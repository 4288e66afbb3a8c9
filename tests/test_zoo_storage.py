"""A folder and an S3-compatible store behave alike; a store has one driver at a time."""

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import line_of, run, write_zoo
from local_s3 import missing, running

import zoo
from zoo import shards, storage
from zoo.errors import ZooError
from zoo.hub import locate
from zoo.shards import File
from zoo.storage import Place, Remote, place

pytestmark = pytest.mark.filterwarnings(
    # botocore's and moto's own
    "ignore:datetime.datetime.utcnow:DeprecationWarning",
)
lacking = missing("moto.server", "s3fs")
needs_store = pytest.mark.skipif(bool(lacking), reason=f"needs a store to test: no {lacking}")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with running() as url:
        yield url


@pytest.fixture(params=["folder", pytest.param("store", marks=needs_store)])
def where(request, tmp_path) -> Place:
    """An empty place of each kind."""
    if request.param == "folder":
        return place(tmp_path / "zoo")
    return place(f"{request.getfixturevalue('bucket')}/{tmp_path.name}/zoo")


@pytest.fixture
def store(bucket, tmp_path) -> Remote:
    found = place(f"{bucket}/{tmp_path.name}/zoo")
    assert isinstance(found, Remote)
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where copies of zoos at URLs go."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets"


# ---- places


def test_files_of_a_place(where, tmp_path):
    assert where.name == "zoo"
    assert where.sizes() == {}
    where.write("a.json", b"12")
    where.write_json("deep/er/b.json", {"x": [1, None]})
    assert where.read_json("deep/er/b.json") == {"x": [1, None]}
    assert where.sizes()["a.json"] == 2
    assert set(where.sizes()) == {"a.json", "deep/er/b.json"}
    assert set(where.sizes("deep")) == {"deep/er/b.json"}
    where.write("a.json", b"345")
    names = ["a.json", "deep/er/b.json", "a.json"]
    assert [len(content) for content in where.read(names)] == [3, where.sizes()[names[1]], 3]
    where.move("a.json", "deep/er/b.json")
    assert where.sizes() == {"deep/er/b.json": 3}
    where.fetch("deep/er/b.json", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"345"
    where.fetch("deep/er/b.json", tmp_path / "copy", 3)
    with pytest.raises(ZooError, match=r"b\.json has more than 2 bytes; at most those are read"):
        where.fetch("deep/er/b.json", tmp_path / "copy", 2)
    where.remove("deep")
    where.remove("nothing")
    assert where.sizes() == {}
    with pytest.raises(FileNotFoundError):
        list(where.read(["gone"]))
    with pytest.raises(FileNotFoundError):
        where.fetch("gone", tmp_path / "copy")
    where.write("bad.json", b"{")
    with pytest.raises(ZooError, match=r"zoo/bad.json: not JSON"):
        where.read_json("bad.json")


def test_what_is_staged_stands_there_afterwards(where):
    with where.staged("tasks/one") as folder:
        (folder / "weights").mkdir()
        (folder / "weights" / "w").write_bytes(b"1234")
        (folder / "n").write_bytes(b"5")
    assert where.sizes() == {"tasks/one/weights/w": 4, "tasks/one/n": 1}
    again = pickle.loads(pickle.dumps(where))  # as Ray sends it to a task
    assert list(again.read(["tasks/one/weights/w"])) == [b"1234"]


def test_a_wrong_size_is_found(where):
    where.write("w", b"1234")
    good = File("w", 4, shards.hashlib.sha256(b"1234").hexdigest())
    assert where.check(good, where.sizes()) is None
    assert "has 4 bytes, the index says 5" in str(where.check(File("w", 5, ""), where.sizes()))
    assert "is missing" in str(where.check(File("v", 5, ""), where.sizes()))


def test_more_files_than_one_batch_come_in_order(where, monkeypatch):
    monkeypatch.setattr(storage, "BATCH", 3)
    for number in range(7):
        where.write(f"{number}", b"%d" % number)
    names = [f"{number}" for number in (6, 2, 0, 5, 1, 3, 4)]
    assert [content.decode() for content in where.read(names)] == names


def test_one_driver_at_a_time(where):
    with where.owned() as check:
        check()
        again = place(where.url if isinstance(where, Remote) else where.path)
        refused = pytest.raises(ZooError, match=r"zoo is being written by .*; wait for it or stop")
        with refused, again.owned():
            pytest.fail("two drivers hold one place")
    with where.owned() as check:
        check()
    assert [name for name in where.sizes() if not name.startswith(".lock")] == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("foo://x/y", r"foo://x/y: Protocol not known: foo; expected s3://BUCKET/NAME"),
        ("gs://x/y", r"gs://x/y needs a package: pip install 'gcsfs'"),
    ],
)
def test_urls_that_cannot_be_used(url, message):
    if url.startswith("gs") and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(ValueError, match=message):
        place(url)


def test_a_missing_package_is_named(monkeypatch):
    fsspec_registry = importlib.import_module("fsspec.registry")

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(fsspec_registry._registry, "s3", raising=False)
    with pytest.raises(ValueError, match=r"s3://b/x needs a package: pip install 'wszoo\[s3\]'"):
        place("s3://b/x")


# ---- the owner of a store


def other(store: Remote, **more: Any) -> None:
    """A driver of another process holds the store."""
    store.write_json(".lock", {"id": "0", "host": "elsewhere", "pid": 1, **more})


@needs_store
def test_a_driver_that_lives_is_not_displaced(store):
    other(store)
    refused = pytest.raises(ZooError, match=r"process 1 on elsewhere, last seen \d+ s ago: if it")
    with refused, store.owned():
        pytest.fail("two drivers")
    other(store, host=storage._host(), pid=os.getppid())
    with pytest.raises(ZooError, match=rf"by process {os.getppid()} on "), store.owned():
        pytest.fail("two drivers")
    assert set(store.sizes()) == {".lock"}  # no probe is left behind


@needs_store
def test_a_driver_that_died_is(store, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    other(store, host=storage._host(), pid=ended.pid)
    with store.owned():
        pass
    # Elsewhere nobody knows but by its silence, by the clock of the store.
    other(store)
    monkeypatch.setattr(storage, "STALE_S", 1.5)
    time.sleep(3.1)
    with store.owned() as check:
        check()


@needs_store
def test_a_driver_that_was_displaced_stops(store, monkeypatch):
    monkeypatch.setattr(storage, "BEAT_S", 0.2)
    with store.owned() as check:
        time.sleep(0.5)
        check()  # it has written itself anew meanwhile
        for _ in range(10):  # it may have been about to write itself once more
            other(store)
            time.sleep(0.2)
        with pytest.raises(ZooError, match=r"no longer ours \(process 1 on elsewhere took it over"):
            check()
    assert store.read_json(".lock")["host"] == "elsewhere"


@needs_store
def test_a_driver_without_contact_stops(store, monkeypatch):
    monkeypatch.setattr(storage, "BEAT_S", 0.1)
    monkeypatch.setattr(storage, "STALE_S", 0.8)
    with store.owned() as check:

        def fail(*names: object, **more: object) -> None:
            raise OSError("no network")

        with monkeypatch.context() as patch:
            patch.setattr(Remote, "_call", fail)
            time.sleep(1.2)
            with pytest.raises(ZooError, match=r"no longer ours \(no contact for 1 s\)"):
                check()


@needs_store
def test_of_many_drivers_one_gets_the_store(store):
    got, refused = [], []
    start = threading.Barrier(5)

    def drive() -> None:
        start.wait()
        try:
            with Remote(store.url).owned():
                got.append(1)
                time.sleep(2.5)
        except ZooError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 4)


# ---- reading from a store


@pytest.fixture
def published(store, tmp_path, cache) -> tuple[Remote, Path]:
    """A zoo in a store, and the folder it came from."""
    folder = tmp_path / "made"
    write_zoo(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path.read_bytes())
    return store, folder


@needs_store
def test_a_zoo_is_read_from_a_store(published):
    store, folder = published
    there, here = zoo.open_zoo(store.url, "train"), zoo.open_zoo(folder, "train")
    assert len(there) == 20
    assert (there.column("weight_0") == here.column("weight_0")).all()
    copy = there.folder
    assert not list(copy.glob("weights/test-*")), "only the split that was asked for is fetched"
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    assert before
    zoo.open_zoo(store.url, "train")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "32 networks" in run("info", store.url).stdout
    result = run("verify", store.url, "--samples", 0)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("ok ") == 3


@needs_store
def test_damage_in_a_store_is_found(published):
    store, _ = published
    name = storage.read_index(store)[1].shards[1].file
    (content,) = store.read([name])
    store.write(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ZooError, match=rf"{name} does not have the sha256 of the index"):
        zoo.open_zoo(store.url, "train")
    result = run("verify", store.url)
    assert f"{name} does not have the sha256" in result.stdout
    assert "did not pass: files" in line_of(result, 1)
    store.remove(name)
    with pytest.raises(ZooError, match=rf"{name} is missing, though the zoo has it"):
        zoo.open_zoo(store.url, "train")
    store.write(name, content)
    copy = zoo.open_zoo(store.url, "train").folder
    # Damage to the copy is mended; so is a zoo that was replaced by another.
    (copy / name).write_bytes(b"x" * len(content))
    assert len(zoo.open_zoo(store.url, "train", check_hashes=True)) == 20


@needs_store
def test_no_zoo_in_a_store(store, bucket, cache):
    for words in (("info",), ("verify",)):
        assert f"{store.url} is not a zoo: it has no zoo.json" in line_of(run(*words, store.url), 1)
    assert "is not a zoo" in line_of(run("info", f"{bucket}x/none"), 1)
    store.write(".build/plan.json", b"{}")
    assert "is not finished" in line_of(run("info", store.url), 1)


@needs_store
def test_a_store_that_does_not_answer_is_one_line(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    try:
        assert "Could not connect" in line_of(run("info", "s3://nobody/zoo"), 1)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_is_its_own_copy(tmp_path):
    write_zoo(tmp_path / "z")
    assert locate(tmp_path / "z") == tmp_path / "z"
    assert locate(f"file://{tmp_path}/z", "test") == tmp_path / "z"
    assert len(zoo.open_zoo(f"file://{tmp_path}/z", "test")) == 7
