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
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from processors import own, saving
from processors.baselines import MLP, AlignedMLP, AugmentedMLP, INR2Vec, StatNN, Transformer
from processors.dws import DWSNet
from processors.encode import Normalise, canonical
from processors.first import completed, settled
from processors.graded import Graded
from processors.monomial import MonomialNFN
from processors.nfn import NFN, LearnedStep
from processors.probe import Probe
from processors.saving import Saved
from processors.sizes import check_sizes
from processors.vae import TicketVAE
from zoo import NetworkSpec, Weights, ZooError, schema

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
# Arguments of `Processor` itself, whatever the model.
OF_ALL = ("narrow", "input_rank", "canonical")
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
        stats, statistics: see `processors.Normalise`; the inner model gets none.

    Source: Navon et al. 2023, App. J, methods to control the complexity.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inputs: int,
        make: Callable[[NetworkSpec], nn.Module],
        stats: Mapping[str, Tensor] | None,
        edits: bool,
        statistics: str = "entry",
    ):
        super().__init__()
        if spec.layers[0].kind != "linear":
            raise ValueError("narrow is for networks whose first layer is linear, not for CNNs")
        if not 0 < inputs < spec.inp:
            raise ValueError(f"narrow must be positive and below {spec.inp} inputs, got {inputs}")
        self.normalise = Normalise(spec, stats, statistics)
        first = replace(spec.layers[0], inp=inputs)
        smaller = replace(spec, layers=(first, *spec.layers[1:]), coord_order=None, frequencies=())
        self.model = make(smaller)
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


class InputMap(nn.Module):
    """W_1 A B: one linear map of the inputs, of low rank, for all neurons of a first layer.

    Added to what an editor changes. Commutes with permutations and scales of the neurons, so
    that an equivariant editor stays one; what `Narrow` leaves of wide inputs does not bound it.
    Nothing at first.

    Args:
        rank: at most; that of a map of fewer inputs is their number.

    Raises:
        ValueError: for a first layer that is not linear.
    """

    def __init__(self, spec: NetworkSpec, rank: int):
        super().__init__()
        if spec.layers[0].kind != "linear":
            raise ValueError("input_rank is for networks whose first layer is linear, not for CNNs")
        rank = min(rank, spec.inp)
        self.down = nn.Linear(spec.inp, rank, bias=False)
        self.up = nn.Linear(rank, spec.inp, bias=False)
        nn.init.normal_(self.down.weight, std=spec.inp**-0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, weights: Weights, edited: Weights) -> Weights:
        """Edited networks, with the map of what they were before."""
        first: Tensor = edited.weights[0] + self.up(self.down(weights.weights[0]))
        return Weights((first, *edited.weights[1:]), edited.biases)


def known_model(name: str) -> str:
    """The model's name.

    Raises:
        ValueError: if there is none of that name; lists those there are.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    return name


def name_of(model: str | Callable[..., nn.Module]) -> str:
    """The name of a model, or the import path of a class of one's own, given or named.

    A class that is named is imported.

    Raises:
        ValueError: if there is none of that name; lists those there are.
    """
    if not isinstance(model, str):
        listed = [name for name, kind in MODELS.items() if kind is model]
        return listed[0] if listed else own.give(model)
    if own.is_own(model):
        own.allow(model)
        return model
    return known_model(model)


def preparation(name: str) -> Callable[..., Mapping[str, Tensor]] | None:
    """What a model's class does with the data before it is built, if anything.

    `prepare(data, place)` takes the rows of every split and a `processors.progress.Workplace`;
    it may change the rows, and gives the statistics that the model is built with.
    """
    found: Callable[..., Mapping[str, Tensor]] | None = getattr(maker(name), "prepare", None)
    return found


def maker(name: str) -> Callable[..., nn.Module]:
    """What builds a model: of `MODELS`, or a class of one's own that was given or allowed.

    Raises:
        ValueError: if there is none of that name; lists those there are.
    """
    return own.find(name) if own.is_own(name) else MODELS[known_model(name)]


def arguments(name: str) -> dict[str, Any]:
    """What a model's class takes beside the spec, its output's length and statistics.

    By name, with their defaults; `inspect.Parameter.empty` where there is none.

    >>> list(arguments("mlp-align"))
    ['hidden', 'width', 'params', 'dropout', 'norm', 'statistics']
    """
    parameters, _ = _parameters(maker(name))
    return {key: value for key, value in parameters.items() if key not in _OURS}


def sizes_of(name: str) -> dict[str, Any]:
    """All that a model's sizes may name: `arguments`, and those of `OF_ALL` that fit the model.

    >>> [key for key in sizes_of("dws") if key not in arguments("dws")]
    ['narrow', 'input_rank', 'canonical']
    """
    of_all, _ = _parameters(Processor)
    fit = [key for key in OF_ALL if key != "narrow" or name in EQUIVARIANT]
    return arguments(name) | {key: of_all[key] for key in fit}


_OURS = ("self", "spec", "out", "stats")


def _parameters(made: Any) -> tuple[dict[str, Any], bool]:
    """All parameters by name with their defaults, and whether it takes others besides."""
    # A partial has settled what it was given, and a subclass passes on what it does not name.
    inner, settled = getattr(made, "func", made), getattr(made, "keywords", {})
    inits = [inner]
    if isinstance(inner, type):
        kinds = [kind for kind in inner.__mro__ if "__init__" in vars(kind)]
        inits = [vars(kind)["__init__"] for kind in kinds if kind not in (nn.Module, object)]
    found: dict[str, Any] = {}
    for init in inits:
        parameters = signature(init).parameters.values()
        for each in parameters:
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                found.setdefault(each.name, each.default)
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    else:
        return {k: v for k, v in found.items() if k not in settled}, bool(inits)
    return {k: v for k, v in found.items() if k not in settled}, False


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in a config.json; defaults of one's own need not."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class Processor(nn.Module, Saved, library_name="wszoo", tags=["weight-space"]):
    """A model of `MODELS`, or a class of one's own, with all that it was built from.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are huggingface_hub's.

    Args:
        name: in `MODELS`, or "package.module:Class" (see `processors.own`). A class of one's
            own is given those of spec, out and stats that it takes.
        spec: of the networks, as `NetworkSpec.to_json` gives it.
        out: length of the output; None for an editor, `Weights` to `Weights`.
        sizes: other arguments of the model, plain data.
        narrow: of an equivariant model, the inputs that `Narrow` leaves it; 0 for all.
        canonical: whether the model gets networks whose neurons' signs and scales are settled,
            see `encode.canonical`; an editor changes these, which are of the same functions.
        input_rank: of an editor, the rank of the `InputMap` beside it; 0 for none.
        statistics: that `Narrow` normalises by; None for those of `sizes`.
        stats: of the zoo, see `processors.Normalise`; not in config.json, since the
            normalisation is among the weights.
        readout: "mean" and "std", lists of `out` numbers: outputs are in deviations of a
            target, and `forward` gives them in its units.

    Attributes:
        model: the module, of the class that `MODELS` says.
        spec: of the networks, as a `NetworkSpec`.
        sizes: every argument of the model as it was settled, where the class says so.

    Raises:
        ValueError: for an unknown name, sizes that cannot be, or a model that cannot edit
            but is to.
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
        canonical: bool = False,
        input_rank: int = 0,
        statistics: str | None = None,
    ):
        super().__init__()
        self._made, given = maker(name), dict(sizes or {})
        if out is None and name not in EDITORS and not own.is_own(name):
            raise ValueError(f"model {name!r} cannot edit networks; known: {', '.join(EDITORS)}")
        self.name, self.out, self.narrow, self.readout = name, out, narrow, readout
        ours = {"narrow": narrow, "input_rank": input_rank, "canonical": canonical}
        check_given(name, {**given, **ours})
        self.canonical = canonical
        self.spec = NetworkSpec.from_json(spec)
        if input_rank and out is not None:
            raise ValueError("input_rank is for models that edit networks, such as of task adapt")
        self.inputs = InputMap(self.spec, input_rank) if input_rank else None
        # A baseline edits by a vector as long as the network, times a learned scale.
        edits_itself = name in EQUIVARIANT or own.is_own(name)
        self.step = None if out is not None or edits_itself else LearnedStep(self.spec)
        length = out if self.step is None else self.spec.param_count
        takes, _ = _parameters(self._made)

        def make(inner: NetworkSpec, stats: Mapping[str, Tensor] | None = None) -> nn.Module:
            ours = {"spec": inner, "out": length, "stats": stats}
            return self._made(**{k: v for k, v in ours.items() if k in takes}, **given)

        defaults = {k: v for k, v in arguments(name).items() if _is_plain(v)}
        if narrow:
            # Unasked, wide inputs are in units of each entry, unless the model reads raw weights.
            usual = "none" if defaults.get("statistics") == "none" else "entry"
            kind = statistics or given.get("statistics", usual)
            self.model: nn.Module = Narrow(self.spec, narrow, make, stats, out is None, kind)
        else:
            self.model = make(self.spec, stats)
        made = self.model.model if isinstance(self.model, Narrow) else self.model
        self.sizes = {**defaults, **given, **getattr(made, "resolved", {})}
        self.mean: Tensor
        self.std: Tensor
        for part, default in (("mean", 0.0), ("std", 1.0)):
            value = torch.tensor(readout[part]) if readout else torch.tensor([default])
            self.register_buffer(part, value, persistent=False)
        self._plain = readout is None

    def config(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {
            "name": self.name,
            "spec": self.spec.to_json(),
            "out": self.out,
            "sizes": self.sizes,
            "readout": self.readout,
            "narrow": self.narrow,
            **({"canonical": True} if self.canonical else {}),
            **({"input_rank": self.inputs.down.out_features} if self.inputs is not None else {}),
            # Those of before were by entry, or raw, whatever else their sizes say.
            **({"statistics": self.model.normalise.kind} if isinstance(self.model, Narrow) else {}),
            # Every argument stands there; the first version wrote what was given.
            "resolved": True,
        }

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks, of plain weights."""
        if self.canonical:
            weights = canonical(self.spec, weights)
        if self.step is not None:
            if isinstance(self.model, MLP):
                weights = self.model.order(weights)
                vectors = self.model.read(weights)
            else:
                vectors = self.model(weights)
            edited: Weights = self.step(weights, Weights.unflatten(vectors, self.spec))
            return edited if self.inputs is None else self.inputs(weights, edited)
        found: Tensor | Weights = self.model(weights)
        if isinstance(found, Weights):
            return found if self.inputs is None else self.inputs(weights, found)
        if self._plain:
            return found
        return found.float() * self.std + self.mean


def build(
    name: str,
    spec: NetworkSpec,
    out: int | None = 10,
    stats: Mapping[str, Tensor] | None = None,
    readout: dict[str, list[float]] | None = None,
    **sizes: Any,
) -> Processor:
    """A fresh model for networks of this spec, with the paper's sizes where none are given.

    Args:
        name: in `MODELS`.
        out: length of the output; None for an editor, `Weights` to `Weights`.
        stats: what `zoo.Zoo.stats()` gives; None to normalise nothing.
        readout: see `Processor`.
        sizes: arguments of the model's class, such as `chan` of `DWSNet`; and those of
            `Processor` that are for every class: `narrow`, `input_rank`, `canonical`.

    Raises:
        ValueError: for an unknown name, or sizes that the model refuses.
    """
    of_all = {key: sizes.pop(key) for key in OF_ALL if key in sizes}
    return Processor(name, spec.to_json(), out, sizes, stats, readout, **of_all)


def check_given(name: str, sizes: Mapping[str, Any]) -> None:
    """Hold what a model is to be built with against what it takes, before it is built.

    Args:
        sizes: arguments of its class, and those of `OF_ALL`.

    Raises:
        ValueError: for an unknown name or argument, or a value that cannot be.
    """
    takes, more = _parameters(maker(name))
    given = {key: value for key, value in sizes.items() if key not in OF_ALL}
    if unknown := [key for key in given if key in _OURS or (key not in takes and not more)]:
        raise ValueError(
            f"model {name!r} has no argument {unknown[0]!r}; known: {', '.join(sizes_of(name))}"
        )
    if not own.is_own(name):
        check_sizes(sizes, name)
    if sizes.get("narrow") and name not in EQUIVARIANT:
        raise ValueError(f"narrow is for equivariant models: {', '.join(EQUIVARIANT)}")


def load(
    path: str | Path,
    *,
    trust: bool = False,
    model: Callable[..., nn.Module] | None = None,
    revision: str | None = None,
) -> Any:
    """The model in a folder of `save_pretrained` or of a run, or in a repository on the Hub.

    Everything is checked: what config.json says, the names, shapes and kinds of the tensors,
    that they are finite, and the hashes that a run keeps of its model.

    Args:
        trust: whether code may be run that is not wszoo's: the import of the class that the
            model says it is of, see docs/trust.md.
        model: the class itself, where it is one of your own.
        revision: of the repository.

    Returns:
        A `Processor`, or a `TicketVAE` where that was saved.

    Raises:
        ZooError: for a folder without a model, such as that of a run before its end, or a
            damaged one.
        ValueError: for a class of one's own that was neither given nor is trusted.
    """
    folder = saving.find(path, revision)
    if (folder / MODEL / saving.CONFIG).exists():
        saving.check_hashes(folder, MODEL)
        folder = folder / MODEL
    plain = saving.read_config(folder)
    name = plain.get("name", "")
    if own.is_own(name):
        _own_class(name, trust, model)
    file, weights = folder / saving.CONFIG, folder / saving.WEIGHTS
    make = _recipe(plain, saving.read_spec(plain, file))
    # Without memory first: a damaged file shall not ask for it without bounds.
    wanted = None if own.is_own(name) else _built(partial(saving.shapes_of, make), file)
    state = saving.read_state(weights, wanted)
    found = _built(make, file)
    if wanted is None:
        saving.check_state(state, found.state_dict(), weights)
    found.load_state_dict(state)
    return found


def _own_class(name: str, trust: bool, model: Callable[..., nn.Module] | None) -> None:
    """Have a class of one's own found, if it was given or may be imported."""
    if model is not None:
        own.give(model, name)
    elif trust:
        own.allow(name)


def _recipe(plain: Mapping[str, Any], spec: NetworkSpec) -> Callable[[], nn.Module]:
    """What builds the model that a config.json describes."""
    given = {key: value for key, value in plain.items() if key not in ("stats", "resolved")}
    if "name" not in plain:
        return partial(TicketVAE, **given)
    if not plain.get("resolved"):
        narrow, first = plain["narrow"], spec.layers[0]
        inner = replace(spec, layers=(replace(first, inp=narrow), *spec.layers[1:]),
                        coord_order=None, frequencies=()) if narrow else spec  # fmt: skip
        sizes = settled(plain["name"], inner, plain["out"], plain["sizes"] or {})
        given["sizes"] = sizes
    given["sizes"] = completed(plain["name"], given["sizes"] or {})
    if plain["narrow"]:
        raw = given["sizes"].get("statistics") == "none"
        given.setdefault("statistics", "none" if raw else "entry")
    return partial(Processor, **given)


def _built(make: Callable[[], Any], file: Path) -> Any:
    """What is built, or a `ZooError` that names the file that says what to build."""
    try:
        return make()
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        # That code may not be run is misuse, and no fault of the file.
        if isinstance(error, own.NotGiven):
            raise
        line = schema.safe(" ".join(str(error).split()), 300)
        raise ZooError(f"{schema.safe(file)}: the model cannot be built: {line}") from error
