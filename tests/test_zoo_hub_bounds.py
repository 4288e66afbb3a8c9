"""Servers and repositories that mean ill: each is refused in one line, soon, in little memory."""

import gzip
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import write_zoo
from local_hub import TOKEN, Client, Hub

from zoo.hub import bounds, trust

MB = 1 << 20


@pytest.fixture(scope="module")
def client(client) -> Client:
    """Its bounds are a hundredth of the real ones, so that tests stay small."""
    client.ask(
        "from zoo.hub import bounds, trust\n"
        "bounds.ANSWER_BYTES = 1 << 18; bounds.LISTED_FILES = 3000\n"
        "bounds.SLOW_S = 0.3; trust.TEXT_BYTES = 1 << 20; trust.PICTURES = 20\n"
        "result = 0"
    )
    return client


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("zoos") / "tiny"
    write_zoo(folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def answer(pattern: str, **more: Any) -> Callable[[Hub], None]:
    """A server that gives this answer to some requests, for ever."""
    more.setdefault("kind", "status")
    if more["kind"] == "status":
        more.setdefault("status", 200)
    return lambda hub: hub.fail(pattern, times=None, **more)


REPO, TREE, INDEX = "GET /api/datasets/[^/]+/[^/]+", "GET .*/tree/", "GET .*/resolve/.*/zoo.json"
SHARD = "GET .*/weights/"
BOMB = gzip.compress(bytes(64 * MB))
COMMIT = "0" * 40
SHORT = {"Content-Type": "application/json"}


def head(**headers: str) -> Callable[[Hub], None]:
    """What is said of a file before it is fetched."""
    whole = {"ETag": '"abc"', "X-Repo-Commit": COMMIT, **headers}
    return answer("HEAD .*/zoo.json", headers=whole, body=b"{}")


# What a server does: the fault, whether in a pull or in opening, and what is said.
SERVERS: dict[str, tuple[Callable[[Hub], None], str]] = {
    "an index without end": (answer(INDEX, kind="endless"), "at most 67,108,864 bytes are read"),
    "an index that claims a terabyte": (
        answer(INDEX, kind="endless", headers={"Content-Length": str(10**12)}),
        r"at most 67,108,864 bytes are read, the server has 1,000,000,000,000",
    ),
    "a shard without end": (answer(SHARD, kind="endless"), "at most [0-9,]+ bytes are read"),
    "a shard of a terabyte": (
        answer(SHARD, kind="endless", headers={"Content-Length": str(10**12)}),
        "the server has 1,000,000,000,000",
    ),
    "a gzip bomb in place of a shard": (
        answer(SHARD, body=BOMB, headers={"Content-Encoding": "gzip"}),
        "at most [0-9,]+ bytes are read",
    ),
    "a gzip bomb in place of an answer": (
        answer(REPO, body=BOMB, headers={"Content-Encoding": "gzip"}),
        "at most 262,144 bytes are read",
    ),
    "what is no gzip": (
        answer(REPO, body=b"no", headers={"Content-Encoding": "gzip"}), "does not come as it says",
    ),
    "another coding": (
        answer(REPO, body=b"{}", headers={"Content-Encoding": "br"}), "comes as 'br', which was",
    ),
    "an answer without end": (answer(REPO, kind="endless"), "at most 262,144 bytes are read"),
    "an error page without end": (
        answer(REPO, body=b'{"error": "' + b"x" * MB, status=400), "at most 262,144 bytes are read",
    ),
    "a list of files without end": (
        answer(TREE, kind="endless"), "at most 262,144 bytes are read",
    ),
    "pages without end": (
        answer(
            TREE,
            body=json.dumps([
                {"type": "file", "path": f"f{n}", "oid": "0" * 40, "size": 1} for n in range(999)
            ]).encode(),
            headers={**SHORT, "Link": '<{endpoint}/api/datasets/u/n/tree/main>; rel="next"'},
        ),
        "has more than 3,000 files: it is no zoo",
    ),
    "a drip": (answer(SHARD, kind="drip"), "comes by less than 1,000 bytes a second"),
    "a drip in place of an answer": (answer(REPO, kind="drip"), "comes by less than 1,000 bytes"),
    "a shard that breaks off for ever": (
        answer(SHARD, kind="cut-body"), "breaks off, or leads in circles|cannot reach",
    ),
    "redirections in a circle": (
        answer("GET .*/resolve/", status=302, headers={"Location": "{endpoint}{path}"}),
        "leads in circles|redirect",
    ),
    "a redirection to a file": (
        answer(INDEX, status=302, headers={"Location": "file:///etc/passwd"}), "cannot reach|file",
    ),
    "years of waiting": (
        answer(REPO, status=429, headers={"Retry-After": str(10**9)}), r"asks to slow down \(429\)",
    ),
    "years of waiting by another header": (
        answer(
            TREE, status=429, headers={"RateLimit": '"api";r=0;t=999999999'}
        ),
        r"asks to slow down \(429\)",
    ),
    "a cache name that leaves the cache": (
        head(ETag='"../../../../evil"'), "expected a name as ETag, got",
    ),
    "a linked name that leaves the cache": (
        head(**{"X-Linked-ETag": '"/evil"'}), "expected a name as X-Linked-ETag, got",
    ),
    "a commit that leaves the cache": (
        head(**{"X-Repo-Commit": "../../evil"}), "expected a name as X-Repo-Commit, got",
    ),
    "JSON of another form": (answer(REPO, body=b'{"sha": ["x"]}'), "Error: "),
    "JSON that is deep": (answer(REPO, body=b"[" * 100_000), "answer as the Hub does|deep"),
    "a tree of another form": (answer(TREE, body=b'[{"path": 1}]'), "does not answer as the Hub"),
    "sizes of another form": (
        answer(TREE, body=b'[{"type": "file", "path": "zoo.json", "oid": "x", "size": "1"}]'),
        "the Hub lists no files of user/sizes-of-another-form, but 'zoo.json' of '1' bytes",
    ),
    "a login page": (answer(".", body=b"<html>log in to the hotel</html>"), "Error: "),
    "an error that acts on the terminal": (
        answer(
            REPO,
            status=400,
            body=json.dumps({"error": "\x1b[2J\u202eevil\r\nError: none"}).encode(),
        ),
        r"\(400\).*\\x1b\[2J\\u202eevil Error: none",
    ),
    "an error that repeats the token across the cut": (
        answer(REPO, status=400, body=json.dumps({"error": "x" * 280 + " " + TOKEN}).encode()),
        r"\(400\): x+ \*\*\*",
    ),
    "an error that repeats the token encoded": (
        answer(REPO, status=400, body=json.dumps(
            {"error": "".join(f"%{ord(sign):02X}" for sign in TOKEN)}).encode()),
        r"\(400\): \*\*\*",
    ),
}  # fmt: skip


def filled(fault: Any, hub: Hub) -> None:
    """Say where the server is, in headers that name it."""
    for known in hub.faults:
        known.headers = {
            name: value.replace("{endpoint}", hub.endpoint).replace(
                "{path}", "/datasets/user/circle/resolve/main/zoo.json"
            )
            for name, value in known.headers.items()
        }


@pytest.mark.parametrize("case", SERVERS)
def test_a_server_that_means_ill_is_refused(hub, client, files, tmp_path, case):
    fault, words = SERVERS[case]
    name = "user/" + re.sub("[^a-z]+", "-", case.lower())
    hub.put(name, files)
    client.ask("import time; time.asked[:] = [0]; result = 0")
    fault(hub)
    filled(fault, hub)
    out = tmp_path / "in" / "out"
    ran = client.run("pull", name, "--out", out)
    opened = client.run("info", name)
    shown = client.run("-c", f"import zoo; zoo.open_zoo({name!r}, 'test')")
    hub.heal()
    assert ran.code == 1 or opened.code == 1, ran.stdout
    lines = f"{ran.stderr}{opened.stderr}"
    assert re.search(words, lines, re.I), lines
    for each in (ran, opened):
        if each.code:
            assert each.line.isprintable()
            assert len(each.line) < 2100
    for text in (lines, shown.stderr):
        assert TOKEN[-12:] not in text
    assert not (out / "zoo.json").exists()
    assert not list(tmp_path.rglob("*evil*"))
    assert not list(Path(client.environment["HF_HOME"]).rglob("*evil*"))
    assert max(client.ask("import time; result = time.asked")) <= bounds.WAIT_S + 1
    # And once it behaves, the same command goes on.
    assert client.run("pull", name, "--out", out).code == 0


def test_that_took_little_memory(client):
    """After all of the above; a bomb alone is of 64 MB, an index that is refused has as much."""
    # Of this program alone: what getrusage gives may be the peak of the process that forked it.
    peak = client.ask(
        "lines = open('/proc/self/status').read().splitlines()\n"
        "result = next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))"
    )
    # What is imported takes up to 1,200 MB of it, by what the process did before.
    assert peak * 1024 < 1500 * MB


# ---- repositories


REPOSITORIES: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "pictures by the hundred": (
        lambda f: f.update({f"figures/p{n}.png": b"x" for n in range(30)}),
        "has 31 pictures; a zoo has 20 at most|has 30 pictures",
    ),
    "a card of megabytes": (
        lambda f: f.update({"README.md": b"x" * (MB + 1)}),
        "README.md has 1,048,577 bytes; at most 1,048,576 are fetched",
    ),
    "a picture of megabytes": (
        lambda f: f.update({"figures/a.png": b"x" * (MB + 1)}),
        "figures/a.png has 1,048,577 bytes",
    ),
    "files by the thousand": (
        lambda f: f.update({f"extra/{n:05d}.txt": b"x" for n in range(3100)}),
        "has more than 3,000 files: it is no zoo",
    ),
    "an index beyond all measure": (
        lambda f: f.update({"zoo.json": b" " * (trust.INDEX_BYTES + 1)}),
        "zoo.json has [0-9,]+ bytes|at most 67,108,864 bytes are read",
    ),
    "an index of a million values": (
        lambda f: f.update({"zoo.json": b"[" + b"0," * 5_000_000 + b"0]"}),
        "values",
    ),
}


@pytest.mark.parametrize("case", REPOSITORIES)
def test_a_repository_beyond_measure_is_refused(hub, client, files, tmp_path, case):
    change, words = REPOSITORIES[case]
    own = dict(files)
    change(own)
    name = "user/" + re.sub("[^a-z]+", "-", case.lower())
    hub.put(name, own)
    ran = client.run("pull", name, "--out", tmp_path / "out")
    assert ran.code == 1
    assert re.search(words, ran.line), ran.line
    assert not (tmp_path / "out" / "zoo.json").exists()


# ---- what must go on


def test_honest_servers_are_not_disturbed(hub, client, files, tmp_path):
    """Compressed answers, slow ones, breaks, and redirections to a store elsewhere."""
    hub.put("user/honest", files)
    hub.fail(REPO, "slow")
    hub.fail(SHARD, "cut-body", times=3)
    hub.fail(SHARD, "slow", times=3)
    hub.fail(TREE, "status", 429, headers={"Retry-After": "2"})
    assert client.run("pull", "user/honest", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "zoo.json").read_bytes() == files["zoo.json"]


def test_a_token_does_not_follow_a_redirection(hub, client, files, tmp_path, shared_hub):
    """The bytes may lie in a store elsewhere; the token stays with the Hub."""
    hub.put("user/moved", files)
    with Hub() as store:
        store.put("user/moved", files)
        index = json.loads(files["zoo.json"])
        name = index["shards"][0]["file"]
        there = f"{store.endpoint}/datasets/user/moved/resolve/main/{name}".replace(
            "127.0.0.1", "localhost"
        )
        hub.fail(f"GET .*{name}", "status", 302, headers={"Location": there}, times=None)
        ran = client.run("pull", "user/moved", "--out", tmp_path / "out")
        assert ran.code == 0, ran.stderr
        assert [s.authorized for s in store.seen if name in s.path] == [False]


def test_bounds_are_of_a_thread_and_end_with_their_block(monkeypatch):
    monkeypatch.setattr(bounds, "_install", lambda: None)
    seen: list[Any] = []
    with bounds.watching():
        assert bounds._watching == 1
        with bounds.at_most(5, answers=3):
            assert bounds._bound.get() == bounds._Bound(5, 3)
            thread = threading.Thread(target=lambda: seen.append(bounds._bound.get()))
            thread.start()
            thread.join()
        assert bounds._bound.get() is None
    assert seen == [None]
    assert bounds._watching == 0


def test_the_clients_own_settings_stay(shared_hub, tmp_path):
    """A factory that a user set makes the session; outside of wszoo nothing is watched."""
    with shared_hub.client(tmp_path) as fresh:
        assert fresh.ask(
            "import zoo, huggingface_hub\n"
            "from huggingface_hub.utils import _http, get_session\n"
            "made = []\n"
            "def mine():\n"
            "    made.append(_http.default_client_factory()); return made[-1]\n"
            "huggingface_hub.set_client_factory(mine)\n"
            "from zoo.hub import bounds\n"
            "with bounds.watching(): inner = get_session()\n"
            "result = [inner is made[-1], bounds._watching, len(made)]\n"
        ) == [True, 0, 1]
