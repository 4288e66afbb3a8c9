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


Recipe = ImageRecipe | SineRecipe
RECIPE_KINDS: dict[str, type[Recipe]] = {"image": ImageRecipe, "sine": SineRecipe}


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


RECIPES: dict[str, Callable[[str], Recipe]] = {
    "dws": dws,
    "dws-paper": dws_paper,
    "nfn": nfn,
    "sine-ssl": sine_ssl,
    "sine-regression": sine_regression,
}


def default_recipe(source: str) -> str:
    """The name of the recipe that a source is fitted with unless told otherwise."""
    return "sine-ssl" if source == "sine" else "dws"


def flag(field: str) -> str:
    """The command line's option for a field of a recipe; units are not repeated there.

    >>> flag("target_psnr_db")
    '--target-psnr'
    """
    return "--" + field.removesuffix("_db").replace("_", "-")


def flags(chosen: Recipe, source: str) -> list[str]:
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


def recipe(name: str | None, source: str, **changes: Any) -> Recipe:
    """The named recipe for a source, with fields changed.

    Args:
        name: None takes the source's default.
        source: such as "mnist"; some recipes differ by it.
        changes: fields and their values.

    Raises:
        ValueError: for an unknown recipe or field, or a recipe of another kind of source.
    """
    name = name or default_recipe(source)
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    chosen = RECIPES[name](source)
    if isinstance(chosen, SineRecipe) != (source == "sine"):
        others = [n for n in RECIPES if n.startswith("sine-") == (source == "sine")]
        raise ValueError(f"recipe {name!r} is not for {source}; those are: {', '.join(others)}")
    known = [field.name for field in fields(chosen)]
    for field in changes:
        if field not in known:
            raise ValueError(f"recipe {name!r} has no field {field!r}; it has: {', '.join(known)}")
    return replace(chosen, **changes)


def recipe_from_json(plain: dict[str, Any]) -> Recipe:
    """A recipe as it stands in an index."""
    values = {key: value for key, value in plain.items() if key != "kind"}
    return RECIPE_KINDS[plain["kind"]](**values)
