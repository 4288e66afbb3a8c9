"""How far the making of a zoo is: counted here, told to whoever asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from zoo.making.fitting import Fitted
from zoo.recipes import MEASURES


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        done, total: networks.
        fitted: networks that this run fitted itself.
        means: of each column of `recipes.MEASURES` that the networks fitted so far have.
        nodes: of a cluster, networks fitted on each machine so far.
        failures: tasks of a cluster that were lost, and run again.
    """

    done: int
    total: int
    fitted: int
    means: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0

    @property
    def psnr_db(self) -> float | None:
        """Its mean so far, or None where there is none."""
        return self.means.get("psnr_db")

    @property
    def accuracy(self) -> float | None:
        """Likewise the mean test accuracy of classifiers, a fraction."""
        return self.means.get("test_accuracy")


class Tally:
    """Counts networks for the progress line.

    Attributes:
        nodes: networks fitted by each machine of a cluster.
        failures: tasks of a cluster that were lost.
    """

    def __init__(self, total: int, report: Callable[[Progress], None]):
        self.total, self.report = total, report
        self.done = self.fitted = 0
        self.sums = {measure.column: (0, 0.0) for measure in MEASURES}
        self.nodes: dict[str, int] = {}
        self.failures = 0

    def add(self, rows: int, fitted: Fitted | None) -> None:
        """Count rows that were there, or that were `fitted` just now."""
        self.done += rows
        if fitted is not None:
            self.fitted += rows
            for name, (count, total) in self.sums.items():
                values = fitted.arrays.get(name, np.empty(0))
                self.sums[name] = count + len(values), total + float(values.sum(dtype=np.float64))
        means = {name: total / count for name, (count, total) in self.sums.items() if count}
        self.report(
            Progress(
                self.done,
                self.total,
                self.fitted,
                means,
                dict(self.nodes),
                self.failures,
            )
        )
