"""Means, deviations and quality summaries of a zoo, in float64 and in one pass.

Source of the merge: Chan, Golub and LeVeque 1979, eq. 2.1.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Mean and variance of a stream of arrays over their first axis.

    >>> moments = Moments()
    >>> moments.add(np.array([[1.0], [3.0]]))
    >>> moments.mean, moments.std
    (array([2.]), array([1.]))
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(())
        # Sum of the squared deviations from the mean.
        self.squares: NDArray[np.float64] = np.zeros(())

    def add(self, rows: NDArray[np.generic]) -> None:
        """Take in `row ...`; nothing happens for no rows."""
        if not len(rows):
            return
        wide = rows.astype(np.float64)
        count, mean = len(wide), wide.mean(axis=0)
        wide -= mean
        self.merge(count, mean, np.square(wide, out=wide).sum(axis=0))

    def merge(self, count: int, mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """Take in rows by their own moments; the same to the bit as `add` of these rows."""
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation with ddof 0."""
        return np.asarray(np.sqrt(self.squares / max(self.count, 1)))


def normalisation(moments: Mapping[str, Moments]) -> dict[str, NDArray[np.float64]]:
    """What `stats.safetensors` holds, from the moments of each tensor's entries.

    Returns:
        `entry.mean.NAME` and `entry.std.NAME` of the tensor's shape, and
        `tensor.mean.NAME` and `tensor.std.NAME` of shape [1], over all its entries.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for name, moment in moments.items():
        found[f"entry.mean.{name}"] = moment.mean
        found[f"entry.std.{name}"] = moment.std
        # All entries have the same count, so total variance = mean of the variances
        # plus variance of the means.
        variance = np.mean(moment.std**2) + np.var(moment.mean)
        found[f"tensor.mean.{name}"] = np.atleast_1d(np.mean(moment.mean))
        found[f"tensor.std.{name}"] = np.atleast_1d(np.sqrt(variance))
    return found


def summary(values: NDArray[np.generic]) -> dict[str, float]:
    """Mean, std, min and max of a column, as plain numbers.

    Raises:
        ValueError: if there are no values.
    """
    if not len(values):
        raise ValueError("no rows to summarise")
    wide = values.astype(np.float64)
    return {
        "mean": float(wide.mean()),
        "std": float(wide.std()),
        "min": float(wide.min()),
        "max": float(wide.max()),
    }
