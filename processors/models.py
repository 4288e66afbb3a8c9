"""Every processor by name: built with the paper's sizes, saved and loaded as one folder.

    model = processors.build("nfn-np", spec, out=10, stats=z.stats())
    model(weights)                                   # `net out`
    model.save_pretrained("model")                   # config.json, model.safetensors
    model = processors.load("model")

`MODELS` is the only list of names. A model holds all that it needs: its normalisation is
a buffer, and its config.json has the networks' spec as it stands in a zoo's index.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from jaxtyping import Float
from torch import Tensor, nn

from processors.baselines import MLP, AlignedMLP, AugmentedMLP, INR2Vec, StatNN, Transformer
from processors.dws import DWSNet
from processors.encode import Normalise
from processors.graded import Graded
from processors.monomial import MonomialNFN
from processors.nfn import NFN, LearnedStep
from processors.probe import Probe
from processors.vae import TicketVAE
from zoo import NetworkSpec, Weights, ZooError

# Of a run's folder, where its best model lies.
MODEL = "model"
MODELS: dict[str, Callable[..., nn.Module]] = {
    "dws": DWSNet,
    "nfn-np": partial(NFN, symmetry="np"),
    "nfn-hnp": partial(NFN, symmetry="hnp"),
    "nfn-pt": partial(NFN, symmetry="pointwise"),
    "monomial": MonomialNFN,
    "graded": Graded,
    "probe": Probe,
    "mlp": MLP,
    "mlp-aug": AugmentedMLP,
    "mlp-align": AlignedMLP,
    "inr2vec": INR2Vec,
    "transformer": Transformer,
    "statnn": StatNN,
}
# What a model sees: the weights, or the function, by what networks answer.
ACCESS = {name: "function" if name == "probe" else "weights" for name in MODELS}
# Those that give networks for `out=None`, and baselines whose vector is added to them.
EQUIVARIANT = ("dws", "nfn-np", "nfn-hnp", "nfn-pt", "monomial")
EDITORS = (*EQUIVARIANT, "mlp", "mlp-aug", "mlp-align", "inr2vec", "transformer")


class Narrow(nn.Module):
    """A model of networks with many inputs, by one of networks with few.

        W_1 -> W_1 D, read by the inner model                              `net out`
        W_1 -> W_1 D, edited by the inner model -> W_1 + (its change) U + skip * W_1

    What DWSNets do in every layer, done once: CIFAR classifiers have fifteen times the
    entries with 3,072 inputs that they have with 16. The paper's words, "we map d_0 =
    3072 to d_0' = 16", fit both. Equivariant under `hnp`, whatever the inner model's
    group does to inputs.

    Args:
        make: gives the model for a spec of networks with `inputs` inputs.
        edits: whether it is an editor, else it gives vectors.

    Source: Navon et al. 2023, App. J, methods to control the complexity.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inputs: int,
        make: Callable[[NetworkSpec], nn.Module],
        stats: Mapping[str, Tensor] | None,
        edits: bool,
    ):
        super().__init__()
        if spec.layers[0].kind != "linear":
            raise ValueError("narrow is for networks whose first layer is linear, not for CNNs")
        if not 0 < inputs < spec.inp:
            raise ValueError(f"narrow must be positive and below {spec.inp} inputs, got {inputs}")
        self.normalise = Normalise(spec, stats)
        first = replace(spec.layers[0], inp=inputs)
        self.model = make(replace(spec, layers=(first, *spec.layers[1:]), coord_order=None))
        self.down = nn.Linear(spec.inp, inputs, bias=False)
        self.up = nn.Linear(inputs, spec.inp, bias=False) if edits else None
        self.skip = nn.Parameter(torch.zeros(())) if edits else None
        nn.init.normal_(self.down.weight, std=spec.inp**-0.5)
        if self.up is not None:
            nn.init.normal_(self.up.weight, std=inputs**-0.5)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks."""
        seen = self.normalise(weights)
        small = Weights((self.down(seen.weights[0]), *seen.weights[1:]), seen.biases)
        found: Tensor | Weights = self.model(small)
        if self.up is None or isinstance(found, Tensor):
            return found
        change = found.map(torch.sub, small)
        first = self.up(change.weights[0]) + self.skip * seen.weights[0]
        return weights.map(torch.add, Weights((first, *change.weights[1:]), change.biases))


def known_model(name: str) -> str:
    """The model's name.

    Raises:
        ValueError: if there is none of that name; lists those there are.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    return name


def arguments(name: str) -> list[str]:
    """What a model's class takes beside the spec, the length of its output and statistics.

    >>> arguments("mlp-align")
    ['hidden', 'width', 'params', 'dropout', 'statistics']
    """
    made: Any = MODELS[name]
    # A partial has settled what it was given, and a subclass passes on what it does not name.
    settled = getattr(made, "keywords", {})
    found: dict[str, None] = {}
    for kind in getattr(made, "func", made).__mro__:
        if "__init__" not in vars(kind) or kind is nn.Module:
            continue
        parameters = signature(kind.__init__).parameters.values()
        found |= dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    ours = {"self", "spec", "out", "stats", *settled}
    return [each for each in found if each not in ours]


class Processor(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="wszoo",
    tags=["weight-space"],
):
    """A model of `MODELS` with all that it was built from, so that it can be saved.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are huggingface_hub's.

    Args:
        name: in `MODELS`.
        spec: of the networks, as `NetworkSpec.to_json` gives it.
        out: length of the output; None for an editor, `Weights` to `Weights`.
        sizes: other arguments of the model, plain data.
        narrow: of an equivariant model, the inputs that `Narrow` leaves it; 0 for all.
        stats: of the zoo, see `processors.Normalise`; not in config.json, since the
            normalisation is among the weights.
        readout: "mean" and "std", lists of `out` numbers: outputs are in deviations of a
            target, and `forward` gives them in its units.

    Attributes:
        model: the module, of the class that `MODELS` says.
        spec: of the networks, as a `NetworkSpec`.

    Raises:
        ValueError: for an unknown name, or a model that cannot edit but is to.
    """

    def __init__(
        self,
        name: str,
        spec: dict[str, Any],
        out: int | None = 10,
        sizes: dict[str, Any] | None = None,
        stats: Mapping[str, Tensor] | None = None,
        readout: dict[str, list[float]] | None = None,
        narrow: int = 0,
    ):
        super().__init__()
        known_model(name)
        if out is None and name not in EDITORS:
            raise ValueError(f"model {name!r} cannot edit networks; known: {', '.join(EDITORS)}")
        self.name, self.out = name, out
        wanted = arguments(name)
        if unknown := [key for key in sizes or {} if key not in wanted]:
            raise ValueError(
                f"model {name!r} has no argument {unknown[0]!r}; known: {', '.join(wanted)}"
            )
        self.spec = NetworkSpec.from_json(spec)
        if narrow and name not in EQUIVARIANT:
            raise ValueError(f"narrow is for equivariant models: {', '.join(EQUIVARIANT)}")
        # A baseline edits by a vector as long as the network, times a learned scale.
        self.step = None if out is not None or name in EQUIVARIANT else LearnedStep(self.spec)
        length = out if self.step is None else self.spec.param_count

        def make(inner: NetworkSpec, stats: Mapping[str, Tensor] | None = None) -> nn.Module:
            return MODELS[name](inner, out=length, stats=stats, **(sizes or {}))

        self.model = (
            Narrow(self.spec, narrow, make, stats, out is None) if narrow
            else make(self.spec, stats)
        )  # fmt: skip
        self.mean: Tensor
        self.std: Tensor
        for part, default in (("mean", 0.0), ("std", 1.0)):
            value = torch.tensor(readout[part]) if readout else torch.tensor([default])
            self.register_buffer(part, value, persistent=False)
        self._plain = readout is None

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks, of plain weights."""
        if self.step is not None:
            if isinstance(self.model, MLP):
                weights = self.model.order(weights)
                vectors = self.model.read(weights)
            else:
                vectors = self.model(weights)
            edited: Weights = self.step(weights, Weights.unflatten(vectors, self.spec))
            return edited
        found: Tensor | Weights = self.model(weights)
        if self._plain or isinstance(found, Weights):
            return found
        return found.float() * self.std + self.mean


def build(
    name: str,
    spec: NetworkSpec,
    out: int | None = 10,
    stats: Mapping[str, Tensor] | None = None,
    readout: dict[str, list[float]] | None = None,
    narrow: int = 0,
    **sizes: Any,
) -> Processor:
    """A fresh model for networks of this spec, with the paper's sizes where none are given.

    Args:
        name: in `MODELS`.
        out: length of the output; None for an editor, `Weights` to `Weights`.
        stats: what `zoo.Zoo.stats()` gives; None to normalise nothing.
        readout, narrow: see `Processor`.
        sizes: arguments of the model's class, such as `chan` of `DWSNet`.

    Raises:
        ValueError: for an unknown name, or sizes that the model refuses.
    """
    return Processor(name, spec.to_json(), out, sizes, stats, readout, narrow)


def load(path: str | Path) -> Any:
    """The model in a folder of `save_pretrained` or of a run, or in a repository on the Hub.

    Returns:
        A `Processor`, or a `TicketVAE` where that was saved.

    Raises:
        ZooError: for a folder without a model, such as that of a run before its end.
    """
    folder = Path(path)
    if folder.is_dir():
        if (folder / MODEL / "config.json").is_file():
            path = folder = folder / MODEL
        file = folder / "config.json"
    else:
        file = Path(hf_hub_download(str(path), "config.json"))
    config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if "spec" not in config:
        raise ZooError(f"{path} holds no model; a run has one when it is finished")
    kind = Processor if "name" in config else TicketVAE
    # huggingface_hub says on stdout that it loads, where commands print results.
    with redirect_stdout(StringIO()):
        return kind.from_pretrained(path)
