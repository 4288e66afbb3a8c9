"""What is known of the published zoos that recipes reproduce, beside what a zoo of ours has.

One entry a recipe. Every fact says where it is printed; nothing stands here that only we
measured, and what follows from a printed shape (its number of parameters) is computed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.recipes import recipe_from_json
from zoo.shards import SPLITS, Index
from zoo.spec import NetworkSpec

Statistics = Mapping[str, NDArray[np.float64]]

_J = "Navon et al., App. J"
_D3 = "Zhou et al., App. D.3"
_E5 = "Zhou et al., App. E.5"
_AUTHORS = "the authors' statistics"


@dataclass(frozen=True)
class Original:
    """A published zoo.

    Attributes:
        title: what and whose it is.
        facts: value of each fact of `FACTS`, by where it is printed: a text, or a number for
            what is compared as one.
        of_source: more facts, of one source of ours by its name.
        sources: names of our sources that it is about; empty: any, for the kind of zoo is
            what was published.
        remark: what has to be known beside the numbers.
    """

    title: str
    facts: Mapping[str, Mapping[str, str | float]]
    of_source: Mapping[str, Mapping[str, Mapping[str, str | float]]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    remark: str = ""

    def of_weights(self, source: str) -> bool:
        """Whether something was published of the weights of networks of this source."""
        named = self.of_source.get(source, {}).values()
        return any(name not in FACTS for facts in named for name in facts)


def _deviations(*values: float) -> dict[str, str | float]:
    """Means over the entries of each tensor's deviations; the last: of the last bias's means."""
    names = ("weight_0", "weight_1", "weight_2", "bias_0", "bias_1", "bias_2")
    found: dict[str, str | float] = {
        f"std.{name}": value for name, value in zip(names, values[:6], strict=True)
    }
    return found | {"mean.bias_2": values[6]}


_MNIST_INRS: dict[str, Mapping[str, str | float]] = {
    _J: {
        "networks": "55,000 / 5,000 / 10,000",
        "shape": "2-32-32-1",
        "rate": "0.0005",
        "updates": "1,000 at most",
        "ends": "above 40 dB",
    }
}
_PRINTED_STEPS = (
    "Recipe `dws` follows the authors' statistics, which the printed number of steps does not "
    "give; `docs/recipes.md` of wszoo shows what does."
)
_STATISTICS = {
    "mnist": {_AUTHORS: _deviations(0.0627, 0.0183, 0.1179, 0.0213, 0.0110, 0.0999, -0.0124)},
    "fashion-mnist": {
        _AUTHORS: _deviations(0.0781, 0.0324, 0.1345, 0.0286, 0.0167, 0.0960, -0.0203)
    },
}
_NFN: dict[str, Mapping[str, str | float]] = {
    _D3: {"rate": "5e-05", "updates": "5,000"},
}
_NFN_MLP: dict[str, str | float] = {
    "source": "MNIST",
    "runs": "2,000, of which 90% for training",
    "kept": "10 of each run, at random",
}

# By the name of the recipe.
ORIGINALS: dict[str, Original] = {
    "dws": Original(
        "INRs of Navon et al. 2023 (DWSNets)", _MNIST_INRS, _STATISTICS,
        ("mnist", "fashion-mnist"), _PRINTED_STEPS,
    ),
    "dws-paper": Original(
        "INRs of Navon et al. 2023 (DWSNets)", _MNIST_INRS, _STATISTICS,
        ("mnist", "fashion-mnist"), _PRINTED_STEPS,
    ),
    "nfn": Original(
        "INRs of Zhou et al. 2023 (NFN)", _NFN,
        {
            "mnist": {_D3: {
                "pictures": "45,000 / 5,000 / 10,000", "shape": "2-32-32-1", "copies": "10",
            }},
            "fashion-mnist": {_D3: {
                "pictures": "45,000 / 5,000 / 20,000", "shape": "2-32-32-1", "copies": "10",
            }},
            "cifar10": {_D3: {
                "pictures": "45,000 / 5,000 / 10,000", "shape": "2-32-32-3", "copies": "20",
            }},
        },
        ("mnist", "fashion-mnist", "cifar10"),
    ),
    "sine-ssl": Original(
        "waves for self-supervised learning of Navon et al. 2023 (DWSNets)",
        {_J: {
            "networks": "4,000 / 500 / 500", "shape": "1-32-32-1", "points": "2,000",
            "amplitudes": "0 to 10", "frequencies": "0 to 10",
            "rate": "0.001", "updates": "1,500",
        }},
    ),
    "sine-regression": Original(
        "waves for regression of Navon et al. 2023 (DWSNets)",
        {_J: {
            "networks": "800 / 100 / 100", "shape": "1-32-32-1", "points": "2,000",
            "rate": "0.0001", "updates": "1,000",
        }, "Navon et al., Sec. 7": {"frequencies": "0.5 to 10"}},
    ),
    "udf": Original(
        "3D shapes of Zhou et al. 2023 (NFN)",
        {
            "Zhou et al., Table 4": {"source": "ShapeNet-10, ScanNet-10"},
            _D3: {"shape": "3-128-1", "rate": "not printed", "updates": "1,000"},
        },
        remark="Rate, points of a step and loss are not printed; ours are chosen.",
    ),
    "binary": Original(
        "CIFAR-10 classifiers of two classes of Navon et al. 2023 (DWSNets)",
        {_J: {
            "source": "CIFAR-10", "networks": "4,000 / 500 / 500", "shape": "3072-64-64-64-64-10",
            "chosen": "Adam, 0.005", "each_update": "128", "epochs": "2",
        }},
    ),
    "fashion": Original(
        "Fashion-MNIST trajectories of Navon et al. 2023 (DWSNets)",
        {_J: {
            "source": "Fashion-MNIST", "runs": "200: 150 / 25 / 25", "shape": "784-128-128-128-10",
            "chosen": "Adam, 0.005", "each_update": "1,024", "epochs": "5",
            "kept": "after every 2 steps",
        }},
    ),
    "nfn-mlp3": Original(
        "three-layer MLPs of Zhou et al. 2023 (NFN)",
        {_E5: _NFN_MLP | {"shape": "784-128-128-10"}},
        remark="The ranges of the settings are not printed; ours are chosen.",
    ),
    "nfn-mlp5": Original(
        "five-layer MLPs of Zhou et al. 2023 (NFN)",
        {_E5: _NFN_MLP | {"shape": "784-128-128-128-128-10"}},
        remark="The ranges of the settings are not printed; ours are chosen.",
    ),
    "small-cnn": Original(
        "Small CNN Zoo of Unterthiner et al. 2020",
        {
            "Zhou et al., Table 2": {"source": "CIFAR-10 and SVHN in grey, and others"},
            "Tran et al., App. D.3": {
                "networks": "6,050 / 1,513 ReLU, 5,949 / 1,488 tanh; one of each run"
            },
            "the released files": {"parameters": 4_970, "kept": "9 of each run: steps 0 to 86"},
        },
        remark="The ranges of the settings are ours. Ours keeps several networks of every run: "
        "the splits part the runs.",
    ),
}  # fmt: skip


def _stops(recipe: Any) -> bool:
    """Whether a network can stop before its last update."""
    targets = (getattr(recipe, name, None) for name in ("target_psnr_db", "target_mse"))
    return any(target is not None for target in targets)


def _optimiser(recipe: Any) -> str:
    names = {"adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop"}
    chosen = ", ".join(names.get(each, each) for each in recipe.optimiser.split(","))
    return f"{chosen}, {recipe.lr}"


def _pictures(index: Index, recipe: Any) -> str:
    """Of each split; training pictures have copies."""
    copies = {"train": int(recipe.views)}
    counts = [ceil(index.splits.get(split, 0) / copies.get(split, 1)) for split in SPLITS]
    return " / ".join(f"{count:,}" for count in counts)


def _runs(index: Index, recipe: Any) -> int:
    return int(index.plan.get("limit") or recipe.runs)


def _kept(index: Index, recipe: Any) -> str:
    each = index.rows / _runs(index, recipe)
    return f"{each:,.0f} of each run" if each == round(each) else f"{each:,.1f} a run in the mean"


# What a fact is called, and its value in a zoo of ours, by its index and its recipe.
FACTS: dict[str, tuple[str, Callable[[Index, Any], str | None]]] = {
    "source": ("fitted to", lambda index, _: str(index.source.get("title"))),
    "networks": (
        "networks: " + " / ".join(SPLITS),
        lambda index, _: " / ".join(f"{index.splits.get(split, 0):,}" for split in SPLITS),
    ),
    "pictures": ("pictures: " + " / ".join(SPLITS), _pictures),
    "runs": ("runs", lambda index, recipe: f"{_runs(index, recipe):,}"),
    "kept": ("networks kept", _kept),
    "copies": ("copies of each training picture", lambda _, recipe: f"{recipe.views}"),
    "shape": ("shape", lambda index, _: "-".join(map(str, index.spec.widths))),
    "parameters": ("parameters", lambda index, _: f"{index.spec.param_count:,}"),
    "points": ("points of a wave", lambda _, recipe: f"{recipe.points:,}"),
    "amplitudes": (
        "amplitudes, uniform",
        lambda _, recipe: f"{recipe.min_amplitude:g} to {recipe.max_amplitude:g}",
    ),
    "frequencies": (
        "frequencies, uniform",
        lambda _, recipe: f"{recipe.min_frequency:g} to {recipe.max_frequency:g}",
    ),
    "rate": ("rate of Adam", lambda _, recipe: f"{recipe.lr}"),
    "chosen": ("optimiser, rate", lambda _, recipe: _optimiser(recipe)),
    "each_update": ("pictures of an update", lambda _, recipe: _counted(recipe.batch)),
    "epochs": ("epochs", lambda _, recipe: f"{recipe.epochs:,}"),
    "updates": (
        "updates",
        lambda _, recipe: f"{recipe.steps:,}" + (" at most" if _stops(recipe) else ""),
    ),
    "ends": (
        "early stop",
        lambda _, recipe: (
            None if recipe.target_psnr_db is None else f"above {recipe.target_psnr_db:g} dB"
        ),
    ),
}


def _counted(batch: str) -> str:
    """A recipe's sizes, of which there may be several.

    >>> _counted("1024")
    '1,024'
    """
    return ", ".join(f"{int(size):,}" for size in str(batch).split(","))


# Of weights: the statistic of `stats.safetensors` whose mean over entries is meant.
_OF_WEIGHTS = {"std": "deviation of `{}`", "mean": "mean of `{}`"}


def _parameters(shape: str) -> str:
    """What a printed shape comes to.

    >>> _parameters("2-32-32-1")
    '1,185'
    """
    widths = [int(width) for width in shape.split("-")]
    return f"{NetworkSpec.mlp(widths).param_count:,}"


def of_weights(row: Sequence[str]) -> bool:
    """Whether a row of `beside_the_published` is of stored weights."""
    return row[0] not in {words for words, _ in FACTS.values()}


def beside_the_published(
    index: Index, statistics: Statistics | None = None
) -> tuple[Original, list[list[str]]] | None:
    """The published zoo of an index's recipe, and rows: what, published, here, where printed.

    Args:
        statistics: of the zoo's training networks, as `zoo.stats.normalisation` gives them;
            None leaves out what is said of weights.

    Returns:
        None if nothing was published of such a zoo, or others made the networks.
    """
    original = ORIGINALS.get(str(index.recipe.get("name")))
    source = str(index.source.get("name"))
    if original is None or index.imported or (original.sources and source not in original.sources):
        return None
    rows = []
    recipe = recipe_from_json(index.recipe)
    for facts in (original.facts, original.of_source.get(source, {})):
        for where, named in facts.items():
            for name, value in named.items():
                rows += _rows((index, recipe), statistics, name, value, where)
    order = [words for words, _ in FACTS.values()]
    # What is said of weights comes last, in the order of the tensors.
    rows.sort(key=lambda row: order.index(row[0]) if row[0] in order else len(order))
    return original, rows


def _rows(
    ours: tuple[Index, Any],
    statistics: Statistics | None,
    name: str,
    value: str | float,
    where: str,
) -> list[list[str]]:
    if name in FACTS:
        words, here = FACTS[name]
        found = here(*ours)
        shown = value if isinstance(value, str) else f"{value:,}"
        rows = [[words, shown, found, where]] if found is not None else []
        if name == "shape":
            words, here = FACTS["parameters"]
            rows.append([words, _parameters(str(value)), str(here(*ours)), "by the shape"])
        return rows
    which, _, tensor = name.partition(".")
    entries = None if statistics is None else statistics.get(f"entry.{which}.{tensor}")
    if entries is None:
        return []
    mean, theirs = float(np.mean(entries)), float(value)
    shown = f"{mean:.4f}"
    if which == "std":
        shown += f" ({round(mean / theirs - 1, 3) + 0.0:+.1%})"
    return [[_OF_WEIGHTS[which].format(tensor), f"{theirs:.4f}", shown, where]]
