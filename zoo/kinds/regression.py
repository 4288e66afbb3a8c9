"""INRs: what networks of pictures and of waves have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import engines, nets
from zoo.figures import Samples
from zoo.kinds.base import Kind, Means
from zoo.making.fitting import Rows
from zoo.objectives import Objective
from zoo.weights import Weights


class Regression(Kind):
    """Networks that each stand for one item of their source."""

    signals: ClassVar[bool] = True

    @abstractmethod
    def objective(self, recipe: Any, source: Any) -> Objective:
        """The objective of a recipe on a source."""

    def goal(self, recipe: Any, source: Any, means: Means) -> tuple[Objective, str]:
        if means.dtype != "float32":
            raise ValueError(f"dtype {means.dtype!r} is for classifiers; INRs are kept in float32")
        goal = self.objective(recipe, source)
        engine = engines.choose(means.engine, means.device, goal.spec)
        if means.device != "cpu" and means.here:
            engines.load(engine, means.device)
        return goal, engine

    def task(self, source: Any, rows: Rows) -> tuple[Any, ...]:
        return rows, source.items(rows.index), source.columns(rows.index)

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
