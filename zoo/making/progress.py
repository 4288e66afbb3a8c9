"""How far the making of a zoo is: counted here, told to whoever asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from zoo.making.fitting import Fitted


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        done, total: networks.
        fitted: networks that this run fitted itself.
        psnr_db: mean over the networks fitted so far, or None where there is none.
        accuracy: likewise the mean test accuracy of classifiers, a fraction.
        nodes: of a cluster, networks fitted on each machine so far.
        failures: tasks of a cluster that were lost, and run again.
    """

    done: int
    total: int
    fitted: int
    psnr_db: float | None
    accuracy: float | None = None
    nodes: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0


class Tally:
    """Counts networks for the progress line.

    Attributes:
        nodes: networks fitted by each machine of a cluster.
        failures: tasks of a cluster that were lost.
    """

    def __init__(self, total: int, report: Callable[[Progress], None]):
        self.total, self.report = total, report
        self.done = self.fitted = 0
        self.sums = {"psnr_db": (0, 0.0), "test_accuracy": (0, 0.0)}
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
        means = {
            name: total / count if count else None for name, (count, total) in self.sums.items()
        }
        self.report(
            Progress(
                self.done,
                self.total,
                self.fitted,
                means["psnr_db"],
                means["test_accuracy"],
                dict(self.nodes),
                self.failures,
            )
        )
