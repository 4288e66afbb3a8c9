"""`wszoo train` and `eval`, as a user meets them: folders, one line for misuse, stops."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SINE, line_of, run, write_zoo
from test_processors_train import environment, wait_for

from cli.train import TASK_HELP, parse_grid, parse_sizes
from processors import runs
from processors.options import OPTIONS
from processors.settings import Settings
from processors.tasks import TASKS
from zoo import identity, shards
from zoo.fields import about
from zoo.schema import read_json
from zoo.spec import NetworkSpec

WSZOO = [sys.executable, "-c", "from cli.main import main; main()"]
# Folder and zoo of a run, by task.
Trained = dict[str, tuple[Path, Path]]
QUICK = ("--epochs", 3, "--device", "cpu", "--set", "width=8")


@pytest.fixture(scope="module")
def trained(digits_zoo, waves_zoo, trajectories_zoo, tmp_path_factory) -> "Trained":
    """One quick run of every task, by the command."""
    root = tmp_path_factory.mktemp("runs")
    words = {
        "classify": (digits_zoo, "--model", "mlp", "--batch", 16),
        "regress": (waves_zoo, "--model", "mlp-aug", "--target", "frequency"),
        "generalize": (
            trajectories_zoo, "--model", "statnn", "--epochs", 60, "--lr", 0.01, "--rescale", 1,
        ),
        "ssl": (waves_zoo, "--model", "inr2vec", "--batch", 32, "--projection", 8),
    }  # fmt: skip
    found = {}
    for task, (zoo, *more) in words.items():
        result = run("train", task, zoo, *QUICK, *more, "--out", root / task)
        assert result.exit_code == 0, result.output
        assert re.search(rf"{task}: \S+ for {task}, \d+ networks, \d+ epochs", result.stdout)
        found[task] = (root / task, zoo)
    return found


@pytest.mark.parametrize(
    ("task", "metrics", "figure"),
    [
        ("classify", ["accuracy", "loss"], "confusion"),
        ("regress", ["mse", "r2"], "predicted"),
        (
            "generalize",
            ["tau", "r2", "mse_x100", "tau_rescaled", "r2_rescaled", "mse_x100_rescaled"],
            "predicted",
        ),
        ("ssl", ["mse", "mse_amplitude", "mse_frequency"], "tsne"),
    ],
)
def test_every_task_from_end_to_end(trained, task, metrics, figure):
    out, zoo = trained[task]
    summary = read_json(out / "summary.json")
    assert summary["task"] == task
    for split in ("validation", "test"):
        # By what `ssl` chooses, on the split that it chooses on.
        chosen = ["loss"] if (task, split) == ("ssl", "validation") else []
        assert list(summary[split]) == [*metrics, *chosen]
    assert sorted(path.stem for path in (out / "figures").iterdir()) == sorted([figure, "curves"])
    assert (out / "model" / "model.safetensors").is_file()
    card = (out / "README.md").read_text()
    for name in (f"figures/{figure}.png", "figures/curves.png"):
        assert f"]({name})" in card
    assert f"# {summary['model']} for {task}" in card
    assert str(summary["parameters"]) in card.replace(",", "")
    losses = [
        record["loss"]
        for record in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        if "loss" in record
    ]
    assert min(losses[1:]) < losses[0]
    result = run("eval", out, zoo, "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = {name: float(value) for name, value in map(str.split, result.stdout.splitlines())}
    assert found == pytest.approx(summary["test"], rel=1e-4)


def test_a_representation_of_one_number_of_few_networks(waves_zoo, tmp_path):
    """No plane is drawn of one network, and a linear probe is not fitted to one."""
    words = ("train", "ssl", waves_zoo, *QUICK, "--model", "mlp", "--dimension", 1)
    words += ("--out", tmp_path / "run")
    made = run(*words, "--split-limit", "train=30", "--split-limit", "test=1")
    assert made.exit_code == 0, made.output
    limits = json.loads((tmp_path / "run/config.json").read_text())["split_limit"]
    assert limits == {"train": 30, "test": 1}
    assert [path.stem for path in (tmp_path / "run/figures").iterdir()] == ["curves"]
    assert "tsne" not in (tmp_path / "run/README.md").read_text()
    four = run(*words, "--split-limit", "test=4", "--overwrite")
    assert four.exit_code == 0, four.output
    assert (tmp_path / "run/figures/tsne.png").is_file()


def test_accuracy_is_told_from_statistics(trained):
    """Weights grow as a classifier learns, which is easily seen."""
    out, zoo = trained["generalize"]
    result = run("eval", out, zoo, "--split", "train", "--device", "cpu")
    assert float(dict(map(str.split, result.stdout.splitlines()))["tau"]) > 0.4


def test_options_of_a_task_can_be_changed_when_measuring(trained):
    out, zoo = trained["generalize"]
    kept = read_json(out / "summary.json")["test"]
    result = run("eval", out, zoo, "--option", "rescale=3", "--device", "cpu")
    found = dict(line.split() for line in result.stdout.splitlines())
    assert float(found["tau"]) == pytest.approx(kept["tau"], rel=1e-4)
    assert float(found["mse_x100_rescaled"]) != pytest.approx(kept["mse_x100_rescaled"], rel=1e-4)
    train = run("eval", out, zoo, "--split", "train", "--split-limit", 10, "--device", "cpu")
    assert train.exit_code == 0, train.output


def test_a_kept_measurement_is_a_column_beside_its_run(trained, tmp_path):
    out, zoo = trained["generalize"]
    file = tmp_path / "far.json"
    words = ["eval", out, zoo, "--option", "rescale=3", "--device", "cpu", "--keep", file]
    printed = dict(line.split() for line in run(*words).stdout.splitlines())
    result = run("report", out, file, "--out", tmp_path / "report.md")
    assert result.exit_code == 0, result.output
    report = (tmp_path / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| StatNN")]
    assert len(rows) == 2  # results, and how they came about
    shown = f"{float(printed['mse_x100_rescaled']):.3g}"
    assert f"| {shown} |" in rows[0]
    assert "| after scaling by up to 10 | after scaling by up to 1,000 |" in report
    assert f"wszoo eval {out} {zoo} --option rescale=3 --keep {file}" in report
    # Reports show one split, of the zoo that the run was trained on.
    file.unlink()
    lone = ["eval", out, zoo, "--keep", file, "--device", "cpu"]
    assert "'train' cannot be kept" in line_of(run(*lone, "--split", "train"), 2)
    other = shutil.copytree(zoo, tmp_path / "other")
    index = json.loads((other / "zoo.json").read_text())
    (other / "zoo.json").write_text(json.dumps(index | {"name": "other"}))
    lone[2] = other
    assert "reports show a run on its own zoo" in line_of(run(*lone), 2)
    assert not file.exists()


def test_the_command_of_a_run_makes_it_again(trained, monkeypatch, tmp_path):
    import shlex

    out, _ = trained["regress"]
    words = shlex.split(read_json(out / "config.json")["command"])
    assert words[:3] == ["wszoo", "train", "regress"]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    result = run(*words[1:], "--device", "cpu")
    assert result.exit_code == 0, result.output
    ours, theirs = (read_json(f / "summary.json") for f in (tmp_path / "again", out))
    assert ours["test"] == theirs["test"]


def test_a_finished_run_is_reported_again(trained):
    out, zoo = trained["classify"]
    words = ("train", "classify", zoo, *QUICK, "--model", "mlp", "--batch", 16, "--out", out)
    before = (out / "metrics.jsonl").stat().st_mtime_ns
    again = run(*words)
    assert again.exit_code == 0
    assert re.search(r"^test +accuracy", again.stdout, re.MULTILINE)
    assert (out / "metrics.jsonl").stat().st_mtime_ns == before
    line = line_of(run(*words, "--seed", 1), 2)
    assert "holds another run: seed is 0, not 1; choose another --out, or --overwrite" in line
    fresh = run(*words, "--overwrite")
    assert fresh.exit_code == 0
    assert (out / "metrics.jsonl").stat().st_mtime_ns != before


def test_a_run_stays_on_its_zoo_when_that_gets_a_parquet_view(digits_zoo, tmp_path):
    """Whether the view is made after the run, anew, or stood in what an older run recorded."""
    copy, out, kept = tmp_path / digits_zoo.name, tmp_path / "run", tmp_path / "kept.json"
    shutil.copytree(digits_zoo, copy)
    words = ["train", "classify", copy, "--model", "mlp", "--set", "width=8", "--device", "cpu"]
    words += ["--schedule", "constant", "--out", out]
    index = shards.read_index(copy)
    bare = tuple(replace(shard, parquet=None) for shard in index.shards)
    shards.write_index(copy, replace(index, shards=bare, plan=index.plan | {"parquet": False}))
    shutil.rmtree(copy / "data")
    assert run("ceiling", copy, "--epochs", 1).exit_code == 0
    assert run(*words, "--epochs", 2).exit_code == 0
    before = identity.hashes(copy)
    assert before[0] == before[1] == read_json(out / "config.json")["zoo_sha256"]
    for options in ((), ("--no-pictures",)):
        assert run("view", copy, *options).exit_code == 0
        after = identity.hashes(copy)
        assert after[0] == before[0] != after[1]
        longer = run(*words, "--epochs", 3)
        assert longer.exit_code == 0, longer.output
        assert run("eval", out, copy, "--device", "cpu", "--keep", kept).exit_code == 0
        assert "renders: kept" in run("ceiling", copy, "--epochs", 1).stderr
        shown = run("card", copy, "--results", out)
        assert shown.exit_code == 0, shown.output
        assert "zoo.json" not in shown.stderr
        assert "sees the originals" in (copy / "README.md").read_text("utf-8")
        with runs.published(out, "user/x") as staged:
            assert "sees the originals" in (staged / "README.md").read_text("utf-8")
    # What was trained when runs still recorded the index with its view.
    config = read_json(out / "config.json") | {"zoo_sha256": after[1]}
    (out / "config.json").write_text(json.dumps(config))
    longer = run(*words, "--epochs", 4)
    assert longer.exit_code == 0, longer.output
    assert read_json(out / "config.json")["zoo_sha256"] == after[1]
    assert run("eval", out, copy, "--device", "cpu", "--keep", kept).exit_code == 0
    with runs.published(out, "user/x") as staged:
        assert "sees the originals" in (staged / "README.md").read_text("utf-8")
    # Other networks are another zoo.
    config = read_json(out / "config.json") | {"zoo_sha256": "0" * 64}
    (out / "config.json").write_text(json.dumps(config))
    assert "holds another run: zoo_sha256 is" in line_of(run(*words, "--epochs", 4), 2)
    assert "holds others" in line_of(run("eval", out, copy, "--keep", kept), 2)


def test_default_folder(digits_zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("train", "classify", digits_zoo, "--model", "mlp", *QUICK, "--seed", 2)
    assert result.exit_code == 0, result.output
    assert runs.is_run(tmp_path / "runs" / "classify-mlp-digits-2")


@pytest.mark.parametrize("others", [{}, {"validation": 0}])
def test_a_zoo_without_a_split(others, tmp_path):
    write_zoo(tmp_path / "z", rows={"train": 8, "test": 4, **others}, spec=SINE)
    line = line_of(run("train", "classify", tmp_path / "z", "--model", "mlp"), 2)
    assert "'validation'; this zoo has train, test; training needs train, validation" in line


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("train sort {digits} --model mlp", 2, None),
        ("train classify {digits}", 2, None),
        ("train classify {digits} --model mpl", 2, "unknown model 'mpl'; known: dws"),
        ("train classify nowhere --model mlp", 1, "nowhere is not a zoo: it does not exist"),
        ("train classify {tmp} --model mlp", 1, r"is not a zoo: it has no zoo\.json"),
        ("train classify {half} --model mlp", 1, "half is not finished; run the command"),
        ("train classify {waves} --model mlp", 2, r"needs one column of classes.*`label`.*none"),
        ("train regress {digits} --model mlp", 2, r"needs a column of real numbers.*has none"),
        ("train regress {waves} --model mlp", 2, "amplitude and frequency: choose .* --target"),
        ("train regress {waves} --model mlp --target x", 2, "no column 'x'; its columns: index"),
        ("train regress {digits} --model mlp --target label", 2, "'label' of digits is of kind"),
        ("train generalize {digits} --model mlp", 2, "needs the accuracy of classifiers"),
        ("train generalize {trajectories} --model mlp --loss x", 2, "'--loss': must be one of"),
        ("train generalize {trajectories} --model mlp --augment move", 2, "'move' is for INRs"),
        ("train ssl {digits} --model mlp", 2, "ssl needs real targets"),
        ("train classify {digits} --model mlp --augment mix", 2, "'--augment': .*'mix'; known"),
        ("train classify {digits} --model mlp --set wdith=3", 2, "no argument 'wdith'; known: h"),
        ("train classify {digits} --model mlp --set width", 2, "'--set': takes NAME=VALUE"),
        ("train classify {digits} --model mlp --set width=ab", 2, "width must be a number"),
        ("train classify {digits} --model nfn-np --set channels=16,8", 2, "in brackets, as .16"),
        ("train classify {digits} --model mlp --lr-grid a,b", 2, "'--lr-grid': takes learning r"),
        ("train classify {digits} --model mlp --epochs 3 --steps 3", 2, "either epochs or steps"),
        ("train classify {digits} --model mlp --drop 2", 2, r"'--drop': must be in \[0, 1\)"),
        ("train classify {digits} --model mlp --batch many", 2, "'--batch': must be a whole"),
        ("train classify {digits} --model mlp --precision int8", 2, "'--precision': must be one"),
        ("train classify {digits} --model mlp --split-limit x", 2, "such as train=100,test=50"),
        ("train classify {digits} --model mlp --split-limit test=1 --split-limit test=2", 2,
         "the same split stands twice in 'test=1,test=2'"),
        ("train classify {digits} --model mlp --device gpu", 2, "'--device': 'gpu' is not one of"),
        ("train classify {digits} --model mlp --out {digits}", 2, "something that is not a run"),
        ("train classify {digits} --model mlp --out {unfinished}/config.json/x", 2,
         r"'--out': '.*config\.json' is a file, not a folder"),
        ("train generalize {digits} --model mlp --target psnr_db", 2, "predicts fractions, and p"),
        ("eval {run} {digits}", 2, "digits has no column 'frequency'; its columns: index"),
        ("eval {classify} {waves}", 2, "needs one column of classes"),
        ("eval {generalize} {trajectories} --option nois=1", 2, "has no option 'nois'"),
        ("eval {generalize} {trajectories} --split x", 2, "'--split': 'x' is not one of"),
        ("eval {tmp} {digits}", 1, "is no run: it has no config.json"),
        ("eval {unfinished} {digits}", 1, "is not finished; run its command again"),
    ],
)  # fmt: skip
def test_bad_input(
    words, code, message, trained, digits_zoo, waves_zoo, trajectories_zoo, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half" / ".build").mkdir(parents=True)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_text('{"wszoo": "run"}')
    places = {
        "digits": digits_zoo, "waves": waves_zoo, "trajectories": trajectories_zoo,
        "tmp": tmp_path, "half": tmp_path / "half", "unfinished": tmp_path / "unfinished",
        "run": trained["regress"][0], "classify": trained["classify"][0],
        "generalize": trained["generalize"][0],
    }  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    result = run(*(word.format(**places) for word in words.split()))
    if message is None:  # click's own
        assert result.exit_code == code
    else:
        assert re.search(message, line_of(result, code))
    assert sorted(tmp_path.rglob("*")) == before


def test_networks_of_another_architecture(trained, tmp_path):
    """A zoo with classes, but other networks than the model reads."""
    write_zoo(tmp_path / "other", spec=SINE)
    line = line_of(run("eval", trained["classify"][0], tmp_path / "other"), 2)
    assert "classify reads networks 2-6-6-1, and those of other are 1-5-1" in line


def test_networks_of_other_fourier_features(tmp_path):
    """Their first layers have the same shapes and read something else."""
    for name, turn in (("a", 1.0), ("b", 2.0)):
        spec = NetworkSpec.mlp([2, 5, 1], "relu", coord_order="xy", frequencies=[[turn, 0.5]])
        write_zoo(tmp_path / name, spec=spec, parquet=False)
    words = ["--model", "mlp", "--steps", 1, "--set", "width=4", "--device", "cpu"]
    out = tmp_path / "run"
    # Whose pictures do not move by --augment auto.
    result = run("train", "classify", tmp_path / "a", *words, "--augment", "auto", "--out", out)
    assert result.exit_code == 0, result.output
    assert run("eval", out, tmp_path / "a", "--device", "cpu").exit_code == 0
    line = line_of(run("eval", out, tmp_path / "b", "--device", "cpu"), 2)
    assert "run reads Fourier features of other frequencies than those of b" in line
    words[1:4] = ["mlp", "--augment", "move", "--steps", 1]
    line = line_of(run("train", "classify", tmp_path / "a", *words, "--out", tmp_path / "no"), 2)
    assert "these networks read Fourier features of them; leave it out of --augment" in line


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(kind, waves_zoo, tmp_path):
    out = tmp_path / "run"
    words = ["regress", waves_zoo, "--model", "mlp", "--target", "frequency", "--set", "width=8"]
    more = ["--steps", 1_000_000, "--evaluations", 100_000, "--device", "cpu", "--out", out]
    child = subprocess.Popen(
        [*WSZOO, "train", *map(str, words + more)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    wait_for(child, out / "checkpoint" / "state.pt")
    time.sleep(0.2)
    child.send_signal(kind)
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 1, errors
    *said, line = [line for line in errors.splitlines() if line.strip()]
    assert [each.split()[0] for each in said] == ["preset", "96"]
    assert line == f"stopped; the same command goes on from the last checkpoint in {out}"
    assert printed == ""
    assert not (out / "summary.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes by setrlimit")
def test_a_write_that_fails_is_one_line_and_the_run_goes_on(waves_zoo, tmp_path):
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))

    words = ["regress", waves_zoo, "--model", "mlp", "--target", "frequency", "--set", "width=8"]
    words += ["--epochs", 2, "--device", "cpu", "--out"]
    out = tmp_path / "run"
    child = subprocess.run(
        [*WSZOO, "train", *map(str, words), str(out)],
        capture_output=True, text=True, env=environment(), preexec_fn=limited, check=False,
    )  # fmt: skip
    assert child.returncode == 1, child.stderr
    *_, line = [line for line in child.stderr.splitlines() if line.strip()]
    again = f"the same command begins again, as there is no checkpoint in {out} yet"
    assert line == f"Error: {out}: [Errno 27] File too large; {again}"
    assert not list(out.rglob("*.new"))
    for folder in (out, tmp_path / "whole"):
        result = run("train", *words, folder)
        assert result.exit_code == 0, result.output
    ours, theirs = (read_json(f / "summary.json") for f in (out, tmp_path / "whole"))
    assert ours["test"] == theirs["test"]


def test_every_setting_and_option_has_a_flag_with_help():
    for task, kind in OPTIONS.items():
        shown = run("train", task, "--help").stdout
        for name, each in {**about(kind), **about(Settings)}.items():
            assert each.help
            assert f"--{name.replace('_', '-')}" in shown
        assert TASK_HELP[task].split()[0] in shown


def test_the_lists_of_tasks_agree():
    assert list(OPTIONS) == list(TASKS) == list(TASK_HELP)
    for name, kind in TASKS.items():
        assert kind.name == name


def test_words_of_the_command_line():
    assert parse_sizes(["a=[1,2]", "b=x", "c=null", "d=1e-3"]) == {
        "a": [1, 2], "b": "x", "c": None, "d": 1e-3,
    }  # fmt: skip
    assert parse_grid("1e-3, 5") == [1e-3, 5]
    with pytest.raises(ValueError, match="got '=3'"):
        parse_sizes(["=3"])


def test_a_target_that_never_varies_is_not_asked_about(tmp_path):
    """Waves of one amplitude, whose frequency alone can be meant."""
    words = ("fit-inrs", "sine", "--recipe", "sine-regression", "--limit", 20, "--steps", 2)
    made = run(*words, "--points", 20, "--hidden", 4, "--no-parquet", "--out", tmp_path / "waves")
    assert made.exit_code == 0, made.output
    result = run(
        "train", "regress", tmp_path / "waves", "--model", "statnn", "--epochs", 1,
        "--set", "width=8", "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    card = (tmp_path / "run" / "README.md").read_text()
    assert "predicted.png" in card
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # Mean squared errors of a frequency in (0.5, 10), not of a constant.
    assert summary["test"]["mse"] > 0.1
