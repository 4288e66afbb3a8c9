"""Fits rows: initialise, run the engine, refit what diverged, leave out what is bad.

`fit` does it for tensors of the user's own; `zoo.build` does it for whole zoos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo import engines, machine, nets
from zoo.engines import Engine
from zoo.objectives import Objective
from zoo.recipes import ImageRecipe, Recipe, SineRecipe
from zoo.recipes import recipe as named_recipe
from zoo.spec import NetworkSpec
from zoo.weights import Weights

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


@dataclass(frozen=True)
class Networks:
    """What `fit` gives back.

    Attributes:
        weights: of the networks that are kept, in the order of the targets.
        columns: one value a network: index (row of the targets), label, psnr_db or
            mse, steps, stop.
        spec: their architecture and conventions.
        excluded: (index, view, reason) of networks left out.
    """

    weights: Weights
    columns: dict[str, Tensor]
    spec: NetworkSpec
    excluded: list[tuple[int, int, str]]


def fit(
    inputs: Tensor,
    targets: Tensor,
    recipe: Recipe | str = "dws",
    labels: Tensor | None = None,
    *,
    seed: int = 0,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
) -> Networks:
    """Fit one network to each of the targets, on inputs that all share.

    Args:
        inputs: `point inp`; coordinates, in the order and range the networks shall take.
        targets: `net point out`.
        recipe: or its name; a picture recipe reports `psnr_db` with white - black as
            the peak.
        labels: `net`, handed through.
        seed: network i starts from the init of (seed, index i, view 0).
        threads: to compute with; None takes what `zoo.machine` says.

    Raises:
        ValueError: if shapes do not fit, or a value is NaN or infinite.

    >>> x = torch.linspace(-1, 1, 50)[:, None]
    >>> y = torch.stack([x**2, x**3])
    >>> short = named_recipe("dws", "tensors", steps=5, hidden=16)
    >>> fit(x, y, short).weights.weights[0].shape
    torch.Size([2, 16, 1])
    """
    if threads is not None:
        machine.checked_threads(threads)
    if inputs.ndim != 2 or targets.ndim != 3 or targets.shape[1] != inputs.shape[0]:
        raise ValueError(
            f"expected inputs (point, inp) and targets (net, point, out), got "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    if not targets.numel() or not inputs.numel():
        raise ValueError(
            f"expected at least one network and one point, got {len(targets)} networks and "
            f"{len(inputs)} points"
        )
    if labels is not None and labels.shape != targets.shape[:1]:
        raise ValueError(f"expected labels ({len(targets)},), got {tuple(labels.shape)}")
    if not inputs.isfinite().all():
        raise ValueError("inputs hold NaN or infinite values; remove those points")
    finite = targets.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"targets hold NaN or infinite values for network {bad[0]} ({len(bad)} in all); "
            "replace or remove them"
        )
    if isinstance(recipe, str):
        source = "sine" if recipe.startswith("sine-") else "tensors"
        named = named_recipe(recipe, source, "fit-inrs")
        assert isinstance(named, ImageRecipe | SineRecipe)
        recipe = named
    x = np.ascontiguousarray(inputs.detach().cpu().numpy(), np.float32)
    y = np.ascontiguousarray(targets.detach().cpu().numpy(), np.float32)
    goal = Objective(recipe, x, y.shape[2])
    runner = engines.load(engines.choose(engine, device, goal.spec), device, threads)
    rows = Rows(np.arange(len(y)), np.zeros(len(y), np.int64))
    others = {} if labels is None else {"label": labels.detach().cpu().numpy()}
    fitted = fit_rows(goal, runner, seed, rows, y, others)
    tensors = {name: torch.from_numpy(array) for name, array in fitted.arrays.items()}
    return Networks(
        Weights.from_tensors({name: tensors[name] for name in goal.spec.tensors}),
        {k: v for k, v in tensors.items() if k not in goal.spec.tensors and k != "view"},
        goal.spec,
        fitted.excluded,
    )
