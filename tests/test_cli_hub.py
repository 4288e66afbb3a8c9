"""`wszoo push`, `pull` and `info` of a repository: output, exit codes, one line an error."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from helpers import write_zoo
from local_hub import READER, STRANGER, TOKEN, Client, Hub

from zoo.hub import publication

WSZOO = [sys.executable, "-c", "from cli.main import main; main()"]


@pytest.fixture(scope="module")
def clients(shared_hub, tmp_path_factory) -> Iterator["Clients"]:
    started = Clients(shared_hub, tmp_path_factory)
    yield started
    for client in started.values():
        client.__exit__()


class Clients(dict[str, Client]):
    """One process for each kind of token, started when it is asked for."""

    tokens: ClassVar = {
        "owner": TOKEN, "reader": READER, "stranger": STRANGER, "bad": "hf_wrong", "none": None,
    }  # fmt: skip

    def __init__(self, hub: Hub, homes: pytest.TempPathFactory):
        super().__init__()
        self.hub, self.homes = hub, homes

    def __missing__(self, name: str) -> Client:
        client = self[name] = self.hub.client(self.homes.mktemp(name), self.tokens[name])
        return client


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoos") / "tiny"
    write_zoo(folder, rows={"train": 4, "test": 3}, shard_rows=2)
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grown") / "tiny"
    write_zoo(folder, rows={"train": 6, "test": 3}, shard_rows=2)
    return folder


@pytest.fixture(scope="module")
def published(shared_hub, clients, tiny) -> str:
    """A private zoo of the owner's."""
    assert clients["owner"].run("push", tiny, "user/mine").code == 0
    return "user/mine"


@pytest.fixture
def hub(shared_hub, published) -> Iterator[Hub]:
    shared_hub.seen.clear()
    shared_hub.objects.clear()  # or nothing would be uploaded twice
    yield shared_hub
    shared_hub.heal()


@pytest.mark.parametrize(
    ("who", "words", "code", "message"),
    [
        ("none", "push {tiny} user/new", 1, r"no Hugging Face token .*`hf auth login`"),
        ("bad", "push {tiny} user/new", 1, r"does not know the token \(401\); log in"),
        ("reader", "push {tiny} user/new", 1, r"may not do this to dataset user/new \(403\)"),
        ("reader", "push {grown} user/mine", 1, r"not do this to dataset user/mine \(403\)"),
        ("stranger", "push {tiny} user/new", 1, r"rights to create a repo under user; log"),
        ("owner", "push {tiny} other/new", 1, r"may not do this to dataset other/new \(403\)"),
        ("owner", "push {tiny} user/mine --revision v1", 1, r"user/mine has no revision 'v1'"),
        ("owner", "push {tiny} user/new --revision v1", 1, r"user/new does not exist; push"),
        ("owner", "push {tiny} user/new --create-pr", 1, r"user/new does not exist; push"),
        ("owner", "push {tiny} new", 2, r"expected a repository as user/name, got 'new'"),
        ("owner", "push {tiny} user/a--b", 2, r"Cannot have -- or \.\. in repo_id: 'user/a--b'"),
        ("owner", "push {tmp}/nowhere user/new", 1, r"nowhere is not a zoo: it does not exist"),
        ("owner", "push {tmp} user/new", 1, r"is not a zoo: it has no zoo\.json"),
        ("owner", "pull user/none --out {tmp}/o", 1, r"no dataset user/none to this token"),
        ("owner", "pull none --out {tmp}/o", 2, r"expected a repository as .* got 'none'"),
        ("none", "pull user/mine --out {tmp}/o", 1, r"if it is private, log in with `hf auth"),
        ("stranger", "pull user/mine --out {tmp}/o", 1, r"no dataset user/mine to this token"),
        ("bad", "pull user/mine --out {tmp}/o", 1, r"does not know the token \(401\)"),
        ("owner", "pull user/mine --out {tmp}/o --revision v1", 1, r"has no revision 'v1'"),
        ("owner", "pull user/mine --out {tiny}/zoo.json", 2, r"zoo\.json. is a file, not a folder"),
        ("owner", "info user/none", 1, r"the folder user/none does not exist here, and 127\.0"),
        ("owner", "info {tiny} --revision v1", 2, r"is a folder, and only repositories"),
        ("none", "info user/mine", 1, r"shows no dataset user/mine; if it is private, log in"),
    ],
)  # fmt: skip
def test_errors_are_one_line(hub, clients, tiny, grown, tmp_path, who, words, code, message):
    before = sorted(path.name for path in tiny.rglob("*"))
    ran = clients[who].run(*words.format(tiny=tiny, grown=grown, tmp=tmp_path).split())
    assert ran.code == code, ran.stderr
    assert ran.line.startswith("Error: ")
    assert re.search(message, ran.line), ran.line
    assert ran.stdout == ""
    assert sorted(path.name for path in tiny.rglob("*")) == before
    assert ("dataset", "user/new") not in hub.repos


@pytest.mark.parametrize(
    ("pattern", "kind", "status", "message"),
    [
        (".", "status", 500, r"fails \(500\): on demand; what it has is kept: run the"),
        (".", "status", 503, r"fails \(503\)"),
        (".", "status", 429, r"asks to slow down \(429\): on demand; wait, then run the"),
        (".", "cut", 0, r"cannot reach 127\.0\.0\.1:\d+ for .+ \(.+\); what arrived is kept"),
        ("PUT", "status", 500, r"fails \(500\)"),
        ("PUT", "cut-body", 0, r"cannot reach"),
        ("PUT", "status", 403, r"\(403\)"),
        ("batch", "status", 500, r"fails \(500\)"),
        ("commit/", "status", 500, r"fails \(500\)"),
        ("commit/", "status", 412, r"was changed by someone else during this push \(412\)"),
        ("commit/", "status", 409, r"refuses dataset user/\S+ \(409\): on demand"),
        ("commit/", "status", 400, r"refuses dataset user/\S+ \(400\): on demand"),
        ("validate", "status", 500, r"fails \(500\)|does not answer as the Hub does"),
        ("create", "status", 409, r"user/\S+ exists, but this token may not see it \(409\)"),
        ("create", "status", 402, r"refuses dataset user/\S+ \(402\): on demand"),
    ],
)  # fmt: skip
def test_a_hub_that_goes_on_failing(hub, clients, tiny, request, pattern, kind, status, message):
    name = "user/" + re.sub("[^a-z0-9]+", "-", request.node.name)[-30:].strip("-")
    hub.fail(pattern, kind, status, times=None)
    ran = clients["owner"].run("push", tiny, name)
    assert ran.code == 1
    assert re.search(message, ran.line), ran.line
    assert len(hub.seen) < 150  # tries are counted
    hub.heal()
    assert clients["owner"].run("push", tiny, name).code == 0


def test_a_network_that_is_down(tiny, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    hub = Hub()
    hub.server.server_close()
    hub.endpoint = f"http://user:secret@127.0.0.1:{port}"
    with hub.client(tmp_path) as client:
        for words in (
            ["push", tiny, "user/x"], ["pull", "user/x", "--out", tmp_path / "o"],
            ["info", "user/x"],
        ):  # fmt: skip
            ran = client.run(*words)
            assert ran.code == 1
            assert re.search(
                rf"cannot reach 127\.0\.0\.1:{port} for dataset user/x \(.*refused", ran.line
            ), ran.line
            assert "secret" not in ran.line
    with hub.client(tmp_path, HF_HUB_OFFLINE="1") as client:
        assert "HF_HUB_OFFLINE forbids to ask" in client.run("info", "user/x").line


def test_dry_run_sends_nothing(hub, clients, tiny):
    ran = clients["owner"].run("push", tiny, "user/planned", "--dry-run")
    assert ran.code == 0, ran.stderr
    files = publication.zoo_files(tiny, "user/planned")
    there = {path.relative_to(tiny).as_posix() for path in tiny.rglob("*") if path.is_file()}
    sent = {file.file for file in files}
    assert {path for path in there if path[0] != "."} == sent - {publication.SAMPLE_FILE}
    for file in files:
        assert re.search(rf"^send +{file.bytes:,}  {file.file}$", ran.stdout, re.M)
    assert f"would send {len(files)} files" in ran.stdout
    assert f"{hub.endpoint}/datasets/user/planned (private)" in ran.stdout
    assert {seen.method for seen in hub.seen} == {"GET"}
    assert ("dataset", "user/planned") not in hub.repos
    hub.seen.clear()
    ran = clients["none"].run("push", tiny, "user/planned", "--dry-run")
    assert ran.code == 0
    assert "not compared with the Hub, as there is no token: see `hf auth login`" in ran.stdout
    assert not hub.seen


def test_visibility_of_what_exists_is_left(hub, clients, tiny):
    ran = clients["owner"].run("push", tiny, "user/mine", "--public")
    assert ran.code == 0
    assert "(private)" in ran.stdout
    assert "it stays private" in ran.stderr
    assert hub.repo("user/mine").private


def test_invalid_metadata_is_refused_before_anything_shows(hub, clients, tiny, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", tiny, copy], check=True)
    (copy / "README.md").write_text("---\n- a list\n---\n# no mapping\n")
    ran = clients["owner"].run("push", copy, "user/odd")
    assert ran.code == 1
    assert "Invalid metadata in README.md" in ran.line
    assert hub.files("user/odd") == {}
    hub.yaml_warnings = ["empty or missing yaml metadata in repo card"]
    assert clients["owner"].run("push", tiny, "user/odd").code == 0
    hub.yaml_warnings = []


def test_a_busy_folder_is_not_pushed(hub, clients, tiny, tmp_path):
    from zoo.shards import one_writer

    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", tiny, copy], check=True)
    with one_writer(copy):
        ran = clients["owner"].run("push", copy, "user/busy")
        assert ran.code == 1
        assert "is being written by another process" in ran.line
    assert clients["owner"].run("push", copy, "user/busy").code == 0


def test_a_gitignore_there_does_not_thin_a_zoo_out(hub, clients, tiny):
    hub.put("user/thin", {".gitignore": b"*.parquet"})
    ran = clients["owner"].run("push", tiny, "user/thin")
    assert ran.code == 1
    assert re.search(r"\.gitignore in user/thin keeps out data/\S+\.parquet; change", ran.line)
    assert list(hub.files("user/thin")) == [".gitignore"]


def test_a_disk_that_cannot_be_written(hub, clients, tiny):
    ran = clients["owner"].run("pull", "user/mine", "--out", "/proc/nothing/here")
    assert ran.code == 1
    assert "cannot use /proc/nothing" in ran.line


@pytest.mark.parametrize("body", [b"<html>log in to the hotel</html>", b"{}", b"[]"])
def test_something_else_that_answers(hub, clients, tiny, tmp_path, body):
    hub.fail(".", "status", 200, times=None, body=body)
    for words in (["push", tiny, "user/x"], ["pull", "user/x", "--out", tmp_path / "o"]):
        ran = clients["owner"].run(*words)
        assert ran.code == 1
        assert re.search(r"does not answer as the Hub does|Error: ", ran.line), ran.line


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_stop_says_how_to_go_on(hub, tiny, tmp_path, kind, command):
    reached = threading.Event()
    go_on = threading.Event()

    def hold() -> None:
        reached.set()
        go_on.wait(20)

    name = f"user/stopped-{kind.name.lower()}"
    hub.fail("PUT" if command == "push" else "GET .*/weights/", "", then=hold)
    words = [command, tiny, name] if command == "push" else [command, "user/mine", "--out", "o"]
    child = subprocess.Popen(
        [*WSZOO, *map(str, words)],
        env=hub.environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert reached.wait(30)
        child.send_signal(kind)
        if command == "push":
            # The client waits for the uploads that are under way.
            go_on.set()
        out, errors = child.communicate(timeout=60)
    finally:
        go_on.set()
        child.kill()
        child.communicate()
    assert child.returncode == 1
    assert "Run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert out == ""


def test_default_folder_and_a_hidden_home(hub, clients, tmp_path):
    ran = subprocess.run(
        [*WSZOO, "pull", "user/mine"],
        env=hub.environment(tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout == (
        f"{Path('zoos/mine')}: 7 networks (train 4, test 3), every file verified\n"
    )
    assert ran.stderr == ""  # no bar where there is no terminal
    assert sorted(os.listdir(tmp_path / "zoos" / "mine")) == [
        ".lock", "README.md", "data", "stats.safetensors", "weights", "zoo.json",
    ]  # fmt: skip
