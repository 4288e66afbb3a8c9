"""Whole zoos described as data: which networks, fitted how, kept when.

A recipe is a frozen dataclass with a name; one function a zoo gives it its values. It
is stored whole in the index, and a zoo is remade from it, the seed and the source.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from zoo.spec import INIT_SCHEMES, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class SirenRecipe:
    """What recipes of all SIREN zoos share; use `ImageRecipe` or `SineRecipe`.

    Attributes:
        hidden: neurons of each hidden layer.
        layers: linear layers, the last included; 3 is inp-hidden-hidden-out.
        omega: factor in sin(omega * (W x + b)), the first layer included.
        output_offset: added to the network's output.
        init: "dws" or "nfn", see `zoo.nets.siren_bounds`.
        shared_init: one initialisation for all networks instead of one each.
        lr, beta1, beta2, eps: of Adam (Kingma and Ba 2015).
        weight_decay: L2 term in the gradient, as torch.optim.Adam.
        steps: full-batch updates at most.
    """

    name: str
    hidden: int = 32
    layers: int = 3
    omega: float = 30.0
    output_offset: float = 0.5
    init: str = "dws"
    shared_init: bool = False
    lr: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    steps: int = 1000

    def __post_init__(self) -> None:
        positive = ("hidden", "omega", "lr", "eps", "steps")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.layers < 2:
            raise ValueError(f"layers must be at least 2 (one hidden layer), got {self.layers}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.init not in INIT_SCHEMES:
            raise ValueError(f"unknown init {self.init!r}; known: {', '.join(INIT_SCHEMES)}")

    def widths(self, inp: int, out: int) -> list[int]:
        return [inp, *[self.hidden] * (self.layers - 1), out]

    def to_json(self) -> dict[str, Any]:
        """Plain data with the recipe's `kind`; `recipe_from_json` is the inverse."""
        kind = next(kind for kind, cls in RECIPE_KINDS.items() if cls is type(self))
        return {"kind": kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(SirenRecipe):
    """INRs of pictures.

    Attributes:
        coord_order: "xy" (column, row) or "ij" (row, column).
        black, white: output values of a black and a white pixel.
        target_psnr_db: a network stops before the step at which it is above it.
        min_psnr_db: networks that end below it are left out of the zoo.
        views: independent initialisations of each training image.
        split: "dws" or "nfn", see `zoo.sources.split_items`.
        size: side in pixels that pictures are resized to; None keeps theirs.
    """

    coord_order: str = "xy"
    black: float = 0.0
    white: float = 1.0
    target_psnr_db: float | None = None
    min_psnr_db: float | None = None
    views: int = 1
    split: str = "dws"
    size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 1:
            raise ValueError(f"views must be at least 1, got {self.views}")
        if self.coord_order not in ("xy", "ij"):
            raise ValueError(f"coord_order must be xy or ij, got {self.coord_order!r}")
        if not self.white > self.black:
            raise ValueError(f"white ({self.white}) must be above black ({self.black})")
        if self.split not in ("dws", "nfn"):
            raise ValueError(f"unknown split {self.split!r}; known: dws, nfn")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be positive, got {self.size}")

    def spec(self, inp: int, out: int) -> NetworkSpec:
        return NetworkSpec.mlp(
            self.widths(inp, out),
            omega=self.omega,
            output_offset=self.output_offset,
            coord_order=self.coord_order,
            pixel_range=(self.black, self.white),
        )

    @property
    def target_mse(self) -> float | None:
        """The error at `target_psnr_db`, with white - black as the peak."""
        if self.target_psnr_db is None:
            return None
        return (self.white - self.black) ** 2 * 10 ** (-self.target_psnr_db / 10)


@dataclass(frozen=True, kw_only=True)
class SineRecipe(SirenRecipe):
    """INRs of waves a * sin(b * x) on [-pi, pi].

    Attributes:
        waves: how many; split 80/10/10.
        points: samples of each wave, both ends included.
        min_amplitude, max_amplitude: a is uniform in between.
        min_frequency, max_frequency: b is uniform in between.
        target_mse: a network stops before the step at which it is below it.
    """

    waves: int = 5000
    points: int = 2000
    min_amplitude: float = 0.0
    max_amplitude: float = 10.0
    min_frequency: float = 0.0
    max_frequency: float = 10.0
    target_mse: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.waves < 1 or self.points < 2:
            raise ValueError(
                f"expected at least 1 wave of 2 points, got {self.waves} of {self.points}"
            )
        for name in ("amplitude", "frequency"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} ({low}) is above max_{name} ({high})")

    def spec(self, inp: int, out: int) -> NetworkSpec:
        return NetworkSpec.mlp(
            self.widths(inp, out),
            omega=self.omega,
            output_offset=self.output_offset,
            coord_order="x",
            coord_range=(-3.141592653589793, 3.141592653589793),
        )


# A field that may differ from network to network: one value, a range, or a list.
_RANGES = ("lr", "weight_decay", "init_scale", "init_std", "dropout")
_LISTS = ("batch", "optimiser", "fraction", "init")


def bounds(text: str) -> tuple[float, float]:
    """Least and greatest value of a field such as "0.005" or "1e-4..1e-2".

    Raises:
        ValueError: unless these are two finite numbers in order.

    >>> bounds("1e-4..1e-2"), bounds("0.5")
    ((0.0001, 0.01), (0.5, 0.5))
    """
    low, dots, high = text.partition("..")
    try:
        found = float(low), float(high if dots else low)
    except ValueError:
        raise ValueError(f"expected a number or a range such as 1e-4..1e-2, got {text!r}") from None
    if not 0 <= found[0] <= found[1] < float("inf"):
        raise ValueError(f"expected 0 <= low <= high, got {text!r}")
    return found


def choices(text: str) -> list[str]:
    """The values of a field such as "adam,sgd".

    >>> choices("128, 512")
    ['128', '512']
    """
    return [word.strip() for word in text.split(",")]


@dataclass(frozen=True, kw_only=True)
class TrainedRecipe:
    """What recipes of classifiers share; use `ClassifierRecipe` or `TrajectoryRecipe`.

    Fields of text may differ from network to network: a range "1e-4..1e-2" is drawn
    log-uniformly (dropout: uniformly), a list "128,512" evenly. A network's values come from
    the seed and its index alone.

    Attributes:
        network: "mlp", or "cnn": 3 x 3 convolutions, their mean over positions, one linear
            layer.
        hidden: neurons, or channels, of each hidden layer.
        layers: of weights, the last included.
        activation: of the hidden layers, "relu" or "tanh".
        stride: of the convolutions, in pixels.
        epochs: passes over a network's training items at most.
        lr, weight_decay, optimiser: of torch.optim's "adam", "sgd" or "rmsprop"; weight decay
            is the L2 term in the gradient.
        beta1, beta2, eps: of Adam; eps of RMSprop too.
        batch: items of a minibatch; the last one of an epoch is smaller.
        init: "torch" (the default of torch.nn), "glorot", "he", "orthogonal" or "normal".
        init_scale: factor on the initial weights, not on the biases.
        init_std: standard deviation of "normal".
        fraction: part of the training items that a network sees.
        dropout: chance that a feature (of a convolution: a whole map) is dropped.
        black, white: inputs that stand for a black and a white pixel.
        loss_items: training items at most on which the train loss is measured, evenly
            spaced; None takes all that the network saw.
        size: side in pixels that pictures are resized to; None keeps theirs.
    """

    name: str
    network: str = "mlp"
    hidden: int = 64
    layers: int = 5
    activation: str = "relu"
    stride: int = 2
    epochs: int = 2
    lr: str = "0.005"
    weight_decay: str = "0"
    optimiser: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    batch: str = "128"
    init: str = "torch"
    init_scale: str = "1"
    init_std: str = "0.05"
    fraction: str = "1"
    dropout: str = "0"
    black: float = -1.0
    white: float = 1.0
    loss_items: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        for field, known in (
            ("network", ("mlp", "cnn")),
            ("activation", ("relu", "tanh")),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"unknown {field} {getattr(self, field)!r}; known: {', '.join(known)}"
                )
        for field in ("hidden", "stride", "epochs", "eps"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} must be positive, got {getattr(self, field)}")
        if self.layers < 2:
            raise ValueError(f"layers must be at least 2 (one hidden layer), got {self.layers}")
        for field in _RANGES:
            try:
                low, high = bounds(getattr(self, field))
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
            if low == 0 and field != "dropout" and (high > 0 or field != "weight_decay"):
                raise ValueError(f"{field} must be positive, got {getattr(self, field)!r}")
        if bounds(self.dropout)[1] >= 1:
            raise ValueError(f"dropout must be below 1, got {self.dropout!r}")
        listed = {
            "optimiser": ("adam", "sgd", "rmsprop"),
            "init": ("torch", "glorot", "he", "orthogonal", "normal"),
        }
        for field, values in listed.items():
            for choice in choices(getattr(self, field)):
                if choice not in values:
                    raise ValueError(f"unknown {field} {choice!r}; known: {', '.join(values)}")
        try:
            batches = [int(word) for word in choices(self.batch)]
            fractions = [float(word) for word in choices(self.fraction)]
        except ValueError as error:
            raise ValueError(f"batch and fraction are numbers or lists of them: {error}") from None
        if min(batches) < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch!r}")
        if not 0 < min(fractions) <= max(fractions) <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, got {self.fraction!r}")
        for field in ("beta1", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be in [0, 1), got {getattr(self, field)}")
        if not self.white > self.black:
            raise ValueError(f"white ({self.white}) must be above black ({self.black})")
        for field in ("loss_items", "size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be positive, got {value}")

    def spec(self, shape: tuple[int, int, int], classes: int) -> NetworkSpec:
        """The network for pictures of (row, column, chan)."""
        hidden = [self.hidden] * (self.layers - 1)
        if self.network == "cnn":
            plain = NetworkSpec.cnn(
                [shape[2], *hidden], classes, activation=self.activation, stride=self.stride
            )
        else:
            inputs = shape[0] * shape[1] * shape[2]
            plain = NetworkSpec.mlp([inputs, *hidden, classes], activation=self.activation)
        return replace(plain, pixel_range=(self.black, self.white))

    @property
    def varied(self) -> dict[str, tuple[str, ...] | None]:
        """Fields that differ from network to network, with their values if those are listed."""
        found: dict[str, tuple[str, ...] | None] = {}
        for field in _RANGES:
            low, high = bounds(getattr(self, field))
            if low < high:
                found[field] = None
        for field in _LISTS:
            listed = choices(getattr(self, field))
            if len(listed) > 1:
                found[field] = tuple(listed)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data with the recipe's `kind`; `recipe_from_json` is the inverse."""
        kind = next(kind for kind, cls in RECIPE_KINDS.items() if cls is type(self))
        return {"kind": kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(TrainedRecipe):
    """Classifiers of two random classes each, kept at the end of their training.

    Attributes:
        networks: how many; split 80/10/10.
    """

    networks: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.networks < 1:
            raise ValueError(f"networks must be at least 1, got {self.networks}")

    @property
    def units(self) -> int:
        return self.networks

    @property
    def shares(self) -> tuple[float, float]:
        """Validation's and test's part of the networks."""
        return 0.1, 0.1


@dataclass(frozen=True, kw_only=True)
class TrajectoryRecipe(TrainedRecipe):
    """Trainings on all classes, of which networks are kept on the way.

    Attributes:
        runs: how many; a run lies wholly in one split.
        checkpoints: "every": after each `interval` updates; "random": `kept` random updates
            of a run, which ends with the last of them; "tenths": after 0, 1, 2, 3 epochs
            and every tenth of the run.
        interval: updates between checkpoints of "every".
        kept: checkpoints of "random".
        validation_share, test_share: parts of the runs in these splits.
    """

    runs: int = 200
    checkpoints: str = "every"
    interval: int = 2
    kept: int = 10
    validation_share: float = 0.125
    test_share: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("runs", "interval", "kept"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.checkpoints not in ("every", "random", "tenths"):
            raise ValueError(
                f"unknown checkpoints {self.checkpoints!r}; known: every, random, tenths"
            )
        if self.checkpoints == "every" and {"batch", "fraction"} & set(self.varied):
            raise ValueError(
                "checkpoints 'every' wants one batch and one fraction, so that all runs have the "
                "same number of updates; choose random or tenths"
            )
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ValueError(f"validation_share and test_share must leave some to train: {shares}")

    @property
    def units(self) -> int:
        return self.runs

    @property
    def shares(self) -> tuple[float, float]:
        """Validation's and test's part of the runs."""
        return self.validation_share, self.test_share

    def epochs_kept(self) -> list[float]:
        """Epochs after which "tenths" keeps a network."""
        tenths = {self.epochs * tenth / 10 for tenth in range(1, 11)}
        return sorted({epoch for epoch in (0.0, 1.0, 2.0, 3.0) if epoch <= self.epochs} | tenths)


Recipe = ImageRecipe | SineRecipe
Classified = ClassifierRecipe | TrajectoryRecipe
AnyRecipe = Recipe | Classified
RECIPE_KINDS: dict[str, type[AnyRecipe]] = {
    "image": ImageRecipe,
    "sine": SineRecipe,
    "classifier": ClassifierRecipe,
    "trajectory": TrajectoryRecipe,
}


def dws(source: str) -> ImageRecipe:
    """The INRs that Navon et al. 2023 released; the default.

    Takes the settings under which the entries' deviations equal those of the released
    statistics: the 1,000 steps of 5e-4 in the paper's Appendix do not. Fashion-MNIST
    needs seven times the steps at half the rate.
    """
    if source == "fashion-mnist":
        return ImageRecipe(name="dws", lr=5e-4, steps=11_000, target_psnr_db=40.0)
    return ImageRecipe(name="dws", lr=1e-3, steps=1_500, weight_decay=1e-4, target_psnr_db=40.0)


def dws_paper(source: str) -> ImageRecipe:
    """The INRs of Navon et al. 2023 as their appendix describes them."""
    return ImageRecipe(name="dws-paper", lr=5e-4, steps=1_000, target_psnr_db=40.0)


def nfn(source: str) -> ImageRecipe:
    """The INRs of Zhou et al. 2023 (NFN), Appendix, and of Monomial-NFN."""
    return ImageRecipe(
        name="nfn",
        lr=5e-5,
        steps=5_000,
        init="nfn",
        output_offset=0.0,
        coord_order="ij",
        black=-1.0,
        white=1.0,
        split="nfn",
    )


def sine_ssl(source: str) -> SineRecipe:
    """5,000 waves a sin(bx) for self-supervised learning (Navon et al. 2023, Sec. 7)."""
    return SineRecipe(name="sine-ssl", lr=1e-3, steps=1_500, weight_decay=1e-4, target_mse=1e-4)


def sine_regression(source: str) -> SineRecipe:
    """1,000 waves of unit amplitude for frequency regression (Navon et al. 2023)."""
    return SineRecipe(
        name="sine-regression",
        lr=1e-4,
        steps=1_000,
        waves=1_000,
        min_amplitude=1.0,
        max_amplitude=1.0,
        min_frequency=0.5,
    )


def binary(source: str) -> ClassifierRecipe:
    """5,000 classifiers of two CIFAR-10 classes each (Navon et al. 2023)."""
    return ClassifierRecipe(name="binary")


def fashion(source: str) -> TrajectoryRecipe:
    """200 Fashion-MNIST trainings, kept every 2 updates (Navon et al. 2023)."""
    return TrajectoryRecipe(
        name="fashion", hidden=128, layers=4, batch="1024", epochs=5, loss_items=2_000
    )


# Ranges are not published; these are ours.
_VARIED: dict[str, Any] = {
    "lr": "1e-4..1e-2",
    "weight_decay": "1e-8..1e-2",
    "optimiser": "adam,sgd,rmsprop",
    "batch": "128,512",
    "init_scale": "0.5..2",
    "fraction": "0.1,0.25,0.5,1",
    "epochs": 20,
    "loss_items": 2_000,
    "validation_share": 0.0,
    "test_share": 0.1,
}


def nfn_mlp3(source: str) -> TrajectoryRecipe:
    """2,000 three-layer MLPs with varied settings, 10 networks each (Zhou et al. 2023)."""
    return TrajectoryRecipe(
        name="nfn-mlp3", hidden=128, layers=3, runs=2_000, checkpoints="random", **_VARIED
    )


def nfn_mlp5(source: str) -> TrajectoryRecipe:
    """2,000 five-layer MLPs with varied settings, 10 networks each (Zhou et al. 2023)."""
    return TrajectoryRecipe(
        name="nfn-mlp5", hidden=128, layers=5, runs=2_000, checkpoints="random", **_VARIED
    )


def small_cnn(source: str) -> TrajectoryRecipe:
    """1,000 small CNNs in the manner of the Small CNN Zoo (Unterthiner et al. 2020)."""
    return TrajectoryRecipe(
        name="small-cnn",
        network="cnn",
        hidden=16,
        layers=4,
        runs=1_000,
        checkpoints="tenths",
        **{
            **_VARIED,
            "init": "glorot,he,orthogonal,normal",
            "init_std": "1e-3..0.5",
            "dropout": "0..0.5",
        },
    )


RECIPES: dict[str, Callable[[str], AnyRecipe]] = {
    "dws": dws,
    "dws-paper": dws_paper,
    "nfn": nfn,
    "sine-ssl": sine_ssl,
    "sine-regression": sine_regression,
    "binary": binary,
    "fashion": fashion,
    "nfn-mlp3": nfn_mlp3,
    "nfn-mlp5": nfn_mlp5,
    "small-cnn": small_cnn,
}

# The command that runs each kind of recipe.
COMMANDS = {
    "image": "fit-inrs",
    "sine": "fit-inrs",
    "classifier": "fit-classifiers",
    "trajectory": "fit-trajectories",
}


def default_recipe(source: str, command: str = "fit-inrs") -> str:
    """The name of the recipe that a source is fitted with unless told otherwise."""
    if command != "fit-inrs":
        return {"fit-classifiers": "binary", "fit-trajectories": "fashion"}[command]
    return "sine-ssl" if source == "sine" else "dws"


def command_of(name: str) -> str:
    """The command that runs the recipe of that name.

    >>> command_of("nfn-mlp3")
    'fit-trajectories'
    """
    return COMMANDS[str(RECIPES[name]("sine").to_json()["kind"])]


def flag(field: str) -> str:
    """The command line's option for a field of a recipe; units are not repeated there.

    >>> flag("target_psnr_db")
    '--target-psnr'
    """
    return "--" + field.removesuffix("_db").replace("_", "-")


def flags(chosen: AnyRecipe, source: str) -> list[str]:
    """The options that make `chosen` from the named recipe it started as."""
    start = RECIPES[chosen.name](source)
    words = []
    for field in fields(chosen):
        old, new = getattr(start, field.name), getattr(chosen, field.name)
        if isinstance(new, bool):
            words += [flag(field.name)] if new and not old else []
        elif old != new:
            words += [flag(field.name), "none" if new is None else f"{new}"]
    return words


def recipe(name: str | None, source: str, command: str | None = None, **changes: Any) -> AnyRecipe:
    """The named recipe for a source, with fields changed.

    Args:
        name: None takes the default of the source and command.
        command: allow only recipes of this one, such as "fit-inrs"; None allows all.
        source: such as "mnist"; some recipes differ by it.
        changes: fields and their values.

    Raises:
        ValueError: for an unknown recipe or field, or a recipe of another kind of source.
    """
    name = name or default_recipe(source, command or "fit-inrs")
    if name not in RECIPES:
        known = [n for n in RECIPES if command is None or command_of(n) == command]
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(known)}")
    if command is not None and command_of(name) != command:
        raise ValueError(f"recipe {name!r} is made by `wszoo {command_of(name)}`, not {command}")
    chosen = RECIPES[name](source)
    if isinstance(chosen, SineRecipe) != (source == "sine"):
        others = [
            n
            for n in RECIPES
            if n.startswith("sine-") == (source == "sine") and command_of(n) == "fit-inrs"
        ]
        raise ValueError(f"recipe {name!r} is not for {source}; those are: {', '.join(others)}")
    known = [field.name for field in fields(chosen)]
    for field in changes:
        if field not in known:
            raise ValueError(f"recipe {name!r} has no field {field!r}; it has: {', '.join(known)}")
    return replace(chosen, **changes)


def recipe_from_json(plain: dict[str, Any]) -> AnyRecipe:
    """A recipe as it stands in an index."""
    values = {key: value for key, value in plain.items() if key != "kind"}
    return RECIPE_KINDS[plain["kind"]](**values)
