"""Saved models hold all that they are built from, and load whole or not at all."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from equivariance import random_weights
from safetensors.torch import load_file, save_file

import processors
from processors import saving
from processors.dws import DWSNet
from processors.models import Processor, arguments
from processors.vae import TicketVAE
from zoo import NetworkSpec, ZooError

SPEC = NetworkSpec.mlp([2, 4, 3, 1], coord_order="xy")
BUILT = {
    "dws": {"chan": 8, "layers": 2},
    "nfn-hnp": {"channels": [4, 4], "fourier": 4, "head": 8},
    "monomial": {"channels": [4, 1], "base_channels": [4], "fourier": 4, "head": 8},
    "mlp": {"params": 2000},
    "transformer": {"params": 5000},
}


@pytest.fixture
def saved(tmp_path) -> Path:
    processors.build("mlp", SPEC, 3, width=8).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("name", BUILT)
def test_every_argument_is_saved_as_it_was_settled(name, tmp_path):
    model = processors.build(name, SPEC, 3, **BUILT[name])
    model.save_pretrained(tmp_path)
    kept = config_of(tmp_path)
    assert kept["resolved"] is True
    assert set(kept["sizes"]) == set(arguments(name))
    # Nothing is left to a default of the version that loads it, but what there is not.
    empty = {key for key, value in kept["sizes"].items() if value is None}
    assert empty <= {"base_channels", "params"}
    again = processors.load(tmp_path)
    assert again.sizes == model.sizes
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)


def test_a_saved_model_does_not_change_with_the_defaults(tmp_path, monkeypatch):
    """Neither one of today nor one of 324dc88, whose config.json has what was given alone."""
    model = processors.build("dws", SPEC, 3, chan=8, layers=2).eval()
    model.save_pretrained(tmp_path / "new")
    old = shutil.copytree(tmp_path / "new", tmp_path / "old")
    kept = config_of(old)
    del kept["resolved"]
    kept |= {"sizes": {"chan": 8, "layers": 2}, "stats": None}
    (old / "config.json").write_text(json.dumps(kept))
    # As if a later version pooled by means and dropped features.
    init = inspect.unwrap(DWSNet.__init__)
    names = list(inspect.signature(init).parameters)[-len(init.__defaults__) :]
    defaults = {**dict(zip(names, init.__defaults__, strict=True)), "pool": "mean", "dropout": 0.5}
    monkeypatch.setattr(init, "__defaults__", tuple(defaults.values()))
    assert processors.build("dws", SPEC, 3, chan=8, layers=2).sizes["pool"] == "mean"
    weights = random_weights(SPEC, None, 4, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(weights)
        for folder in ("new", "old"):
            found = processors.load(tmp_path / folder).eval()
            assert found.sizes == model.sizes
            assert torch.equal(found(weights), wanted)


DAMAGE = {
    "cut": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-1]
    ),
    "empty": lambda f: (f / "model.safetensors").write_bytes(b""),
    "gone": lambda f: (f / "model.safetensors").unlink(),
    "folder": lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
}


def changed_state(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", r"model\.safetensors is damaged"),
        ("empty", r"model\.safetensors is damaged"),
        ("gone", r"model\.safetensors is missing"),
        ("folder", r"model\.safetensors: expected a plain file, it is a folder"),
    ],
)
def test_damaged_weights_are_named(kind, message, saved):
    DAMAGE[kind](saved)
    with pytest.raises(ZooError, match=message):
        processors.load(saved)


def nan(state: dict[str, Any]) -> None:
    state["model.layers.0.weight"][0, 0] = float("nan")


def infinite(state: dict[str, Any]) -> None:
    state["model.layers.0.bias"][0] = float("inf")


def lacking(state: dict[str, Any]) -> None:
    del state["model.layers.0.bias"]


def foreign(state: dict[str, Any]) -> None:
    state["more"] = torch.zeros(1)


def reshaped(state: dict[str, Any]) -> None:
    state["model.layers.0.weight"] = state["model.layers.0.weight"].T.contiguous()


def retyped(state: dict[str, Any]) -> None:
    state["model.layers.0.bias"] = state["model.layers.0.bias"].to(torch.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, r"tensor 'model\.layers\.0\.weight' has numbers that are not finite"),
        (infinite, r"tensor 'model\.layers\.0\.bias' has numbers that are not finite"),
        (lacking, r"lacks the tensor 'model\.layers\.0\.bias'"),
        (foreign, "has a tensor that the model has not, 'more'"),
        (
            reshaped,
            r"'model\.layers\.0\.weight': expected \(8, 31\) of torch\.float32, got \(31, 8",
        ),
        (
            retyped,
            r"'model\.layers\.0\.bias': expected \(8,\) of torch\.float32, got \(8,\) of I32",
        ),
    ],
)
def test_tensors_are_exactly_those_of_the_model(change, message, saved):
    changed_state(saved, change)
    with pytest.raises(ZooError, match=rf"model\.safetensors.*{message}"):
        processors.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gnn"}, "cannot be built: unknown model 'gnn'; known: dws"),
        ({"name": 3}, "name: expected a name on one line of .*, got 3"),
        ({"out": 0}, "out: expected an integer from 1 to .*, got 0"),
        ({"out": 3.0}, r"out: expected an integer from 1 to .*, got 3\.0"),
        ({"sizes": {"widht": 8}}, "no argument 'widht'"),
        ({"sizes": {"width": 10**12}}, "width must be from 1 to"),
        ({"sizes": {"hidden": 10**9}}, "hidden must be from 1 to 1,000"),
        ({"sizes": {"width": 1 << 24}}, r"tensor 'model\.layers\.0\.weight': expected \(16777216"),
        ({"sizes": []}, "sizes: expected an object or null, got"),
        ({"spec": []}, "spec: expected an object, got"),
        ({"spec": {"layers": 3, "conventions": {}}}, "config.json: spec: "),
        ({"narrow": -1}, "narrow: expected an integer from 0 to 2147483647, got -1"),
        ({"readout": {"mean": [0.0], "std": [1.0]}}, "readout: expected 3 means and deviations"),
        ({"readout": {"mean": [0.0] * 3, "std": [0.0] * 3}}, r"readout\.std\[0\]: expected"),
        ({"more": 1}, "more: unknown field; known: name"),
        ({"stats": 1}, "stats: expected null, got 1"),
    ],
)  # fmt: skip
def test_what_config_json_may_say(change, message, saved):
    (saved / "config.json").write_text(json.dumps({**config_of(saved), **change}))
    with pytest.raises(ZooError, match=message):
        processors.load(saved)


@pytest.mark.parametrize("field", ["spec", "out", "sizes", "narrow", "readout"])
def test_no_field_may_be_missing(field, saved):
    kept = config_of(saved)
    del kept[field]
    (saved / "config.json").write_text(json.dumps(kept))
    message = "holds no model" if field == "spec" else f"{field}: is missing"
    with pytest.raises(ZooError, match=message):
        processors.load(saved)


def test_models_of_tickets_too(tmp_path):
    TicketVAE(SPEC.to_json(), "np", chan=4, layers=2, latent=2).save_pretrained(tmp_path)
    assert config_of(tmp_path).keys() == {"spec", "symmetry", "chan", "layers", "latent"}
    assert isinstance(processors.load(tmp_path), TicketVAE)
    assert isinstance(TicketVAE.from_pretrained(tmp_path), TicketVAE)
    with pytest.raises(ZooError, match="holds a TicketVAE, not a Processor"):
        Processor.from_pretrained(tmp_path)
    normed = TicketVAE(SPEC.to_json(), "np", chan=4, layers=2, latent=2, layer_norm=True)
    normed.save_pretrained(tmp_path / "normed")
    again = processors.load(tmp_path / "normed")
    assert again.state_dict().keys() == normed.state_dict().keys()
    assert any("norm" in type(module).__name__.lower() for module in again.encoder.modules())
    placed = TicketVAE(SPEC.to_json(), "np", chan=4, layers=2, latent=2, positions="learned-each")
    placed.save_pretrained(tmp_path / "placed")
    again = processors.load(tmp_path / "placed")
    torch.testing.assert_close(again.state_dict(), placed.state_dict())
    kept = config_of(tmp_path)
    for change, message in (
        ({"symmetry": "mono"}, "symmetry"),
        ({"chan": 0}, "chan"),
        ({"positions": "all"}, "positions"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**kept, **change}))
        with pytest.raises(ZooError, match=rf"config\.json: {message}: expected"):
            processors.load(tmp_path)


def test_what_is_no_model(tmp_path, saved):
    with pytest.raises(ZooError, match=r"there is no folder .*nowhere, and on the Hub"):
        processors.load(tmp_path / "nowhere")
    with pytest.raises(ZooError, match="is a file; a model is a folder with"):
        processors.load(saved / "config.json")


def test_files_are_held_against_their_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (about,) = saving.described(tmp_path, ["a"]).values()
    saving.check_file(tmp_path / "a", about)
    (tmp_path / "a").write_bytes(b"abd")
    with pytest.raises(ZooError, match="a is damaged: its sha256 is not that which was written"):
        saving.check_file(tmp_path / "a", about)
    (tmp_path / "a").write_bytes(b"ab")
    with pytest.raises(ZooError, match="a is damaged: it has 2 bytes, and was written with 3"):
        saving.check_file(tmp_path / "a", about)
