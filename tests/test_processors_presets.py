"""What is taken where nothing else is asked for: data with a source, and the parity that it has."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers import line_of, run

import processors
from processors import presets
from processors.config import Request
from processors.linear import EquivariantLinear
from processors.models import MODELS, OF_ALL, arguments, check_given
from processors.options import OPTIONS
from processors.presets import SMALL, TABLE, Situation, chosen, fitted, too_long
from processors.settings import Settings
from processors.sizes import check_sizes
from processors.tasks.tickets import SIZES
from zoo import NetworkSpec, fitted_by, select


def taken(task, model, preset="paper", **more):
    return chosen(Situation(task, model, **more), preset)


@pytest.mark.parametrize("entry", [*TABLE, *SMALL], ids=lambda e: f"{e.preset}-{e.task}-{e.about}")
def test_an_entry_says_its_source_and_names_what_exists(entry):
    assert entry.source
    assert entry.task in OPTIONS
    assert {*entry.models} <= set(MODELS)
    assert {*entry.settings} <= set(asdict(Settings()))
    OPTIONS[entry.task](**entry.options)
    if entry.task == "tickets":  # sizes are those of the autoencoder
        assert {*entry.sizes} <= {*SIZES}
        check_sizes(entry.sizes)
        return
    for model in entry.models or MODELS:
        takes = {*arguments(model), *OF_ALL}
        fitting = {name: value for name, value in entry.sizes.items() if name in takes}
        assert entry.sizes.keys() == fitting.keys() or not entry.models
        check_given(model, fitting)


@pytest.mark.parametrize("task", ["classify", "edit", "generalize"])
@pytest.mark.parametrize("model", ["nfn-np", "nfn-hnp", "monomial"])
def test_models_of_nfn_read_raw_weights(task, model):
    normalised = (task, model) == ("generalize", "nfn-np")
    expected = "entry" if normalised else "none"
    assert taken(task, model, recipe="nfn", source="mnist").sizes["statistics"] == expected
    spec = NetworkSpec.mlp([2, 4, 4, 1])
    if not normalised:
        assert processors.build(model, spec).sizes["statistics"] == "none"


# PARITY: what the released codes have, where it moves a number.
@pytest.mark.parametrize(
    ("task", "model", "more", "expected"),
    [
        ("classify", "nfn-np", {"recipe": "dws"}, {"augment": "none"}),
        ("classify", "monomial", {"recipe": "nfn"}, {"augment": "none", "warmup": 10_000}),
        ("classify", "dws", {"recipe": "dws"}, {"augment": "move,noise,dropout", "batch": 512}),
        ("classify", "dws", {"recipe": "nfn"}, {"augment": "none"}),
        ("classify", "nfn-np", {}, {"fourier_scale": 10.0, "head_dropout": 0.5, "layers": False}),
        ("classify", "nfn-np", {}, {"max_freq": 10.0, "bands": 6, "lr": 1e-4, "steps": 200_000}),
        (
            "classify", "mlp", {"recipe": "nfn"},
            {"hidden": 3, "width": 1000, "norm": False, "statistics": "none"},
        ),
        ("classify", "mlp", {"recipe": "dws"}, {"params": 550_000}),
        (
            "classify", "monomial", {"source": "fashion-mnist"},
            {"base": "hnp", "head": 500, "fourier_scale": 10.0, "head_dropout": 0.5,
             "warmup": 20_000},
        ),
        (
            "classify", "monomial", {"source": "imagefolder:cifar10"},
            {"base": "np", "max_freq": 10.0, "bands": 6, "channels": [16, 16, 1],
             "head_dropout": 0.5, "warmup": 20_000, "initial": "fan-in"},
        ),
        (
            "generalize", "nfn-np", {"conv": True},
            {"statistics": "entry", "positions": "learned-each", "batch": 8},
        ),
        ("generalize", "nfn-hnp", {"conv": True}, {"statistics": "none", "positions": "none"}),
        ("generalize", "statnn", {"conv": True}, {"statistics": "none"}),
        ("generalize", "monomial", {"conv": True}, {"initial": "xavier", "augment": "none"}),
        ("generalize", "nfn-hnp", {"recipe": "nfn-mlp5"}, {"batch": 8, "augment": "none"}),
        (
            "ssl", "dws", {"picture": False},
            {"pair": "clean,augmented", "projection": 16, "select": "loss",
             "augment": "noise,dropout"},
        ),
        ("edit", "nfn-np", {}, {"fourier_scale": 3.0, "max_freq": 3.0, "bands": 3, "warmup": 1000}),
    ],
)  # fmt: skip
def test_what_the_released_codes_have_is_taken(task, model, more, expected):
    found = taken(task, model, **more)
    both = {**asdict(found.settings), **found.sizes, **found.options}
    assert {name: both[name] for name in expected} == expected


def test_few_cnns_are_read_by_monomial_nfn_in_the_units_of_their_tensors():
    """What raw weights cost there is in docs/learnt.md; the paper's preset is the paper's."""
    for conv, preset, statistics in ((True, "small", "tensor"), (True, "paper", "none"),
                                     (False, "small", "none")):  # fmt: skip
        sizes = taken("generalize", "monomial", preset, conv=conv).sizes
        assert sizes.get("statistics", "none") == statistics


def test_moves_are_for_pictures():
    assert taken("classify", "dws", picture=False).options["augment"] == "noise,dropout"


def test_solids_are_moved_in_space_where_it_was_measured():
    shapes = {"recipe": "udf", "source": "shapes", "picture": False, "space": True, "inputs": 3}
    for preset in ("paper", "small"):
        found = taken("classify", "graded", preset, **shapes).options
        assert (found["augment"], found["degrees"]) == ("move,noise", 180.0)
        probe = taken("classify", "probe", preset, **shapes)
        assert (probe.options["augment"], probe.sizes["lattice"]) == ("move", 12)
    assert taken("classify", "dws", **shapes).options["augment"] == "noise,dropout"
    nfn = taken("classify", "nfn-np", **shapes)
    assert (nfn.sizes["channels"], nfn.sizes["head"]) == ([512] * 3, 1000)
    assert (nfn.settings.steps, nfn.settings.batch, nfn.settings.lr) == (200_000, 32, 1e-4)
    assert nfn.options["augment"] == "none"
    # Pictures are asked as they were.
    assert "lattice" not in taken("classify", "probe", recipe="dws").sizes


def test_small_does_more_where_networks_are_many():
    """Frequencies that tell 11,000 networks apart make a model overfit 1,457."""
    least = presets.MANY_NETWORKS
    for model, scales in (
        ("nfn-np", (0.3, 1.0)),
        ("nfn-hnp", (0.3, 1.0)),
        ("monomial", (3.0, 10.0)),
    ):
        found = [
            taken("classify", model, "small", recipe="dws", networks=n) for n in (least - 1, least)
        ]
        assert tuple(each.sizes["fourier_scale"] for each in found) == scales
        assert [each.settings.lr for each in found] == [3e-3, 1e-3]
        assert found[1].sizes["fourier"] == 64
        paper = [taken("classify", model, networks=n) for n in (least - 1, least)]
        assert paper[0] == paper[1]
        other = taken("classify", model, "small", recipe="fast", networks=least)
        assert other.sizes["fourier_scale"] == scales[0]  # where it was not measured
    nfn = taken("classify", "nfn-np", "small", recipe="nfn", networks=least)
    assert (nfn.sizes["fourier_scale"], nfn.options["augment"]) == (2.0, "none")
    few = taken("classify", "nfn-np", "small", recipe="nfn", networks=least - 1)
    assert (few.sizes["fourier_scale"], few.options["augment"]) == (0.3, "noise")


def test_presets_by_recipe_reach_rows_that_were_selected(digits_zoo, tmp_path, monkeypatch):
    entry = presets.Entry(
        "classify", "", "ours", ("statnn",), recipes=("dws",), sizes={"width": 9}, preset="small",
    )  # fmt: skip
    monkeypatch.setattr(presets, "SMALL", (*SMALL, entry))
    select(digits_zoo, "index >= 3", tmp_path / "part", parquet=False)
    out = tmp_path / "run"
    words = ("--model", "statnn", "--device", "cpu", "--epochs", 1, "--out", out)
    made = run("train", "classify", tmp_path / "part", *words)
    assert made.exit_code == 0, made.output
    assert json.loads((out / "config.json").read_text())["model_sizes"]["width"] == 9


def test_a_training_takes_what_is_for_as_many_networks_as_it_has(digits_zoo, tmp_path, monkeypatch):
    entry = presets.Entry(
        "classify", "", "many", ("statnn",), least=20, sizes={"width": 9}, preset="small",
    )  # fmt: skip
    monkeypatch.setattr(presets, "SMALL", (*SMALL, entry))
    widths = []
    for many in (19, 20):
        words = ("--device", "cpu", "--epochs", 1, "--split-limit", f"train={many}")
        out = tmp_path / str(many)
        made = run("train", "classify", digits_zoo, "--model", "statnn", *words, "--out", out)
        assert made.exit_code == 0, made.output
        widths.append(json.loads((out / "config.json").read_text())["model_sizes"].get("width"))
    assert widths[1] == 9
    assert widths[0] != 9


def test_a_preset_is_taken_by_the_number_of_networks():
    for task, model, least in (
        ("edit", "dws", 20_000),
        ("ssl", "own.module:Class", 20_000),
        ("classify", "graded", 8_000),
    ):
        found = [presets.default_preset(n, task, model) for n in (least - 1, least)]
        assert found == ["small", "paper"]
    # Measured on 55,000 digits: DWSNets .945 by it, .857 in their paper.
    assert presets.default_preset(55_000, "classify", "dws") == "small"
    with pytest.raises(ValueError, match="unknown preset 'large'; known: paper, small"):
        taken("classify", "dws", "large")


def test_a_warm_up_scales_with_the_run_unless_it_is_asked_for():
    usual = taken("classify", "nfn-np").settings
    short = replace(usual, steps=None, epochs=30)
    assert fitted(usual, short, frozenset({"epochs"}), 46).warmup == 69
    assert fitted(usual, short, frozenset({"epochs", "warmup"}), 46).warmup == 10_000
    assert fitted(usual, replace(usual, steps=400_000), frozenset({"steps"}), 46).warmup == 10_000
    patient = replace(short, patience=80, evaluations=20)
    assert fitted(usual, patient, frozenset({"epochs"}), 46).patience == 19
    assert fitted(usual, patient, frozenset({"patience"}), 46).patience == 80
    assert not too_long(fitted(usual, short, frozenset(), 46), 46)
    (line,) = too_long(short, 46)
    assert line.startswith("--warmup 10,000 is longer than the run of 1,380 updates")
    (line,) = too_long(replace(patient, warmup=0), 46)
    assert line.startswith("--patience 80 never runs out: there are 15 validations")


def hnp_released(spec: NetworkSpec, inp: int, out: int) -> int:
    """Parameters of the released HNPLinear on an MLP, map by map, as its modules are made.

    Every map has a bias of its own. Rows of maps are what comes in: of the pooled vector that
    all targets get, of neurons, of entries.
    """
    n_in, n_out, depth = spec.inp, spec.out, len(spec.layers)
    # Means of all weights and biases; and of the ends, means over one axis, and the last bias.
    pooled = 2 * depth + n_in + 2 * n_out

    def linear(rows: int, targets: int = 1) -> int:
        return (rows * inp + 1) * targets * out

    first = 1 + 1 + n_in + (n_out if depth == 2 else 0)
    last = n_out + 1 + (n_in if depth == 2 else 0)
    total = linear(first, n_in) + linear(pooled, n_in) + linear(first) + linear(pooled)
    total += linear(last, n_out) + 2 * linear(pooled, n_out)
    for layer in range(1, depth - 1):
        columns = 3 + (n_out if layer == depth - 2 else 0)
        rows = 3 + (n_in if layer == 1 else 0)
        total += linear(1) + linear(rows) + linear(columns) + linear(pooled)
        total += linear(columns) + linear(pooled)
    return total


def np_released(spec: NetworkSpec, inp: int, out: int) -> int:
    """The same of NPLinear."""
    depth = len(spec.layers)

    def linear(rows: int) -> int:
        return (rows * inp + 1) * out

    total = 0
    for layer in range(depth):
        rows, columns = 1 + 2 * (layer > 0), 2 + (layer < depth - 1)
        total += linear(1) + linear(2 * depth) + linear(rows) + linear(columns)
        total += linear(columns) + linear(2 * depth)
    return total


def redundant(spec: NetworkSpec, group: str, inp: int, out: int) -> dict[str, int]:
    """What the released layers have over the complete one of three layers, and lack."""
    n_in, n_out = spec.inp, spec.out
    assert len(spec.layers) == 3
    if group == "np":
        # One constant does for the 4 maps of each weight, and for the 2 of each bias.
        return {"constants": 3 * out * (3 + 1)}
    targets = n_in + 1 + 2 + 2 * n_out  # of what is pooled over all: entries or neurons
    return {
        # One constant a target: first weights 2 maps, biases 2, the middle 4, last weights 2.
        "constants": out * (n_in + 1 + 3 + 1 + n_out),
        # The first weights' mean is that of their column means, the last ones' alike, and the
        # last bias' mean is that of its entries.
        "means of means": 3 * targets * inp * out,
        # Of the middle weights' rows: the mean over inputs of the first ones; of its columns and
        # of the middle bias: the mean over outputs of the last ones.
        "means of neurons": 3 * inp * out,
        # The middle bias, neuron by neuron, in the last weights.
        "lacking": -n_out * inp * out,
    }


@pytest.mark.parametrize(
    ("source", "outputs", "group", "published"),
    [("fashion-mnist", 1, "hnp", "20.49M"), ("cifar10", 3, "np", "16.25M")],
)
def test_the_published_sizes_of_monomial_are_accounted_for(source, outputs, group, published):
    spec = NetworkSpec.mlp([2, 32, 32, outputs], "sin", omega=30.0)
    sizes = taken("classify", "monomial", source=source).sizes
    model = processors.build("monomial", spec, out=10, **sizes)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert model.sizes["base"] == group
    released = {"hnp": hnp_released, "np": np_released}[group]
    for layer in model.model.features[-1]:
        if not isinstance(layer, EquivariantLinear):
            continue
        inp, out = layer.chan_in, layer.chan_out
        ours = sum(parameter.numel() for parameter in layer.parameters())
        more = sum(redundant(spec, group, inp, out).values())
        assert ours + more == released(spec, inp, out)
        counted += more
    assert f"{counted / 1e6:.2f}M" == published


def test_a_training_says_what_it_will_do_and_what_it_came_to(tmp_path, digits_zoo):
    words = ("train", "classify", digits_zoo, "--model", "statnn", "--device", "cpu")
    result = run(*words, "--epochs", 2, "--lr", 1e-9, "--out", tmp_path / "a", "--warmup", 50)
    assert result.exit_code == 0, result.output
    first, second, third, *_ = result.stderr.splitlines()
    networks = json.loads((tmp_path / "a" / "config.json").read_text())["networks"]["train"]
    assert first == "preset small; --preset paper does what the model's paper does"
    assert second.startswith(f"{networks} networks, batch ")
    assert "--warmup 50 is longer than the run of" in third
    assert result.stderr.count("within two standard errors") == 1
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    score = summary["constant"]["score"]
    assert f", chance {score:.4g}" in result.stdout
    paper = run(*words, "--epochs", 2, "--out", tmp_path / "b", "--preset", "paper")
    assert paper.stderr.startswith("preset paper, as asked for")
    assert "--preset paper" in json.loads((tmp_path / "b" / "config.json").read_text())["command"]


def test_who_has_many_networks_is_told_of_what_takes_minutes(tmp_path, digits_zoo, monkeypatch):
    monkeypatch.setattr(presets, "SMALL_TASKS", ())
    monkeypatch.setattr(presets, "PAPER_NETWORKS", 10)
    monkeypatch.setattr(presets, "READERS_NETWORKS", 10)
    few = ("--device", "cpu", "--epochs", 1, "--split-limit", "train=20")
    for model, more in (("statnn", "; --preset small learns in minutes"), ("probe", "")):
        words = ("train", "classify", digits_zoo, "--model", model, *few, "--out", tmp_path / model)
        first = run(*words).stderr.splitlines()[0]
        assert first == f"preset paper: 20 training networks, at least 10{more}"
    monkeypatch.setattr(presets, "SMALL", ())  # as of most tasks, where both do the same
    first = run(*words[:4], "statnn", *few, "--out", tmp_path / "same").stderr.splitlines()[0]
    assert first == "preset paper: 20 training networks, at least 10"


@pytest.mark.parametrize("named", [(), ("--preset", "small"), ("--preset", "paper")])
def test_the_same_command_is_the_same_run_whatever_preset_it_names(tmp_path, digits_zoo, named):
    """Its warm-up was fitted to its length when it began, and is not fitted again."""
    words = (
        "train", "classify", digits_zoo, "--model", "nfn-hnp", "--device", "cpu", "--epochs", 2,
        "--set", "channels=[4]", "--set", "fourier=4", "--split-limit", "train=32", *named,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert run(*words).exit_code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    usual = taken("classify", "nfn-hnp", config["preset"], recipe="fast", source="digits").settings
    assert config["settings"]["warmup"] < usual.warmup
    before = (tmp_path / "run" / "summary.json").read_bytes()
    again = run(*words)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_what_is_not_asked_for_stays_as_the_run_has_it(tmp_path, digits_zoo, monkeypatch):
    """Whatever a later version takes: a run goes on, or is left, as it was begun."""
    words = ("train", "classify", digits_zoo, "--model", "statnn", "--device", "cpu", "--epochs", 2)
    out = tmp_path / "run"
    assert run(*words, "--set", "width=8", "--out", out).exit_code == 0
    before = (out / "summary.json").read_bytes()
    entry = presets.Entry(
        "classify", "", "a later version", settings={"lr": 0.5, "batch": 7, "warmup": 3},
        sizes={"hidden": 5}, options={"augment": "noise", "noise": 0.03}, preset="small",
    )  # fmt: skip
    monkeypatch.setattr(presets, "SMALL", (*SMALL, entry))
    same = run(*words, "--set", "width=8", "--out", out)
    assert same.exit_code == 0, same.output
    assert (out / "summary.json").read_bytes() == before
    other = run(*words, "--set", "width=8", "--preset", "paper", "--out", out)
    assert "holds another run" in line_of(other, 2)
    longer = run(*words[:-1], 3, "--set", "width=8", "--out", out)
    assert longer.exit_code == 0, longer.output
    assert json.loads((out / "config.json").read_text())["settings"]["epochs"] == 3
    fresh = run(*words, "--out", tmp_path / "fresh")
    assert fresh.exit_code == 0, fresh.output
    told = json.loads((tmp_path / "fresh" / "config.json").read_text())
    assert told["settings"]["batch"] == 7
    assert told["model_sizes"]["hidden"] == 5
    assert told["task_options"]["noise"] == 0.03
    assert run(*words, "--noise", 0.2, "--out", tmp_path / "told").exit_code == 0
    told = json.loads((tmp_path / "told" / "config.json").read_text())
    assert (told["task_options"]["augment"], told["task_options"]["noise"]) == ("noise", 0.2)


# What a preset looks at beside names, by the kind of a zoo's recipe.
FACTS = {
    "image": {},
    "sine": {"inputs": 1, "picture": False},
    "solid": {"inputs": 3, "picture": False, "space": True},
    "shape": {"inputs": 3, "picture": False, "space": True},
    "trajectory": {"picture": False},
    "classifier": {"inputs": 3_072, "picture": False},
}


def difference(config, request):
    """What a command would do today otherwise than its row did: names, as it was, as it is."""
    recipe, networks = fitted_by(config["recipe"]), config["networks"]["train"]
    name = str(recipe.get("name", ""))
    of = Situation(
        request.task, request.model, name, config["source"], conv=name == "small-cnn",
        networks=networks, **FACTS.get(recipe["kind"], {}),
    )  # fmt: skip
    preset = request.preset or presets.default_preset(networks, of.task, of.model)
    found = chosen(of, preset)
    settings = asdict(request.settled(found.settings))
    was, sizes = ({"canonical": False, **x} for x in (config["model_sizes"], found.sizes))
    sizes, asked = {**sizes, **request.sizes}, {**found.options, **request.options}
    # Those are fitted to the length of a run; what auto stands for is not known here.
    free = {"warmup", "patience"}
    asked |= {} if "auto" not in str(asked.get("augment")) else config["task_options"]
    pairs = {
        **{name: (config["settings"].get(name), settings[name]) for name in settings.keys() - free},
        **{n: (was.get(n), sizes.get(n)) for n in was | sizes},
        **{n: (config["task_options"].get(n), value) for n, value in asked.items()},
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def test_rows_of_the_results_are_what_their_commands_do_today(monkeypatch):
    """A preset may change; commands of rows that it made before say by flags what it was."""
    asked = []
    monkeypatch.setattr("cli.train._train", lambda request, *rest: asked.append(request))
    records = json.loads((Path(__file__).parents[1] / "docs" / "results.json").read_text("utf-8"))
    wrong, seen = {}, 0
    for config in (record["config"] for record in records):
        words = shlex.split(config["command"])
        if "preset" not in config or words[1] != "train":
            continue
        seen += 1
        assert run(*words[1:]).exit_code == 0, config["command"]
        if found := difference(config, asked[-1]):
            wrong[config["command"]] = found
    assert seen > 100
    assert not wrong, "\n".join(f"{command}: {found}" for command, found in wrong.items())


def test_a_row_of_another_preset_is_seen():
    config = {
        "recipe": {"kind": "image", "name": "dws"}, "source": "mnist", "networks": {"train": 1_000},
        "settings": asdict(taken("classify", "mlp", "small").settings), "task_options": {},
        "model_sizes": {"params": 100_000},
    }  # fmt: skip
    ask = Request("classify", "mlp", "zoos/a", options={})
    assert difference(config, ask).keys() == {"augment"}
    config["task_options"]["augment"] = "none"
    assert difference(config, ask) == {}
    config["settings"]["batch"] = 7
    assert difference(config, ask) == {"batch": (7, 32)}
    assert difference(config, replace(ask, settings={"batch": 7})) == {}
