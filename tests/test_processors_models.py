"""Every model by name: built, run, saved, loaded; in bfloat16 and compiled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from equivariance import distance, random_weights
from helpers import run

import processors
from processors import train as training
from processors.models import EDITORS, MODELS, OF_ALL, arguments
from processors.tasks import TASKS
from processors.tasks.tickets import SIZES
from zoo import NetworkSpec, Weights, ZooError

SPEC = NetworkSpec.mlp([2, 4, 3, 1], coord_order="xy")
SMALL = {
    "dws": {"chan": 8, "layers": 2},
    "nfn-np": {"channels": [4, 4], "fourier": 4, "head": 8},
    "nfn-hnp": {"channels": [4, 4], "fourier": 4, "head": 8},
    "nfn-pt": {"channels": [4, 4], "fourier": 4, "head": 8},
    "monomial": {"channels": [4, 4, 1], "base_channels": [4], "fourier": 4, "head": 8},
    "graded": {"chan": 4, "width": 8},
    "probe": {"probes": 8, "width": 8},
    "mlp": {"width": 8},
    "mlp-aug": {"width": 8},
    "mlp-align": {"width": 8},
    "inr2vec": {"width": 8},
    "transformer": {"width": 8},
    "statnn": {"width": 8},
}
CASES = [(name, 3) for name in SMALL] + [(name, None) for name in EDITORS]


def small(name, out=3, stats=None):
    torch.manual_seed(0)
    return processors.build(name, SPEC, out, stats, **SMALL[name])


def stats():
    found = {}
    for name, shape in SPEC.tensors.items():
        for kind in ("mean", "std"):
            found[f"entry.{kind}.{name}"] = torch.rand(shape) + 0.5
            found[f"tensor.{kind}.{name}"] = torch.rand(1) + 0.5
    return found


def plain(nets=3):
    return random_weights(SPEC, None, nets, dtype=torch.float32)


def test_the_list_is_complete():
    assert list(SMALL) == list(MODELS)


@pytest.mark.parametrize(("name", "out"), CASES)
def test_saving_and_loading_gives_the_same_model(name, out, tmp_path):
    model = small(name, out, stats()).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["name"] == name
    assert NetworkSpec.from_json(config["spec"]) == SPEC
    assert (tmp_path / "model.safetensors").exists()
    loaded = processors.load(tmp_path).eval()
    assert loaded.spec == SPEC
    weights = plain()
    with torch.no_grad():
        found = model(weights)
        assert distance(loaded(weights), found) == 0
    if out is None:
        assert isinstance(found, Weights)
    else:
        assert found.shape == (3, 3)
    # The statistics came along: a model without them gives something else, if it has any.
    with torch.no_grad():
        normalised = model.sizes.get("statistics", "entry") != "none" and name != "probe"
        assert (distance(small(name, out).eval()(weights), found) > 0) == normalised


def test_a_run_is_loaded_by_its_folder_once_it_has_a_model(tmp_path):
    (tmp_path / "config.json").write_text('{"wszoo": "run"}')
    with pytest.raises(ZooError, match="holds no model; a run has one when it is finished"):
        processors.load(tmp_path)
    small("mlp", 2, stats()).save_pretrained(tmp_path / "model")
    with torch.no_grad():
        found = [processors.load(tmp_path / part).eval()(plain()) for part in ("", "model")]
    assert distance(*found) == 0
    (tmp_path / "none").mkdir()
    with pytest.raises(ZooError, match="none holds no model"):
        processors.load(tmp_path / "none")


@pytest.mark.parametrize(("name", "out"), CASES)
def test_bfloat16_autocast_trains(name, out):
    model = small(name, out)
    weights = plain(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(weights)
    tensors = found.tensors().values() if isinstance(found, Weights) else [found]
    sum(tensor.float().square().sum() for tensor in tensors).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    model.eval()
    with torch.no_grad():
        exact = model(weights)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(weights)
    assert distance(_float(rounded), exact) < 0.05


def _float(found):
    return found.to(torch.float32) if isinstance(found, Weights) else found.float()


# Apart from this process, whose annotations are checked, which cannot be compiled.
_COMPILED = """
import torch
import processors
from zoo import NetworkSpec, Weights

torch.set_num_threads(1)
spec = NetworkSpec.mlp([2, 4, 3, 1])
weights = Weights.unflatten(torch.randn(3, spec.param_count), spec)
for name, sizes in {sizes!r}.items():
    model = processors.build(name, spec, 3, **sizes).eval()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(weights), model(weights), rtol=1e-4, atol=1e-5)
    compiled(weights).sum().backward()
"""


def test_models_compile():
    """Traced and differentiated; what inductor makes of it is timed in the benchmark."""
    sizes = {name: SMALL[name] for name in ("dws", "nfn-np", "mlp-align")}
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", _COMPILED.format(sizes=sizes)],
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"unknown model 'gnn'; known: dws, nfn-np, .*statnn"):
        processors.build("gnn", SPEC)
    with pytest.raises(ValueError, match="'statnn' cannot edit networks; known: dws, nfn-np"):
        processors.build("statnn", SPEC, out=None)
    with pytest.raises(AttributeError, match="no attribute 'gnn'"):
        processors.gnn  # noqa: B018


def test_every_listed_name_is_there():
    for name in processors.__all__:
        assert getattr(processors, name) is not None


def test_statnn_has_the_published_size():
    """1.06M: 56 statistics of the 8 tensors of the Small CNN Zoo, 56-1000-1000-1."""
    model = processors.build("statnn", NetworkSpec.cnn([1, 16, 16, 16], 10), out=1)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == 56 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 + 1 == 1_059_001


# ---- every model of every task


@pytest.fixture(scope="module")
def zoos(digits_zoo, waves_zoo, trajectories_zoo, tmp_path_factory) -> dict[str, Path]:
    """A zoo for every task."""
    home = tmp_path_factory.mktemp("zoos")
    tenths, pairs = home / "tenths", home / "pairs"
    small = ("--hidden", 6, "--layers", 3, "--epochs", 1, "--batch", 256)
    for words in (
        ("fit-trajectories", "digits", "--limit", 12, "--checkpoints", "tenths",
         "--validation-share", 0.2, "--out", tenths),
        ("fit-classifiers", "digits", "--limit", 12, "--out", pairs),
    ):  # fmt: skip
        result = run(*words, *small)
        assert result.exit_code == 0, result.output
    found = {"classify": digits_zoo, "edit": digits_zoo, "regress": waves_zoo, "ssl": waves_zoo}
    return {**found, "generalize": trajectories_zoo, "tickets": tenths, "adapt": pairs}


class Begun(Exception):
    """A training that would begin now."""

    def __init__(self, config):
        self.config = config


REFUSED = {
    "tickets": ({"nfn-np", "nfn-hnp", "nfn-pt"}, "tickets are predicted by NFN layers"),
    "edit": (set(EDITORS), "cannot edit networks"),
    "adapt": (set(EDITORS), "cannot edit networks"),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_model_of_every_task_is_built_with_its_sizes(task, zoos, tmp_path, monkeypatch):
    """As `fit_model` does before it begins: what papers say fits the class that it is for."""

    def begins(job, overwrite):
        raise Begun(job.config)

    monkeypatch.setattr(training, "_in_folder", begins)
    fit, refusal = REFUSED.get(task, (set(MODELS), ""))
    options = {"target": "frequency"} if task == "regress" else {}
    for name in MODELS:
        given = (task, name, zoos[task], tmp_path / "run")
        if name not in fit:
            with pytest.raises(ValueError, match=refusal):
                processors.fit_model(*given, options=options, device="cpu")
            continue
        with pytest.raises(Begun) as begun:
            processors.fit_model(*given, options=options, device="cpu")
        config = begun.value.config
        # Those of tickets are the autoencoder's.
        takes = {*SIZES} if task == "tickets" else {*arguments(name), *OF_ALL}
        assert {*config.model_sizes} <= takes, name
        assert config.settings.total(per_epoch=3) > 0
    assert not (tmp_path / "run").exists()
