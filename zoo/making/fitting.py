"""Fits rows: initialise, run the engine, refit what diverged, leave out what is bad.

`zoo.fit` does it for tensors of the user's own, `zoo.build` for whole zoos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import nets
from zoo.engines import Engine
from zoo.objectives import Objective

ATTEMPTS = 3  # a non-finite fit is tried afresh twice
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Rows:
    """Networks to be fitted, by their keys."""

    index: NDArray[np.int64]
    view: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> "Rows":
        return Rows(self.index[part], self.view[part])

    def pairs(self) -> list[tuple[int, int]]:
        """(index, view) of each, in order."""
        return list(zip(self.index.tolist(), self.view.tolist(), strict=True))


@dataclass(frozen=True)
class Fitted:
    """A chunk of networks as they go to disk.

    Attributes:
        arrays: every column of the rows that are kept.
        excluded: (index, view, reason) of the others.
    """

    arrays: Arrays
    excluded: list[tuple[int, int, str]]


def fit_rows(
    objective: Objective,
    engine: Engine,
    seed: int,
    rows: Rows,
    targets: NDArray[np.float32],
    others: Mapping[str, NDArray[Any]],
) -> Fitted:
    """Fit rows, each from its own initialisation, and refit those that diverge.

    Args:
        targets: `net point out`.
        others: the columns of the rows that do not come from the fit.
    """
    spec, recipe = objective.spec, objective.recipe
    adam = objective.adam
    start = Rows(rows.index * 0, rows.view) if recipe.shared_init else rows
    init = nets.initialise(spec, recipe.init, seed, start.index, start.view)
    fit = engine.fit(spec, init, objective.inputs, targets, adam)

    def bad() -> NDArray[np.int64]:
        # The error is stored as float32, so one beyond its range is not finite either.
        finite = (fit.mse <= np.finfo(np.float32).max) & np.isfinite(fit.params).all(axis=1)
        return np.flatnonzero(~finite)

    for attempt in range(1, ATTEMPTS):
        again = bad()
        if not len(again):
            break
        init = nets.initialise(
            spec, recipe.init, seed, start.index[again], start.view[again], attempt
        )
        retry = engine.fit(spec, init, objective.inputs, targets[again], adam)
        for column, fresh in zip(fit._asdict().values(), retry, strict=True):
            column[again] = fresh
    reasons = {int(row): f"not finite after {ATTEMPTS} attempts" for row in bad()}
    quality = objective.quality(fit)
    for row in range(len(rows)):
        if row not in reasons and (flaw := objective.flaw(quality, row)):
            reasons[row] = flaw
    kept = np.array([row for row in range(len(rows)) if row not in reasons], np.int64)
    arrays: Arrays = {"index": rows.index, "view": rows.view, **others, **quality}
    arrays |= split_params(fit.params, spec.tensors)
    return Fitted(
        {name: array[kept] for name, array in arrays.items()},
        [(int(rows.index[row]), int(rows.view[row]), why) for row, why in reasons.items()],
    )


def split_params(params: NDArray[np.float32], tensors: Mapping[str, tuple[int, ...]]) -> Arrays:
    """`net param` as the named tensors of a shard, views of it."""
    named, start = {}, 0
    for name, shape in tensors.items():
        size = int(np.prod(shape))
        named[name] = params[:, start : start + size].reshape(len(params), *shape)
        start += size
    return named
