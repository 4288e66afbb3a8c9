"""Push, pull and open against a local Hub, with the real clients in processes of their own."""

import hashlib
import json
import os
import re
import shlex
import shutil
import site
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CLASSES, write_zoo
from local_hub import TOKEN, Hub, Tree

import zoo
from zoo import cards, shards
from zoo import hub as library
from zoo.errors import ZooError
from zoo.hub import publication, pushing, trust

CUTS = 20


@pytest.fixture
def hub(hub) -> Hub:
    """Without the objects of the test before, too, or nothing would be uploaded twice."""
    hub.objects.clear()
    return hub


@pytest.fixture
def name(request) -> str:
    """A repository of the test's own."""
    return "user/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoos") / "tiny"
    write_zoo(folder)
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """The same zoo with one shard more."""
    folder = tmp_path_factory.mktemp("grown") / "tiny"
    write_zoo(folder, rows={"train": 24 + 8, "validation": 5, "test": 7})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are not hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def sent(folder: Path) -> dict[str, bytes]:
    """What a push of a folder makes of a repository: its files, and a sample of them."""
    return {
        file.file: publication.content(file) for file in publication.zoo_files(folder, "user/x")
    }


def copied(folder: Path) -> dict[str, bytes]:
    """What a pull brings of it."""
    files = sent(folder)
    del files[publication.SAMPLE_FILE]
    return files


def wrong_with(tree: Tree) -> str | None:
    """What is wrong with a state that a branch shows; None for a whole zoo, or none."""
    if "zoo.json" not in tree:
        strays = [name for name in tree if name.endswith((".safetensors", ".parquet"))]
        return f"{strays[0]} without an index" if strays else None
    index = shards.Index.from_json(json.loads(tree["zoo.json"].content))
    for file in index.files:
        if file.file not in tree:
            return f"{file.file} is missing"
        if tree[file.file].sha256 != file.sha256:
            return f"{file.file} is of another zoo"
    listed = {file.file for file in index.files}
    strays = [n for n in tree if n.startswith(("weights/", "data/")) and n not in listed]
    return f"{strays[0]} is not in the index" if strays else None


def test_wrong_states_are_seen(hub, client, tiny, grown, name):
    assert client.run("push", tiny, name).code == 0
    whole = dict(list(hub.history(name))[-1])
    assert wrong_with(whole) is None
    shard = next(file for file in whole if file.startswith("weights/"))
    assert wrong_with({k: v for k, v in whole.items() if k != shard}) == f"{shard} is missing"
    mixed = {**whole, shard: whole["zoo.json"]}
    assert wrong_with(mixed) == f"{shard} is of another zoo"
    assert "not in the index" in str(wrong_with({**whole, "data/x.parquet": whole[shard]}))
    assert "without an index" in str(
        wrong_with({k: v for k, v in whole.items() if k != "zoo.json"})
    )


def test_a_push_makes_the_repository_equal_to_the_folder(hub, client, tiny, name):
    (tiny / ".secret").write_text("stays here")
    ran = client.run("push", tiny, name)
    assert ran.code == 0, ran.stderr
    assert hub.files(name) == sent(tiny)
    assert hub.repo(name).private
    assert "(private)" in ran.stdout
    assert len(hub.repo(name).branches["main"]) == 2  # the Hub's own commit and ours
    order = [hub.objects[oid] for oid in hub.uploads()]
    magic = [content[:4] == b"PAR1" for content in order]
    assert magic == sorted(magic), "weights go before Parquet"


def test_nothing_is_sent_twice(hub, client, tiny, grown, name):
    client.run("push", tiny, name)
    first = hub.uploads()
    assert len(first) == len(set(first)) == 12
    hub.seen.clear()
    ran = client.run("push", tiny, name)
    assert "sent 0 files, 0 bytes; 14 there already" in ran.stdout
    assert not [s for s in hub.seen if s.method != "GET"]
    assert len(hub.repo(name).branches["main"]) == 2
    # A grown zoo: its shards have new names, but only one has new content.
    hub.seen.clear()
    plan = client.run("push", grown, name, "--dry-run").stdout
    assert not [s for s in hub.seen if s.method != "GET"]
    sends = [line.split()[-1] for line in plan.splitlines() if line.startswith("send ")]
    ran = client.run("push", grown, name)
    assert ran.code == 0, ran.stderr
    assert hub.files(name) == sent(grown)
    before, after = (
        {hashlib.sha256(each).hexdigest(): path for path, each in sent(folder).items()}
        for folder in (tiny, grown)
    )
    large = (".safetensors", ".parquet")
    new = {each for each, path in after.items() if path.endswith(large) and each not in before}
    assert set(hub.uploads()) == new
    assert len(sends) == len(new) + 1  # the index goes in the commit
    assert "move " in plan
    assert "remove " in plan
    assert all(wrong_with(tree) is None for tree in hub.history(name))


def test_what_is_not_the_zoos_stays(hub, client, tiny, grown, name):
    client.run("push", tiny, name)
    own = {"LICENSE": b"free", "notes/why.md": b"because", "data/extra.csv": b"1,2"}
    hub.put(name, {**own, "figures/mine.png": b"x", "figures/psnr_db.png": b"old"})
    client.run("push", grown, name)
    files = hub.files(name)
    assert {path: files[path] for path in own} == own
    assert "figures/mine.png" in files
    assert "figures/psnr_db.png" not in files


def test_a_repository_of_something_else_is_left_alone(hub, client, tiny, name):
    hub.put(name, {"data/train-00000-of-00001.parquet": b"years of work"})
    ran = client.run("push", tiny, name)
    assert ran.code == 1
    assert "holds something that is no zoo (data/train-00000-of-00001.parquet)" in ran.line
    assert list(hub.files(name)) == ["data/train-00000-of-00001.parquet"]


def test_revision_message_pull_request_and_visibility(hub, client, tiny, grown, name):
    ran = client.run("push", tiny, name, "--public", "--message", "hello")
    assert "(public)" in ran.stdout
    assert not hub.repo(name).private
    repo = hub.repo(name)
    repo.branches["v2"] = list(repo.branches["main"])
    assert client.run("push", grown, name, "--revision", "v2").code == 0
    assert hub.files(name) == sent(tiny)
    assert hub.files(name, "v2") == sent(grown)
    ran = client.run("push", grown, name, "--create-pr")
    assert ran.code == 0, ran.stderr
    assert f"{name}/discussions/1" in ran.stdout
    assert hub.files(name) == sent(tiny)
    assert hub.files(name, "refs/pr/1") == sent(grown)
    pulled = client.ask(
        f"import zoo; result = len(zoo.open_zoo({name!r}, revision='v2')), "
        f"len(zoo.open_zoo({name!r}))"
    )
    assert pulled == [32, 20]
    ran = client.run("push", tiny, name, "--create-pr", "--revision", "nope")
    assert "has no revision 'nope'" in ran.line


def damage(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    shard = next((copy / "weights").glob("*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    return copy


def test_only_a_whole_zoo_is_pushed(hub, client, tiny, name, tmp_path):
    ran = client.run("push", damage(tiny, tmp_path / "copy"), name)
    assert ran.code == 1
    assert "does not have the sha256 of the index" in ran.line
    folder = tmp_path / "young"
    (folder / ".build").mkdir(parents=True)
    assert "is not finished" in client.run("push", folder, name).line
    shutil.copytree(tiny, tmp_path / "bare")
    (tmp_path / "bare" / "README.md").unlink()
    assert "README.md is missing" in client.run("push", tmp_path / "bare", name).line
    shutil.copytree(tiny, tmp_path / "headless")
    (tmp_path / "headless" / "zoo.json").unlink()
    assert "has no zoo.json" in client.run("push", tmp_path / "headless", name).line
    assert not hub.seen
    assert ("dataset", name) not in hub.repos


def test_a_change_by_someone_else_stops_a_push(hub, client, tiny, grown, name):
    client.run("push", tiny, name)
    hub.fail("POST .*/commit/", "", then=lambda: hub.put(name, {"LICENSE": b"new"}))
    ran = client.run("push", grown, name)
    assert ran.code == 1
    assert "was changed by someone else during this push (412)" in ran.line
    assert wrong_with(list(hub.history(name))[-1]) is None
    assert client.run("push", grown, name).code == 0
    assert hub.files(name) == {**sent(grown), "LICENSE": b"new"}


@pytest.mark.parametrize("kind", ["cut-answer", "status"])
def test_a_commit_is_made_once(hub, client, tiny, name, kind):
    """Its answer may be lost after it was made; the client itself would stop there."""
    hub.fail("POST .*/commit/", kind, 503)
    ran = client.run("push", tiny, name)
    assert ran.code == 0, ran.stderr
    assert len(hub.repo(name).branches["main"]) == 2
    assert hub.files(name) == sent(tiny)


def test_a_pull_request_is_not_made_twice(hub, client, tiny, grown, name):
    client.run("push", tiny, name)
    hub.fail("POST .*/commit/", "cut-answer")
    ran = client.run("push", grown, name, "--create-pr")
    assert ran.code == 1
    assert "see whether" in ran.line
    assert [branch for branch in hub.repo(name).branches if "pr" in branch] == ["refs/pr/1"]


@pytest.mark.parametrize(
    "pattern",
    ["GET /api/datasets/[^/]+/[^/]+$", "repos/create", "tree", "preupload", "batch", "PUT",
     "validate-yaml", "lfs-verify", "commit/"],
)  # fmt: skip
def test_single_failures_are_ridden_out(hub, client, tiny, name, pattern):
    for kind, status, body in (
        ("status", 500, b"<html>gateway</html>"), ("status", 429, b"{}"), ("cut", 0, b""),
        ("cut-body", 0, b""), ("slow", 0, b""),
    ):  # fmt: skip
        hub.fail(pattern, kind, status, body=body, headers={"Retry-After": "1"})
    ran = client.run("push", tiny, name)
    assert ran.code == 0, ran.stderr
    assert hub.files(name) == sent(tiny)
    assert all(wrong_with(tree) is None for tree in hub.history(name))


def test_a_push_cut_anywhere_goes_on(hub, client, tiny, grown, name, tmp_path):
    """Connections dropped, 500s, a killed process; then the same command once more."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    client.run("push", tiny, name)
    first = len(hub.seen)
    hub.seen.clear()
    client.run("push", grown, name)
    second = len(hub.seen)
    outcomes = []
    ended = 0
    process = hub.client(tmp_path / "home0")
    try:
        for cut in range(CUTS):
            # Half of them on top of an older zoo, which must stay whole until the end.
            repo = f"{name}-{cut}"
            old = cut % 2 == 1
            if old:
                assert client.run("push", tiny, repo).code == 0
            hub.objects.clear()  # so that uploading is part of it every time
            for tree in hub.repos["dataset", repo].commits.values() if old else []:
                hub.objects |= {blob.sha256: blob.content for blob in tree.values() if blob.lfs}
            kind = ("cut", "cut-body", "cut-answer", "status", "kill")[cut % 5]
            skip = int(draw.integers(0, second if old else first))
            if kind == "kill":
                hub.fail(".", "cut", skip=skip, then=process.process.kill)
            else:
                hub.fail(".", kind, 500, skip=skip, times=None)
            process.start("push", grown, repo)
            ran = process.finish()
            hub.heal()
            outcomes.append("killed" if ran is None else "failed" if ran.code else "done")
            if ran is None:
                process.__exit__()
                ended += 1
                process = hub.client(tmp_path / f"home{ended}")
            elif ran.code:
                assert ran.code == 1
                assert "again" in ran.line
            if ("dataset", repo) in hub.repos:
                assert all(wrong_with(tree) is None for tree in hub.history(repo))
            ran = process.run("push", grown, repo)
            assert ran.code == 0, ran.stderr
            assert hub.files(repo) == sent(grown)
            states = list(hub.history(repo))
            assert all(wrong_with(tree) is None for tree in states)
            assert len(states) == (3 if old else 2)
    finally:
        process.__exit__()
    print(outcomes)
    assert outcomes.count("killed") == CUTS // 5
    assert outcomes.count("failed") > CUTS // 2


# ---- reading without wszoo


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory) -> Path:
    """The installed packages, less wszoo in whatever way it is installed."""
    folder = tmp_path_factory.mktemp("site")
    for packages in map(Path, site.getsitepackages()):
        for entry in packages.iterdir() if packages.is_dir() else ():
            ours = entry.name in ("zoo", "cli", "processors") or "wszoo" in entry.name
            if not ours and entry.suffix != ".pth" and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


def without_wszoo(hub: Hub, home: Path, packages: Path, code: str) -> dict:
    """What the code prints as JSON, in a process that cannot import zoo."""
    opening = (
        f"import sys, json; sys.path.append({str(packages)!r})\n"
        "from importlib.util import find_spec\n"
        "assert find_spec('zoo') is None and find_spec('cli') is None\n"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", opening + code],
        env=hub.environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_load_dataset_without_wszoo(hub, client, bare_site, name, tmp_path):
    """All at once and as a stream, from a private repository, with a generated card."""
    out = tmp_path / "tiny"
    index = write_zoo(out)
    (out / "README.md").write_text(cards.render_card(index, {}))
    assert client.run("push", out, name).code == 0
    answer = without_wszoo(
        hub,
        tmp_path,
        bare_site,
        "from datasets import load_dataset\n"
        f"whole = load_dataset({name!r})\n"
        "rows = whole['train'].with_format('numpy')\n"
        f"stream = load_dataset({name!r}, split='train', streaming=True)\n"
        "first = next(iter(stream.with_format('numpy')))\n"
        "print(json.dumps({\n"
        "  'rows': {split: len(part) for split, part in whole.items()},\n"
        "  'type': str(rows[3]['weight_1'].dtype),\n"
        "  'weight': rows[3]['weight_1'].tolist(), 'shape': list(rows[:2]['weight_0'].shape),\n"
        "  'label': whole['train'].features['label'].int2str(int(rows[3]['label'])),\n"
        "  'first': first['bias_0'].tolist(), 'streamed': sum(1 for _ in stream)}))\n",
    )
    assert answer["rows"] == index.splits
    assert answer["type"] == "float32"
    assert answer["shape"] == [2, 32, 2]
    stored = shards.read_tensors(out / index.shards[0].file)
    assert answer["weight"] == stored["weight_1"][3].tolist()
    assert answer["first"] == stored["bias_0"][0].tolist()
    assert answer["label"] == CLASSES[stored["label"][3]]
    assert answer["streamed"] == index.splits["train"]
    # The card's examples name the repository.
    card = hub.files(name)["README.md"].decode()
    assert f'load_dataset("{name}"' in card
    assert f'open_zoo("{name}"' in card
    assert f"hf download {name} " in card
    assert "USER/" not in card


# ---- pull and open


def test_pull_gives_the_folder_back(hub, client, tiny, name, tmp_path):
    client.run("push", tiny, name)
    hub.put(name, {"evil.pkl": b"cos\nsystem\n", "tiny.py": b"raise", "figures/a.png": b"png"})
    hub.seen.clear()
    ran = client.run("pull", name, "--out", tmp_path / "out")
    assert ran.code == 0, ran.stderr
    assert "32 networks (train 20, validation 5, test 7), every file verified" in ran.stdout
    assert contents(tmp_path / "out") == {**copied(tiny), "figures/a.png": b"png"}
    assert not (tmp_path / "out" / ".pull").exists()
    # Again: nothing comes but the small files; a damaged one is mended.
    shard = next((tmp_path / "out" / "weights").glob("*"))
    shard.write_bytes(b"")
    hub.seen.clear()
    assert client.run("pull", name, "--out", tmp_path / "out").code == 0
    fetched = [s.path for s in hub.seen if s.method == "GET" and "/weights/" in s.path]
    assert [path.rpartition("/")[2] for path in fetched] == [shard.name]


def test_pull_of_a_split_and_then_the_rest(hub, client, tiny, name, tmp_path):
    client.run("push", tiny, name)
    hub.seen.clear()
    ran = client.run("pull", name, "--out", tmp_path / "out", "--split", "test")
    assert "7 networks (test 7)" in ran.stdout
    assert not [s for s in hub.seen if "/train-" in s.path]
    assert len(library.open_zoo(tmp_path / "out", "test")) == 7
    with pytest.raises(ZooError, match=r"train-00000-of-00003\.safetensors is missing"):
        library.open_zoo(tmp_path / "out", "train")
    ran = client.run("push", tmp_path / "out", name)
    assert "is missing" in ran.line  # half a zoo does not replace a whole one
    assert client.run("pull", name, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == copied(tiny)
    ran = client.run("pull", name, "--out", tmp_path / "no", "--split", "tset")
    assert ran.code == 2
    assert "unknown split 'tset'; known: train, validation, test" in ran.line
    assert not (tmp_path / "no" / "zoo.json").exists()


def test_pull_does_not_write_over_anything(hub, client, tiny, grown, name, tmp_path):
    client.run("push", tiny, name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    ran = client.run("pull", name, "--out", tmp_path / "mine")
    assert ran.code == 2
    assert "is not empty and not a zoo ('thesis.tex' lies there)" in ran.line
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]
    other = tmp_path / "other"
    shutil.copytree(grown, other)
    ran = client.run("pull", name, "--out", other)
    assert ran.code == 2
    assert "holds another zoo" in ran.line
    assert contents(other) == contents(grown)
    ran = client.run("pull", name, "--out", other, "--overwrite")
    assert ran.code == 0, ran.stderr
    assert contents(other) == copied(tiny)


def test_a_pull_that_was_cut_goes_on(hub, client, tiny, name, tmp_path):
    client.run("push", tiny, name)
    out = tmp_path / "out"
    for skip in (0, 4, 4, 4):  # the index, and three files more each time, of several at once
        hub.fail("GET .*/resolve/", "cut", skip=skip, times=None)
        ran = client.run("pull", name, "--out", out)
        hub.heal()
        assert ran.code == 1
        assert "cannot reach 127.0.0.1" in ran.line
        assert not (out / "zoo.json").exists()
        with pytest.raises(ZooError, match=r"no zoo\.json"):
            library.open_zoo(out)
    hub.seen.clear()
    assert client.run("pull", name, "--out", out).code == 0
    assert contents(out) == copied(tiny)
    asked = [s for s in hub.seen if s.method == "GET" and "/resolve/" in s.path]
    assert len(asked) == 4  # the index, two files that were missing, the card
    # Single failures are ridden out within one pull.
    hub.fail("GET .*/weights/", "cut-body")
    hub.fail("GET .*/data/", "status", 503)
    hub.fail("HEAD .*/data/", "status", 500)
    hub.fail("HEAD .*/data/", "cut")
    hub.fail("GET .*/data/", "slow", times=3)
    assert client.run("pull", name, "--out", tmp_path / "second").code == 0
    assert contents(tmp_path / "second") == copied(tiny)


def test_open_downloads_once(hub, client, tiny, name):
    client.run("push", tiny, name)
    hub.seen.clear()
    code = f"import zoo; z = zoo.open_zoo({name!r}, 'test'); result = z.column('weight_1').tolist()"
    stored = shards.read_tensors(tiny / "weights" / "test-00000-of-00001.safetensors")
    assert client.ask(code) == stored["weight_1"].tolist()
    fetched = [s.path.partition("/resolve/")[2] for s in hub.seen if s.method == "GET"]
    assert sorted(path.rpartition("/")[2] for path in fetched if path) == [
        "stats.safetensors", "test-00000-of-00001.safetensors", "zoo.json",
    ]  # fmt: skip
    hub.seen.clear()
    client.ask(code)
    assert [s.method for s in hub.seen] == ["HEAD"]
    # Without a network, what is in the cache is enough.
    hub.fail(".", "cut", times=None)
    hub.seen.clear()
    assert client.ask(code) == stored["weight_1"].tolist()
    ran = client.run("-c", f"import zoo; zoo.open_zoo({name!r}, 'train')")
    assert "cannot reach 127.0.0.1" in ran.stderr


def test_a_damaged_cache_is_mended(hub, client, tiny, name):
    client.run("push", tiny, name)
    code = (
        f"import zoo; z = zoo.open_zoo({name!r}, 'test', check_hashes=True)\nresult = str(z.folder)"
    )
    folder = Path(client.ask(code))
    blob = (folder / "weights" / "test-00000-of-00001.safetensors").resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + b"?")
    client.ask(code)
    assert (folder / "weights" / "test-00000-of-00001.safetensors").read_bytes() == content


def test_a_folder_comes_before_a_repository(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent.parent)
    path = f"{tiny.parent.name}/{tiny.name}"
    assert not library.is_repo_id(path)
    assert len(library.open_zoo(path)) == 20
    with pytest.raises(ValueError, match="only repositories have revisions"):
        library.open_zoo(path, revision="main")
    assert library.is_repo_id("a/b/c")
    for text in (
        "/outside/x",
        "./x/y",
        "../x",
        "x",
        "a/b/c/d",
        "a/b/",
        "~/zoos",
        "a/",
        "https://x/y",
        Path("a/b"),
    ):
        assert not library.is_repo_id(text)


def renamed(old_suffix: str, new: str):
    def change(plain: dict, files: dict[str, bytes]) -> None:
        files[new] = files.pop(plain["shards"][0]["file"])
        plain["shards"][0]["file"] = new

    return change


def set_shard(**values):
    return lambda plain, files: plain["shards"][0].update(values)


def header(edit):
    """The first shard with another header, hashes and sizes right."""

    def change(plain: dict, files: dict[str, bytes]) -> None:
        shard = plain["shards"][0]
        content = edit(files[shard["file"]])
        files[shard["file"]] = content
        shard["bytes"] = len(content)
        shard["sha256"] = hashlib.sha256(content).hexdigest()

    return change


def overlapping(content: bytes) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    plain = json.loads(content[8 : 8 + length])
    plain["bias_2"]["data_offsets"] = [0, 32]  # of 8 rows: the same bytes as another tensor
    changed = json.dumps(plain).encode()
    changed += b" " * (-len(changed) % 8)
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def drop_shard(plain: dict, files: dict[str, bytes]) -> None:
    del files[plain["shards"][0]["file"]]


def flip(plain: dict, files: dict[str, bytes]) -> None:
    file = plain["shards"][0]["file"]
    files[file] = files[file][:-1] + bytes([files[file][-1] ^ 1])


def twice(plain: dict, files: dict[str, bytes]) -> None:
    plain["stats"] = {k: plain["shards"][0][k] for k in ("file", "bytes", "sha256")}


def aside(plain: dict, files: dict[str, bytes]) -> None:
    """As a folder has it whose zoo was being overwritten when it was killed."""
    for entry in (*plain["shards"], *(s["parquet"] for s in plain["shards"]), plain["stats"]):
        content = files.pop(entry["file"])
        entry["file"] = f".build/new/{entry['file']}"
        files[entry["file"]] = content


HOSTILE = {
    "aside": (aside, "its files lie in .build/new/, where no zoo has them"),
    "outside": (renamed("", "../evil.safetensors"), "'../evil.safetensors' lies outside"),
    "absolute": (
        renamed("", "/evil.safetensors"),
        "'/evil.safetensors' lies outside",
    ),
    "inner": (renamed("", "weights/../../e.safetensors"), "lies outside the zoo's folder"),
    "backslash": (renamed("", "weights\\..\\e.safetensors"), "lies outside the zoo's folder"),
    "hidden": (renamed("", ".git/hooks.safetensors"), "expected a name such as weights/t"),
    "pickle": (renamed("", "weights/evil.pkl"), "got 'weights/evil.pkl'"),
    "index": (renamed("", "zoo.json"), "got 'zoo.json'"),
    "newline": (renamed("", "weights/a\nb.safetensors"), "lies outside the zoo's f"),
    "twice": (twice, "stats.file: expected 'stats.safetensors', got 'weights/"),
    "size": (set_shard(bytes=12), r"shards\[0\].bytes: 12 bytes do not hold"),
    "negative": (set_shard(bytes=-1), r"shards\[0\].bytes: expected an integer .*, got -1"),
    "sha256": (set_shard(sha256="0" * 64), "has another sha256 than zoo.json says"),
    "no sha256": (set_shard(sha256=None), "expected a sha256 of 64 hex digits, got null"),
    "missing": (drop_shard, "is missing, though zoo.json lists it"),
    "flipped": (flip, "has another sha256 than zoo.json says"),
    "rows": (set_shard(rows="8"), r"shards\[0\].rows: expected an integer"),
    "oversized header": (
        header(lambda content: struct.pack("<Q", 1 << 60) + content[8:]),
        f"a header of {1 << 60} bytes",
    ),
    "overlap": (header(overlapping), "data begin at|do not hold"),
    "no safetensors": (header(lambda content: b"PK\x03\x04" + content[4:]), "a header of"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_repository_that_lies_is_refused_by_name(hub, client, tiny, name, tmp_path, case):
    change, message = HOSTILE[case]
    files = contents(tiny)
    plain = json.loads(files["zoo.json"])
    change(plain, files)
    files["zoo.json"] = json.dumps(plain).encode()
    hub.put(name, files)
    out = tmp_path / "in" / "out"
    ran = client.run("pull", name, "--out", out)
    assert ran.code == 1, ran.stdout
    assert name in ran.line or str(out) in ran.line
    assert re.search(message, ran.line), ran.line
    assert not (out / "zoo.json").exists()
    assert [path.name for path in (tmp_path / "in").iterdir()] in ([], ["out"])
    first = plain["shards"][0]["split"]
    ran = client.run("-c", f"import zoo; zoo.open_zoo({name!r}, {first!r})")
    assert ran.code == 1
    assert ran.stderr.startswith("ZooError: "), ran.stderr


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an index"),
        (b"\xff\xfe", "not JSON"),
        (b'{"format": 3}', "format 3 is newer than format 2"),
        (b'{"format": 1}', "zoo.json: name: is missing"),
        (None, "holds no zoo.json at main: it is no zoo"),
    ],
)
def test_a_repository_without_a_good_index(hub, client, name, tmp_path, index, message):
    hub.put(name, {"zoo.json": index} if index else {"a.txt": b"x"})
    for words in (["pull", name, "--out", tmp_path / "out"], ["info", name]):
        ran = client.run(*words)
        assert ran.code == 1
        assert message in ran.line
        assert name in ran.line


def test_an_index_of_any_content_is_taken_or_refused(tiny, tmp_path):
    """Whatever stands in its place, a value of an index raises nothing but ZooError."""
    whole = json.loads((tiny / "zoo.json").read_text())
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    odd = [None, [], {}, "", "x", -1, 0, 1e30, True, [[]], {"a": 1}, 10**30, "../x", [1, 2]]
    path = tmp_path / "zoo.json"
    refused = 0
    for _ in range(400):
        plain = json.loads(json.dumps(whole))
        place = plain
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[int(draw.integers(len(keys)))]
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or draw.random() < 0.2:
                break
            place = inner
        place[key] = odd[int(draw.integers(len(odd)))]
        path.write_text(json.dumps(plain))
        try:
            index = trust.read_index("user/odd", path)
        except ZooError:
            refused += 1
        else:
            assert index.rows > 0
    assert refused > 100


def test_info_reads_only_the_index(hub, client, tiny, name):
    client.run("push", tiny, name)
    hub.seen.clear()
    ran = client.run("info", name)
    assert ran.code == 0, ran.stderr
    assert f"{name}: 32 networks" in ran.stdout
    assert {s.path.rpartition("/")[2] for s in hub.seen} == {"zoo.json"}
    assert client.run("info", name, "--revision", "main").code == 0
    assert "has no revision 'v9'" in client.run("info", name, "--revision", "v9").line


# ---- what must not get out


def test_where_a_folder_of_pictures_lies_is_not_published(hub, client, name, tmp_path):
    pictures = tmp_path / "private of_me's" / "pets"
    out = tmp_path / "zoo"
    index = write_zoo(out)
    given = f"imagefolder:{pictures}"
    command = shlex.join(["wszoo", "fit-inrs", given, "--recipe", "dws", "--steps", "2"])
    index = replace(index, source={**index.source, "name": given}, command=command)
    shards.write_index(out, index)
    (out / "README.md").write_text(cards.render_card(index, {}))
    assert "private of\\_me's/pets" in (out / "README.md").read_text()  # in a table
    assert command in (out / "README.md").read_text()
    (out / ".build").mkdir()
    (out / ".build" / "rest").write_text("x")
    assert str(pictures) in (out / "zoo.json").read_text()
    ran = client.run("push", out, name)
    assert ran.code == 0, ran.stderr
    files = hub.files(name)
    assert not [path for path in files if path.startswith(".")]
    for path, content in files.items():
        assert b"private of" not in content, path
        assert tmp_path.name.encode() not in content, path
    plain = json.loads(files["zoo.json"])
    assert plain["source"]["name"] == "imagefolder:pets"
    assert plain["command"] == "wszoo fit-inrs imagefolder:pets --recipe dws --steps 2"
    assert b"wszoo fit-inrs imagefolder:pets " in files["README.md"]
    # The folder itself still knows where they lie, and nothing is sent twice.
    assert str(pictures) in (out / "zoo.json").read_text()
    assert "sent 0 files" in client.run("push", out, name).stdout
    assert client.run("pull", name, "--out", tmp_path / "back").code == 0
    assert client.run("push", tmp_path / "back", name).code == 0
    assert len(hub.repo(name).branches["main"]) == 2


def test_no_token_gets_anywhere(hub, client, tiny, name, tmp_path):
    """Neither into what is printed, nor into files here or there."""
    told = []

    def run(*words):
        ran = client.run(*words)
        told.append(f"{ran.stdout}{ran.stderr}")
        return ran

    run("push", tiny, name, "--dry-run")
    run("push", tiny, name)
    run("push", tiny, name)
    run("pull", name, "--out", tmp_path / "out")
    run("info", name)
    echo = json.dumps({"error": f"the token {TOKEN} is not welcome"}).encode()
    for status in (400, 401, 403, 404, 409, 412, 429, 500):
        headers = {"X-Error-Message": f"token {TOKEN} refused"}
        hub.fail(".", "status", status, times=None, body=echo, headers=headers)
        for words in (
            ["push", tiny, f"{name}-new"], ["info", f"{name}-new"],
            ["pull", name, "--out", tmp_path / "no"],
        ):  # fmt: skip
            assert run(*words).code == 1
        hub.heal()
    assert "***" in "".join(told)
    assert TOKEN not in "".join(told)
    for content in hub.files(name).values():
        assert TOKEN.encode() not in content
    for folder in (tiny, tmp_path, Path(client.environment["HF_HOME"])):
        for path in folder.rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    # A card with a token in it stays here.
    leaky = tmp_path / "leaky"
    shutil.copytree(tiny, leaky)
    with (leaky / "README.md").open("a") as card:
        card.write(f"\nmy token: {TOKEN}\n")
    ran = run("push", leaky, name)
    assert ran.code == 1
    assert "README.md holds your Hugging Face token" in ran.line
    assert TOKEN not in ran.line


# ---- further


def test_a_model_is_pushed_by_the_same_function(hub, client, name, tmp_path):
    folder = tmp_path / "dws"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: wszoo\n---\n# dws\n")
    (folder / "config.json").write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("private")
    shards.write_tensors(folder / "model.safetensors", {"a": np.zeros(3, np.float32)})
    ran = client.run("push", folder, name)
    assert ran.code == 0, ran.stderr
    assert hub.files(name, kind="model") == {
        path.name: path.read_bytes() for path in folder.glob("[!.]*")
    }
    assert "sent 0 files" in client.run("push", folder, name).stdout
    (tmp_path / "secret").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "secret")
    assert "link.txt is a link; put the file itself" in client.run("push", folder, name).line


def test_progress_counts_bytes(hub, client, tiny, name, tmp_path):
    total = sum(len(content) for content in sent(tiny).values())
    steps = client.ask(
        f"import zoo; result = []; zoo.push({str(tiny)!r}, {name!r}, "
        "progress=lambda done, total: result.append([done, total]))"
    )
    assert steps[0] == [0, total]
    assert steps[-1] == [total, total]
    assert steps == sorted(steps)
    steps = client.ask(
        f"import zoo; result = []; zoo.pull({name!r}, {str(tmp_path / 'o')!r}, "
        "progress=lambda done, total: result.append([done, total]))"
    )
    assert steps[-1][0] == steps[-1][1] > 300_000


def test_a_zoo_with_too_many_files_is_refused(monkeypatch, tiny):
    monkeypatch.setattr(publication, "FOLDER_FILES", 4)
    with pytest.raises(ZooError, match=r"weights has 5 files, the Hub takes 4 in a folder"):
        library.push(tiny, "user/x", dry_run=True)


def test_many_files_are_listed_page_by_page(hub, client, tiny, name):
    client.run("push", tiny, name)
    hub.put(name, {f"extra/{number:05d}.txt": b"x" for number in range(2500)})
    assert "sent 0 files, 0 bytes; 14 there" in client.run("push", tiny, name).stdout


def test_groups_keep_their_order_and_size():
    def file(name: str, size: int) -> publication.Upload:
        return publication.Upload(name, size, "", b"")

    files = [file(f"w{n}.safetensors", 30 << 20) for n in range(5)]
    files += [file(f"d{n}.parquet", 1) for n in range(40)] + [file("README.md", 5)]
    groups = list(pushing._groups(files))
    assert [f for group in groups for f in group] == files
    assert [len(group) for group in groups] == [2, 2, 1, 32, 8, 1]


def test_file_names_of_pictures_travel_along(hub, client, name, tmp_path):
    pictures = tmp_path / "shells"
    pictures.mkdir()
    for number in range(3):
        picture = np.full((4, 4, 3), 40 * number, np.uint8)
        assert cv2.imwrite(str(pictures / f"{number}.png"), picture)
    chosen = zoo.recipe("dws", "imagefolder:x", steps=2, hidden=4)
    folder = tmp_path / "made"
    zoo.build(chosen, str(pictures), folder)
    assert client.run("push", folder, name).code == 0
    ran = client.run("pull", name, "--out", tmp_path / "out")
    assert ran.code == 0, ran.stderr
    assert zoo.open_zoo(tmp_path / "out", check_hashes=True).names == [f"{n}.png" for n in range(3)]


def test_an_overwriting_pull_keeps_the_old_zoo_until_the_new_one_stands(
    hub, client, tiny, grown, name, tmp_path
):
    client.run("push", tiny, name)
    out = tmp_path / "out"
    shutil.copytree(grown, out)
    hub.fail("GET .*/data/", "cut", times=None)
    ran = client.run("pull", name, "--out", out, "--overwrite")
    hub.heal()
    assert ran.code == 1
    assert contents(out).items() >= contents(grown).items()
    assert len(library.open_zoo(out, "train", check_hashes=True)) == 32
    assert "holds another zoo" in client.run("pull", name, "--out", out).line
    hub.seen.clear()
    assert client.run("pull", name, "--out", out, "--overwrite").code == 0
    assert contents(out) == copied(tiny)
    assert not (out / ".build").exists()
    # What the old zoo had, and what had arrived, did not come again.
    assert not [s.path for s in hub.seen if s.method == "GET" and "/weights/" in s.path]
    # One that is being made is none of ours.
    (out / ".build" / "new" / ".build").mkdir(parents=True)
    assert "is being made" in client.run("pull", name, "--out", out, "--overwrite").line
