"""Configs: a sample beside the whole zoo, and several zoos in one repository."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import CNN, write_zoo
from local_hub import Hub

import zoo
from zoo import cards, shards
from zoo import hub as library
from zoo.errors import ZooError
from zoo.hub import publication, trust


@pytest.fixture
def name(request) -> str:
    """A repository of the test's own."""
    return "user/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")


def made(folder: Path, **settings) -> Path:
    """A zoo with the card that wszoo makes."""
    index = write_zoo(folder, **settings)
    (folder / "README.md").write_text(cards.render_card(index, {}))
    return folder


@pytest.fixture(scope="module")
def inrs(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("one") / "inrs", rows={"train": 20, "test": 7})


@pytest.fixture(scope="module")
def cnns(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("two") / "cnns", rows={"train": 9}, spec=CNN)


def by_datasets(hub: Hub, home: Path, code: str):
    """What a program without wszoo prints, by `datasets` alone."""
    start = "import json, sys\nsys.modules['zoo'] = None\nfrom datasets import load_dataset\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=120,
        env=hub.environment(home / "home"), cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- the sample


def test_a_sample_lies_beside_the_whole_zoo(hub, client, inrs, name, tmp_path):
    assert client.run("push", inrs, name).code == 0
    assert publication.SAMPLE_FILE in hub.files(name)
    answer = by_datasets(
        hub, tmp_path,
        f"few = load_dataset({name!r}, 'sample')\n"
        f"whole = load_dataset({name!r})\n"
        f"stream = load_dataset({name!r}, 'sample', split='train', streaming=True)\n"
        "print(json.dumps([{k: len(v) for k, v in few.items()},\n"
        "  {k: len(v) for k, v in whole.items()}, few['train'][3]['weight_1'],\n"
        "  next(iter(stream))['index'], few['train'].features == whole['train'].features]))",
    )  # fmt: skip
    few, whole, weight, first, alike = answer
    assert few == {"train": 20}
    assert whole == {"train": 20, "test": 7}
    assert alike
    stored = shards.read_tensors(inrs / shards.read_index(inrs).shards[0].file)
    assert weight == stored["weight_1"][3].tolist()
    assert first == stored["index"][0]
    card = hub.files(name)["README.md"].decode()
    assert f'load_dataset("{name}", "sample")` has the first 1,000 rows alone' in card
    # Again nothing is sent, and a pulled copy opens by its default.
    assert "sent 0 files" in client.run("push", inrs, name).stdout
    assert client.run("pull", name, "--out", tmp_path / "back").code == 0
    assert not (tmp_path / "back" / "sample").exists()
    loaded = by_datasets(
        hub, tmp_path, "print(json.dumps(len(load_dataset('./back', split='test'))))"
    )
    assert loaded == 7


def test_a_sample_is_small(inrs, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = shards.read_index(inrs)
    view = pq.read_table(inrs / index.shards[0].parquet.file)
    for rows, most, expected in ((3, 1 << 26, 3), (10, 1 << 26, 10), (1000, 5000 * 4, 4)):
        monkeypatch.setattr(publication, "SAMPLE_ROWS", rows)
        monkeypatch.setattr(publication, "SAMPLE_BYTES", most)
        content = publication._sample(inrs, index)
        found = pq.read_table(pa.BufferReader(content))
        assert len(found) == expected
        assert found["index"].to_pylist()[:3] == view["index"].to_pylist()[:3]
        assert found.schema.equals(view.schema)


def test_without_a_view_there_is_no_sample(hub, client, name, tmp_path):
    folder = made(tmp_path / "bare", rows={"train": 4}, parquet=False)
    assert client.run("push", folder, name).code == 0
    assert not [file for file in hub.files(name) if file.startswith("sample")]
    assert "config_name: sample" not in hub.files(name)["README.md"].decode()


def test_a_sample_that_is_not_the_zoos_any_more_goes(hub, client, inrs, name, tmp_path):
    assert client.run("push", inrs, name).code == 0
    bare = made(tmp_path / "inrs", rows={"train": 4}, parquet=False)
    assert client.run("push", bare, name).code == 0
    assert publication.SAMPLE_FILE not in hub.files(name)


# ---- several zoos


def test_two_zoos_lie_in_one_repository(hub, client, inrs, cnns, name, tmp_path):
    assert client.run("push", inrs, name, "--as", "inrs").code == 0
    ran = client.run("push", cnns, name, "--as", "cnns")
    assert ran.code == 0, ran.stderr
    files = hub.files(name)
    for folder, base in ((inrs, "inrs/"), (cnns, "cnns/")):
        index = shards.read_index(folder)
        for file in index.files:
            assert files[base + file.file] == (folder / file.file).read_bytes()
        assert files[f"{base}zoo.json"] == (folder / "zoo.json").read_bytes()
        own = files[f"{base}README.md"].decode()
        assert f'load_dataset("{name}", "{base[:-1]}"' in own
        assert f'open_zoo("{name}/{base[:-1]}"' in own
        assert f"hf download {name} --include '{base}*' " in own
    top = files["README.md"].decode()
    assert re.search(r"\| \[`inrs`\]\(inrs/README.md\) \| 27 networks, ", top)
    assert re.search(r"\| \[`cnns`\]\(cnns/README.md\) \| 9 networks, ", top)
    answer = by_datasets(
        hub, tmp_path,
        f"a = load_dataset({name!r}, 'inrs')\n"
        f"b = load_dataset({name!r}, 'cnns', split='train')\n"
        f"few = load_dataset({name!r}, 'cnns-sample', split='train')\n"
        "print(json.dumps([{k: len(v) for k, v in a.items()}, len(b), len(few)]))",
    )  # fmt: skip
    assert answer == [{"train": 20, "test": 7}, 9, 9]
    # A second push of one leaves the other; the table names each once.
    assert "sent 0 files" in client.run("push", inrs, name, "--as", "inrs").stdout
    grown = made(tmp_path / "inrs", rows={"train": 30, "test": 7})
    assert client.run("push", grown, name, "--as", "inrs").code == 0
    after = hub.files(name)
    assert {k: v for k, v in after.items() if k.startswith("cnns/")} == {
        k: v for k, v in files.items() if k.startswith("cnns/")
    }
    top = after["README.md"].decode()
    assert top.count("(inrs/README.md)") == top.count("config_name: inrs\n") == 1
    assert "37 networks" in top
    listed = {f"inrs/{file.file}" for file in shards.read_index(grown).files}
    there = {f for f in after if f.startswith(("inrs/weights/", "inrs/data/"))}
    assert there == {file for file in listed if "stats" not in file}


def test_every_verb_opens_a_zoo_beside_others(hub, client, inrs, cnns, name, tmp_path):
    for folder in (inrs, cnns):
        assert client.run("push", folder, name, "--as", folder.name).code == 0
    where = f"{name}/inrs"
    assert "27 networks" in client.run("info", where).stdout
    ran = client.run("verify", where, "--samples", 0)
    assert ran.code == 0, ran.stdout
    code = f"import zoo; z = zoo.open_zoo({where!r}, 'test'); result = [len(z), z[3].index]"
    assert client.ask(code) == [7, zoo.open_zoo(inrs, "test")[3].index]
    ran = client.run("pull", where, "--out", tmp_path / "back")
    assert ran.code == 0, ran.stderr
    for file in shards.read_index(inrs).files:
        assert (tmp_path / "back" / file.file).read_bytes() == (inrs / file.file).read_bytes()
    assert zoo.open_zoo(tmp_path / "back", "train", check_hashes=True)[0].label in (0, 1, 2)
    ran = client.run("select", where, "--where", "label == 1", "--out", tmp_path / "ones")
    assert ran.code == 0, ran.stderr
    page = client.run("show", where, "--html", tmp_path / "p.html")
    assert page.code == 0, page.stderr
    # What is not there is one line.
    assert client.run("info", f"{name}/other").code == 1
    assert client.run("info", name).code == 1


def test_other_words_of_the_top_card_stay(hub, client, inrs, cnns, name):
    card = (
        "---\nlicense: mit\ntags: [mine]\nconfigs:\n- config_name: own\n  data_files: a.csv\n---\n"
    )
    hub.put(name, {"README.md": f"{card}\n# Ours\n\nHello.\n".encode()})
    for folder in (inrs, cnns):
        ran = client.run("push", folder, name, "--as", folder.name)
        assert ran.code == 0, ran.stderr
    top = hub.files(name)["README.md"].decode()
    assert "license: mit" in top
    assert "config_name: own" in top
    assert "- mine" in top
    assert "# Ours\n\nHello.\n" in top
    assert top.index("(inrs/README.md)") < top.index("(cnns/README.md)")


def test_a_zoo_alone_and_zoos_in_folders_do_not_mix(hub, client, inrs, cnns, name):
    assert client.run("push", inrs, name).code == 0
    ran = client.run("push", cnns, name, "--as", "cnns")
    assert ran.code == 1
    assert "holds a zoo at its top" in ran.line
    other = f"{name}-2"
    assert client.run("push", inrs, other, "--as", "inrs").code == 0
    ran = client.run("push", cnns, other)
    assert ran.code == 1
    assert "holds zoos in folders (inrs); say by --as" in ran.line
    hub.put(f"{name}-3", {"work/a.csv": b"1"})
    ran = client.run("push", cnns, f"{name}-3", "--as", "cnns")
    assert ran.code == 1
    assert "holds something that is no zoo (work/a.csv)" in ran.line


def test_names_of_zoos_in_folders(inrs):
    assert trust.split_name("user/a") == ("user/a", "")
    assert trust.split_name("user/a/b-1") == ("user/a", "b-1/")
    for wrong in ("user", "user/a/", "user/a/b/", "user/a/b/c", "user/a/..", "user/a/.x", "/a/b"):
        with pytest.raises(ValueError, match="expected a repository as user/name, or a zoo in it"):
            trust.split_name(wrong)
    for wrong in ("..", "a/b", "a.b", "", "data", "sample", "default"):
        with pytest.raises(ValueError, match="--as"):
            library.push(inrs, "user/x", within=wrong, dry_run=True)
    with pytest.raises(ValueError, match="--as: 'data' is a part of every zoo; choose another"):
        library.push(inrs, "user/x", within="data", dry_run=True)
    sent = [file.file for file in library.push(inrs, "user/x", within="a", dry_run=True).send]
    assert "README.md" in sent
    assert all(file == "README.md" or file.startswith("a/") for file in sent)


def test_a_foreign_top_card_is_no_trap(inrs):
    index = shards.read_index(inrs)
    for before in (b"\xff\xfe", b"---\nconfigs: [\n---\n", b"x" * (2 << 20)):
        with pytest.raises(ZooError, match=r"README\.md is no card"):
            publication.top_card(before, "user/x", "a/", index)
    text = publication.top_card(None, "user/x", "a/", index).decode()
    assert "config_name: a-sample" in text
