"""Runs become rows by scale, and published numbers stand beside those they belong to."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import run

from processors import charts, labels, published, report, saving
from processors.options import OPTIONS
from processors.published import tables_for
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


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of a report's time, and tables do not need them."""
    for name in ("compare", "glance"):
        monkeypatch.setattr(charts, name, lambda *_: None)


def lines_of(text: str, start: str) -> list[list[str]]:
    """Cells of the table rows that begin so."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def rendered(folders, tmp_path: Path) -> str:
    return report.render(report.collect(folders), tmp_path / "report.md")


def test_seeds_are_one_row_whatever_their_rate(undrawn, tmp_path):
    folders = three_seeds(tmp_path)
    (section,) = report.sections(report.collect(folders))
    (row,) = section.rows
    assert row.values("mse") == [1.0, 2.0, 3.0]
    first, settings = lines_of(rendered(folders, tmp_path), "DWSNets")
    # What is alike in all rows is no part of a name: no options, no sizes; but it is of before,
    # and no paper measures the mean of views.
    name = "DWSNets, mean of 2 views †"
    assert first == [name, "weights", "**2 ± 1**", "4,000 networks, 500 epochs, 3 seeds"]
    assert settings[-3:] == ["cpu, 1 threads", "2.0", "mse_frequency 3"]


def test_all_published_numbers_are_rows_with_their_scale(undrawn, tmp_path):
    folder = write_run(tmp_path / "a", config(source="imagefolder:/home/me/sine"), summary(1.0))
    record = json.loads((folder / "summary.json").read_text())
    record["constant"] = {"name": "the mean", "score": 7.5, "error": 0.1}
    (folder / "summary.json").write_text(json.dumps(record))
    text = rendered([folder], tmp_path)
    constant, *published_rows = lines_of(text, "*")
    assert constant == ["*the mean*", "*nothing*", "*7.5*", "*without reading networks*"]
    (table,) = [each for each in published.TABLES if each.experiment == "D3"]
    where = "*4,000 networks, 500 epochs (Navon et al. 2023, Table 2)*"
    assert {row[-1] for row in published_rows} == {where}
    assert sorted(row[2].strip("*") for row in published_rows) == sorted(
        str(table.published(name)) for name in table.values
    )
    # The best first, as ours are, and by names that people use.
    assert [row[0] for row in published_rows[:2]] == ["*DWSNets*", "*INR2Vec*"]
    # A local path is no heading.
    assert not any("/home/me" in line for line in text.splitlines() if line.startswith("#"))
    assert "## D3: a representation of sine wave networks, recipe sine-ssl; 4,000 for" in text


def tickets(folder, model="nfn-np", **accuracies):
    found = {"elbo": -0.2, "agreement": 0.1, **accuracies}
    recipe = {"name": "nfn-mlp3", "activation": "relu"}
    told = {"task": "tickets", "model": model, "recipe": recipe, "source": "mnist"}
    words = {"task": "tickets", "model": model, "metric": "agreement", "higher": True}
    constant = {"name": "chance", "score": 0.05, "error": 0.001}
    return write_run(
        folder,
        config(**told, task_options={}),
        summary(1.0, **words, test=found, validation=found, constant=constant),
    )


def test_masks_stand_between_random_ones_and_tickets_of_the_same_networks(tmp_path):
    known = {"imp": 0.93, "dense": 0.96, "random": 0.85, "predicted": 0.9}
    trained = tickets(tmp_path / "a", **{f"accuracy_{k}": v for k, v in known.items()})
    (section,) = report.sections(report.collect([trained]))
    assert section.constant == ("random masks", 85.0)
    assert section.bounds == (("their tickets", 93.0), ("all entries", 96.0))
    text = rendered([trained, *three_seeds(tmp_path)], tmp_path)
    assert ["*random masks*", "*nothing*", "*85.00*", "*without reading networks*"] in lines_of(
        text, "*random"
    )
    assert ["*their tickets*", "*training*", "*93.00*", "*of the same networks*"] in lines_of(
        text, "*their"
    )
    (glance,) = [line for line in text.splitlines() if line.startswith("| [N4]")]
    assert "| 85.00 | NFN-NP **90.00** |  | their tickets **93.00** | 4,000 |" in glance
    # Masks that were never trained with are measured by the share that they find.
    (bare,) = report.sections(report.collect([tickets(tmp_path / "b", "nfn-pt")]))
    assert (bare.metric, bare.constant, bare.bounds) == ("agreement", ("chance", 0.05), ())


def test_a_table_is_of_one_experiment_and_one_scale(tmp_path):
    small = {"train": 200, "validation": 50, "test": 50}
    folders = [
        write_run(tmp_path / "a", config(), summary(1.0)),
        write_run(tmp_path / "b", config(networks=small), summary(2.0)),
        write_run(tmp_path / "c", config(model="mlp"), summary(3.0)),
    ]
    large, few = report.sections(report.collect(folders))
    assert (large.networks, [row.model for row in large.rows]) == (4000, ["dws", "mlp"])
    assert (few.networks, [row.model for row in few.rows]) == (200, ["dws"])
    text = rendered(folders, tmp_path)
    assert len([line for line in text.splitlines() if line.startswith("## D3")]) == 2
    drawn = {path.name for path in (tmp_path / "report_figures").iterdir()}
    assert {"d3-ssl-sine-sine-ssl-4000.png", "d3-ssl-sine-sine-ssl-200.png"} <= drawn


def classify(model: str, accuracy: float, networks: int = 4000, **changes):
    """Configuration and summary of a run on MNIST INRs."""
    told = config(
        task="classify", model=model, recipe={"name": "dws"}, source="mnist",
        networks={"train": networks, "validation": 500, "test": 500},
        **{"model_sizes": {}, **changes},
    )  # fmt: skip
    if "options" in changes:
        told["task_options"] |= changes["options"]
    values = {"metric": "accuracy", "higher": True, "validation": {"accuracy": 0.0}}
    return told, summary(0.0, **values, test={"accuracy": accuracy})


def test_rows_that_were_selected_stand_apart_and_say_which_they_are(undrawn, tmp_path):
    """Two selections of as many rows are of other networks, though of the same recipe."""
    fitted = {"kind": "image", "name": "dws", "activation": "sin"}
    folders = []
    for number, where in enumerate(("view < 2", "psnr_db > 25")):
        told, summed = classify("dws", 0.5 + number / 10)
        told["recipe"] = {"name": "select", "where": where, "of": "mnist", "fitted_by": fitted}
        folders.append(write_run(tmp_path / str(number), told, summed))
    made = report.sections(report.collect(folders))
    assert [len(section.rows) for section in made] == [1, 1]
    text = rendered(folders, tmp_path)
    heads = sorted(line for line in text.splitlines() if line[:3] == "## ")
    # And stand beside the published numbers of that recipe.
    assert text.count("85.71 ± 0.57") == 2
    assert heads == [
        f"## D2: the class of MNIST networks, recipe dws sin, where {where}; 4,000 for training"
        for where in ("psnr_db above 25", "view below 2")
    ]
    assert len({report._slug(section) for section in made}) == 2


def test_what_takes_a_model_to_pieces_is_a_table_of_its_own(undrawn, tmp_path):
    changed = [{}, {"sizes": {"blocks": "b2b"}}, {"sizes": {"norm": False}}]
    runs = [classify("dws", 0.5 - n / 8, **changes) for n, changes in enumerate(changed)]
    folders = [write_run(tmp_path / str(n), *each) for n, each in enumerate(runs)]
    blocks, norms = report.sections(report.collect(folders))
    assert [blocks.identity, norms.identity] == ["D7", "D8"]
    for section, value in ((blocks, 0.375), (norms, 0.25)):  # the whole model beside its parts
        assert [row.values("accuracy") for row in section.rows] == [[0.5], [value]]
    names = [labels.names(section.rows, section.tables) for section in (blocks, norms)]
    assert names == [
        ["DWSNets, the whole †", "DWSNets, bias to bias †"],
        ["DWSNets, the whole †", "DWSNets, without batch norm †"],
    ]
    folders.append(write_run(tmp_path / "mlp", *classify("mlp", 0.1)))
    (main, *_) = report.sections(report.collect(folders))
    assert [row.model for row in main.rows] == ["dws", "mlp"]
    text = rendered(folders, tmp_path)
    assert ["*DWSNets, weight to weight*", "*weights*", "*84.75*"] in [
        row[:3] for row in lines_of(text, "*DWSNets")
    ]


def test_rows_are_called_by_what_they_differ_in_alone(tmp_path):
    sizes = {"channels": [32, 32, 32], "fourier": 64, "fourier_scale": 0.5, "head": 256}
    made = [
        classify("nfn-np", 0.5, sizes=sizes, model_sizes=sizes, preset="small"),
        classify("nfn-np", 0.4, sizes={**sizes, "positions": "none"}, preset="small",
                 model_sizes={**sizes, "positions": "none"}),
        classify("graded", 0.9, options={"augment": "move,noise"}, preset="small"),
        classify("mlp", 0.3, preset="small", settings={"epochs": 5, "batch": 512}),
        classify("mlp", 0.2, preset="small", settings={"epochs": 9, "batch": 512}),
        classify("dws", 0.1, sizes={"input_rank": 256}, model_sizes={"input_rank": 256},
                 preset="small"),
    ]  # fmt: skip
    folders = [write_run(tmp_path / str(n), *each) for n, each in enumerate(made)]
    (section,) = report.sections(report.collect(folders))
    assert labels.names(section.rows, section.tables) == [
        "graded", "NFN-NP, 32 channels", "NFN-NP, 32 channels, without positions",
        "MLP, 5 epochs", "MLP, 9 epochs", "DWSNets, a map of inputs of rank 256",
    ]  # fmt: skip


def test_a_run_by_a_preset_stands_in_for_one_of_before(undrawn, tmp_path):
    old, new = classify("dws", 0.6), classify("dws", 0.7, preset="small")
    other = classify("mlp", 0.2)
    part = classify("dws", 0.1, sizes={"blocks": "b2b"})
    made = {"old": old, "new": new, "other": other, "part": part}
    folders = [write_run(tmp_path / name, *each) for name, each in made.items()]
    out, kept = tmp_path / "report.md", tmp_path / "kept.json"
    assert run("report", *folders, "--out", out, "--keep", kept, "--newest").exit_code == 0
    values = [r["summary"]["test"]["accuracy"] for r in json.loads(kept.read_text())]
    assert values == [0.7, 0.2, 0.1]
    text = out.read_text()
    assert "DWSNets |" in text
    assert "MLP † |" in text
    assert "60.00" not in text
    assert run("report", *folders, "--out", out).exit_code == 0
    assert "60.00" in out.read_text()


def test_what_is_measured_after_symmetries_is_a_column(undrawn, tmp_path):
    folder = write_run(tmp_path / "a", *classify("dws", 0.5))
    record = json.loads((folder / "summary.json").read_text())
    record["test"]["accuracy after sign"] = 0.125
    told = json.loads((folder / "config.json").read_text())
    told["command"] = "wszoo eval runs/a zoo --randomise sign"
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps([{"config": told, "summary": record}]))
    other = write_run(tmp_path / "b", *classify("mlp", 0.25))
    text = rendered([folder, kept, other], tmp_path)
    assert "| model | reads | accuracy, % | after sign | of scale |" in text
    ours = [row for row in lines_of(text, "DWSNets") if len(row) == 5]
    assert [row[2:4] for row in ours] == [["**50.00**", "12.50"]]
    assert [row[3] for row in lines_of(text, "MLP †") if len(row) == 5] == [""]


def test_a_report_of_several_experiments_opens_with_all_and_keeps_notes(tmp_path):
    folders = [
        write_run(tmp_path / "a", config(), summary(1.25)),
        write_run(tmp_path / "b", *classify("dws", 0.5, networks=55_000)),
        write_run(tmp_path / "c", *classify("probe", 0.75, networks=55_000)),
        write_run(tmp_path / "d", *classify("dws", 0.25)),
    ]
    out = tmp_path / "report.md"
    report.write(folders, out)
    opening, *_ = out.read_text().partition("## ")
    assert "report_figures/glance.png" in opening
    (waves,) = lines_of(opening, "[D3]")
    (mnist,) = lines_of(opening, "[D2]")
    assert waves[1:] == ["MSE of a linear probe", "", "DWSNets **1.25**", "", "",
                         "4,000, as published", "*DWSNets 1.39*", "4,000 networks"]  # fmt: skip
    assert mnist[3:5] == ["DWSNets **50.00**", "probe **75.00**"]
    assert mnist[6:8] == ["55,000, as published", "*ScaleGMN 96.6*"]
    note = "Signs cost most.\n\n- and scales"
    out.write_text(out.read_text().replace(report.NOTES, f"{report.NOTES}\n{note}"))
    report.write(folders[:2], out)
    assert note in out.read_text()


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
    rows = [row for each in report.sections(report.collect(folders)) for row in each.rows]
    assert [row.values("mse") for row in rows] == [[1.0], [2.0]]


def test_a_model_that_is_measured_more_often_is_one_row(undrawn, tmp_path):
    """As M1 has it: tau after scaling by more and more; each with its command."""
    networks = {"train": 400, "validation": 50, "test": 50}
    records = []
    for seed in (0, 1):
        for power, tau in ((2, 0.3), (4, 0.1), (1, 0.6)):
            told = config(
                task="generalize", model="statnn", seed=seed, networks=networks,
                recipe={"name": "small-cnn", "activation": "relu"}, source="fashion-mnist",
                options={"rescale": float(power)}, task_options={"rescale": float(power)},
                command=f"wszoo eval run-{seed} --option rescale={power}",
            )  # fmt: skip
            measured = summary(
                0.0, task="generalize", model="statnn", seed=seed, metric="tau", higher=True,
                networks=400, minutes=2.0 + seed, source="fashion-mnist", recipe="small-cnn",
                validation={"tau": 0.8}, test={"tau": 0.8, "tau_rescaled": tau + 0.02 * seed},
            )  # fmt: skip
            records.append({"config": told, "summary": measured})
    # Of one seed more is known.
    options = {**told["task_options"], "rescale": 3.0}
    more = {**told, "seed": 0, "options": {"rescale": 3.0}, "task_options": options}
    once = {"tau": 0.8, "tau_rescaled": 0.2}
    first = {**measured, "seed": 0, "minutes": 2.0, "test": once}
    records.append({"config": more, "summary": first})
    # One that was trained anew is not that model, though it reached the same.
    anew = {**measured, "minutes": 9.0, "seed": 0}
    elsewhere = {**told, "seed": 0, "versions": {"torch": "elsewhere"}}
    records.append({"config": elsewhere, "summary": anew})
    (tmp_path / "kept.json").write_text(json.dumps(records))
    text = report.render(report.collect([tmp_path / "kept.json"]), tmp_path / "report.md")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    columns = [f"after scaling by up to {n}" for n in ("10", "100", "1,000", "10,000")]
    assert rows[0][3:7] == columns
    ours = [row for row in rows[1:] if row[0].startswith("StatNN") and "seed" in row[-1]]
    assert [row[3:7] for row in ours] == [
        ["0.61", "0.31", "0.2 (1 of the seeds)", "0.11"],
        ["0.62", "", "", ""],
    ]
    assert [row[-1].partition("epochs, ")[2] for row in ours] == ["2 seeds", "1 seed"]
    for power in (2, 4, 1):
        assert f"    wszoo eval run-0 --option rescale={power}" in text


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


def test_better_rows_come_first_among_those_of_a_scale(undrawn, tmp_path):
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
    section, few = report.sections(report.collect(folders))
    assert [row.model for row in section.rows] == ["dws", "nfn-np", "mlp"]
    assert [row.model for row in few.rows] == ["statnn"]
    text = report.render(report.collect(folders), tmp_path / "report.md")
    assert "**80.00**" in text
    assert "85.71 ± 0.57" in text


def test_a_run_stands_beside_the_tables_of_its_experiment():
    assert [table.experiment for table in tables_for(config())] == ["D3"]
    assert tables_for(config(recipe={"name": "mine"})) == []
    edit = config(task="edit", recipe={"name": "nfn"}, source="mnist", model="nfn-np")
    dilated = tables_for({**edit, "task_options": {"edit": "dilate"}})
    assert str(dilated[0].published("nfn-np")) == "0.068"
    assert tables_for({**edit, "task_options": {"edit": "other"}}) == []
    for activation, experiment in (("tanh", "M2"), ("relu", "N1")):
        recipe = {"name": "small-cnn", "activation": activation}
        cnns = config(task="generalize", recipe=recipe, source="cifar10", model="monomial")
        assert tables_for(cnns)[0].experiment == experiment


def test_tables_begin_with_known_models_and_do_not_overlap():
    from processors import MODELS

    seen = set()
    for table in published.TABLES:
        key = (table.task, table.recipe, table.source, table.options, table.fields)
        for name in table.values:
            assert (key, name) not in seen, (table.experiment, name)
            seen.add((key, name))
        models = {name.partition(" ")[0].rstrip(",") for name in table.values}
        later = {"ScaleGMN", "ProbeGen", "NG-GNN"}
        assert models & {*MODELS, *later} or "a plot" in table.where
        assert set(table.varies) <= {"blocks", "norm", "augment", "positions", "channels"}
    assert tables_for(config())[0].experiment == "D3"


def test_records_are_kept_and_read_again(undrawn, tmp_path):
    folders = three_seeds(tmp_path)
    kept = tmp_path / "kept.json"
    report.keep(report.collect(folders), kept)
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
    (picture,) = (out.parent / "report_figures").glob("*-tsne.png")
    for name in ("d3-ssl-sine-sine-ssl-4000.png", picture.name):
        assert f"report_figures/{name}" in text
        assert (out.parent / "report_figures" / name).is_file()
    assert len(json.loads((tmp_path / "kept.json").read_text())) == 3
    # Of the best model alone, unless all are asked for; a kept record has the picture still.
    other = write_run(tmp_path / "mlp", config(model="mlp"), summary(9.0))
    (other / "figures").mkdir()
    (other / "figures" / "tsne.png").write_bytes(b"png")
    assert run("report", tmp_path / "kept.json", other, "--out", out).exit_code == 0
    assert f"report_figures/{picture.name}" in out.read_text()
    assert out.read_text().count("tsne.png") == 1
    asked = run("report", tmp_path / "kept.json", other, "--out", out, "--confusion")
    assert asked.exit_code == 0
    assert out.read_text().count("tsne.png") == 2


def test_the_page_of_results_is_made_of_their_records(undrawn):
    """`wszoo report docs/results.json --out docs/results.md` changes nothing."""
    docs = Path(__file__).parents[1] / "docs"
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8")
    assert report.render(report.collect([docs / "results.json"]), page) == text
    linked = set(re.findall(r"\(results_figures/([^)]+)\)", text))
    assert linked == {path.name for path in (docs / "results_figures").iterdir()}
    opening = text.partition("\n## D")[0]
    notes = opening.partition(report.NOTES)[2].partition(report.END)[0].strip().splitlines()
    assert 5 < len(notes) <= 20


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
