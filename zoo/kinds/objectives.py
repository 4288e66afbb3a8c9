"""What a network is fitted to: a source as inputs, targets, loss and quality.

An objective is small and pickles, so that it travels to workers; the pictures or
coefficients it works on are handed to it a few rows at a time. `fit_rows` initialises,
runs the engine, refits what diverged and leaves out what is bad.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import engines, nets
from zoo.engines import Adam, Draws, Engine, Fit
from zoo.kinds.base import Goal
from zoo.making.fitting import ATTEMPTS, Arrays, Fitted, Rows, split_params
from zoo.recipes import ImageRecipe, Recipe, SineRecipe
from zoo.shards import Column

# A fit without any error at all would have infinitely many decibels, which no
# statistics can take; float32 networks stay far below this.
MAX_PSNR_DB = 120.0


def adam(recipe: Recipe) -> Adam:
    """The recipe's optimiser."""
    return Adam(
        lr=recipe.lr,
        steps=recipe.steps,
        weight_decay=recipe.weight_decay,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        eps=recipe.eps,
        target_mse=recipe.target_mse,
        schedule=recipe.schedule,
        warmup=recipe.lr_warmup,
        loss=recipe.loss_of,
    )


def psnr_db(mse: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mse), in dB.

    Args:
        peak: white minus black, in the units of the outputs.
    """
    floor = peak**2 * 10 ** (-MAX_PSNR_DB / 10)
    with np.errstate(divide="ignore"):  # a diverged fit's error is infinite
        return 10 * np.log10(peak**2 / np.maximum(mse, floor))


class Objective(Goal):
    """Targets that are given as values, on given inputs `point inp` or `net point inp`.

    Quality is the error, and for picture recipes its PSNR too. Sources that hold
    something else than values say in `targets` what it stands for. An item is one row. The
    zoo's seed draws the frequencies of an encoding; recipes without one do without it.
    """

    unit_rows = 1

    def __init__(
        self,
        recipe: Recipe,
        inputs: NDArray[np.float32],
        out: int,
        classes: tuple[str, ...] = (),
        seed: int | None = None,
    ):
        self.recipe = recipe
        self.adam = adam(recipe)
        self.inputs = inputs
        self.spec = recipe.spec(inputs.shape[-1], out, seed)
        self.columns = {name: Column(**each) for name, each in recipe.columns(classes).items()}

    @property
    def points(self) -> int:
        """That each network can be fitted to."""
        return self.inputs.shape[-2]

    @property
    def plain(self) -> bool:
        """Whether all networks are fitted on the same points, all of them, by squared errors."""
        return self.inputs.ndim == 2 and self.adam.loss == "squared"

    def targets(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """`net point out` of the raw items `net ...`."""
        return raw.astype(np.float32)

    def prepared(self, raw: NDArray[Any]) -> Any:
        """The raw items in a form from which points, targets and quality follow."""
        return raw

    def data(
        self, seed: int, rows: Rows, known: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inputs and targets of prepared items, as engines take them."""
        return self.inputs, self.targets(known)

    def draws(self, seed: int, rows: Rows, attempt: int) -> Draws | None:
        """Which points each step takes, where networks have points of their own."""
        if self.recipe.drawn is None:
            return None
        return Draws(self.recipe.drawn, seed, attempt, rows.index, rows.view)

    def quality(
        self, fit: Fit, seed: int, rows: Rows, known: Any
    ) -> dict[str, NDArray[np.generic]]:
        """The quality columns of every network."""
        with np.errstate(over="ignore"):
            found: dict[str, NDArray[np.generic]] = {
                "psnr_db": self.psnr_db(fit.mse).astype(np.float32),
                "mse": fit.mse.astype(np.float32),
                "steps": fit.steps.astype(np.int64),
                "stop": fit.stop.astype(np.int64),
            }
        return {name: values for name, values in found.items() if name in self.columns}

    def psnr_db(self, mse: NDArray[np.float64]) -> NDArray[np.float64]:
        """In dB, with the range from black to white as the peak."""
        black, white = self.spec.pixel_range
        return psnr_db(mse, white - black)

    def flaw(self, quality: dict[str, NDArray[np.generic]], row: int) -> str | None:
        """Why a finite network is to be left out, or None."""
        floor = getattr(self.recipe, "min_psnr_db", None)
        if floor is not None and float(quality["psnr_db"][row]) < floor:  # type: ignore[arg-type]
            return f"PSNR {quality['psnr_db'][row]:.2f} dB is below {floor:g} dB"
        return None

    def load(self, engine: str, device: str, threads: int | None = None) -> Engine:
        return engines.load(engine, device, threads)

    def chunk(self, engine: Engine) -> tuple[int, int]:
        return engine.batch, engine.ahead

    def fit(self, engine: Engine, seed: int, rows: Rows, *given: Any) -> Fitted:
        raw, others = given
        return fit_rows(self, engine, seed, rows, raw, others)


class ImageObjective(Objective):
    """Pictures `net row column chan` of bytes, as values on a grid of coordinates."""

    def __init__(
        self,
        recipe: ImageRecipe,
        shape: tuple[int, int, int],
        classes: tuple[str, ...],
        seed: int | None = None,
    ):
        rows, columns, chan = shape
        grid = nets.coordinates(recipe.spec(2, chan, seed), rows, columns)
        super().__init__(recipe, grid, chan, classes, seed)

    def targets(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        black, white = self.spec.pixel_range
        values = black + (white - black) * (raw.astype(np.float64) / 255)
        return values.astype(np.float32).reshape(len(raw), -1, raw.shape[-1])


class SineObjective(Objective):
    """Waves given by their coefficients `net (amplitude, frequency)`."""

    def __init__(self, recipe: SineRecipe, seed: int | None = None):
        line = nets.line(recipe.spec(1, 1, seed), recipe.points)
        super().__init__(recipe, line, 1, (), seed)

    def targets(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        wave = raw.astype(np.float64)
        x = self.inputs[None, :, 0].astype(np.float64)
        return (wave[:, :1] * np.sin(wave[:, 1:] * x)).astype(np.float32)[..., None]


def fit_rows(
    objective: Objective,
    engine: Engine,
    seed: int,
    rows: Rows,
    raw: NDArray[Any],
    others: Mapping[str, NDArray[Any]],
) -> Fitted:
    """Fit rows, each from its own initialisation, and refit those that diverge.

    Args:
        raw: items of the source, one a row.
        others: the columns of the rows that do not come from the fit.
    """
    spec, recipe = objective.spec, objective.recipe
    adam = objective.adam
    start = Rows(rows.index * 0, rows.view) if recipe.shared_init else rows
    init = nets.initialise(spec, recipe.init, seed, start.index, start.view)
    known = objective.prepared(raw)
    inputs, targets = objective.data(seed, rows, known)

    def drawn(rows: Rows, attempt: int) -> Draws | None:
        return None if inputs.ndim == 2 else objective.draws(seed, rows, attempt)

    fit = engine.fit(spec, init, inputs, targets, adam, drawn(rows, 0))

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
        own = inputs if inputs.ndim == 2 else inputs[again]
        keys = Rows(rows.index[again], rows.view[again])
        retry = engine.fit(spec, init, own, targets[again], adam, drawn(keys, attempt))
        for column, fresh in zip(fit._asdict().values(), retry, strict=True):
            column[again] = fresh
    reasons = {int(row): f"not finite after {ATTEMPTS} attempts" for row in bad()}
    quality = objective.quality(fit, seed, rows, known)
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
