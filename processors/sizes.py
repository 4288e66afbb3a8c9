"""What the arguments of the listed models may be, beside the spec: known without torch.

The command line, a training, and whatever builds a model hold what they are given against
the same table. An argument's name means the same in all models that take it,
but for those that stand there as "model.argument".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.fields import About

POOLS = ("mean", "sum", "max")
VARIANTS = ("attention", "deepsets")
STATISTICS = ("entry", "tensor", "none")
POSITIONS = ("sinusoidal", "learned", "learned-each", "none")
INITS = ("fan-in", "xavier")
MONOMIAL_GROUPS = ("mono-relu", "mono-sin")
# Of Monomial-NFN; those that edit.
EDITING = ("editing", "equivariant")
KINDS = ("classification", "generalisation", *EDITING)
BLOCKS = ("all", "b2b", "w2w", "both", "diagonal", "nfn-hnp")
ACTIVATIONS = ("relu", "identity", "sin", "tanh", "abs")
SYMMETRIES = ("np", "hnp", "pointwise")


@dataclass(frozen=True)
class Size:
    """What one argument may be.

    Attributes:
        kind: bool, int, float or str; of the items where there are several.
        about: its limits.
        optional: None stands for the paper's own.
        many: it is a list of at least one.
        flag: it may also be true or false.
    """

    kind: type
    about: About
    optional: bool = False
    many: bool = False
    flag: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, to follow the argument's name; or None."""
        if (value is None and self.optional) or (isinstance(value, bool) and self.flag):
            return None
        if not self.many:
            return self.about.problem(value, self.kind)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_LAYERS:
            many = f"1 to {_MOST_LAYERS} values in brackets, as [16,16,4]"
            return f"must be a list of {many}, got {value!r}"
        wrong = [found for item in value if (found := self.about.problem(item, self.kind))]
        return f"{wrong[0]} in {value!r}" if wrong else None


_MOST_LAYERS = 1000
_CHAN = About(least=1, most=1 << 16)
_WIDTH = About(least=1, most=1 << 24)
_DEPTH = About(least=1, most=_MOST_LAYERS)
_CHANCE = About(least=0, below=1)
_SIZES: dict[str, Size] = {
    "activations": Size(str, About(choices=ACTIVATIONS), optional=True, many=True),
    "bands": Size(int, About(least=1, most=64), optional=True),
    "base": Size(str, About(choices=(*SYMMETRIES, "none")), optional=True),
    "base_channels": Size(int, _CHAN, optional=True, many=True),
    "blocks": Size(str, About(choices=BLOCKS)),
    "canonical": Size(bool, About()),
    "chan": Size(int, _CHAN),
    "channels": Size(int, _CHAN, optional=True, many=True),
    "dropout": Size(float, _CHANCE, optional=True),
    "fourier": Size(int, About(least=0, most=1 << 16), optional=True),
    "fourier_scale": Size(float, About(above=0, most=1e6), optional=True),
    "group": Size(str, About(choices=MONOMIAL_GROUPS), optional=True),
    "head": Size(int, _WIDTH, optional=True),
    "head_dropout": Size(float, _CHANCE, optional=True),
    "head_norm": Size(bool, About()),
    "heads": Size(int, About(least=1, most=1024)),
    "hidden": Size(int, _DEPTH),
    "initial": Size(str, About(choices=INITS), optional=True),
    "inner": Size(int, _WIDTH, optional=True),
    "input_rank": Size(int, About(least=0, most=1 << 16)),
    "kind": Size(str, About(choices=KINDS), optional=True),
    "latent": Size(int, _CHAN),
    "layer_norm": Size(bool, About()),
    "layers": Size(int, _DEPTH),
    # Whether positions have the layer's number; of tickets, how many layers there are.
    **{f"nfn-{kind}.layers": Size(int, _DEPTH, flag=True) for kind in ("np", "hnp", "pt")},
    "monomial.layers": Size(bool, About()),
    "max_freq": Size(float, About(above=0, most=1e6), optional=True),
    "mu": Size(float, About(above=0, most=1e6), optional=True),
    "narrow": Size(int, About(least=0, most=1 << 24)),
    "norm": Size(bool, About()),
    "params": Size(int, About(least=1, most=10**10), optional=True),
    "pool": Size(str, About(choices=POOLS)),
    "positions": Size(str, About(choices=POSITIONS), optional=True),
    "reduced": Size(int, About(least=0, most=1 << 24), optional=True),
    "rounds": Size(int, _DEPTH),
    "scale": Size(float, About(least=-1e6, most=1e6)),
    "statistics": Size(str, About(choices=STATISTICS)),
    "probe.hidden": Size(bool, About()),
    "lattice": Size(int, About(least=0, most=64)),
    "probes": Size(int, About(least=1, most=1 << 16)),
    "variant": Size(str, About(choices=VARIANTS)),
    "width": Size(int, _WIDTH, optional=True),
}


def check_sizes(sizes: Mapping[str, Any], model: str = "") -> None:
    """Hold a model's arguments against the table; one that is not in it takes anything.

    Raises:
        ValueError: for the first that is of another type or out of its limits.
    """
    for name, value in sizes.items():
        size = _SIZES.get(f"{model}.{name}") or _SIZES.get(name)
        if size is not None and (problem := size.problem(value)):
            raise ValueError(f"{name} {problem}")
