"""What a network is fitted to: a source as inputs, targets, loss and quality.

An objective is small and pickles, so that it travels to workers; the pictures or
coefficients it works on are handed to it a few rows at a time.
"""

import numpy as np
from numpy.typing import NDArray

from zoo import nets
from zoo.engines import Adam, Fit
from zoo.recipes import (
    RECIPES,
    ImageRecipe,
    Recipe,
    SineRecipe,
    recipe_from_json,
)
from zoo.shards import Column, Index

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
    )


def psnr_db(mse: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mse), in dB.

    Args:
        peak: white minus black, in the units of the outputs.
    """
    floor = peak**2 * 10 ** (-MAX_PSNR_DB / 10)
    with np.errstate(divide="ignore"):  # a diverged fit's error is infinite
        return 10 * np.log10(peak**2 / np.maximum(mse, floor))


class Objective:
    """Targets that are given as values, on given inputs `point inp`.

    Quality is the error, and for picture recipes its PSNR too. Sources that hold
    something else than values say in `targets` what it stands for.

    Attributes:
        columns: the columns of a row that come from the source and the fit.
        unit_rows: an item is one row.
    """

    unit_rows = 1

    def __init__(
        self, recipe: Recipe, inputs: NDArray[np.float32], out: int, classes: tuple[str, ...] = ()
    ):
        self.recipe = recipe
        self.adam = adam(recipe)
        self.inputs = inputs
        self.spec = recipe.spec(inputs.shape[1], out)
        self.columns = {name: Column(**each) for name, each in recipe.columns(classes).items()}

    def targets(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """`net point out` of the raw items `net ...`."""
        return raw.astype(np.float32)

    def quality(self, fit: Fit) -> dict[str, NDArray[np.generic]]:
        """The quality columns of every network."""
        found: dict[str, NDArray[np.generic]] = {}
        if isinstance(self.recipe, ImageRecipe):
            found["psnr_db"] = self.psnr_db(fit.mse).astype(np.float32)
        with np.errstate(over="ignore"):
            found["mse"] = fit.mse.astype(np.float32)
        found["steps"] = fit.steps.astype(np.int64)
        found["stop"] = fit.stop.astype(np.int64)
        return found

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


class ImageObjective(Objective):
    """Pictures `net row column chan` of bytes, as values on a grid of coordinates."""

    def __init__(self, recipe: ImageRecipe, shape: tuple[int, int, int], classes: tuple[str, ...]):
        rows, columns, chan = shape
        grid = nets.coordinates(recipe.spec(2, chan), rows, columns)
        super().__init__(recipe, grid, chan, classes)

    def targets(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        black, white = self.spec.pixel_range
        values = black + (white - black) * (raw.astype(np.float64) / 255)
        return values.astype(np.float32).reshape(len(raw), -1, raw.shape[-1])


class SineObjective(Objective):
    """Waves given by their coefficients `net (amplitude, frequency)`."""

    def __init__(self, recipe: SineRecipe):
        super().__init__(recipe, nets.line(recipe.spec(1, 1), recipe.points), 1)

    def targets(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        wave = raw.astype(np.float64)
        x = self.inputs[None, :, 0].astype(np.float64)
        return (wave[:, :1] * np.sin(wave[:, 1:] * x)).astype(np.float32)[..., None]


def shortfall(index: Index) -> list[str]:
    """How many networks of a finished zoo missed what its recipe asked of them, in lines.

    Nothing is said of a target that all reached. Advice is given only on a target that was
    chosen: those of named recipes are part of what they reproduce.
    """
    recipe = recipe_from_json(index.recipe)
    if not isinstance(recipe, ImageRecipe | SineRecipe):
        return []
    named = RECIPES[recipe.name](index.source["name"]) if recipe.name in RECIPES else None
    if isinstance(recipe, ImageRecipe):
        column, lowest, unit, target = "psnr_db", "min", " dB", recipe.target_psnr_db
        chosen = target != getattr(named, "target_psnr_db", None)
    else:
        column, lowest, unit, target = "mse", "max", " mse", recipe.target_mse
        chosen = target != getattr(named, "target_mse", None)
    lines = []
    found = [(index.splits[split], summary) for split, summary in index.quality.items()]
    reached = round(sum(rows * summary["stop"]["mean"] for rows, summary in found if rows))
    if target is not None and reached < index.rows:
        worst = [summary[column][lowest] for rows, summary in found if rows]
        far = f"lowest {min(worst):.1f}" if unit == " dB" else f"highest {max(worst):.2g}"
        advice = "; more --steps or --hidden" if chosen else ""
        lines.append(f"reached {target:g}{unit}: {reached:,} of {index.rows:,}, {far}{advice}")
    floor = getattr(recipe, "min_psnr_db", None)
    if floor is not None:
        below = sum(row.reason.startswith("PSNR") for row in index.excluded)
        lines.append(f"left out by --min-psnr {floor:g}: {below:,} of {index.rows + below:,}")
    return lines
