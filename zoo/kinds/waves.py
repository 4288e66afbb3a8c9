"""INRs of sine waves, which the seed draws."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo import nets, sources
from zoo.figures import Samples
from zoo.kinds.objectives import Objective, SineObjective
from zoo.kinds.regression import Regression, Target
from zoo.reader import Row
from zoo.sources import SineSource
from zoo.spec import NetworkSpec


class Waves(Regression):
    """One network a wave; split 80/10/10."""

    what: ClassVar[str] = "Each one is a wave: it maps x to a value."
    by_formula: ClassVar[bool] = True
    target: ClassVar[Target] = Target("target_mse", "mse", "mse", "max", "highest {:.2g}")

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        return len(spec.axes) == 1

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

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return {"kind": "sine", "points": len(source.inputs)}

    def objective(self, recipe: Any, source: Any, seed: int | None = None) -> Objective:
        return SineObjective(recipe, seed)

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

    def original(self, row: Row, data_root: Path | None, source: str | None) -> NDArray[Any]:
        if not {"amplitude", "frequency"} <= row.columns.keys():
            return super().original(row, data_root, source)
        x = nets.line(row.spec, row.source["points"]).astype(np.float64)
        return (row.amplitude * np.sin(row.frequency * x)).astype(np.float32)
