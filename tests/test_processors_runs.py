"""The folder of a run, and the model repository that it becomes on the Hub."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers import run
from local_hub import TOKEN, Hub

import processors
import zoo
from processors import checkpoint, records, runs, saving
from processors.files import write_json
from processors.tasks import figures
from zoo import ZooError
from zoo.schema import read_json


@pytest.fixture(scope="module")
def finished(digits_zoo, tmp_path_factory) -> Path:
    """A small run, by the command."""
    out = tmp_path_factory.mktemp("runs") / "mlp-digits"
    words = ["--model", "mlp", "--set", "width=8", "--epochs", 2, "--batch", 16, "--device", "cpu"]
    result = run("train", "classify", digits_zoo, *words, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def hub(shared_hub) -> Hub:
    """As it is from the first test on."""
    return shared_hub


@pytest.fixture(scope="module")
def published(hub, client, finished, digits_zoo) -> str:
    """The run as user/model, and the zoo it was trained on as user/digits."""
    assert client.run("push", digits_zoo, "user/digits").code == 0
    ran = client.run("push", finished, "user/model")
    assert ran.code == 0, ran.stderr
    assert re.search(r"sent \d+ files, [\d,]+ bytes; 0 there already", ran.stdout)
    assert f"{hub.endpoint}/user/model (private)" in ran.stdout
    return "user/model"


def files(hub: Hub, name: str) -> dict[str, bytes]:
    return hub.files(name, kind="model")


def test_a_run_becomes_a_model_repository(hub, published, finished):
    found = files(hub, published)
    assert sorted(found) == [
        "README.md", "config.json", "figures/confusion.png", "figures/curves.png",
        "metrics.jsonl", "model.safetensors", "run.json", "summary.json",
    ]  # fmt: skip
    assert found["model.safetensors"] == (finished / "model/model.safetensors").read_bytes()
    assert found["config.json"] == (finished / "model/config.json").read_bytes()
    summary = read_json(finished / "summary.json")
    # Files that are not there are not told of, and the model's lie at the top.
    names = ("config.json", "model.safetensors")
    files_kept = {name: summary["files"][f"model/{name}"] for name in names}
    assert json.loads(found["summary.json"]) == {**summary, "zoo": "digits", "files": files_kept}


def test_the_card_names_the_repository(hub, published):
    card = files(hub, published)["README.md"].decode()
    _, header, text = card.split("---", 2)
    data = yaml.safe_load(header)
    (index,) = data.pop("model-index")
    assert data == {
        "library_name": "wszoo",
        "tags": ["weight-space", "classify", "mlp"],
        "license": "mit",
        "datasets": ["digits"],
        "metrics": ["accuracy"],
    }
    # The metrics, as the Hub reads them.
    (result,) = index["results"]
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    summary = json.loads(files(hub, published)["summary.json"])
    assert {m["type"]: m["value"] for m in result["metrics"]} == summary["test"]
    assert 'processors.load("user/model")' in text
    assert 'zoo.open_zoo("digits", split="test")' in text
    assert "`model.safetensors` has the best weights" in text
    assert "Made by `wszoo train classify digits --model mlp " in text
    assert "](figures/confusion.png)" in text
    chance, reached = summary["constant"]["score"], summary["test"]["accuracy"]
    assert f"**accuracy {100 * reached:.4g} %**; chance is {100 * chance:.4g} %." in text


def test_the_lines_of_the_card_run(finished, capsys):
    code = re.search(r"```python\n(.*?)```", (finished / "README.md").read_text(), re.DOTALL)
    assert code is not None
    lines = code[1].replace("PATH or user/name", str(finished / "model"))
    assert len([line for line in lines.splitlines() if line]) == 5
    exec(compile(lines, "README.md", "exec"), {})
    assert re.fullmatch(r"tensor\(\[(\d(, )?){8}\]\)\n", capsys.readouterr().out)


def test_the_card_is_made_anew_unless_somebody_has_written_one(finished, digits_zoo, tmp_path):
    """A ceiling that was measured after the training is in what is published."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    config = read_json(copy / "config.json")
    about = {"zoo_sha256": config["zoo_sha256"], "task": "classify", "model": "originals"}
    measured = {"config": about, "summary": {"test": {"accuracy": 0.987}}}
    write_json(digits_zoo / "ceiling.json", [measured])
    try:
        with runs.published(copy, "user/x") as staged:
            card = (staged / "README.md").read_text()
        assert "a small CNN that sees the originals themselves reaches 98.7 %" in card
        assert "98.7" not in (copy / "README.md").read_text()
        assert 'processors.load("user/x")' in card
        (copy / "README.md").write_text("My own words on `PATH or user/name`.\n")
        with runs.published(copy, "user/x") as staged:
            assert (staged / "README.md").read_text() == "My own words on `user/x`.\n"
    finally:
        (digits_zoo / "ceiling.json").unlink()


def test_neither_token_nor_this_machine_is_published(hub, published, finished, digits_zoo):
    for name, content in files(hub, published).items():
        for secret in (TOKEN, str(digits_zoo), str(finished), str(finished.parent)):
            assert secret.encode() not in content, name
    for path in finished.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


def test_the_same_run_again_sends_nothing(hub, client, published, finished):
    before = len(hub.repo(published, "model").branches["main"])
    hub.seen.clear()
    ran = client.run("push", finished, published)
    assert ran.code == 0, ran.stderr
    assert "sent 0 files, 0 bytes; 8 there already, 0 removed" in ran.stdout
    assert hub.uploads() == []
    assert len(hub.repo(published, "model").branches["main"]) == before


def test_a_dry_run_tells_what_would_be_sent(hub, client, finished):
    ran = client.run("push", finished, "user/other", "--dry-run")
    assert ran.code == 0, ran.stderr
    assert re.search(r"send +[\d,]+  model\.safetensors", ran.stdout)
    assert ("model", "user/other") not in hub.repos


def test_a_published_model_reads_networks(client, published, finished, digits_zoo):
    weights, _ = zoo.open_zoo(digits_zoo, "test").batch(range(8))
    with torch.no_grad():
        expected = processors.load(finished / "model").eval()(weights)
    for load in ("processors.load", "processors.Processor.from_pretrained"):
        found = client.ask(
            "import torch, processors, zoo\n"
            f"model = {load}({published!r}).eval()\n"
            "weights, _ = zoo.open_zoo('user/digits', 'test').batch(range(8))\n"
            "with torch.no_grad(): result = model(weights).tolist()"
        )
        torch.testing.assert_close(torch.tensor(found), expected)


def test_training_and_measuring_by_the_name_of_a_zoo(hub, client, published, finished, tmp_path):
    out = tmp_path / "run"
    words = ["--model", "mlp", "--set", "width=8", "--epochs", "2", "--batch", "16"]
    hub.seen.clear()
    ran = client.run("train", "classify", "user/digits", *words, "--device", "cpu", "--out", out)
    assert ran.code == 0, ran.stderr
    # Every file once at most, however many splits there are.
    fetched = [s.path for s in hub.seen if s.method == "GET" and "/resolve/" in s.path]
    assert len(fetched) == len(set(fetched))
    ours, theirs = (read_json(folder / "summary.json") for folder in (out, finished))
    assert ours["zoo"] == "user/digits"
    assert ours["test"] == theirs["test"]
    shas = [read_json(folder / "config.json")["zoo_sha256"] for folder in (out, finished)]
    assert shas[0] == shas[1]
    hub.seen.clear()
    ran = client.run("eval", finished, "user/digits", "--device", "cpu")
    assert ran.code == 0, ran.stderr
    found = dict(line.split() for line in ran.stdout.splitlines())
    assert float(found["accuracy"]) == pytest.approx(theirs["test"]["accuracy"], rel=1e-5)
    assert [s.path for s in hub.seen if s.method == "GET"] == []
    # Published, the model's card leads to the zoo's repository.
    assert client.run("push", out, "user/second").code == 0
    card = files(hub, "user/second")["README.md"].decode()
    assert 'zoo.open_zoo("user/digits", split="test")' in card


def test_what_is_not_finished_is_not_published(hub, client, finished, tmp_path):
    half = tmp_path / "half"
    subprocess.run(["cp", "-r", str(finished), str(half)], check=True)
    (half / "summary.json").unlink()
    ran = client.run("push", half, "user/half")
    assert ran.code == 1
    assert ran.line == f"Error: {half} is not finished; run its command again"
    assert ("model", "user/half") not in hub.repos


def test_a_card_or_picture_of_any_size_is_not_read(finished, tmp_path):
    for name in ("README.md", "figures/confusion.png"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(finished, copy)
        os.truncate(copy / name, 1 << 40)
        begun = time.monotonic()
        with pytest.raises(ZooError, match=rf"{name} has 1,099,511,627,776 bytes; at most"):
            runs.published(copy, "user/x").__enter__()
        assert time.monotonic() - begun < 5


def test_nothing_is_written_through_a_link(digits_zoo, finished, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("checkpoint", "last", "model", "figures"):
        copy = tmp_path / name
        shutil.copytree(finished, copy)
        shutil.rmtree(copy / name, ignore_errors=True)
        (copy / name).symlink_to(elsewhere)
        (copy / "summary.json").unlink()
        words = records.read_config(finished)["command"].split()
        result = run(*words[1 : words.index("--out")], "--out", copy)
        assert result.exit_code == 1, result.output
        assert f"{name} is a link; put the folder itself in its place" in result.output
        assert not list(elsewhere.iterdir())


def test_what_the_system_makes_up_is_no_model(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "model/model.safetensors").unlink()
    (copy / "model/model.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(ZooError, match=r"model\.safetensors"):
        saving.read_state(copy / "model/model.safetensors", None)


def test_a_state_is_at_most_so_many_models(tmp_path):
    module = torch.nn.Linear(2, 1)
    state = {"step": 1, "waited": 0, "seconds": 1.0, "best": None, "best_step": 0}
    state |= {"module": module.state_dict(), "optimiser": {}}
    checkpoint.write(tmp_path / records.STATE, state)
    assert checkpoint.read_run(tmp_path, module, torch.device("cpu"))["step"] == 1
    os.truncate(tmp_path / records.STATE, 1 << 40)
    with pytest.raises(ZooError, match="has 1,099,511,627,776 bytes; at most 67,"):
        checkpoint.read_run(tmp_path, module, torch.device("cpu"))


def test_curves_need_not_have_the_metric(tmp_path):
    logged = [{"step": 1, "loss": 1.0}, {"step": 1, "validation": {"other": 1.0}}]
    figures.curves(logged, "mse", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_an_unfinished_run_has_no_model(finished, tmp_path):
    (tmp_path / "config.json").write_text('{"wszoo": "run"}')
    with pytest.raises(ZooError, match="is not finished; run its command again"):
        runs.load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"name": "mlp"}')
    with pytest.raises(ZooError, match=r"is no run: it has no config\.json that wszoo wrote"):
        runs.load_model(tmp_path)
    assert runs.load_model(finished).name == "mlp"


def test_folders_of_runs_are_known(finished, tmp_path):
    assert runs.is_run(finished)
    assert not runs.is_run(finished / "model")
    assert not runs.is_run(tmp_path)
    for text in ("{", "[]", "\0"):
        (tmp_path / "config.json").write_text(text)
        assert not runs.is_run(tmp_path)


def test_a_line_that_was_cut_is_left_out(tmp_path):
    record = {"step": 1, "epoch": 0.5, "loss": 2.0, "lr": 0.1, "seconds": 1.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + '\n{"step": 2, "lo')
    assert records.read_metrics(tmp_path) == ([record], None)
    assert records.read_metrics(tmp_path / "nowhere") == ([], None)


def test_files_are_replaced_in_one_step(tmp_path, monkeypatch):
    """And durably: the file before it has its name, the name before anything follows."""
    path = tmp_path / "deep" / "x.json"
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(number) or fsync(number))
    write_json(path, {"a": 1})
    assert len(synced) == 2

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}


def test_pictures_are_named_by_their_folder(finished, tmp_path):
    """As in the zoos that are published: where they lie is nobody's business."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(finished), str(copy)], check=True)
    for name in ("config.json", "summary.json"):
        plain = read_json(copy / name)
        write_json(copy / name, {**plain, "source": "imagefolder:/home/me/pets"})
    with runs.published(copy, "user/pets") as staged:
        texts = [path.read_text() for path in staged.glob("*.json")]
        assert read_json(staged / "summary.json")["source"] == "imagefolder:pets"
    assert not any("/home/me" in text for text in texts)


def test_a_stopped_run_says_what_is_true_at_that_moment(tmp_path):
    """With a checkpoint, without one yet, and where --overwrite has or has not begun."""
    run = tmp_path / "run"

    def line(before=None, overwrite=False) -> str:
        return records.how_to_go_on(run, before, overwrite)

    assert line() == f"the same command begins again, as there is no checkpoint in {run} yet"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert line() == f"the same command begins again, as there is no checkpoint in {run} yet"
    (run / "grid" / "0.1").mkdir(parents=True)
    (run / "grid" / "0.1" / "summary.json").touch()
    assert line() == f"the same command goes on with what is kept in {run}"
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "state.pt").touch()
    assert line() == f"the same command goes on from the last checkpoint in {run}"
    before = records.stamp(run)
    untouched = f"the same command begins again; nothing was begun in {run} yet"
    assert line(before, overwrite=True) == untouched
    os.utime(run / "config.json", ns=(1, 1))
    goes_on = f"the same command without --overwrite goes on from the last checkpoint in {run}"
    assert line(before, overwrite=True) == goes_on
    assert line(None, overwrite=True) == goes_on
    (run / "summary.json").touch()
    assert line() == f"the run in {run} is finished"
