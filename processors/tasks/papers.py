"""How the papers train their models: settings and sizes by kind of input and model.

Where a paper is silent about a model, it gets what that paper gives its own: Navon et al.
2023 (DWSNets), App. J, for `dws` and the baselines, Zhou et al. 2023 (NFN), App. D, for
`nfn-*`, and Tran et al. 2024 (Monomial-NFN), App. D, for `monomial`. Sizes of NFN for
waves and as an adapter are ours, and so are all settings of `graded` and `probe`; those of
`probe` start from Kahana et al. 2025 (ProbeGen): batches of 32, no augmentation.
"""

from dataclasses import replace
from typing import Any

from processors.settings import Settings

NFN = ("nfn-np", "nfn-hnp", "nfn-pt")
# Models beyond the three papers.
READERS = ("graded", "probe")
# Perceptrons and others whose width is solved for a number of parameters.
BASELINES = ("mlp", "mlp-aug", "mlp-align", "inr2vec", "transformer")
# Where StatNN's width is solved for as well, and is not its own 1,000.
_ALL = (*BASELINES, "statnn")
# With a scale of 3 the representation of waves by `nfn-np` is as good as a constant (MSE 7.6).
_SMALL = {"fourier": 32, "fourier_scale": 0.2, "max_freq": 3.0, "bands": 3}


def _solved(
    model: str, params: int, among: tuple[str, ...] = BASELINES, **more: Any
) -> dict[str, Any]:
    """The published number of parameters, of models whose width is solved for; else nothing."""
    return {"params": params, **more} if model in among else {}


def _reader(model: str) -> Settings:
    """How a model beyond the papers is trained, whatever the task."""
    if model == "probe":
        return Settings(epochs=40, batch=32, lr=1e-3, weight_decay=0.0, schedule="cosine")
    return Settings(
        epochs=30, batch=64, lr=2e-3, weight_decay=1e-2, schedule="cosine", warmup=100, clip=1.0
    )


def augmentation(task: str, model: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """What `--augment auto` stands for, given what it usually stands for in a task.

    Readers beyond the papers learn faster without any: on the 1,457 digits of `make demo`
    `graded` is at 77% so, and at 71% with moved and noisy ones. But `ssl` is nothing without
    two views, and dropping entries changes functions most.
    """
    if model not in READERS:
        return usual
    return ("noise",) if task == "ssl" else ()


def inrs(model: str) -> Settings:
    """INRs of pictures to classify."""
    if model in READERS:
        return _reader(model)
    if model in (*NFN, "monomial"):
        return Settings(
            epochs=None, steps=200_000, batch=32, lr=1e-4, optimiser="adam",
            weight_decay=0.0, warmup=10_000,
        )  # fmt: skip
    return Settings(epochs=100, batch=512, lr=1e-3)


def inr_sizes(model: str) -> dict[str, Any]:
    """4 x 32 for DWSNets, 550,000 parameters for baselines; NFN's own defaults."""
    return _solved(model, 550_000)


def waves(model: str) -> Settings:
    """Sine waves to regress."""
    if model in READERS:
        return _reader(model)
    return Settings(epochs=100, batch=32, lr=1e-3)


def wave_sizes(model: str) -> dict[str, Any]:
    """2 x 8 for DWSNets, about 15,000 parameters for all."""
    if model == "dws":
        return {"chan": 8, "layers": 3}
    if model in NFN:
        return {"channels": [8, 8, 8], "head": 32, "head_dropout": 0.0, **_SMALL}
    if model == "monomial":
        return {"channels": [16, 16, 1], "base_channels": [8, 8, 8], "fourier": 32, "head": 64}
    return _solved(model, 15_000, _ALL, hidden=2)


def representations(model: str) -> Settings:
    """Sine waves to be embedded by SimCLR."""
    if model in READERS:
        return replace(_reader(model), batch=512, epochs=100)
    return Settings(epochs=500, batch=512, lr=1e-3)


def representation_sizes(model: str) -> dict[str, Any]:
    """4 x 16 for DWSNets, about 100,000 parameters for all."""
    if model == "dws":
        return {"chan": 16, "layers": 5}
    if model in NFN:
        return {"channels": [24, 24, 24], "head": 96, "head_dropout": 0.0, **_SMALL}
    if model == "monomial":
        return {"channels": [32, 32, 1], "base_channels": [32, 32, 32], "fourier": 32, "head": 96}
    return _solved(model, 100_000, _ALL)


def classifiers(model: str, convolutional: bool) -> Settings:
    """Classifiers whose accuracy is to be told."""
    if model in READERS:
        return _reader(model)
    if convolutional:
        return Settings(epochs=50, batch=8, lr=1e-3, optimiser="adam", weight_decay=0.0)
    return Settings(epochs=15, batch=32, lr=1e-3)


def classifier_sizes(model: str, convolutional: bool) -> dict[str, Any]:
    """NFN 16, 16, 5; DWSNets 4 x 16 on inputs reduced to 16, 4M parameters for baselines."""
    if model == "dws":
        return {"chan": 16, "layers": 5}
    if model in NFN:
        return {"channels": [16, 16, 5], "fourier": 0, "positions": "none", "head_dropout": 0.0}
    return _solved(model, 1_000_000 if convolutional else 4_000_000)


def adapters(model: str) -> Settings:
    """Classifiers to be adapted to another domain."""
    return Settings(epochs=None, steps=10_000, batch=32, lr=1e-3, evaluations=20)


def adapter_sizes(model: str, inputs: int) -> dict[str, Any]:
    """DWSNets 4 x 16 on inputs reduced to 16; about 4M parameters for baselines.

    Wide inputs are reduced once for the whole model; with `--set narrow=0` in every layer
    of `dws`, which then works on fifteen times as many entries.
    """
    narrow = {"narrow": 16 if model == "dws" else 64} if inputs > 64 else {}
    if model == "dws":
        return {"chan": 16, "layers": 5, **narrow}
    if model in NFN:
        return {"channels": [32, 32, 32], **_SMALL, **narrow}
    if model == "monomial":
        return {"base_channels": [32, 32, 32], **narrow}
    return _solved(model, 4_000_000)


def editors(model: str) -> Settings:
    """INRs whose picture is to be edited."""
    return Settings(
        epochs=None, steps=50_000, batch=32, lr=1e-3, optimiser="adam", weight_decay=0.0,
        warmup=1_000,
    )  # fmt: skip


def editor_sizes(model: str) -> dict[str, Any]:
    """NFN's and Monomial-NFN's own; 550,000 parameters for DWSNets and baselines."""
    if model == "dws":
        return {"chan": 32, "layers": 5}
    return _solved(model, 550_000)


def tickets(model: str) -> Settings:
    """Initialisations whose winning tickets are to be found."""
    return Settings(
        epochs=200, batch=8, lr=1e-3, optimiser="adam", weight_decay=0.0, evaluations=20
    )
