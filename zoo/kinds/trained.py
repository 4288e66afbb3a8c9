"""Classifiers at the end of their training, and networks kept on the way."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import nets
from zoo.engines import classifiers
from zoo.figures import accuracy_of_pairs, accuracy_over_steps
from zoo.kinds.base import Kind, Means
from zoo.kinds.checks import Arrays, Check, Made, weights_of
from zoo.kinds.pictures import open_pictures, picture_facts, refuse_others
from zoo.kinds.training import Classification
from zoo.making.fitting import Rows
from zoo.reader import Row
from zoo.shards import Column, widen
from zoo.sources import ImageSource
from zoo.spec import NetworkSpec
from zoo.weights import Weights

# The engines round differently from torch, which can turn a tie between two classes.
ACCURACY_TOLERANCE = 0.002
LOSS_TOLERANCE = 1e-3  # of 1 + loss
# Across machines and engines the rounding of the first steps grows; accuracies stay alike.
REFIT_MEAN_ACCURACY_TOLERANCE = 0.03
REFIT_ACCURACY_TOLERANCE = 0.15


class Trained(Kind):
    """Units are classifiers, or runs of several networks, cut by the recipe's shares.

    Attributes:
        unit: what a unit is called, in the plural.
    """

    signals: ClassVar[bool] = False
    rounding: ClassVar[str | None] = "rounding"
    read: ClassVar[tuple[str, str] | None] = ("test_accuracy", "generalize")
    unit: ClassVar[str]
    logits: ClassVar[str] = "The outputs are logits of the source's classes."

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> ImageSource:
        return open_pictures(recipe, name, data_root, expect)

    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        validation, test = (round(share * recipe.units) for share in recipe.shares)
        first = recipe.units - validation - test
        return {
            "train": range(first),
            "validation": range(first, first + validation),
            "test": range(first + validation, recipe.units),
        }

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return picture_facts(recipe, source)

    def values_goal(
        self, recipe: Any, inputs: NDArray[np.float32], out: int, seed: int | None = None
    ) -> Any:
        raise ValueError(f"recipe {recipe.name!r} trains classifiers, which have no one target")

    def goal(self, recipe: Any, source: Any, means: Means) -> tuple[Classification, str]:
        refuse_others(recipe, source)
        engine = classifiers.choose(means.engine, means.device)
        if means.device != "cpu" and means.here:
            classifiers.load(engine, means.device)
        return Classification(recipe, source, means.dtype), engine

    def task(self, source: Any, rows: Rows) -> tuple[Any, ...]:
        return (rows,)

    # -- how they are shown ----------------------------------------------------------------

    def inputs(self, spec: NetworkSpec) -> str:
        order = (
            "[channel, row, column]"
            if spec.layers[0].kind == "conv"
            else "flattened in the order channel, row, column (as a torch image)"
        )
        black, white = spec.pixel_range
        return (
            f"The input is a picture {order}: {black:g} is black and {white:g} is white, linear "
            f"in the bytes. {self.logits}"
        )

    def original(self, row: Row, data_root: Path | None, source: str | None) -> NDArray[Any]:
        raise ValueError("a classifier is not made from one picture: it has no original")

    # -- how they are checked --------------------------------------------------------------

    def contradiction(self, made: Made, part: Arrays) -> str | None:
        drawn = made.goal.target_columns(made.index.plan["seed"], part["index"])
        for name, values in drawn.items():
            if not np.array_equal(part[name], values):
                return f"{name} is not what its seed draws"
        return None

    def check_quality(self, made: Made, arrays: Arrays) -> Check:
        """Evaluate networks again, with plain torch."""
        goal = made.goal
        weights = weights_of(goal.spec, arrays)
        worst = 0.0
        for row, unit in enumerate(arrays["index"].tolist()):
            run = goal.run(made.index.plan["seed"], unit)
            items = {"test": run.test_items, "train": run.loss_items}
            found = {name: _evaluate(goal, weights[row], part) for name, part in items.items()}
            step = f" step {arrays['step'][row]}" if "step" in arrays else ""
            key = f"index {unit}{step}"
            accuracy = abs(found["test"][1] - float(arrays["test_accuracy"][row]))
            worst = max(worst, accuracy)
            for name, (loss, _) in found.items():
                recorded = float(arrays[f"{name}_loss"][row])
                if abs(loss - recorded) > LOSS_TOLERANCE * (1 + recorded):
                    detail = (
                        f"{key} has a {name} loss of {loss:.5f}, its record says {recorded:.5f}"
                    )
                    return Check("quality", False, detail)
            if accuracy > ACCURACY_TOLERANCE:
                detail = f"{key} has an accuracy {accuracy:.4f} off its record"
                return Check("quality", False, detail)
        detail = f"{len(arrays['index'])} rows evaluated again, accuracy at most {worst:.5f} off"
        return Check("quality", True, detail)

    def check_refit(self, made: Made, count: int, chosen: np.random.Generator) -> Check:
        """Train classifiers or runs again, each with all its networks."""
        goal, what, seed = made.goal, self.unit, made.index.plan["seed"]
        units = [
            (part, unit)
            for parts in made.rows.values()
            for part in parts
            for unit in np.unique(part["index"])
        ]
        picked = chosen.choice(len(units), min(count, len(units)), replace=False)
        engine = goal.load(made.index.plan["engine"], made.device)
        different: list[int] = []
        apart: list[NDArray[np.float64]] = []
        for number in np.sort(picked):
            part, unit = units[number]
            mask = part["index"] == unit
            fitted = goal.train(engine, seed, Rows(np.array([unit]), np.zeros(1, np.int64)))
            if fitted.excluded:
                return Check("refit", False, f"index {unit} was kept but fails now")
            equal = all(
                np.array_equal(fitted.arrays[name], widen(part[name][mask]))
                for name in goal.spec.tensors
            )
            different += [] if equal else [int(unit)]
            recorded = part["test_accuracy"][mask].astype(np.float64)
            apart.append(fitted.arrays["test_accuracy"] - recorded)
        if not different:
            return Check("refit", True, f"{len(picked)} {what} trained again, equal to the byte")
        if made.exact:
            detail = f"{len(different)} of {len(picked)} {what} differ, first index {different[0]}"
            return Check("refit", False, detail)
        errors = np.concatenate(apart)
        passed = (
            abs(errors.mean()) < REFIT_MEAN_ACCURACY_TOLERANCE
            and np.abs(errors).max() < REFIT_ACCURACY_TOLERANCE
        )
        detail = (
            f"{len(picked)} {what} trained again on a GPU, another CPU or version: accuracy "
            f"{errors.mean():+.4f} in the mean, {np.abs(errors).max():.4f} at most"
        )
        return Check("refit", bool(passed), detail)


class Classifiers(Trained):
    """One network a unit, of a random pair of classes."""

    what: ClassVar[str] = "Each one has seen a random pair."
    done: ClassVar[str] = "trained to tell two classes apart, of"
    meanings: ClassVar[Mapping[str, str]] = {
        "index": "number of the classifier",
        "view": "always 0",
    }
    drawn: ClassVar[tuple[str, ...]] = ("class_a", "class_b", "test_accuracy")
    figure_name: ClassVar[str] = "accuracy_pairs"
    caption: ClassVar[str] = "Mean test accuracy of the classifiers of each pair of classes"
    unit: ClassVar[str] = "networks"
    planned: ClassVar[str] = "all planned networks once, with the settings of their seed"
    logits: ClassVar[str] = (
        "The outputs are logits of the source's classes, also of those that a classifier was not "
        "trained on."
    )

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        return "class_a" in columns and "class_b" in columns

    def figure(
        self,
        path: Path,
        values: Mapping[str, Mapping[str, NDArray[Any]]],
        columns: Mapping[str, Column],
        histogram: bool = True,
    ) -> None:
        found = {
            split: (each["class_b"], each["class_a"], each["test_accuracy"])
            for split, each in values.items()
        }
        accuracy_of_pairs(path, found, columns["class_a"].names or (), histogram)


class Trajectories(Trained):
    """Runs of which networks are kept on the way."""

    done: ClassVar[str] = "kept on the way while they were trained to classify"
    meanings: ClassVar[Mapping[str, str]] = {"index": "number of the run", "view": "always 0"}
    rows_words: ClassVar[str] = (
        "Rows of equal `index` are one training run, in step order; a run lies wholly in one "
        "split and one file."
    )
    drawn: ClassVar[tuple[str, ...]] = ("index", "step", "test_accuracy")
    figure_name: ClassVar[str] = "accuracy_steps"
    caption: ClassVar[str] = (
        "Test accuracy over the updates: median and middle 80 % of the runs, those that have "
        "ended with their last"
    )
    unit: ClassVar[str] = "runs"
    planned: ClassVar[str] = "all planned runs once, with the settings of their seed"

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        return "step" in columns

    def figure(
        self,
        path: Path,
        values: Mapping[str, Mapping[str, NDArray[Any]]],
        columns: Mapping[str, Column],
        histogram: bool = True,
    ) -> None:
        found = {
            split: (each["index"], each["step"], each["test_accuracy"])
            for split, each in values.items()
        }
        accuracy_over_steps(path, found, histogram)

    def contradiction(self, made: Made, part: Arrays) -> str | None:
        if wrong := super().contradiction(made, part):
            return wrong
        goal, seed = made.goal, made.index.plan["seed"]
        for unit in np.unique(part["index"]):
            steps = goal.steps(seed, goal.unit(seed, int(unit)))
            if part["step"][part["index"] == unit].tolist() != list(steps):
                return f"run {unit} does not hold the steps of its recipe"
        return None


def _evaluate(
    goal: Classification, weights: Weights, items: NDArray[np.int64], batch: int = 1000
) -> tuple[float, float]:
    """Mean loss and accuracy of one network."""
    total, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            x = classifiers.pixels(goal.data, goal.spec, part, "cpu")
            outputs = nets.forward(goal.spec, weights, x)[0].double()
            labels = torch.from_numpy(goal.data.labels[part])
            total += float(torch.nn.functional.cross_entropy(outputs, labels, reduction="sum"))
            right += int((outputs.argmax(dim=1) == labels).sum())
    return total / len(items), right / len(items)
