"""INRs: what networks of items of a source have in common, and those that fit values alone."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import engines, nets, sources
from zoo.figures import Samples
from zoo.kinds.base import Kind, Means
from zoo.kinds.checks import Arrays, Check, Made, weights_of
from zoo.kinds.objectives import Objective, fit_rows
from zoo.making.fitting import Rows
from zoo.recipes import RECIPES, flag
from zoo.shards import Index
from zoo.weights import Weights

# The engines' sines differ from torch's by a few ulp: far below a hundredth of a dB.
RENDER_TOLERANCE_DB = 0.02
# Across engines and machines the rounding differs from the first step on, and Adam
# amplifies it; single networks end up a few tenths of a dB apart, the mean does not.
REFIT_MEAN_TOLERANCE_DB = 0.25
REFIT_TOLERANCE_DB = 3.0


@dataclass(frozen=True)
class Target:
    """What a recipe asks of each network.

    Attributes:
        field: of the recipe, the value at which a network stops.
        column: that is held against it, in `unit`.
        worst: "min" or "max", the summary that is furthest from it.
        words: of the worst value.
    """

    field: str
    column: str
    unit: str
    worst: str
    words: str


class Inrs(Kind):
    """Networks that each stand for one item of their source."""

    signals: ClassVar[bool] = True
    planned: ClassVar[str] = "every planned network once, targets equal to the source's"

    @abstractmethod
    def objective(self, recipe: Any, source: Any, seed: int | None = None) -> Objective:
        """The objective of a recipe on a source, in a zoo of this seed."""

    def values_goal(
        self, recipe: Any, inputs: NDArray[np.float32], out: int, seed: int | None = None
    ) -> Objective:
        return Objective(recipe, inputs, out, seed=seed)

    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        rule = self.rule("", source.name)
        return sources.split_items(source.train_items, len(source), rule, source.validation_items)

    def rule(self, split: str, source: str) -> str:
        return "80-10-10"

    def goal(self, recipe: Any, source: Any, means: Means) -> tuple[Objective, str]:
        if means.dtype != "float32":
            raise ValueError(f"dtype {means.dtype!r} is for classifiers; INRs are kept in float32")
        goal = self.objective(recipe, source, means.seed)
        engine = engines.choose(means.engine, means.device, goal.spec, goal.plain)
        if means.device != "cpu" and means.here:
            engines.load(engine, means.device)
        return goal, engine

    def task(self, source: Any, rows: Rows) -> tuple[Any, ...]:
        return rows, source.items(rows.index), source.columns(rows.index)

    def contradiction(self, made: Made, part: Arrays) -> str | None:
        for name, values in made.source.columns(part["index"]).items():
            if not np.array_equal(part[name], values):
                return f"{name} is not the source's"
        return None

    def check_refit(self, made: Made, count: int, chosen: np.random.Generator) -> Check:
        goal, arrays, name = made.goal, made.drawn(count, chosen), made.index.plan["engine"]
        if name != "reference" and (name == "cpu") != (made.device == "cpu"):
            name = "auto"  # the zoo's engine does not run on this device
        engine = goal.load(engines.choose(name, made.device, goal.spec, goal.plain), made.device)
        rows = Rows(arrays["index"], arrays["view"])
        items = made.source.items(rows.index)
        fitted = fit_rows(goal, engine, made.index.plan["seed"], rows, items, {})
        if fitted.excluded:
            return Check("refit", False, f"index {fitted.excluded[0][0]} was kept but fails now")
        equal = np.ones(len(rows), bool)
        for name in goal.spec.tensors:
            equal &= (fitted.arrays[name] == arrays[name]).reshape(len(rows), -1).all(axis=1)
        if equal.all():
            return Check("refit", True, f"{len(rows)} rows fitted again, equal to the byte")
        if made.exact:
            bad = int(np.flatnonzero(~equal)[0])
            which = f"index {rows.index[bad]} view {rows.view[bad]}"
            return Check("refit", False, f"{(~equal).sum()} of {len(rows)} differ, first {which}")
        passed, found = self.agreement(goal, fitted.arrays, arrays)
        detail = f"{len(rows)} rows fitted again on a GPU, another CPU or version: {found}"
        return Check("refit", passed, detail)

    @abstractmethod
    def agreement(self, goal: Objective, found: Arrays, arrays: Arrays) -> tuple[bool, str]:
        """Whether rows that were fitted again elsewhere are as good as those of the zoo."""


class Regression(Inrs):
    """INRs of values at points that all share, which stop at a target."""

    target: ClassVar[Target]

    def target_of(self, recipe: Any) -> str | None:
        value = getattr(recipe, self.target.field)
        return None if value is None else f"{value:g} {self.target.unit}"

    def reached(self, arrays: Arrays) -> int:
        return int(np.count_nonzero(arrays["stop"] == engines.TARGET))

    @property
    def target_flag(self) -> str:
        return flag(self.target.field)

    def samples(self, goal: Any, source: Any, arrays: Mapping[str, NDArray[Any]]) -> Samples:
        weights = Weights.from_tensors(
            {name: torch.from_numpy(np.array(arrays[name])) for name in goal.spec.tensors}
        )
        targets, outputs, _ = evaluate(goal, source.items(arrays["index"]), weights)
        return self.shown(goal, source, arrays, targets, outputs)

    @abstractmethod
    def shown(
        self,
        goal: Objective,
        source: Any,
        arrays: Mapping[str, NDArray[Any]],
        targets: NDArray[np.float32],
        outputs: NDArray[np.float32],
    ) -> Samples:
        """Targets and outputs `net point out` as they are drawn."""

    def shortfall(self, recipe: Any, index: Index) -> list[str]:
        # Advice is given only on a target that was chosen: those of named recipes are part of
        # what they reproduce.
        named = RECIPES[recipe.name](index.source["name"]) if recipe.name in RECIPES else None
        asked = self.target
        target = getattr(recipe, asked.field)
        chosen = target != getattr(named, asked.field, None)
        found = [(index.splits[split], summary) for split, summary in index.quality.items()]
        reached = round(sum(rows * summary["stop"]["mean"] for rows, summary in found if rows))
        if target is None or reached >= index.rows:
            return []
        each = [summary[asked.column][asked.worst] for rows, summary in found if rows]
        far = asked.words.format(min(each) if asked.worst == "min" else max(each))
        advice = "; more --steps or --hidden" if chosen else ""
        return [f"reached {target:g} {asked.unit}: {reached:,} of {index.rows:,}, {far}{advice}"]

    def check_quality(self, made: Made, arrays: Arrays) -> Check:
        goal = made.goal
        weights = weights_of(goal.spec, arrays)
        _, _, mse = evaluate(goal, made.source.items(arrays["index"]), weights)
        apart = np.abs(_decibels(goal, mse) - _decibels(goal, arrays["mse"]))
        worst = int(apart.argmax())
        key = f"index {arrays['index'][worst]} view {arrays['view'][worst]}"
        if apart[worst] > RENDER_TOLERANCE_DB:
            return Check("quality", False, f"{key} renders {apart[worst]:.2f} dB off its record")
        return Check(
            "quality", True, f"{len(mse)} rows rendered again, at most {apart[worst]:.4f} dB off"
        )

    def agreement(self, goal: Objective, found: Arrays, arrays: Arrays) -> tuple[bool, str]:
        apart = _decibels(goal, found["mse"]) - _decibels(goal, arrays["mse"])
        passed = (
            abs(apart.mean()) < REFIT_MEAN_TOLERANCE_DB and np.abs(apart).max() < REFIT_TOLERANCE_DB
        )
        words = f"{apart.mean():+.3f} dB in the mean, {np.abs(apart).max():.2f} dB at most"
        return bool(passed), words


def _decibels(goal: Objective, mse: NDArray[Any]) -> NDArray[np.float64]:
    """Quality on a logarithmic scale, whatever the columns record."""
    return goal.psnr_db(np.asarray(mse, np.float64))


def evaluate(
    goal: Objective, raw: NDArray[Any], weights: Weights, batch: int = 256
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Targets and outputs `net point out`, and each network's mse."""
    targets = goal.targets(raw)
    x = torch.from_numpy(goal.inputs)
    with torch.no_grad():
        outputs = np.concatenate(
            [
                nets.forward(goal.spec, weights[start : start + batch], x).numpy()
                for start in range(0, len(weights), batch)
            ]
        )
    error = outputs.astype(np.float64) - targets
    return targets, outputs, np.square(error).mean(axis=(1, 2))
