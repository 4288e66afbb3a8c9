"""The defaults of wszoo's first version (324dc88): what models saved by it were built with.

Since then a saved model's config.json holds every argument as it was settled. Those of
the first version hold what was given; the rest is here, as it was, whatever the classes'
defaults are today. Nothing else reads this table, and it never changes. Arguments that came
later still stand here with what models without them had.
"""

from collections.abc import Callable, Mapping
from typing import Any

from zoo import NetworkSpec

_PERCEPTRON: dict[str, Any] = {
    "hidden": 4, "width": None, "params": 550_000, "dropout": 0.0, "statistics": "entry",
}  # fmt: skip


def _dws(spec: NetworkSpec, out: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "variant": "attention", "chan": 32, "layers": 5, "heads": 8, "pool": "max", "norm": True,
        "dropout": 0.0, "reduced": 16 if spec.inp > 64 else 0, "mu": 1e-3 if out is None else 1.0,
        "blocks": "all", "statistics": "entry",
    }  # fmt: skip


def _nfn(spec: NetworkSpec, out: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    edits = out is None
    return {
        "channels": [128 if edits else 512] * 3, "fourier": 256,
        "fourier_scale": 3.0 if edits else 10.0, "positions": "sinusoidal",
        "max_freq": 3.0 if edits else 10.0, "bands": 3 if edits else 6, "dropout": 0.0,
        "head": 1000, "head_dropout": 0.5, "scale": 0.01, "statistics": "entry",
    }  # fmt: skip


def _nfn_hnp(spec: NetworkSpec, out: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    return {**_nfn(spec, out, given), "positions": "none"}


# Channels, activations, base, base's channels, Fourier features, head, dropout.
_MONOMIAL: dict[tuple[str, str], tuple[Any, ...]] = {
    ("generalisation", "mono-relu"): ([16, 16, 5], ["relu"] * 3, "none", None, 0, 200, 0.0),
    ("generalisation", "mono-sin"): (
        [16, 16, 5], ["tanh", "tanh", "abs"], "none", None, 0, 1000, 0.0,
    ),
    ("classification", "mono-sin"): (
        [64, 64, 1], ["sin", "sin", "abs"], "hnp", [256] * 3, 256, 1000, 0.1,
    ),
    ("editing", "mono-relu"): ([16, 1], ["identity"] * 2, "np", [128] * 3, 256, 1000, 0.0),
    ("editing", "mono-sin"): ([16, 1], ["identity"] * 2, "np", [128] * 3, 256, 1000, 0.0),
    ("equivariant", "mono-relu"): (
        [16] * 3, ["relu", "relu", "identity"], "np", [128] * 3, 0, 1000, 0.0,
    ),
    ("equivariant", "mono-sin"): (
        [16] * 3, ["sin", "sin", "identity"], "np", [128] * 3, 0, 1000, 0.0,
    ),
}  # fmt: skip


def _monomial(spec: NetworkSpec, out: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    relu = {layer.activation for layer in spec.layers[:-1]} == {"relu"}
    group = given.get("group") or ("mono-relu" if relu else "mono-sin")
    reads = "classification" if spec.layers[0].activation == "sin" else "generalisation"
    kind = given.get("kind") or ("equivariant" if out is None else reads)
    names = ("channels", "activations", "base", "base_channels", "fourier", "head", "dropout")
    found = dict(zip(names, _MONOMIAL.get((kind, group), ()), strict=False))
    if given.get("channels") and found:
        first, last = found["activations"][0], found["activations"][-1]
        found["activations"] = [first] * (len(given["channels"]) - 1) + [last]
    return {
        "group": group, "kind": kind, **found, "fourier_scale": 3.0, "max_freq": 3.0, "bands": 3,
        "scale": 0.01, "statistics": "tensor",
    }  # fmt: skip


def _plain(defaults: Mapping[str, Any]) -> Callable[..., dict[str, Any]]:
    return lambda spec, out, given: dict(defaults)


_DEFAULTS: dict[str, Callable[..., dict[str, Any]]] = {
    "dws": _dws,
    "nfn-np": _nfn,
    "nfn-hnp": _nfn_hnp,
    "nfn-pt": _nfn,
    "monomial": _monomial,
    "mlp": _plain(_PERCEPTRON),
    "mlp-aug": _plain(_PERCEPTRON),
    "mlp-align": _plain(_PERCEPTRON),
    "inr2vec": _plain({k: v for k, v in _PERCEPTRON.items() if k != "dropout"}),
    "transformer": _plain({**_PERCEPTRON, "inner": None, "heads": 8}),
    "statnn": _plain({**_PERCEPTRON, "hidden": 2, "params": None, "statistics": "tensor"}),
}


def settled(
    name: str, spec: NetworkSpec, out: int | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """All arguments of a model of that version, of what its config.json holds.

    Args:
        name: of the model; others than those of that version get what is given.
        given: its "sizes"; None stood for the default.
    """
    said = {key: value for key, value in given.items() if value is not None}
    if name not in _DEFAULTS:
        return said
    return {**_DEFAULTS[name](spec, out, said), **said}


# What arguments that came later stand for in a model that was saved without them.
_LATER: dict[str, dict[str, Any]] = {
    **{f"nfn-{kind}": {"layers": True} for kind in ("np", "hnp", "pt")},
    "monomial": {"layers": True},
    "probe": {"lattice": 0},
}


def completed(name: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a saved model whose config.json lacks those that came later."""
    return {**_LATER.get(name, {}), **sizes}


def unsaid(name: str) -> dict[str, Any]:
    """What a model's class took by default in runs of before there were presets."""
    taken = {"monomial": "tensor", **{f"nfn-{kind}": "entry" for kind in ("np", "hnp", "pt")}}
    return completed(name, {"statistics": taken[name]} if name in taken else {})
