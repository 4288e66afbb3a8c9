"""Runs become rows by scale, and published numbers stand beside those they belong to."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import run

from processors import published, report, saving
from processors.options import OPTIONS
from processors.published import published_for, table_for
from processors.settings import Settings
from zoo import ZooError

SETTINGS = asdict(Settings(epochs=500, batch=512))


def config(**changes):
    """What a run's config.json has; a report reads some of it, and the rest is checked."""
    found = {
        "wszoo": "run",
        "task": "ssl",
        "model": "dws",
        "zoo": "zoos/sine-ssl",
        "zoo_name": "sine-ssl",
        "zoo_sha256": "0" * 64,
        "recipe": {"name": "sine-ssl"},
        "source": "sine",
        "networks": {"train": 4000, "validation": 500, "test": 500},
        "settings": SETTINGS,
        "options": {},
        "sizes": {},
        "model_sizes": {"chan": 16},
        "seed": 0,
        "split_limit": {},
        "lr_grid": [],
        "versions": {},
        "command": "wszoo train ssl zoos/sine-ssl --model dws",
        **changes,
    }
    told = changes.get("task_options", {"noise": 0.2})
    found["settings"] = {**SETTINGS, **found["settings"]}
    found["task_options"] = {**asdict(OPTIONS[found["task"]]()), **told}
    return found


def summary(mse: float, **changes):
    return {
        "task": "ssl",
        "model": "dws",
        "zoo": "zoos/sine-ssl",
        "epochs": 500.0,
        "networks": 4000,
        "seed": 0,
        "device": "cpu, 1 threads",
        "devices": 1,
        "validation": {"mse": mse},
        "test": {"mse": mse, "mse_frequency": mse + 1},
        "metric": "mse",
        "higher": False,
        "recipe": "sine-ssl",
        "source": "sine",
        "steps": 4000,
        "best_step": 4000,
        "batch": 512,
        "lr": 0.001,
        "lr_grid": {},
        "parameters": 100,
        "minutes": 2.0,
    } | changes


def write_run(folder: Path, config, summary) -> Path:
    """A finished run whose model is known by its hash alone."""
    (folder / "model").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / "model" / name).write_bytes(b"a model")
    same = {key: config[key] for key in ("task", "model", "seed", "source")}
    same["recipe"], same["networks"] = config["recipe"]["name"], config["networks"]["train"]
    files = saving.described(folder, ["model/config.json", "model/model.safetensors"])
    same["batch"], same["lr"] = config["settings"]["batch"], config["settings"]["lr"]
    plain = {**summary, **same, "files": files}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(plain))
    return folder


def three_seeds(tmp_path: Path) -> list[Path]:
    return [
        write_run(
            tmp_path / f"dws-{seed}",
            config(
                seed=seed,
                settings={"epochs": 500, "batch": 512, "lr": 0.001 * (seed + 1)},
                options={"views": 2, "noise": 0.5},  # shown in this order
            ),
            summary(1.0 + seed, seed=seed),
        )
        for seed in range(3)
    ]


def test_seeds_are_one_row_whatever_their_rate(tmp_path):
    folders = three_seeds(tmp_path)
    (section,) = report.sections(report.collect(folders))
    (row,) = section.rows
    assert row.values("mse") == [1.0, 2.0, 3.0]
    text = report.render(report.collect(folders), tmp_path / "report.md")
    line = next(each for each in text.splitlines() if each.startswith("| dws"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == ["weights", "**2 ± 1**", "4,000 networks, 500 epochs, 3 seeds"]
    (settings,) = [x for x in text.splitlines() if x.startswith("| dws") and "cpu, 1 thr" in x]
    assert [cell.strip() for cell in settings.strip("|").split("|")][-1] == "mse_frequency 3"


def test_all_published_numbers_are_grey_rows_with_their_scale(tmp_path):
    folder = write_run(tmp_path / "a", config(source="imagefolder:/home/me/sine"), summary(1.0))
    record = json.loads((folder / "summary.json").read_text())
    record["constant"] = {"name": "the mean", "score": 7.5, "error": 0.1}
    (folder / "summary.json").write_text(json.dumps(record))
    text = report.render(report.collect([folder]), tmp_path / "report.md")
    grey = [line for line in text.splitlines() if line.startswith("| <span")]
    (table,) = [each for each in published.TABLES if each.experiment == "D3"]
    assert len(grey) == 1 + len(table.values)
    assert "the mean" in grey[0]
    assert ">7.5<" in grey[0]
    for line, name in zip(grey[1:], table.values, strict=True):
        assert f">D3: {name}<" in line
        assert f">{table.published(name)}<" in line
        assert "4,000 networks, 500 epochs (Navon et al. 2023, Table 2)" in line
    # A local path is no heading.
    assert not any("/home/me" in line for line in text.splitlines() if line.startswith("#"))
    assert "## D3: ssl on sine (recipe sine-ssl)" in text


def test_a_panel_is_of_one_experiment_and_one_scale(tmp_path):
    small = {"train": 200, "validation": 50, "test": 50}
    folders = [
        write_run(tmp_path / "a", config(), summary(1.0)),
        write_run(tmp_path / "b", config(networks=small), summary(2.0)),
        write_run(tmp_path / "c", config(model="mlp"), summary(3.0)),
    ]
    (section,) = report.sections(report.collect(folders))
    found = [(each.title, [name for name, _ in each.rows]) for each in report.panels(section)]
    assert found[0] == ("4,000 networks, 500 epochs", ["dws", "mlp"])
    assert found[1] == ("200 networks, 500 epochs", ["dws"])
    assert found[2][0] == "published, D3: 4,000 networks, 500 epochs"
    assert [each.grey for each in report.panels(section)] == [False, False, True]


def test_a_seed_counts_once_in_a_row(tmp_path):
    folders = three_seeds(tmp_path)  # by rates of 0.001, 0.002 and 0.003
    for number, (lr, mse) in enumerate([(0.002, 5.0), (0.002, 6.0), (0.001, 7.0)]):
        settings = {"epochs": 500, "batch": 512, "lr": lr}
        told = config(settings=settings, versions={"torch": str(number)})
        told["options"] = {"views": 2, "noise": 0.5}
        folders.append(write_run(tmp_path / f"more-{number}", told, summary(mse, lr=lr)))
    (section,) = report.sections(report.collect(folders))
    rows = {tuple(row.values("mse")): {s["lr"] for s in row.summaries} for row in section.rows}
    assert rows == {(1.0,): {0.001}, (7.0,): {0.001}, (5.0, 2.0): {0.002}, (6.0,): {0.002},
                    (3.0,): {0.003}}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": {"train": 200, "validation": 50, "test": 50}},
        {"settings": {"epochs": 5, "batch": 512, "lr": 0.001}},
        {"model_sizes": {"chan": 8}},
        {"task_options": {"noise": 0.5}},
        {"zoo_sha256": "1" * 64},
    ],
)
def test_scales_are_never_mixed(tmp_path, changes):
    folders = [
        write_run(tmp_path / "full", config(), summary(1.0)),
        write_run(tmp_path / "other", config(seed=1, **changes), summary(2.0, seed=1)),
    ]
    (section,) = report.sections(report.collect(folders))
    assert [len(row.summaries) for row in section.rows] == [1, 1]
    assert [row.values("mse") for row in section.rows] == [[1.0], [2.0]]


def test_a_run_that_recorded_less_is_named(tmp_path):
    old = {k: v for k, v in config().items() if k != "task_options"}
    folder = write_run(tmp_path / "old", old, summary(1.0))
    with pytest.raises(
        ZooError, match=r"config\.json is of a run of an older wszoo, without task_options"
    ):
        report.collect([folder])
    (tmp_path / "kept.json").write_text(json.dumps([{"config": old, "summary": summary(1.0)}]))
    with pytest.raises(ZooError, match="record 0: config is of a run of an older wszoo"):
        report.collect([tmp_path / "kept.json"])


def test_better_rows_come_first_among_those_of_a_scale(tmp_path):
    accuracies = {"mlp": 0.2, "dws": 0.8, "nfn-np": 0.5, "statnn": 0.9}
    networks = {"train": 4000, "validation": 500, "test": 500}
    folders = [
        write_run(
            tmp_path / model,
            config(
                task="classify", model=model, recipe={"name": "dws"}, source="mnist",
                networks=networks | ({"train": 50} if model == "statnn" else {}),
            ),
            summary(
                0.0, metric="accuracy", higher=True, test={"accuracy": value},
                validation={"accuracy": 0.0},
            ),
        )
        for model, value in accuracies.items()
    ]  # fmt: skip
    (section,) = report.sections(report.collect(folders))
    assert [row.model for row in section.rows] == ["dws", "nfn-np", "mlp", "statnn"]
    text = report.render(report.collect(folders), tmp_path / "report.md")
    assert "**80.00**" in text
    assert "85.71 ± 0.57" in text


def test_a_published_number_is_for_the_published_model_alone():
    assert str(published_for(config())) == "1.39 ± 0.06"
    assert published_for(config(sizes={"variant": "deepsets"})) is None
    assert published_for(config(model="statnn")) is None
    assert published_for(config(recipe={"name": "mine"})) is None
    edit = config(task="edit", recipe={"name": "nfn"}, source="mnist", model="nfn-np")
    assert published_for({**edit, "task_options": {"edit": "dilate"}}).value == 0.068
    assert published_for({**edit, "task_options": {"edit": "other"}}) is None
    for activation, experiment in (("tanh", "M2"), ("relu", "N1")):
        recipe = {"name": "small-cnn", "activation": activation}
        cnns = config(task="generalize", recipe=recipe, source="cifar10", model="monomial")
        assert table_for(cnns).experiment == experiment


def test_tables_begin_with_known_models_and_do_not_overlap():
    from processors import MODELS

    seen = set()
    for table in published.TABLES:
        key = (table.task, table.recipe, table.source, table.options, table.fields)
        for name in table.values:
            assert (key, name) not in seen, (table.experiment, name)
            seen.add((key, name))
        models = {name.partition(" ")[0].rstrip(",") for name in table.values}
        assert models & {*MODELS, "ScaleGMN"}
    assert table_for(config()).experiment == "D3"


def test_records_are_kept_and_read_again(tmp_path):
    folders = three_seeds(tmp_path)
    kept = tmp_path / "kept.json"
    report.keep(folders, kept)
    plain = [record for _, record in report.collect(folders)]
    assert [record for _, record in report.collect([kept])] == plain
    # A run that was kept and is there still is no second seed.
    assert report.collect([*folders, kept]) == report.collect(folders)
    with_kept = report.render(report.collect([kept]), tmp_path / "a.md").splitlines()
    with_runs = report.render(report.collect(folders), tmp_path / "b.md").splitlines()
    # Figures lie in folders of their own.
    assert [x for x in with_kept if "_figures" not in x] == [
        x for x in with_runs if "_figures" not in x
    ]


def test_the_command_writes_tables_and_figures(tmp_path):
    folders = three_seeds(tmp_path)
    (folders[0] / "figures").mkdir()
    (folders[0] / "figures" / "tsne.png").write_bytes(b"png")
    out = tmp_path / "made" / "report.md"
    result = run("report", *folders, "--out", out, "--keep", tmp_path / "kept.json")
    assert result.exit_code == 0, result.output
    text = out.read_text()
    for name in ("1.png", "1-dws-0-tsne.png"):
        assert f"report_figures/{name}" in text
        assert (out.parent / "report_figures" / name).is_file()
    assert len(json.loads((tmp_path / "kept.json").read_text())) == 3


def test_what_is_no_finished_run_is_left_out_and_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="empty is no run"):
        report.collect([tmp_path / "empty"])
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text(json.dumps(config()))
    assert report.unfinished(unfinished)
    (tmp_path / "words.json").write_text('[{"config": {}}]')
    with pytest.raises(ZooError, match=r"words\.json is neither the folder of a run nor a file"):
        report.collect([tmp_path / "words.json"])
    done = three_seeds(tmp_path / "done")
    result = run("report", *done, unfinished, "--out", tmp_path / "report.md")
    assert result.exit_code == 0
    assert result.stderr == f"{unfinished} is not finished and left out\n"
    assert "unfinished" not in (tmp_path / "report.md").read_text()
    result = run("report", unfinished, "--out", tmp_path / "none.md")
    assert result.exit_code == 1
    assert f"none of {unfinished} is finished" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "none.md").exists()
    assert "does not exist" in run("report", tmp_path / "none").stderr
    with pytest.raises(ValueError, match="at least one run"):
        report.write([], tmp_path / "report.md")
