"""Fits networks to tensors of the user's own, and makes a zoo of them.

networks = zoo.fit(inputs, targets)
networks.save("zoos/mine", labels=labels)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo import engines, machine, stopping
from zoo.kinds import kind_of
from zoo.kinds.objectives import fit_rows
from zoo.making.fitting import Rows
from zoo.recipes import LABEL, AnyRecipe, Recipe, stand_in
from zoo.recipes import recipe as named_recipe
from zoo.shards import Column, Index
from zoo.spec import NetworkSpec
from zoo.weights import Weights
from zoo.writer import Writer


@dataclass(frozen=True)
class Networks:
    """What `fit` gives back.

    Attributes:
        weights: of the networks that are kept, in the order of the targets.
        columns: one value a network: index (row of the targets), label, psnr_db or
            mse, steps, stop.
        spec: their architecture and conventions.
        excluded: (index, view, reason) of networks left out.
        measured: what the columns of quality mean.
    """

    weights: Weights
    columns: dict[str, Tensor]
    spec: NetworkSpec
    excluded: list[tuple[int, int, str]]
    measured: dict[str, Column] = field(default_factory=dict, repr=False)

    def save(
        self,
        out: str | Path,
        labels: Tensor | NDArray[Any] | Sequence[int] | None = None,
        shares: tuple[float, float] = (0.1, 0.1),
        **settings: Any,
    ) -> Index:
        """Make a zoo of the networks in the folder `out`; see `zoo.Writer`.

        Args:
            labels: a class for each of the targets that were fitted, if `fit` had none.
            shares: of the networks in the validation and the test split, the last ones.
            settings: of the writer, such as `source=`, `name=` or `overwrite=`.

        Returns:
            The index of the zoo.

        Raises:
            ValueError: if labels or shares do not fit, or `out` holds something else.
        """
        validation, test = (round(share * len(self.weights)) for share in shares)
        first = len(self.weights) - validation - test
        if min(validation, test) < 0 or first < 1:
            raise ValueError(f"shares of {shares} leave no network of {len(self.weights)} to train")
        columns = {name: values for name, values in self.columns.items() if name != "index"}
        if labels is not None:
            given = torch.as_tensor(labels)
            if given.ndim != 1 or len(given) <= int(self.columns["index"].max()):
                raise ValueError(f"expected a label for each target, got {tuple(given.shape)}")
            columns[LABEL] = given[self.columns["index"]]
        kinds = {LABEL: Column("target", "class"), **self.measured}
        described = {name: kinds[name] for name in columns if name != "view"}
        bounds = {"train": (0, first), "validation": (first, first + validation)}
        bounds["test"] = (first + validation, len(self.weights))
        with Writer(out, self.spec, described, **settings) as writer:
            for split, (start, end) in bounds.items():
                part = {name: values[start:end] for name, values in columns.items()}
                part["index"] = self.columns["index"][start:end]
                writer.write(split, self.weights[start:end], part)
        assert writer.index is not None
        return writer.index


# Tensors, arrays, or lists of numbers.
Numbers: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]


def numbers_of(given: Numbers, what: str) -> NDArray[Any]:
    """Real numbers as an array, in the type that they came in.

    Raises:
        ValueError: for anything else: complex numbers, text, lists of unequal lengths, ...
    """
    try:
        if isinstance(given, Tensor):
            tensor = given.detach().cpu()
            array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        else:
            array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"{what}: expected an array of real numbers ({line:.200})") from None
    if array.dtype.kind not in "fiub" or isinstance(given, np.ma.MaskedArray):
        got = type(given).__name__ if array.dtype.kind in "fiub" else array.dtype
        raise ValueError(f"{what}: expected an array of real numbers, got {got}")
    return array


def fit(
    inputs: Numbers,
    targets: Numbers,
    recipe: Recipe | str = "dws",
    labels: Numbers | None = None,
    *,
    seed: int = 0,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
) -> Networks:
    """Fit one network to each of the targets, on inputs that all share or inputs of its own.

    Args:
        inputs: `point inp`, or `net point inp` where each has its own; coordinates, in the
            order and range the networks shall take. Tensors, arrays and lists are taken
            alike, here and below. Two are those of a picture in the recipe's order; one is x,
            on whose ends `coord_range` lies; more are no picture (`coord_order` None).
        targets: `net point out`.
        recipe: or its name; a picture recipe reports `psnr_db` with white - black as
            the peak. One of shapes takes labels from 0 to 1, see `NetworkSpec`, and at each step
            draws some of the points, where each network has its own.
        labels: `net`, handed through.
        seed: network i starts from the init of (seed, index i, view 0); it draws the frequencies
            of an encoding too.
        threads: to compute with; None takes what `zoo.machine` says.

    Raises:
        ValueError: if shapes do not fit, or a value is no real number, NaN or infinite.

    >>> x = torch.linspace(-1, 1, 50)[:, None]
    >>> y = torch.stack([x**2, x**3])
    >>> short = named_recipe("dws", "tensors", steps=5, hidden=16)
    >>> fit(x, y, short).weights.weights[0].shape
    torch.Size([2, 16, 1])
    """
    if threads is not None:
        machine.checked_threads(threads)
    given, wanted = numbers_of(inputs, "inputs"), numbers_of(targets, "targets")
    of_all, of_each = wanted.shape[1:2], wanted.shape[:2]
    if given.ndim not in (2, 3) or wanted.ndim != 3 or given.shape[:-1] not in (of_all, of_each):
        raise ValueError(
            f"expected inputs (point, inp) or (net, point, inp), and targets (net, point, out), "
            f"got {given.shape} and {wanted.shape}"
        )
    if not wanted.size or not given.size:
        raise ValueError(
            f"expected at least one network and one point, got {len(wanted)} networks and "
            f"{given.shape[-2]} points"
        )
    marks = None if labels is None else numbers_of(labels, "labels")
    if marks is not None and marks.shape != wanted.shape[:1]:
        raise ValueError(f"expected labels ({len(wanted)},), got {marks.shape}")
    if marks is not None and not np.isfinite(marks).all():
        raise ValueError("labels hold NaN or infinite values")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        x, y = (np.ascontiguousarray(array, np.float32) for array in (given, wanted))
    if not np.isfinite(x).all():
        raise ValueError("inputs hold NaN or infinite values; remove those points")
    finite = np.isfinite(y).all(axis=(1, 2))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"targets hold NaN or infinite values for network {bad[0]} ({len(bad)} in all); "
            "replace or remove them"
        )
    chosen: AnyRecipe = (
        named_recipe(recipe, stand_in(recipe), "fit-inrs") if isinstance(recipe, str) else recipe
    )
    goal = kind_of(chosen).values_goal(chosen, x, y.shape[2], seed)
    if goal.adam.loss == "bce":
        _refuse_no_labels(chosen.name, y)
    if len(goal.spec.axes) == 1:
        # A signal on a line may lie anywhere on it.
        ends = float(x.min()), float(x.max())
        goal.spec = replace(goal.spec, coord_range=ends)
    chosen_engine = engines.choose(engine, device, goal.spec, goal.plain)
    runner = engines.load(chosen_engine, device, threads)
    rows = Rows(np.arange(len(y)), np.zeros(len(y), np.int64))
    others = {} if marks is None else {LABEL: np.array(marks)}
    with stopping.noticed():
        fitted = fit_rows(goal, runner, seed, rows, y, others)
    tensors = {name: torch.from_numpy(array) for name, array in fitted.arrays.items()}
    return Networks(
        Weights.from_tensors({name: tensors[name] for name in goal.spec.tensors}),
        {k: v for k, v in tensors.items() if k not in goal.spec.tensors and k != "view"},
        goal.spec,
        fitted.excluded,
        {name: column for name, column in goal.columns.items() if name in fitted.arrays},
    )


def _refuse_no_labels(recipe: str, y: NDArray[np.float32]) -> None:
    """ValueError for targets `net point out` that cross-entropy cannot take."""
    outside = np.flatnonzero(((y < 0) | (y > 1)).any(axis=(1, 2)))
    if len(outside):
        wrong = y[outside[0]]
        raise ValueError(
            f"recipe {recipe!r} is fitted by cross-entropy: targets are numbers from 0 to 1, "
            f"got {wrong.min():g} to {wrong.max():g} for network {outside[0]} ({len(outside)} in "
            "all); what they stand for says NetworkSpec.signal, or take loss='squared'"
        )
