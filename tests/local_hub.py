"""A small Hugging Face Hub in this process, which the real clients talk to over HTTP.

It knows tokens, private repositories, LFS objects, commits on top of a parent, branches,
pull requests and ranges, as far as `huggingface_hub` and `datasets` ask for them, and
fails where a test tells it to. Everything lives in memory; `Hub.history` keeps every
state that a branch ever showed.

    with Hub() as hub:
        hub.fail("PUT /lfs", "cut", skip=3)
        hub.client(tmp_path).run("push", folder, "user/tiny")
"""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "hf_LocalOwnerTokenForTests0123456789"
READER = "hf_LocalReaderTokenForTests987654321"
STRANGER = "hf_LocalStrangerTokenForTests13572468"
LARGE = (".safetensors", ".parquet", ".png")
PAGE = 1000


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What git calls the blob; of a large file, of the pointer to it."""
        content = self.content
        if self.lfs:
            content = f"version 1\noid sha256:{self.sha256}\nsize {len(content)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


Tree = dict[str, Blob]


@dataclass
class Repo:
    """Commits by id, and what the branches show."""

    private: bool
    commits: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=dict)

    def commit(self, branch: str, tree: Tree) -> str:
        names = sorted((name, blob.etag) for name, blob in tree.items())
        past = self.branches.setdefault(branch, [])
        oid = hashlib.sha1(json.dumps([past, branch, names]).encode()).hexdigest()
        self.commits[oid] = dict(tree)
        past.append(oid)
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return revision if revision in self.commits else None


@dataclass
class Fault:
    """What is to go wrong, and with which requests.

    Kinds: "status" answers with an error; "cut" drops the connection before anything is
    done, "cut-body" when half of the body is through, "cut-answer" after the work is
    done but before it is told; "slow" sends an answer in small pieces; "endless" sends
    without end, and says no length; "drip" sends a byte now and then.
    """

    pattern: str
    kind: str
    status: int = 500
    skip: int = 0
    times: int | None = 1
    headers: dict[str, str] = field(default_factory=dict)
    then: Callable[[], object] | None = None
    body: bytes = b'{"error": "on demand"}'


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    path: str
    authorized: bool
    sent: int


class Failure(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class Hub:
    """The server; `tokens` are user and whether they may write."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens = {TOKEN: ("user", True), READER: ("user", False), STRANGER: ("other", True)}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.yaml_warnings: list[str] = []
        self.lock = threading.RLock()
        hub = self

        class Bound(_Handler):
            pass

        Bound.hub = hub
        self.server = _Server(("127.0.0.1", 0), Bound)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> "Hub":
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    # -- what tests ask and set ----------------------------------------------------------

    def fail(self, pattern: str, kind: str = "status", status: int = 500, **more: Any) -> Fault:
        """Let requests whose "METHOD /path" matches go wrong."""
        fault = Fault(pattern, kind, status, **more)
        with self.lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        with self.lock:
            self.faults.clear()

    def repo(self, name: str, kind: str = "dataset") -> Repo:
        return self.repos[kind, name]

    def add_repo(self, name: str, private: bool = False, kind: str = "dataset") -> Repo:
        repo = self.repos[kind, name] = Repo(private)
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})
        return repo

    def files(self, name: str, revision: str = "main", kind: str = "dataset") -> dict[str, bytes]:
        """What a branch shows, less the file that the Hub itself puts there."""
        repo = self.repo(name, kind)
        oid = repo.resolve(revision)
        assert oid is not None
        tree = repo.commits[oid]
        return {path: blob.content for path, blob in tree.items() if path != ".gitattributes"}

    def put(self, name: str, files: dict[str, bytes | None], branch: str = "main") -> str:
        """A commit from behind the client's back; None deletes."""
        repo = self.repos.get(("dataset", name)) or self.add_repo(name)
        past = repo.branches.get(branch) or repo.branches["main"]
        tree = dict(repo.commits[past[-1]])
        for path, content in files.items():
            if content is None:
                del tree[path]
            else:
                tree[path] = Blob(content, path.endswith(LARGE))
        return repo.commit(branch, tree)

    def history(self, name: str, branch: str = "main") -> Iterator[Tree]:
        """Every state that the branch ever showed."""
        repo = self.repo(name)
        return (repo.commits[oid] for oid in repo.branches[branch])

    def uploads(self) -> list[str]:
        """The large files that were sent, by their sha256."""
        return [s.path.rpartition("/")[2] for s in self.seen if s.method == "PUT"]

    # -- clients -------------------------------------------------------------------------

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """What a client's process is started with: this server, a home of its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept = {k: v for k, v in kept.items() if "proxy" not in k.lower()}
        kept |= {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return kept | ({"HF_TOKEN": token} if token else {})

    def client(self, home: Path, token: str | None = TOKEN, **more: str) -> "Client":
        """A process that runs `wszoo` commands against this server."""
        return Client({**self.environment(home, token), **more})


# Runs commands one after another, as their own program would, but does not wait long
# between tries. Results go out on the file that stdout was.
_LOOP = """
import io, json, os, sys, time, warnings
warnings.simplefilter("error")
# The client's own, on every upload by LFS.
warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
rest = time.sleep
time.asked = [0]
def briefly(seconds):
    time.asked.append(seconds)
    rest(min(seconds, 0.01))
time.sleep = briefly
from click.testing import CliRunner
from cli.main import wszoo
for line in sys.stdin:
    words = json.loads(line)
    if words[0] == "-c":
        out = {}
        try:
            exec(words[1], out)
            answer = {"code": 0, "stdout": out.get("result"), "stderr": ""}
        except Exception as error:
            answer = {"code": 1, "stdout": "", "stderr": f"{type(error).__name__}: {error}"}
    else:
        result = CliRunner().invoke(wszoo, words)
        error = result.exception
        trouble = "" if error is None or isinstance(error, SystemExit) else repr(error)
        answer = {
            "code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr + trouble,
        }
    print(json.dumps(answer), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """What a command printed; `line` is its error."""

    code: int
    stdout: Any
    stderr: str

    @property
    def line(self) -> str:
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        if lines[0].startswith("Usage: "):  # of a word that the command line refuses by itself
            del lines[:2]
        assert len(lines) == 1, self.stderr
        assert "Traceback" not in self.stderr
        return lines[0]


class Client:
    """A Python process of its own with the real clients in it."""

    def __init__(self, environment: dict[str, str]):
        self.environment = environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def start(self, *words: str | Path) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()

    def finish(self) -> Ran | None:
        """The answer, or None if the process died over it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return None
        return Ran(**json.loads(line))

    def run(self, *words: str | Path) -> Ran:
        self.start(*words)
        ran = self.finish()
        assert ran is not None, self.process.communicate()[1]
        return ran

    def ask(self, code: str) -> Any:
        """The value of `result` after running this code there."""
        ran = self.run("-c", code)
        assert ran.code == 0, ran.stderr
        return ran.stdout


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    # Else a small answer may wait 40 ms for the acknowledgement of its header.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    # -- one request ---------------------------------------------------------------------

    def serve(self) -> None:
        self.url = urlsplit(self.path)
        self.query = {k: v[-1] for k, v in parse_qs(self.url.query).items()}
        fault = self.fault()
        kind = fault.kind if fault else ""
        self.slow = kind == "slow"
        if fault and fault.then:
            fault.then()
        if kind == "cut":
            return self.drop()
        if kind == "cut-body" and self.command in ("PUT", "POST"):
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self.drop()
        self.body = self.read_body()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        seen = Seen(self.command, self.url.path, bool(token), len(self.body))
        with self.hub.lock:
            self.hub.seen.append(seen)
        self.half = kind == "cut-body"
        try:
            if fault and kind == "status":
                return self.answer(fault.status, fault.body, fault.headers)
            if fault and kind in ("endless", "drip"):
                return self.go_on(fault)
            with self.hub.lock:
                status, content, headers = self.route(token)
        except Failure as failure:
            headers = {}
            if failure.code:
                headers["X-Error-Code"] = failure.code
            if failure.message:
                headers["X-Error-Message"] = failure.message
            status, content = failure.status, json.dumps({"error": failure.message}).encode()
        if kind == "cut-answer":
            return self.drop()
        self.answer(status, content, headers)

    def fault(self) -> Fault | None:
        line = f"{self.command} {self.url.path}"
        with self.hub.lock:
            for fault in self.hub.faults:
                if not re.search(fault.pattern, line) or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def read_body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def drop(self) -> None:
        self.close_connection = True
        # The connection goes away at once, with whatever was under way.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.connection.close()

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Type" not in headers:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.half:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            return self.drop()
        if self.slow:
            step = max(1, len(content) // 8)
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                self.wfile.flush()
                time.sleep(0.02)
            return
        self.wfile.write(content)

    def go_on(self, fault: Fault) -> None:
        """Answer for as long as the client listens."""
        self.close_connection = True
        self.send_response(200)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        body, pause = (b"x", 0.05) if fault.kind == "drip" else (b"x" * 65536, 0.0)
        while True:
            self.wfile.write(body)
            self.wfile.flush()
            time.sleep(pause)

    # -- routes --------------------------------------------------------------------------

    def route(self, token: str) -> tuple[int, bytes, dict[str, str]]:
        path = self.url.path
        if token and token not in self.hub.tokens:
            raise Failure(401, message="Invalid credentials in Authorization header")
        self.user, self.may_write = self.hub.tokens.get(token, ("", False))
        if path == "/api/whoami-v2":
            if not self.user:
                raise Failure(401, message="Invalid username or password.")
            return self.json({"name": self.user, "type": "user", "orgs": []})
        if path == "/api/repos/create":
            return self.create()
        if path == "/api/validate-yaml":
            return self.validate()
        if found := re.fullmatch(r"/lfs/(\w{64})", path):
            return self.store(found[1])
        if path == "/lfs-verify":
            return self.json({})
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch("dataset" if found[1] else "model", found[2])
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = "dataset" if found[1] else "model"
            return self.file(kind, found[2], unquote(found[3]), unquote(found[4]))
        if found := re.fullmatch(
            r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/([\w-]+)(?:/(.+))?)?", path
        ):
            kind, name, verb, rest = found.groups()
            return self.repository(kind, name, verb or "revision", unquote(rest or "main"))
        raise Failure(404, "NotFound", f"no such page: {path}")

    def json(self, plain: Any, headers: dict[str, str] | None = None) -> Any:
        return 200, json.dumps(plain).encode(), headers or {}

    def create(self) -> Any:
        asked = json.loads(self.body)
        user = asked.get("organization") or self.user
        if not self.user:
            raise Failure(401, message="Invalid username or password.")
        if not self.may_write or user != self.user:
            raise Failure(403, message=f"You don't have the rights to create a repo under {user}")
        name, kind = f"{user}/{asked['name']}", asked.get("type") or "model"
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repos:
            content = json.dumps({"error": "You already created this repo", "url": url})
            return 409, content.encode(), {}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.add_repo(name, private, kind)
        return self.json({"url": url, "id": name})

    def validate(self) -> Any:
        import yaml

        content = json.loads(self.body)["content"]
        header = content.split("---")[1] if content.startswith("---") else "{}"
        try:
            plain = yaml.safe_load(header)
        except yaml.YAMLError as error:
            plain = str(error)
        if not isinstance(plain, dict):
            errors = [{"message": f"not a mapping: {plain!r:.60}"}]
            return 400, json.dumps({"errors": errors, "warnings": []}).encode(), {}
        return self.json(
            {"errors": [], "warnings": [{"message": w} for w in self.hub.yaml_warnings]}
        )

    def found(self, kind: str, name: str, write: bool = False) -> Repo:
        repo = self.hub.repos.get((kind, name))
        owner = name.partition("/")[0] == self.user
        if repo is None or (repo.private and not owner):
            raise Failure(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and not (owner and self.may_write):
            raise Failure(403 if self.user else 401, message="Forbidden: no write access")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> str:
        oid = repo.resolve(revision)
        if oid is None:
            raise Failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def repository(self, kind: str, name: str, verb: str, rest: str) -> Any:
        write = verb in ("commit", "preupload")
        repo = self.found(kind, name, write)
        if verb == "revision":
            oid = self.commit_of(repo, rest)
            names = [{"rfilename": path} for path in repo.commits[oid]]
            about = {"id": name, "sha": oid, "private": repo.private, "siblings": names}
            return self.json({**about, "tags": [], "downloads": 0, "likes": 0})
        revision, _, folder = rest.partition("/")
        revision = unquote(revision)
        oid = self.commit_of(repo, revision)
        tree = repo.commits[oid]
        if verb == "tree":
            return self.tree(tree, folder)
        if verb == "paths-info":
            asked = parse_qs(self.body.decode())["paths"]
            return self.json([entry(path, tree[path]) for path in asked if path in tree])
        if verb == "preupload":
            ignored = tree[".gitignore"].content.decode().split() if ".gitignore" in tree else []
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": any(fnmatch(file["path"], rule) for rule in ignored),
                    "oid": tree[file["path"]].etag if file["path"] in tree else None,
                }
                for file in json.loads(self.body)["files"]
            ]
            return self.json({"files": files})
        if verb == "commit":
            return self.commit(repo, name, kind, revision, oid)
        raise Failure(404, "NotFound", f"no such verb: {verb}")

    def tree(self, tree: Tree, folder: str) -> Any:
        entries = []
        folders = set()
        for path, blob in sorted(tree.items()):
            if folder and not path.startswith(folder + "/"):
                continue
            inside = path[len(folder) + 1 if folder else 0 :]
            parent = inside.rpartition("/")[0]
            if parent and parent not in folders:
                folders.add(parent)
                at = f"{folder}/{parent}" if folder else parent
                entries.append({"type": "directory", "path": at, "oid": "0" * 40, "size": 0})
            if not parent or self.query.get("recursive", "").lower() == "true":
                entries.append(entry(path, blob))
        if folder and not entries:
            raise Failure(404, "EntryNotFound", f"{folder} does not exist")
        start = int(self.query.get("cursor", 0))
        headers = {}
        if start + PAGE < len(entries):
            self.query["cursor"] = str(start + PAGE)
            query = "&".join(f"{k}={quote(v)}" for k, v in self.query.items())
            headers["Link"] = f'<{self.hub.endpoint}{self.url.path}?{query}>; rel="next"'
        return self.json(entries[start : start + PAGE], headers)

    def commit(self, repo: Repo, name: str, kind: str, revision: str, head: str) -> Any:
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, head):
            raise Failure(412, message="A commit has happened since. Please refresh and try again.")
        if revision not in repo.branches:
            raise Failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        tree = dict(repo.commits[head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Failure(400, message=f"LFS object {value['oid']} is not there")
                tree[value["path"]] = Blob(self.hub.objects[value["oid"]], True)
            elif line["key"] == "deletedFile":
                if value["path"] not in tree:
                    raise Failure(404, "EntryNotFound", "A file with this name doesn't exist")
                del tree[value["path"]]
        pull_request = self.query.get("create_pr") == "1"
        branch = revision
        if pull_request:
            number = sum(known.startswith("refs/pr/") for known in repo.branches) + 1
            branch = f"refs/pr/{number}"
            repo.branches[branch] = [head]
        oid = repo.commit(branch, tree)
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
        about = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}"}
        if pull_request:
            about["pullRequestUrl"] = f"{url}/discussions/{branch.rpartition('/')[2]}"
        return self.json(about)

    def batch(self, kind: str, name: str) -> Any:
        self.found(kind, name, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            about: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                put = {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}
                verify = {"href": f"{self.hub.endpoint}/lfs-verify"}
                about["actions"] = {"upload": put, "verify": verify}
            objects.append(about)
        return self.json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Failure(400, message="the content does not have this sha256")
        self.hub.objects[oid] = self.body
        return self.json({})

    def file(self, kind: str, name: str, revision: str, path: str) -> Any:
        repo = self.found(kind, name)
        oid = self.commit_of(repo, revision)
        blob = repo.commits[oid].get(path)
        if blob is None:
            raise Failure(404, "EntryNotFound", f"{path} does not exist")
        headers = {
            "ETag": f'"{blob.etag}"',
            "X-Repo-Commit": oid,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if blob.lfs:
            headers |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-Etag": f'"{blob.etag}"'}
        size = len(blob.content)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not asked or not size:
            return 200, blob.content, headers
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        end = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if start >= size:
            return 416, b"", {**headers, "Content-Range": f"bytes */{size}"}
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        return 206, blob.content[start : end + 1], headers


def entry(path: str, blob: Blob) -> dict[str, Any]:
    """A file as the Hub lists it."""
    about = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.content)}
    if blob.lfs:
        about["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
    return about
