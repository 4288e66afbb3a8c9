"""What models reach on a zoo, as its card shows it: plain data, and a figure.

Who trains models fills it in (`wszoo card ZOO --results RUN...`); nothing here knows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.drawing import (
    BLUE,
    CEILING,
    CHANCE,
    GREY,
    INK,
    SERIES,
    SMALL,
    WIDE,
    figure,
    level,
    save,
    tidy,
)  # fmt: skip

# What a model reads of a network, the marks of the figure, and what that means.
SEEN = {
    "weights": ("o", BLUE, "weights alone"),
    "function": ("D", SERIES[1][0], "the function, by its answers to inputs"),
    "own": ("s", GREY, "what a class of one's own takes"),
}


@dataclass(frozen=True)
class Line:
    """A model, and what it reached.

    Attributes:
        model: in words.
        reads: of `SEEN`, of a ceiling in words.
        values: one for each seed.
        scale: networks, epochs and seeds, in words.
    """

    model: str
    reads: str
    values: tuple[float, ...]
    scale: str

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @property
    def number(self) -> str:
        """Mean, and one deviation over the seeds, as a table has it."""
        spread = f" ± {np.std(self.values, ddof=1):.2g}" if len(self.values) > 1 else ""
        return told(self.mean) + spread


@dataclass(frozen=True)
class Reached:
    """What models reach in one task, on the test split.

    Attributes:
        task: its name.
        unit: of all values, in words such as "accuracy, %".
        higher: whether more is better.
        models: the best first.
        ceilings: what reads the data themselves, or what networks render.
        chance: name and value of what reads nothing, where that is known.
    """

    task: str
    unit: str
    higher: bool
    models: tuple[Line, ...]
    ceilings: tuple[Line, ...] = ()
    chance: tuple[str, float] | None = None

    @property
    def ceiling(self) -> Line | None:
        """The best of them."""
        sign = 1 if self.higher else -1
        return max(self.ceilings, key=lambda line: sign * line.mean, default=None)


def told(value: float) -> str:
    """A value as tables have it."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


def draw(path: Path, found: Reached) -> None:
    """Draw a dot for each seed of each model, and lines at chance and ceiling."""
    count = len(found.models)
    made = figure(WIDE, 0.3 * count + 1.2)
    axes = made.subplots()
    for place, line in enumerate(found.models):
        mark, colour, _ = SEEN.get(line.reads, SEEN["own"])
        dots: dict[str, Any] = {
            "color": colour,
            "markeredgecolor": INK,
            "markeredgewidth": 0.5,
            "clip_on": False,
        }
        axes.plot(line.values, [place] * len(line.values), mark, markersize=7, alpha=0.8, **dots)
    if found.chance is not None:
        name, value = found.chance
        level(axes, value, f"{name} {value:.3g}", CHANCE, upright=True)
    if found.ceiling is not None:
        value = found.ceiling.mean
        level(axes, value, f"ceiling {value:.3g}", CEILING, upright=True)
    if found.unit.endswith("%"):
        axes.set_xlim(0, 100)
    axes.set_yticks(range(count), _labels(found.models))
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel(f"{found.unit}, on the test split")
    seen = dict.fromkeys(line.reads for line in found.models)
    if len(seen) > 1:
        for reads in seen:
            mark, colour, words = SEEN.get(reads, SEEN["own"])
            axes.plot([], [], mark, color=colour, markeredgecolor=INK, label=f"reads {words}")
        made.legend(frameon=False, fontsize=SMALL, loc="outside lower center", ncols=len(seen))
    tidy(axes, grid="x")
    save(made, path)


def _labels(lines: Sequence[Line]) -> list[str]:
    return [line.model if len(line.model) <= 40 else f"{line.model[:39]}…" for line in lines]
