"""INRs of sine waves, which the seed draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import sources
from zoo.figures import Samples
from zoo.kinds.regression import Regression
from zoo.objectives import Objective, SineObjective
from zoo.sources import SineSource


class Waves(Regression):
    """One network a wave; split 80/10/10."""

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> SineSource:
        return sources.load_sine(
            recipe.waves,
            recipe.points,
            (recipe.min_amplitude, recipe.max_amplitude),
            (recipe.min_frequency, recipe.max_frequency),
            seed,
        )

    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        return sources.split_items(len(source), len(source), "80-10-10")

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return {"kind": "sine", "points": len(source.inputs)}

    def objective(self, recipe: Any, source: Any) -> Objective:
        return SineObjective(recipe)

    def shown(
        self,
        goal: Objective,
        source: Any,
        arrays: Mapping[str, NDArray[Any]],
        targets: NDArray[np.float32],
        outputs: NDArray[np.float32],
    ) -> Samples:
        captions = [f"mse {value:.1e}" for value in arrays["mse"]]
        return Samples(targets[..., 0], outputs[..., 0], captions, goal.inputs[:, 0])
