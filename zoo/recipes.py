"""Whole zoos described as data: which networks, fitted how, kept when.

A recipe is a frozen dataclass with a name; one function a zoo gives it its values. It
is stored whole in the index, and a zoo is remade from it, the seed and the source.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any, TypeAlias

from zoo.fields import about, check, described, to_plain
from zoo.schema import shown
from zoo.spec import INIT_SCHEMES, LOSSES, MOST_FREQUENCIES, SIGNALS, NetworkSpec

SCHEDULES = ("constant", "cosine")
# Far above what can be fitted: a number beyond is a slip, and fails in words.
MOST_NEURONS, MOST_LAYERS, MOST_PIXELS, MOST_STEPS = 2**16, 100, 2**14, 2**31 - 1


def _sides(text: str) -> list[int]:
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    if not found:
        raise ValueError(f"expected pixels as N or WxH, such as 28 or 64x48, got {text!r}")
    return [int(side) for side in found.groups() if side]


SIZE: dict[str, Any] = {
    "help": "pixels that pictures are cropped and resized to: N for N x N, or columns x rows",
    "values": _sides,
    "form": "N|WxH",
    "least": 1,
    "most": MOST_PIXELS,
}
FIT: dict[str, Any] = {
    "help": "how a picture of another shape comes to that size: crop takes the largest centred "
    "part, pad all of it with black on two sides, stretch all of it distorted",
    "choices": ("crop", "pad", "stretch"),
    "since": 2,
}


SCALE: dict[str, Any] = {
    "help": "standard deviation of its entries, which are Gaussian",
    "unit": "turns per unit of x",
    "above": 0,
    "most": 1e6,
    "since": 2,
}


def _settle_size(recipe: Any) -> None:
    """One form of each size: a number for a square, else WxH; and no way to fit without one."""
    if recipe.size is None:
        if recipe.fit != "crop":
            raise ValueError(f"fit {recipe.fit!r} wants a size to fit pictures into")
        return
    sides = _sides(str(recipe.size))
    square = len(set(sides)) == 1
    object.__setattr__(recipe, "size", sides[0] if square else "x".join(map(str, sides)))


# Of a zoo's rows by name, each as an index has it.
Columns: TypeAlias = dict[str, dict[str, Any]]


# Hidden layers of INRs; the other activations of `zoo.spec` are of networks from elsewhere.
INR_ACTIVATIONS = ("sin", "relu", "tanh", "gelu")
ENCODINGS = ("none", "fourier")
# The fields of an INR that a trial can choose.
WIDTH, STEPS = "hidden", "steps"
# The key that counts the networks of a run; zoos that have it are of runs of several rows.
RUN_KEY = "step"
# In the recipe of a zoo of other zoos' rows: the one that all of them were fitted by.
FITTED_BY = "fitted_by"
# What `labels=` becomes: the class of each item, whatever its kind.
LABEL = "label"


@dataclass(frozen=True)
class Measure:
    """A quality column by which zoos are told good from bad.

    Attributes:
        label: of an axis, with the unit.
        words: for a mean, in a sentence; `short` the same in a line of progress.
        log: whether it spreads over powers of ten.
    """

    column: str
    label: str
    words: str
    short: str
    log: bool = False


# The first one that a zoo has is the one that is drawn and told.
MEASURES = (
    Measure("psnr_db", "PSNR [dB]", "PSNR {:.2f} dB", "{:.2f} dB"),
    Measure("iou", "IoU", "IoU {:.3f}", "IoU {:.3f}"),
    Measure("mse", "mean squared error", "error {:.3g}", "error {:.3g}", log=True),
    Measure("test_accuracy", "test accuracy", "test accuracy {:.4f}", "accuracy {:.3f}"),
)
# Columns whose mean and extremes are told in short.
TOLD = ("psnr_db", "iou", "distance_error", "mse", "steps", "test_accuracy", "test_loss")
# What a column holds, in words.
MEANINGS = {
    "index": "position in the source: its own training items first, then its test items",
    "view": "which initialisation of that item; 0 is the first",
    "label": "class of the item",
    "amplitude": "a of the wave a sin(b x)",
    "frequency": "b of the wave a sin(b x), in radians per unit of x",
    "psnr_db": "PSNR of the stored network, the pixel range as peak, outputs not clipped",
    "mse": "mean squared error of the stored network's outputs",
    "iou": "points inside both shape and network over points inside either, of points all over "
    "space that were not fitted",
    "distance_error": "mean error of the network's distances, clipped, on the same points",
    "size_1": "the longest of the solid's extents along its own axes",
    "size_2": "the second of them",
    "size_3": "the shortest of them",
    "volume": "of the solid; all of space has 8",
    "steps": "updates that were made",
    "stop": "why fitting ended: 0 all steps done, 1 target reached",
    "train_loss": "loss of the stored network on its training items",
    "test_loss": "loss of the stored network on its test items",
    "test_accuracy": "right answers on the test items, as a fraction",
    "step": "updates made before the network was kept",
    "epoch": "the same in passes over the run's training items",
    "class_a": "lower class of the pair",
    "class_b": "higher class of the pair",
    "lr": "learning rate",
    "weight_decay": "L2 term in the gradient",
    "optimiser": "of the training",
    "batch": "items of a minibatch",
    "init": "scheme of the initial weights",
    "init_scale": "factor on the initial weights",
    "init_std": "standard deviation of the scheme normal",
    "fraction": "part of the training items that was seen",
    "dropout": "chance that a feature was dropped",
    "rounding": "root of the mean squared rounding error of the parameters, over that of the "
    "parameters",
}
# What is to be said of a quality column where its summary stands.
REMARKS = {"stop": "The mean of `stop` is the share of networks that reached the target."}


def _column(
    role: str, kind: str, names: Sequence[str] | None = None, unit: str | None = None
) -> dict[str, Any]:
    known = None if names is None else tuple(names)
    return {"role": role, "kind": kind, "names": known, "unit": unit}


def _fitted() -> Columns:
    """The quality of every INR."""
    kinds = {"mse": "real", "steps": "count", "stop": "count"}
    return {name: _column("quality", kind) for name, kind in kinds.items()}


# Order of coordinates where the recipe has none: one input is x, more are no picture.
_ORDERS = {1: "x"}
# How the points of shapes lie, see `zoo.pools`.
POOLS = ("surface", "volume")


def _shape(source: Mapping[str, Any]) -> tuple[int, int, int]:
    """Rows, columns and channels of a source of pictures."""
    shape = source.get("shape", ())
    if len(shape) != 3:
        raise ValueError(f"shape must be [rows, columns, channels], got {shown(shape)}")
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True, kw_only=True)
class InrRecipe(ABC):
    """What recipes of all zoos of INRs share; use `ImageRecipe`, `SineRecipe` or `ShapeRecipe`.

    `init` is described by `zoo.nets.bounds`, Adam by Kingma and Ba 2015; weight decay
    is that of torch.optim.Adam.
    """

    name: str = described(help="name of the recipe")
    hidden: int = described(
        32,
        "neurons of each hidden layer",
        least=1,
        most=MOST_NEURONS,
        auto="as few as reach the target, found by fitting a few items, and steps likewise",
    )
    layers: int = described(3, "linear layers, the last included", least=2, most=MOST_LAYERS)
    activation: str = described("sin", "of the hidden layers", choices=INR_ACTIVATIONS, since=2)
    omega: float = described(30.0, "factor in sin(omega (W h + b))", above=0)
    first_omega: float | None = described(
        None, "the same in the first layer, where it is another", above=0, since=2
    )
    encoding: str = described(
        "none",
        "what the first layer reads of x: none, x itself, or fourier, sin(2 pi B x) and "
        "cos(2 pi B x) with a random matrix B that all networks share",
        choices=ENCODINGS,
        since=2,
    )
    frequencies: int = described(
        64, "rows of the matrix B of fourier", least=1, most=MOST_FREQUENCIES, since=2
    )
    scale: float = described(10.0, **SCALE)
    output_offset: float = described(0.5, "added to the output")
    init: str = described("dws", "scheme of the initial weights", choices=INIT_SCHEMES)
    shared_init: bool = described(False, "one initialisation for all networks")
    lr: float = described(1e-3, "learning rate of Adam", above=0)
    schedule: str = described(
        "constant",
        "learning rate after the warm-up: constant, or cosine, down to 0 at the last of --steps",
        choices=SCHEDULES,
        since=2,
    )
    lr_warmup: int = described(
        0, "updates in which the learning rate rises linearly", least=0, most=MOST_STEPS, since=2
    )
    weight_decay: float = described(0.0, "L2 term in the gradient", least=0)
    beta1: float = described(0.9, "first decay rate of Adam", least=0, below=1)
    beta2: float = described(0.999, "second decay rate of Adam", least=0, below=1)
    eps: float = described(1e-8, "epsilon of Adam", above=0)
    steps: int = described(
        1000,
        "full-batch updates at most",
        least=1,
        most=MOST_STEPS,
        auto="as few as reach the target",
    )

    def __post_init__(self) -> None:
        check(self)
        sine = self.activation == "sin"
        if sine and self.init == "torch":
            raise ValueError("init 'torch' does not start sine layers well; take dws or nfn")
        if not sine and self.first_omega is not None:
            raise ValueError(f"first_omega is of sine layers, the activation is {self.activation}")

    @abstractmethod
    def spec(self, inp: int, out: int, seed: int | None = None) -> NetworkSpec:
        """The network of so many inputs and outputs.

        Args:
            seed: of the zoo, from which the frequencies of an encoding are drawn.

        Raises:
            ValueError: for an encoding without a seed.
        """

    def network(self, inp: int, out: int, seed: int | None, **conventions: Any) -> NetworkSpec:
        """The network of so many inputs and outputs with these conventions; see `spec`."""
        widths = [inp, *[self.hidden] * (self.layers - 1), out]
        conventions["output_offset"] = self.output_offset
        if self.encoding == "fourier":
            conventions["frequencies"] = self._drawn_frequencies(inp, seed)
        spec = NetworkSpec.mlp(widths, self.activation, self.omega, **conventions)
        if self.first_omega is None:
            return spec
        first = replace(spec.layers[0], omega=self.first_omega)
        return replace(spec, layers=(first, *spec.layers[1:]))

    def _drawn_frequencies(self, inp: int, seed: int | None) -> list[list[float]]:
        """`frequency input`, the same for every network of a zoo."""
        if seed is None:
            raise ValueError("the frequencies of an encoding are drawn from a zoo's seed: give it")
        import numpy as np

        from zoo import philox

        first = np.zeros(1, np.int64)
        count = self.frequencies * inp
        drawn = philox.normals(seed, 0, first, first, philox.ENCODING, count)
        found: list[list[float]] = (self.scale * drawn).reshape(-1, inp).tolist()
        return found

    @property
    def loss_of(self) -> str:
        """What is minimised, see `zoo.engines`."""
        return "squared"

    @property
    def drawn(self) -> int | None:
        """Points of each step, of those that are a network's own; None takes all of them."""
        return None

    @classmethod
    def takes(cls, source: str) -> bool:
        """Whether it is for sources of this name."""
        return _of_pictures(source)

    @abstractmethod
    def columns(self, classes: Sequence[str], storage: str = "float32") -> Columns:
        """What the rows of such a zoo hold beside keys and tensors, as an index has it.

        Args:
            classes: of the source.
            storage: type that the networks are kept in.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What an index says of the source that follows from the recipe."""

    @abstractmethod
    def spec_of(self, source: Mapping[str, Any], seed: int) -> NetworkSpec:
        """The network for a source as an index describes it, in a zoo of this seed.

        Raises:
            ValueError: if the source has no such shape or classes.
        """

    def to_json(self) -> dict[str, Any]:
        """Plain data with the recipe's `kind`; `recipe_from_json` is the inverse."""
        return {"kind": self.kind, **to_plain(self)}

    @property
    def kind(self) -> str:
        """The kind of zoo that it makes."""
        return next(kind for kind, cls in RECIPE_KINDS.items() if cls is type(self))


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(InrRecipe):
    """INRs of pictures; `split` is a rule of `zoo.sources.split_items`."""

    coord_order: str = described(
        "xy", "order of inputs: xy is (column, row), ij is (row, column)", choices=("xy", "ij")
    )
    black: float = described(0.0, "output that stands for black")
    white: float = described(1.0, "output that stands for white")
    target_psnr_db: float | None = described(None, "a network stops above it", unit="dB")
    min_psnr_db: float | None = described(None, "networks below it are left out", unit="dB")
    views: int = described(1, "initialisations of each training item", least=1, most=2**31 - 1)
    split: str = described("dws", "rule that cuts the source into splits", choices=("dws", "nfn"))
    size: int | str | None = described(None, **SIZE)
    fit: str = described("crop", **FIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tones(self.black, self.white)
        _settle_size(self)

    def spec(self, inp: int, out: int, seed: int | None = None) -> NetworkSpec:
        return self.network(
            inp,
            out,
            seed,
            coord_order=self.coord_order if inp == 2 else _ORDERS.get(inp),
            pixel_range=(self.black, self.white),
        )

    def columns(self, classes: Sequence[str], storage: str = "float32") -> Columns:
        label = {"label": _column("target", "class", classes)} if classes else {}
        return {**label, "psnr_db": _column("quality", "real", unit="dB"), **_fitted()}

    def facts(self) -> dict[str, Any]:
        return {"kind": "image", "size": self.size}

    def spec_of(self, source: Mapping[str, Any], seed: int) -> NetworkSpec:
        return self.spec(2, _shape(source)[2], seed)

    @property
    def target_mse(self) -> float | None:
        """The error at `target_psnr_db`, with white - black as the peak."""
        if self.target_psnr_db is None:
            return None
        return (self.white - self.black) ** 2 * 10 ** (-self.target_psnr_db / 10)


@dataclass(frozen=True, kw_only=True)
class SineRecipe(InrRecipe):
    """INRs of waves a * sin(b * x) on [-pi, pi]; split 80/10/10."""

    waves: int = described(5000, "number of waves", least=1, most=2**31 - 1)
    points: int = described(2000, "samples of each wave, both ends included", least=2, most=2**24)
    min_amplitude: float = described(0.0, "least a in a sin(b x)")
    max_amplitude: float = described(10.0, "greatest a in a sin(b x)")
    min_frequency: float = described(0.0, "least b in a sin(b x)", unit="radians per unit of x")
    max_frequency: float = described(10.0, "greatest b in a sin(b x)", unit="radians per unit of x")
    target_mse: float | None = described(None, "a network stops below it")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("amplitude", "frequency"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} ({low}) is above max_{name} ({high})")

    def spec(self, inp: int, out: int, seed: int | None = None) -> NetworkSpec:
        return self.network(
            inp,
            out,
            seed,
            coord_order=_ORDERS.get(inp),
            coord_range=(-3.141592653589793, 3.141592653589793),
        )

    def columns(self, classes: Sequence[str], storage: str = "float32") -> Columns:
        return {
            "amplitude": _column("target", "real"),
            "frequency": _column("target", "real", unit="rad per unit"),
            **_fitted(),
        }

    @classmethod
    def takes(cls, source: str) -> bool:
        return source == "sine"

    def facts(self) -> dict[str, Any]:
        return {"kind": "sine", "points": self.points, "items": self.waves}

    def spec_of(self, source: Mapping[str, Any], seed: int) -> NetworkSpec:
        return self.spec(1, 1, seed)


@dataclass(frozen=True, kw_only=True)
class ShapeRecipe(InrRecipe):
    """INRs of shapes in the cube [-1, 1]^3, each fitted on points of its own.

    `signal` is what a network says of a point, see `NetworkSpec`; the points of every step are
    drawn from a pool of queries, distributed as `zoo.pools` says.
    """

    # Points of a pool lie far apart: what waves between them is anything there.
    scale: float = described(0.5, **SCALE)
    signal: str = described(
        "udf",
        "what a network says of a point: udf its distance to the surface, sdf the same, negative "
        "inside, occupancy whether it is inside",
        choices=SIGNALS,
    )
    clip: float = described(0.1, "distance beyond which all count alike", above=0, most=4)
    loss: str = described(
        "bce",
        "bce, cross-entropy of labels from 0 to 1 on logits, or squared, their errors",
        choices=LOSSES,
    )
    batch_points: int = described(
        2_000, "points of each step, drawn from the pool", least=1, most=2**20
    )
    pool: str = described(
        "surface",
        "where the points of a shape's pool lie: surface, most of them on it or close, as in "
        "inr2vec, or volume, a third all over space",
        choices=POOLS,
    )
    pool_points: int = described(100_000, "points of each shape's pool", least=100, most=2**24)
    min_iou: float | None = described(None, "networks of a lower IoU are left out", least=0, most=1)
    views: int = described(1, "initialisations of each training item", least=1, most=2**31 - 1)

    def spec(self, inp: int, out: int, seed: int | None = None) -> NetworkSpec:
        return self.network(
            inp,
            out,
            seed,
            coord_order="xyz" if inp == 3 else _ORDERS.get(inp),
            signal=self.signal,
            clip=self.clip,
            logits=self.loss == "bce",
        )

    def columns(self, classes: Sequence[str], storage: str = "float32") -> Columns:
        label = {"label": _column("target", "class", classes)} if classes else {}
        names = ("iou", "distance_error", "train_loss")
        told = [name for name in names if name != "distance_error" or self.signal != "occupancy"]
        return label | {name: _column("quality", "real") for name in told}

    @classmethod
    def takes(cls, source: str) -> bool:
        return source.partition(":")[0] in ("voxels", "tensors")

    def facts(self) -> dict[str, Any]:
        return {"kind": "shape"}

    def spec_of(self, source: Mapping[str, Any], seed: int) -> NetworkSpec:
        return self.spec(3, 1, seed)

    @property
    def loss_of(self) -> str:
        return self.loss

    @property
    def drawn(self) -> int | None:
        return self.batch_points

    @property
    def target_mse(self) -> None:
        """None: what a step is fitted to is another one each time."""


@dataclass(frozen=True, kw_only=True)
class SolidRecipe(ShapeRecipe):
    """INRs of the parametric solids of `zoo.solids`; split 80/10/10."""

    solids: int = described(5000, "number of solids", least=1, most=2**31 - 1)

    def columns(self, classes: Sequence[str], storage: str = "float32") -> Columns:
        sizes = {name: _column("target", "real") for name in SOLID_TARGETS}
        label, quality = {"label": _column("target", "class", classes)}, super().columns(())
        return label | sizes | quality

    @classmethod
    def takes(cls, source: str) -> bool:
        return source == "shapes"

    def facts(self) -> dict[str, Any]:
        return {"kind": "solid", "items": self.solids}


# What is measured of a solid, beside its class.
SOLID_TARGETS = ("size_1", "size_2", "size_3", "volume")
# Sources that have no pictures.
_OTHERS = ("sine", "shapes", "voxels")


def _of_pictures(source: str) -> bool:
    return source.partition(":")[0] not in _OTHERS


def check_tones(black: float, white: float) -> None:
    """Raise ValueError unless white is above black."""
    if not white > black:
        raise ValueError(f"white ({white}) must be above black ({black})")


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


def _counts(text: str) -> list[int]:
    try:
        return [int(word) for word in choices(text)]
    except ValueError:
        raise ValueError(f"expected whole numbers with commas, got {text!r}") from None


def _parts(text: str) -> list[float]:
    try:
        return [float(word) for word in choices(text)]
    except ValueError:
        raise ValueError(f"expected numbers with commas, got {text!r}") from None


@dataclass(frozen=True, kw_only=True)
class TrainedRecipe(ABC):
    """What recipes of classifiers share; use `ClassifierRecipe` or `TrajectoryRecipe`.

    Fields of text may differ from network to network: a range "1e-4..1e-2" is drawn
    log-uniformly (dropout: uniformly), a list "128,512" evenly. A network's values come from
    the seed and its index alone.

    `network` is "mlp", or "cnn": 3 x 3 convolutions, their mean over positions, one linear
    layer. The optimisers are those of torch.optim, weight decay is the L2 term there. `init`
    "torch" is the default of torch.nn; `init_scale` is not applied to biases. Of a batch the
    last one of an epoch is smaller. The items of `loss_items` are evenly spaced.
    """

    name: str = described(help="name of the recipe")
    network: str = described("mlp", "kind of network", choices=("mlp", "cnn"))
    hidden: int = described(
        64, "neurons, or channels, of each hidden layer", least=1, most=MOST_NEURONS
    )
    layers: int = described(5, "layers of weights, the last included", least=2, most=MOST_LAYERS)
    activation: str = described("relu", "of the hidden layers", choices=("relu", "tanh"))
    stride: int = described(2, "of convolutions, in pixels", least=1, most=MOST_PIXELS)
    epochs: int = described(2, "passes over the training items at most", least=1, most=MOST_STEPS)
    lr: str = described(
        "0.005", "learning rate, or a range to draw from log-uniformly", values=bounds, above=0
    )
    weight_decay: str = described(
        "0", "L2 term in the gradient, or a range", values=bounds, least=0
    )
    optimiser: str = described(
        "adam", "of torch.optim, or a list to draw from",
        values=choices, choices=("adam", "sgd", "rmsprop"),
    )  # fmt: skip
    beta1: float = described(0.9, "first decay rate of Adam", least=0, below=1)
    beta2: float = described(0.999, "second decay rate of Adam", least=0, below=1)
    eps: float = described(1e-8, "epsilon of Adam and RMSprop", above=0)
    batch: str = described(
        "128", "items of a minibatch, or a list to draw from",
        values=_counts, least=1, most=MOST_STEPS,
    )  # fmt: skip
    init: str = described(
        "torch", "scheme of the initial weights, or a list to draw from",
        values=choices, choices=("torch", "glorot", "he", "orthogonal", "normal"),
    )  # fmt: skip
    init_scale: str = described(
        "1", "factor on the initial weights, or a range", values=bounds, above=0
    )
    init_std: str = described(
        "0.05", "standard deviation of the scheme normal, or a range", values=bounds, above=0
    )
    fraction: str = described(
        "1", "part of the training items that is seen, or a list to draw from",
        values=_parts, above=0, most=1,
    )  # fmt: skip
    dropout: str = described(
        "0", "chance that a feature (of a convolution: a whole map) is dropped, or a range",
        values=bounds, least=0, below=1,
    )  # fmt: skip
    black: float = described(-1.0, "input that stands for black")
    white: float = described(1.0, "input that stands for white")
    loss_items: int | None = described(
        None, "training items on which the train loss is measured; none: all seen",
        least=1, most=MOST_STEPS,
    )  # fmt: skip
    size: int | str | None = described(None, **SIZE)
    fit: str = described("crop", **FIT)

    def __post_init__(self) -> None:
        check(self)
        low, high = bounds(self.weight_decay)
        if low == 0 < high:
            raise ValueError(
                f"weight_decay is drawn log-uniformly, so that a range cannot begin with 0, got "
                f"{self.weight_decay!r}"
            )
        check_tones(self.black, self.white)
        _settle_size(self)

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

    def columns(self, classes: Sequence[str], storage: str = "float32") -> Columns:
        """What the rows of such a zoo hold beside keys and tensors, as an index has it.

        Args:
            classes: of the source.
            storage: type that the networks are kept in.
        """
        found = self.own_columns(classes)
        for name, listed in self.varied.items():
            if name in ("optimiser", "init"):
                found[name] = _column("target", "class", listed)
            else:
                found[name] = _column("target", "count" if name == "batch" else "real")
        for name in ("train_loss", "test_loss", "test_accuracy"):
            found[name] = _column("quality", "real")
        if storage != "float32":
            found["rounding"] = _column("quality", "real")
        return found

    @abstractmethod
    def own_columns(self, classes: Sequence[str]) -> Columns:
        """The first columns, in which classifiers and trajectories differ."""

    def pair(self, classes: int, first: float, second: float) -> tuple[int, int] | None:
        """The two classes of a unit, lower first, by two draws in [0, 1); None: all of them."""
        return None

    @abstractmethod
    def steps_kept(
        self, epoch_steps: int, shuffled: Callable[[int], Sequence[int]]
    ) -> tuple[int, ...]:
        """After which updates networks of a unit are kept.

        Args:
            epoch_steps: updates of an epoch.
            shuffled: the numbers below the one given, in the unit's own random order.
        """

    @abstractmethod
    def refuse_short_runs(self, items: int) -> None:
        """ValueError if runs on so many training items may be too short for what is kept."""

    def facts(self) -> dict[str, Any]:
        """What an index says of the source that follows from the recipe."""
        return {"kind": "image", "size": self.size}

    def spec_of(self, source: Mapping[str, Any], seed: int) -> NetworkSpec:
        """The network for a source as an index describes it, whatever the zoo's seed.

        Raises:
            ValueError: if the source has no such shape or classes.
        """
        return self.spec(_shape(source), len(source.get("class_names", ())))

    @property
    def varied(self) -> dict[str, tuple[str, ...] | None]:
        """Fields that differ from network to network, with their values if those are listed."""
        found: dict[str, tuple[str, ...] | None] = {}
        described = about(type(self)).items()
        for name in (name for name, field in described if field.values is bounds):
            low, high = bounds(getattr(self, name))
            if low < high:
                found[name] = None
        for name in (
            name for name, field in described if field.values in (choices, _counts, _parts)
        ):
            listed = choices(getattr(self, name))
            if len(listed) > 1:
                found[name] = tuple(listed)
        return found

    @classmethod
    def takes(cls, source: str) -> bool:
        """Whether it is for sources of this name."""
        return _of_pictures(source)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the recipe's `kind`; `recipe_from_json` is the inverse."""
        return {"kind": self.kind, **to_plain(self)}

    @property
    def kind(self) -> str:
        """The kind of zoo that it makes."""
        return next(kind for kind, cls in RECIPE_KINDS.items() if cls is type(self))


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(TrainedRecipe):
    """Classifiers of two random classes each, kept at the end; split 80/10/10."""

    networks: int = described(5000, "number of classifiers", least=1, most=2**31 - 1)

    def own_columns(self, classes: Sequence[str]) -> Columns:
        return {name: _column("target", "class", classes) for name in ("class_a", "class_b")}

    def pair(self, classes: int, first: float, second: float) -> tuple[int, int]:
        one, other = int(first * classes), int(second * (classes - 1))
        other += other >= one
        return min(one, other), max(one, other)

    def steps_kept(
        self, epoch_steps: int, shuffled: Callable[[int], Sequence[int]]
    ) -> tuple[int, ...]:
        return (self.epochs * epoch_steps,)

    @property
    def units(self) -> int:
        return self.networks

    @property
    def shares(self) -> tuple[float, float]:
        """Validation's and test's part of the networks."""
        return 0.1, 0.1

    def refuse_short_runs(self, items: int) -> None:
        """None is too short: the last network is always there to be kept."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryRecipe(TrainedRecipe):
    """Trainings on all classes, of which networks are kept on the way.

    `checkpoints` is "every": after each `interval` updates; "random": `kept` random updates
    of a run, which ends with the last of them; "tenths": after 0, 1, 2, 3 epochs and every
    tenth of the run. A run lies wholly in one split.
    """

    runs: int = described(200, "number of runs", least=1, most=2**31 - 1)
    checkpoints: str = described(
        "every", "which networks of a run are kept", choices=("every", "random", "tenths")
    )
    interval: int = described(
        2, "updates between the checkpoints of every", least=1, most=MOST_STEPS
    )
    kept: int = described(10, "checkpoints of random", least=1, most=MOST_STEPS)
    validation_share: float = described(
        0.125, "part of the runs in the validation split", least=0, below=1
    )
    test_share: float = described(0.125, "part of the runs in the test split", least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoints == "every" and {"batch", "fraction"} & set(self.varied):
            raise ValueError(
                "checkpoints 'every' wants one batch and one fraction, so that all runs have the "
                "same number of updates; choose random or tenths"
            )
        shares = (self.validation_share, self.test_share)
        if sum(shares) >= 1:
            raise ValueError(f"validation_share and test_share must leave some to train: {shares}")

    def own_columns(self, classes: Sequence[str]) -> Columns:
        return {"step": _column("key", "index"), "epoch": _column("key", "real")}

    def steps_kept(
        self, epoch_steps: int, shuffled: Callable[[int], Sequence[int]]
    ) -> tuple[int, ...]:
        total = self.epochs * epoch_steps
        if self.checkpoints == "tenths":
            return tuple(round(at * epoch_steps) for at in self.epochs_kept())
        if self.checkpoints == "random":
            return tuple(step + 1 for step in sorted(shuffled(total)[: self.kept]))
        kept = tuple(range(self.interval, total + 1, self.interval))
        if not kept:
            raise ValueError(
                f"a run has {total} updates, fewer than the interval of {self.interval}"
            )
        return kept

    def refuse_short_runs(self, items: int) -> None:
        if self.checkpoints != "random":
            return
        least = self.epochs * min(
            ceil(ceil(part * items) / batch)
            for part in _parts(self.fraction)
            for batch in _counts(self.batch)
        )
        if least < self.kept:
            raise ValueError(
                f"{self.kept} random checkpoints do not fit into the {least} updates of the "
                "shortest run"
            )

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


Recipe = ImageRecipe | SineRecipe | ShapeRecipe | SolidRecipe
Classified = ClassifierRecipe | TrajectoryRecipe
AnyRecipe = Recipe | Classified
RECIPE_KINDS: dict[str, type[AnyRecipe]] = {
    "image": ImageRecipe,
    "sine": SineRecipe,
    "shape": ShapeRecipe,
    "solid": SolidRecipe,
    "classifier": ClassifierRecipe,
    "trajectory": TrajectoryRecipe,
}


def dws(source: str) -> ImageRecipe:
    """The INRs that Navon et al. 2023 released; the default of named sets of pictures.

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


def fast(source: str) -> ImageRecipe:
    """INRs of any pictures, for quality in little time; the default of folders of pictures.

    Settled by measurement over 8 to 128 pixels, grey and RGB, 2 to 6 layers of 16 to 128
    neurons, see docs/recipes.md: what counts is the first layer's wider start, then the short
    memory of Adam's mean square. Twice the rate gains nothing and fails in deep networks.
    """
    return ImageRecipe(
        name="fast",
        init="nfn",
        lr=2e-3,
        schedule="cosine",
        beta2=0.95,
        steps=375,
        target_psnr_db=45.0,
    )


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


def _of_shape(source: str, **fields: Any) -> ShapeRecipe:
    return SolidRecipe(**fields) if source == "shapes" else ShapeRecipe(**fields)


def udf(source: str) -> ShapeRecipe:
    """Distances to surfaces, as in experiment N3 of Zhou et al. 2023; the default of voxels.

    3-128-1, 641 parameters, 1,000 steps of Adam on cross-entropy, points as in inr2vec (De Luigi
    et al. 2023). Rate, points of a step and pool are not published; ours are settled by
    measurement, see docs/recipes.md.
    """
    return _of_shape(
        source, name="udf", hidden=128, layers=2, init="nfn", output_offset=0.0, lr=1e-2
    )


def occupancy(source: str) -> ShapeRecipe:
    """Inside or outside, a good surface in few parameters; the default of `shapes`."""
    return _of_shape(
        source, name="occupancy", signal="occupancy", hidden=64, layers=3, omega=20.0, init="nfn",
        output_offset=0.0, lr=3e-3, schedule="cosine", pool="volume",
    )  # fmt: skip


def sdf(source: str) -> ShapeRecipe:
    """Distances to surfaces, negative inside, for closed shapes."""
    return _of_shape(
        source, name="sdf", signal="sdf", hidden=64, layers=3, init="nfn",
        output_offset=0.0, lr=1e-3, schedule="cosine",
    )  # fmt: skip


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
    "fast": fast,
    "sine-ssl": sine_ssl,
    "sine-regression": sine_regression,
    "udf": udf,
    "occupancy": occupancy,
    "sdf": sdf,
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
    "shape": "fit-inrs",
    "solid": "fit-inrs",
    "classifier": "fit-classifiers",
    "trajectory": "fit-trajectories",
}


def default_recipe(source: str, command: str = "fit-inrs", there: str | None = None) -> str:
    """The name of the recipe that a source is fitted with unless told otherwise.

    Args:
        source: its whole name, see `zoo.sources.resolve`.
        there: of the zoo that lies where this one goes: what an older version began by its
            default goes on by that.
    """
    if command != "fit-inrs":
        return {"fit-classifiers": "binary", "fit-trajectories": "fashion"}[command]
    if source == "sine":
        return "sine-ssl"
    if not _of_pictures(source):
        return "occupancy" if source == "shapes" else "udf"
    # 324dc88 fitted folders of pictures by "dws".
    return "fast" if ":" in source and there != "dws" else "dws"


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
    usual = {field.name: getattr(start, field.name) for field in fields(start)}
    if isinstance(chosen, InrRecipe):
        usual |= _implied(chosen.activation)
    words = []
    for field in fields(chosen):
        old, new = usual[field.name], getattr(chosen, field.name)
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
    if not chosen.takes(source):
        others = [
            n for n in RECIPES if RECIPES[n](source).takes(source) and command_of(n) == "fit-inrs"
        ]
        raise ValueError(f"recipe {name!r} is not for {source}; those are: {', '.join(others)}")
    known = [field.name for field in fields(chosen)]
    for field in changes:
        if field not in known:
            raise ValueError(f"recipe {name!r} has no field {field!r}; it has: {', '.join(known)}")
    return replace(chosen, **_settled(chosen, changes))


def _settled(chosen: AnyRecipe, changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of a recipe with what follows from them.

    Raises:
        ValueError: for a field that means nothing beside the others.
    """
    if not isinstance(chosen, InrRecipe):
        return changes
    for name in ("frequencies", "scale"):
        if name in changes and changes.get("encoding", chosen.encoding) == "none":
            raise ValueError(f"{name} is of an encoding, there is none: add --encoding fourier")
    activation = changes.get("activation", chosen.activation)
    if "omega" in changes and activation != "sin":
        raise ValueError(f"omega is of sine layers, the activation is {activation}")
    return _implied(activation) | changes


def _implied(activation: str) -> dict[str, Any]:
    """Fields that a named recipe has otherwise with that activation, unless they are given."""
    return {} if activation == "sin" else {"init": "torch"}


def stand_in(name: str) -> str:
    """A source to name where networks are made from something else by the recipe of that name.

    >>> stand_in("sine-ssl"), stand_in("dws")
    ('sine', 'tensors')
    """
    made = RECIPES.get(name)
    return "sine" if made and isinstance(made("tensors"), SineRecipe) else "tensors"


def recipe_from_json(plain: Mapping[str, Any]) -> AnyRecipe:
    """A recipe as it stands in an index, every field of its kind.

    Raises:
        ValueError: naming the field that is missing, unknown or wrong.
    """
    values = {key: value for key, value in plain.items() if key != "kind"}
    kind = recipe_class(plain)
    if kind is None:
        kinds = ", ".join(RECIPE_KINDS)
        raise ValueError(f"kind must be one of {kinds}, got {shown(plain.get('kind'))}")
    known = about(kind)
    for name in values:
        if name not in known:
            raise ValueError(f"unknown field {shown(name)}; known: {', '.join(known)}")
    for name, each in known.items():
        if name not in values and each.since == 1:
            raise ValueError(f"{name} is missing")
    return kind(**values)


def recipe_class(plain: Mapping[str, Any]) -> type[AnyRecipe] | None:
    """Whose fields a recipe in an index has; None where no recipe of ours made the networks."""
    return RECIPE_KINDS.get(str(plain.get("kind")))


def fitted_by(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe that fitted a zoo's networks: of rows of other zoos, the one that these share.

    Args:
        plain: `recipe` of an index, such as `z.index.recipe`.

    >>> fitted_by({"kind": "import", "name": "select", FITTED_BY: {"name": "dws"}})["name"]
    'dws'
    >>> fitted_by({"kind": "image", "name": "fast"})["name"]
    'fast'
    """
    shared: Mapping[str, Any] = plain.get(FITTED_BY, plain)
    return shared


def told_fields(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A stored recipe as people are to read it: all of an encoding, and no omega without sines.

    What fitted rows of other zoos stands apart: `told_recipes`.

    >>> plain = recipe("dws", "mnist", activation="relu", encoding="fourier").to_json()
    >>> told = told_fields(plain)
    >>> "omega" in told, told["frequencies"], told["scale"], "frequencies" in plain
    (False, 64, 10.0, False)
    """
    kind = recipe_class(plain)
    if kind is None or not issubclass(kind, InrRecipe):
        return {name: value for name, value in plain.items() if name != FITTED_BY}
    whole = dict(plain)
    if plain.get("activation", "sin") != "sin":
        whole.pop("omega", None)
    if plain.get("encoding", "none") != "none":
        whole = {"frequencies": kind.frequencies, "scale": kind.scale, **whole}
        order = ["kind", *about(kind)]
        whole = {name: whole[name] for name in order if name in whole}
    return whole


def told_recipes(plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`told_fields` of a recipe in an index, and of the one that fitted the rows of other zoos.

    >>> list(told_recipes({"kind": "import", "name": "select", FITTED_BY: {"name": "dws"}}))
    ['recipe', 'fitted by']
    """
    told = {"recipe": told_fields(plain)}
    return told | ({"fitted by": told_fields(plain[FITTED_BY])} if FITTED_BY in plain else {})


def recipe_format(plain: Mapping[str, Any]) -> int:
    """The first format of zoos that has every field of a stored recipe."""
    kind = recipe_class(plain)
    found = about(kind) if kind else {}
    return max((found[name].since for name in plain if name in found), default=1)
