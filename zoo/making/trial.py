"""Fits a few items of a source, to say what a zoo will be, and to choose width and steps.

The items lie evenly among those that are to be fitted, and their networks are those that the
zoo would have. Whether they reach the target is all that the choice depends on: not the
time they took, so that it is the same again on such a machine.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import machine, stopping
from zoo.kinds import Goal, Kind, Means, Objective, kind_of
from zoo.making.fitting import Rows
from zoo.making.plan import Planned, row_bytes
from zoo.recipes import MEASURES, MOST_STEPS, STEPS, WIDTH, Measure, Recipe
from zoo.sources import Source

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
# So many times the recipe's steps are tried where its own do not reach the target, and such
# parts of them where they do.
LONGER, SHORTER = (2, 4), (2, 4, 8)
# Of the items tried one in so many may miss the target: by the whole zoo 95% shall reach it.
MISSES = 40
# Networks that are fitted at once; what reaches nothing is given up after so many.
PIECE = 8
# Items that are tried, and the points of all of them together that are about enough.
FEWEST, MOST, POINTS = 20, 64, 2**18


@dataclass(frozen=True)
class Tried:
    """What one width and number of steps came to.

    Attributes:
        hidden, steps: of the recipe.
        networks: that were fitted; fewer than all where it was given up.
        reached: how many of these met the target.
        values: of the quality column `measure`, of every network that was finite.
        seconds: that fitting takes in batches as a zoo's, on all threads.
    """

    hidden: int
    steps: int
    networks: int
    reached: int
    values: NDArray[np.float64]
    measure: Measure
    seconds: float

    def words(self, target: str | None) -> str:
        """In one line, such as a log has.

        Args:
            target: what is to be reached, in words; None without one.
        """
        found = [f"{self.hidden} neurons, {self.steps:,} steps"]
        if target is not None:
            found.append(f"{self.reached} of {self.networks} reach {target}")
        if len(self.values):
            found.append(f"mean {self.measure.words.format(self.values.mean())}{self.worst}")
        found.append(f"{self.seconds / self.networks:.2g} s a network")
        return ": ".join((found[0], ", ".join(found[1:])))

    @property
    def worst(self) -> str:
        """The value that is furthest from good, as a part of a sentence."""
        if not len(self.values):
            return ""
        value = self.values.max() if self.measure.log else self.values.min()
        return f", the worst {self.measure.short.format(value)}"


@dataclass(frozen=True)
class Trial:
    """What a zoo will be, as far as a few of its networks tell.

    Attributes:
        recipe: with what was chosen.
        source: that was tried.
        tried: in order; the last one is the choice.
        networks: of the whole zoo.
        bytes: of its files, about: rows, and their view for `datasets`, whose pictures are
            counted as if they were not compressed.
        target: what its networks shall reach, in words; None without a target.
    """

    recipe: Recipe
    source: Source
    tried: tuple[Tried, ...]
    networks: int
    bytes: int
    target: str | None

    @property
    def seconds(self) -> float:
        """That fitting all networks takes, on as many threads as the trial had."""
        return self.tried[-1].seconds / self.tried[-1].networks * self.networks

    def words(self) -> list[str]:
        """What to expect, in lines."""
        choice = self.tried[-1]
        time = f"{self.seconds / 60:.2g} minutes" if self.seconds >= 60 else f"{self.seconds:.2g} s"
        threads = machine.threads()
        size = f"{self.bytes / 1e6:,.3g} MB" if self.bytes < 1e9 else f"{self.bytes / 1e9:,.3g} GB"
        return [
            f"tried {choice.networks} of {self.networks:,} networks: {choice.words(self.target)}",
            f"expected of all {self.networks:,}: {time} on {threads} "
            f"thread{'s' if threads > 1 else ''}, {size}",
        ]


class _Bench:
    """The items that are tried, and the means to fit them."""

    def __init__(self, kind: Kind, source: Source, planned: Planned, means: Means):
        self.kind, self.source, self.planned, self.means = kind, source, planned, means
        self.seed = planned.index.plan["seed"]
        first = np.concatenate([rows.index[rows.view == 0] for rows in planned.parts.values()])
        assert isinstance(planned.goal, Objective)
        few = max(FEWEST, min(MOST, POINTS // planned.goal.points))
        chosen = first[np.linspace(0, len(first) - 1, min(few, len(first))).round().astype(int)]
        # Each piece lies over the whole of the source.
        pads = planned.goal.load(planned.index.plan["engine"], means.device).pads
        pieces = 1 if pads else -(-len(chosen) // PIECE)
        self.pieces = [chosen[number::pieces] for number in range(pieces)]
        self.items = len(chosen)

    def fit(self, recipe: Recipe, misses: int | None) -> Tried:
        """Fit the items, until more than `misses` of them have missed the target."""
        goal, name = self.kind.goal(recipe, self.source, self.means)
        engine = goal.load(name, self.means.device)
        measure = next(each for each in MEASURES if each.column in goal.columns)
        # What is compiled or loaded at the first fit is no part of the time.
        hurried, _ = self.kind.goal(replace(recipe, steps=1), self.source, self.means)
        hurried.fit(engine, self.seed, *self._task(self.pieces[0][:1]))
        values, networks, reached = [], 0, 0
        begun = time.monotonic()
        for piece in self.pieces:
            stopping.check()
            fitted = goal.fit(engine, self.seed, *self._task(piece))
            values.append(fitted.arrays[measure.column])
            networks += len(piece)
            reached += self.kind.reached(fitted.arrays)
            if misses is not None and networks - reached > misses:
                break
        seconds = time.monotonic() - begun
        if engine.pads:
            seconds *= networks / (-(-networks // engine.batch) * engine.batch)
        found = np.concatenate(values).astype(np.float64)
        return Tried(recipe.hidden, recipe.steps, networks, reached, found, measure, seconds)

    def row_bytes(self, goal: Goal) -> int:
        """Of a row and its copy in the view, if there is one."""
        index = self.planned.index
        if not index.plan["parquet"]:
            return row_bytes(goal)
        pictures = len(index.pictures) * self.source.items(self.pieces[0][:1]).nbytes
        return 2 * row_bytes(goal) + int(pictures)

    def _task(self, index: NDArray[np.int64]) -> tuple[Any, ...]:
        return self.kind.task(self.source, Rows(index, np.zeros_like(index)))


def try_out(
    recipe: Recipe,
    source: Source,
    planned: Planned,
    means: Means,
    auto: Collection[str] = (),
    told: Callable[[str], None] | None = None,
) -> Trial:
    """Fit a few items by a recipe, first with the width and steps that are wanted.

    The least of `WIDTHS` is taken by which the recipe's steps bring all but one in
    `MISSES` of the items to its target; then the fewest steps by which that width still does.
    If even the greatest width does not, it is given more steps.

    Args:
        planned: the zoo, whatever its width and steps.
        auto: the fields that are to be chosen: `WIDTH`, `STEPS` or both.
        told: called with a line about each width and number of steps.

    Raises:
        ValueError: if fields are to be chosen by a target that the recipe does not have or
            that nothing reaches.
    """
    kind = kind_of(recipe)
    bench = _Bench(kind, source, planned, means)
    target = kind.target_of(recipe)
    tried: list[Tried] = []

    def attempt(chosen: Recipe, misses: int | None) -> bool:
        found = bench.fit(chosen, misses)
        tried.append(found)
        if told is not None:
            told(found.words(target))
        return misses is None or found.networks - found.reached <= misses

    with stopping.noticed():
        if auto:
            if target is None:
                flags = " and ".join(f"--{name}" for name in sorted(auto))
                raise ValueError(
                    f"{flags} auto wants a target to reach: give {kind.target_flag}"
                    if kind.target_flag
                    else f"recipe {recipe.name!r} of {source.name} has no target to reach: give "
                    f"{flags} a number"
                )
            recipe = _chosen(recipe, auto, bench.items // MISSES, attempt, target, tried)
        else:
            attempt(recipe, None)
    final = next(one for one in reversed(tried) if _is(one, recipe))
    tried = [one for one in tried if one is not final] + [final]
    goal, _ = kind.goal(recipe, source, means)
    rows = planned.units * planned.unit_rows
    return Trial(recipe, source, tuple(tried), rows, rows * bench.row_bytes(goal), target)


def _is(tried: Tried, recipe: Recipe) -> bool:
    return (tried.hidden, tried.steps) == (recipe.hidden, recipe.steps)


def _chosen(
    recipe: Recipe,
    auto: Collection[str],
    misses: int,
    attempt: Callable[[Recipe, int], bool],
    target: str,
    tried: list[Tried],
) -> Recipe:
    """The recipe with the least width and then the fewest steps by which the target is reached."""
    widths = WIDTHS if WIDTH in auto else (recipe.hidden,)
    found = None
    for one in (replace(recipe, hidden=hidden) for hidden in widths):
        if attempt(one, misses):
            found = one
            break
    for times in LONGER if found is None and STEPS in auto else ():
        # What most items are far from with the greatest width, steps do not bring.
        if WIDTH in auto and 2 * tried[-1].reached < tried[-1].networks:
            break
        longer = replace(recipe, hidden=widths[-1], steps=min(MOST_STEPS, times * recipe.steps))
        if attempt(longer, misses):
            found = longer
            break
    if found is None:
        most = tried[-1]
        raise ValueError(
            f"{most.hidden} neurons do not reach {target} in {most.steps:,} steps: {most.reached} "
            f"of {most.networks} do{most.worst}; ask for less, or give --hidden or --steps"
        )
    if STEPS in auto and found.steps <= recipe.steps:
        for part in SHORTER:
            fewer = replace(found, steps=max(1, recipe.steps // part))
            if not attempt(fewer, misses):
                break
            found = fewer
    return found
